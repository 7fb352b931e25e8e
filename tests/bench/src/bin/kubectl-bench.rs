//! What kubectl costs: prints its rows of the budget table, and those of a stock kubectl beside them.
//!
//! Run `cargo run --release -p timonel-bench --bin kubectl-bench` after building kube-apiserver and kubectl with
//! `--release`. The newest kubectl that `STOCK_KUBECTL` lists is measured beside ours. Time is by the clock from the start
//! of the process to its end, the least of several runs; memory is the most that was resident.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bench::{all, figure, pod, send};
use clap::Parser;
use harness::{ApiServer, Kubectl, process::binary, server::ADMIN_TOKEN};
use http::Request;
use kube::Client;
use serde_json::json;

/// Settings of a run.
#[derive(Debug, Parser)]
struct Options {
    /// Pods to list.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Runs of each command.
    #[arg(long, default_value_t = 10)]
    runs: usize,
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
/// Requests at once while Pods are made.
const WIDTH: usize = 16;
/// Time between two looks at the memory of a process.
const LOOK: Duration = Duration::from_millis(1);

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let server = ApiServer::start().await;
    let client = server.admin().await;
    send(&client, "POST", "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await;
    all(options.pods, WIDTH, |n| {
        let client = &client;
        async move { send(client, "POST", PODS, &pod(&format!("pod-{n:05}"), &json!({"app": "bench"}), json!({}))).await }
    })
    .await;
    let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN);
    let mut answered = f64::MAX;
    for _ in 0..options.runs {
        answered = answered.min(answer(&client).await);
    }
    figure(&format!("server: table of {} Pods in pages of 500", options.pods), answered * 1e3, "ms");
    let stock = Kubectl::stock().pop();
    let programs = [("kubectl", Some(binary("kubectl"))), ("stock kubectl", stock)];
    tokio::task::block_in_place(|| {
        for (name, program) in programs.iter().filter_map(|(name, program)| Some((name, program.as_ref()?))) {
            let cost = |arguments: &[&str]| least(program, &kubeconfig, arguments, options.runs);
            let (time, memory) = cost(&["version", "--client"]);
            figure(&format!("{name}: version --client"), time * 1e3, "ms");
            figure(&format!("{name}: version --client, memory"), memory, "MB");
            for format in ["wide", "name", "json"] {
                let (time, memory) = cost(&["get", "pods", "-o", format]);
                figure(&format!("{name}: get pods -o {format}"), time * 1e3, "ms");
                figure(&format!("{name}: get pods -o {format}, of the server's answer"), time / answered, "times");
                figure(&format!("{name}: get pods -o {format}, memory"), memory, "MB");
            }
        }
    });
}

/// Seconds that the server takes for all pages, asked one after the other as kubectl asks.
async fn answer(client: &Client) -> f64 {
    let start = Instant::now();
    let mut token = String::new();
    loop {
        let uri = format!("{PODS}?limit=500&continue={token}");
        let request = Request::get(uri).header("accept", TABLE).body(Vec::new()).expect("a request");
        let page = client.request_text(request).await.expect("a page");
        match page.split("\"continue\":\"").nth(1).and_then(|rest| rest.split('"').next()) {
            Some(next) => next.clone_into(&mut token),
            None => return start.elapsed().as_secs_f64(),
        }
    }
}

/// The least time, and the most memory, of several runs.
fn least(program: &PathBuf, kubeconfig: &Path, arguments: &[&str], runs: usize) -> (f64, f64) {
    let (mut time, mut memory) = (f64::MAX, 0.0_f64);
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", kubeconfig.parent().unwrap_or(Path::new("/")))
            .stdout(Stdio::null())
            .spawn()
            .expect("kubectl starts");
        loop {
            memory = memory.max(resident(child.id()));
            if let Some(status) = child.try_wait().expect("kubectl ends") {
                assert!(status.success(), "{arguments:?} fails");
                break;
            }
            std::thread::sleep(LOOK);
        }
        time = time.min(start.elapsed().as_secs_f64());
    }
    (time, memory)
}

/// The most memory that a process had resident so far, MB; nothing once it has ended.
fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.map_or(0.0, |kilobytes| kilobytes * 1024.0 / 1e6)
}
