//! Scheduling rate of real processes: prints the scheduler's rows of the budget table.
//!
//! Run `cargo run --release -p timonel-bench --bin scheduler-bench` after building kube-apiserver and kube-scheduler
//! with `--release`. All Pods are there before the scheduler starts; the time is from its first binding to its last.
//! CPU is the scheduler process's own, read from /proc, from its start to the last binding.

use std::time::{Duration, Instant};

use bench::{Usage, all, send};
use clap::Parser;
use harness::{
    ApiServer,
    process::{Process, binary, free_port},
    server::ADMIN_TOKEN,
};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// Settings of a run.
#[derive(Debug, Parser)]
struct Options {
    /// Nodes.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Pods to place.
    #[arg(long, default_value_t = 5000)]
    pods: usize,
    /// Kinds of Pods: plain, affinity, anti-affinity, preferred-affinity, namespace-selector, spread, preemption.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "plain,affinity,anti-affinity,preferred-affinity,namespace-selector,spread,preemption"
    )]
    kinds: Vec<String>,
}

/// Requests at once while nodes and Pods are made.
const WIDTH: usize = 16;
async fn node(client: &Client, number: usize) {
    let name = format!("node-{number}");
    let amounts = json!({"cpu": "32", "memory": "64Gi", "pods": "110"});
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": format!("zone-{}", number % 3)});
    let node =
        json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": amounts, "capacity": amounts}});
    send(client, "POST", "/api/v1/nodes", &node).await;
    send(client, "PATCH", &format!("/api/v1/nodes/{name}"), &json!({"spec": {"taints": null}})).await;
}

fn pod(number: usize, kind: &str) -> Value {
    let app = if matches!(kind, "anti-affinity" | "namespace-selector") {
        format!("group-{}", number % 10)
    } else {
        "load".to_owned()
    };
    let selector = json!({"matchLabels": {"app": app}});
    let term = |key: &str| json!([{"topologyKey": key, "labelSelector": selector}]);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let mut pod = bench::pod(&format!("pod-{number}"), &json!({"app": app}), json!({}));
    match kind {
        "affinity" => pod["spec"]["affinity"]["podAffinity"][required] = term("topology.kubernetes.io/zone"),
        "anti-affinity" => pod["spec"]["affinity"]["podAntiAffinity"][required] = term("kubernetes.io/hostname"),
        "preferred-affinity" => {
            let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
            let near = json!({"topologyKey": "topology.kubernetes.io/zone", "labelSelector": selector});
            pod["spec"]["affinity"]["podAffinity"][preferred] = json!([{"weight": 10, "podAffinityTerm": near}]);
        }
        "namespace-selector" => {
            let mut far = term("kubernetes.io/hostname");
            far[0]["namespaceSelector"] = json!({});
            pod["spec"]["affinity"]["podAntiAffinity"][required] = far;
        }
        "preemption" => {
            pod["spec"]["priorityClassName"] = "high".into();
            pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "20"}});
        }
        "spread" => {
            pod["spec"]["topologySpreadConstraints"] = json!([
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector},
                {"maxSkew": 3, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector},
            ]);
        }
        _ => {}
    }
    pod
}

/// Fills all nodes with Pods that matter less than those to come.
async fn fill(client: &Client, nodes: usize) {
    let class = json!({"metadata": {"name": "high"}, "value": 1000});
    send(client, "POST", "/apis/scheduling.k8s.io/v1/priorityclasses", &class).await;
    let low = |number: usize| async move {
        let mut pod = bench::pod(&format!("low-{number}"), &json!({"app": "low"}), json!({}));
        pod["spec"]["nodeName"] = format!("node-{number}").into();
        pod["spec"]["terminationGracePeriodSeconds"] = 0.into();
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "20"}});
        send(client, "POST", "/api/v1/namespaces/default/pods", &pod).await;
    };
    all(nodes, WIDTH, low).await;
}

/// A client of the scheduler itself.
fn scheduler_client(port: u16) -> Client {
    let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse().expect("a URL"));
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(ADMIN_TOKEN.to_owned().into());
    Client::try_from(config).expect("a client")
}

/// Pods that the scheduler says it has bound.
async fn bound(client: &Client) -> usize {
    let request = Request::get("/metrics").body(Vec::new()).expect("a request");
    let text = client.request_text(request).await.unwrap_or_default();
    let counts = |l: &&str| l.starts_with("scheduler_schedule_attempts_total") && l.contains("result=\"scheduled\"");
    let line = text.lines().find(counts).and_then(|l| l.rsplit(' ').next());
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
}

async fn run(options: &Options, kind: &str) {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    send(&client, "POST", "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await;
    let to = &client;
    all(options.nodes, WIDTH, |n| node(to, n)).await;
    let mut pods = options.pods;
    if kind == "preemption" {
        fill(to, options.nodes).await;
        // One for each node at most.
        pods = pods.min(options.nodes);
    }
    all(pods, WIDTH, |n| async move { send(to, "POST", "/api/v1/namespaces/default/pods", &pod(n, kind)).await }).await;
    let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN).display().to_string();
    let port = free_port();
    let arguments = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        "--kube-api-qps=100000".to_owned(),
        "--kube-api-burst=100000".to_owned(),
    ];
    let scheduler = Process::start(&binary("kube-scheduler"), &arguments, server.path().join("scheduler.log"));
    let watcher = scheduler_client(port);
    let mut began = Instant::now();
    let mut seen = 0;
    while seen < pods {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = bound(&watcher).await;
        if seen == 0 && now == 0 {
            began = Instant::now();
        }
        seen = now;
    }
    let took = began.elapsed().as_secs_f64();
    let Usage { cpu, memory } = Usage::of(scheduler.id());
    #[allow(clippy::cast_precision_loss)]
    let number = pods as f64;
    let what = format!("bind {pods} {kind} Pods on {} nodes", options.nodes);
    println!("{what:<56} {:>8.3} ms CPU  {:>7.0}/s  {memory:>6.1} MB", cpu / number * 1e3, number / took);
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    for kind in &options.kinds {
        run(&options, kind).await;
    }
}
