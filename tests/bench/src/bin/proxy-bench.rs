//! kube-proxy's rows of the budget table: a full synchronization, and one endpoint more.
//!
//! Run `cargo run --release -p timonel-bench --bin proxy-bench` as root after building kube-apiserver and kube-proxy
//! with `--release`. It runs in a network namespace of its own; the host's rules are not touched.

use std::{
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

use bench::{Usage, all, figure, send};
use clap::Parser;
use harness::{
    ApiServer,
    process::{Process, binary},
    server::ADMIN_TOKEN,
};
use serde_json::json;

/// Settings of a run.
#[derive(Debug, Parser)]
struct Options {
    /// Services.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Endpoints of each.
    #[arg(long, default_value_t = 5)]
    endpoints: usize,
    /// Mode of kube-proxy.
    #[arg(long, default_value = "iptables")]
    mode: String,
    /// Set by the program itself once it is in its own network namespace.
    #[arg(long, hide = true)]
    isolated: bool,
}

/// Requests at once while Services are made.
const WIDTH: usize = 16;

/// Whether a rule with this destination is there.
fn has_rule(mode: &str, address: &str) -> bool {
    let (program, arguments) = match mode {
        "nftables" => ("nft", &["list", "table", "ip", "kube-proxy"][..]),
        "ipvs" => ("ipvsadm", &["-Ln"][..]),
        _ => ("iptables-save", &["-t", "nat"][..]),
    };
    let rules = Command::new(program).args(arguments).output().expect(program);
    let rules = String::from_utf8_lossy(&rules.stdout);
    rules.contains(&format!("{address}:8080")) || rules.contains(&format!("{address} . 8080"))
}

const SYNCS: &str = "kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}";
const SPENT: &str = "kubeproxy_sync_proxy_rules_duration_seconds_sum{ip_family=\"IPv4\"}";
const OUTSIDE: &str = "kubeproxy_sync_proxy_rules_outside_duration_seconds_sum{ip_family=\"IPv4\"}";

/// A counter or gauge of kube-proxy, 0 before it exists.
fn metric(name: &str) -> f64 {
    let page = Command::new("curl").args(["-s", "http://127.0.0.1:10249/metrics"]).output().expect("curl");
    let page = String::from_utf8_lossy(&page.stdout).into_owned();
    let line = page.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|value| value.parse().ok()).unwrap_or(0.0)
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", 128 + number / 62_500, number / 250 % 250, number % 250 + 1)
}

fn slice(service: usize, endpoints: &[usize]) -> serde_json::Value {
    let endpoints: Vec<_> =
        endpoints.iter().map(|n| json!({"addresses": [address(*n)], "conditions": {"ready": true}})).collect();
    json!({"addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        "metadata": {"name": format!("service-{service}-abcde"),
            "labels": {"kubernetes.io/service-name": format!("service-{service}")}}})
}

fn main() {
    let options = Options::parse();
    if !options.isolated {
        let own = std::env::current_exe().expect("a path");
        let script = "ip link set lo up && exec \"$0\" \"$@\" --isolated";
        let arguments = std::env::args().skip(1);
        let error = Command::new("unshare").args(["--net", "sh", "-c", script]).arg(own).args(arguments).exec();
        panic!("unshare: {error}");
    }
    tokio::runtime::Runtime::new().expect("a runtime").block_on(run(&options));
}

async fn run(options: &Options) {
    let server = ApiServer::start_with(&["--service-cluster-ip-range=10.64.0.0/12"]).await;
    let client = server.admin().await;
    let (to, each) = (&client, options.endpoints);
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    all(options.services, WIDTH, |n| async move {
        let service = json!({"metadata": {"name": format!("service-{n}")}, "spec": {"ports": [{"port": 80}]}});
        send(to, "POST", "/api/v1/namespaces/default/services", &service).await;
        let endpoints: Vec<usize> = (n * each..(n + 1) * each).collect();
        send(to, "POST", slices, &slice(n, &endpoints)).await;
    })
    .await;
    let node = json!({"metadata": {"name": "bench"}, "spec": {}});
    send(to, "POST", "/api/v1/nodes", &node).await;
    let status = json!({"metadata": {"name": "bench"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
    send(to, "PUT", "/api/v1/nodes/bench/status", &status).await;
    let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN);
    let mode = options.mode.as_str();
    let arguments = [
        format!("--kubeconfig={}", kubeconfig.display()),
        "--hostname-override=bench".to_owned(),
        format!("--proxy-mode={mode}"),
    ];
    let start = Instant::now();
    let mut proxy = Process::start(&binary("kube-proxy"), &arguments, server.path().join("proxy.log"));
    let total = options.services * each;
    while metric(SYNCS) < 1.0 {
        assert_eq!(proxy.ended(), None, "{}", proxy.output());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let what = format!("kube-proxy {mode}: start to {} Services x {each} in the kernel", options.services);
    figure(&what, start.elapsed().as_secs_f64(), "s");
    figure(&format!("kube-proxy {mode}: full sync"), metric(SPENT), "s");
    figure(&format!("kube-proxy {mode}: of that, outside of it"), metric(OUTSIDE), "s");
    figure(&format!("kube-proxy {mode}: CPU of its own"), Usage::of(proxy.id()).cpu, "s");
    assert!(has_rule(mode, &address(total - 1)), "{}", proxy.output());
    figure(&format!("kube-proxy {mode}: memory after the first sync"), Usage::of(proxy.id()).memory, "MB");
    let (syncs, spent, outside) = (metric(SYNCS), metric(SPENT), metric(OUTSIDE));
    let mut endpoints: Vec<usize> = (0..each).collect();
    endpoints.push(total);
    send(&client, "PUT", &format!("{slices}/service-0-abcde"), &slice(0, &endpoints)).await;
    while metric(SYNCS) <= syncs {
        assert_eq!(proxy.ended(), None, "{}", proxy.output());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    figure(&format!("kube-proxy {mode}: add one endpoint"), (metric(SPENT) - spent) * 1e3, "ms");
    figure(&format!("kube-proxy {mode}: of that, outside of it"), (metric(OUTSIDE) - outside) * 1e3, "ms");
    assert!(has_rule(mode, &address(total)), "{}", proxy.output());
    figure(&format!("kube-proxy {mode}: memory"), Usage::of(proxy.id()).memory, "MB");
}
