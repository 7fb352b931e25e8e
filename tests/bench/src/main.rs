//! Load generator: drives a real kube-apiserver and prints its rows of the budget table in README.md.
//!
//! Run `cargo run --release -p timonel-bench` after `cargo build --release -p kube-apiserver`. CPU is the server
//! process's own, read from /proc; requests are bounded in number and go to the loopback address.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use clap::Parser;
use futures::{StreamExt, stream};
use harness::{ApiServer, server::http_get};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

/// Settings of a run.
#[derive(Debug, Parser)]
struct Options {
    /// Pods to create.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// Reads of a single Pod.
    #[arg(long, default_value_t = 20_000)]
    gets: usize,
    /// Requests at once.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
}

/// Kernel clock ticks per second.
const TICKS: f64 = 100.0;

struct Server {
    server: ApiServer,
    client: Client,
}

impl Server {
    fn stat(&self) -> Vec<String> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.id())).expect("the server runs");
        let (_, rest) = stat.rsplit_once(") ").expect("a stat line");
        rest.split(' ').map(str::to_owned).collect()
    }

    /// CPU time used so far, seconds.
    fn cpu(&self) -> f64 {
        let fields = self.stat();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        (ticks(11) + ticks(12)) / TICKS
    }

    /// Resident memory, MB.
    fn memory(&self) -> f64 {
        self.stat()[21].parse::<f64>().expect("a number") * 4096.0 / 1e6
    }

    async fn post(&self, path: &str, body: &Value) {
        let request = Request::post(path).header("content-type", "application/json");
        let request = request.body(body.to_string().into_bytes()).expect("a request");
        self.client.request::<Value>(request).await.expect("created");
    }
}

/// Runs `count` requests, `concurrency` at once, and prints a row.
async fn row<F: Future<Output = ()>>(
    server: &Server,
    what: &str,
    count: usize,
    concurrency: usize,
    one: impl Fn(usize) -> F,
) {
    let (start, cpu) = (Instant::now(), server.cpu());
    stream::iter(0..count).map(one).buffer_unordered(concurrency).for_each(|()| async {}).await;
    let (took, cpu) = (start.elapsed().as_secs_f64(), server.cpu() - cpu);
    #[allow(clippy::cast_precision_loss)]
    let n = count as f64;
    println!("{what:<44} {:>10.3} ms CPU  {:>9.0}/s", cpu / n * 1e3, n / took);
}

/// A Pod of about 4.9 KB of JSON, as the budget assumes.
fn pod(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("pod-{number:05}"), "labels": {"app": "bench"},
            "annotations": {"filler": "x".repeat(2600)}},
        "spec": {"automountServiceAccountToken": false, "nodeName": format!("node-{}", number % 100),
            "containers": [{"name": "c", "image": "registry/image:v1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}})
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let start = Instant::now();
    let server = ApiServer::start().await;
    let client = server.admin().await;
    let server = Server { server, client };
    println!("{:<44} {:>10.2} s", "start to ready", start.elapsed().as_secs_f64());
    println!("{:<44} {:>10.1} MB", "idle memory", server.memory());
    server.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let (width, server) = (options.concurrency, &server);
    row(server, "create a Pod", options.pods, width, |n| async move { server.post(pods, &pod(n)).await }).await;
    let count = options.pods.max(1);
    row(server, "get a Pod", options.gets, width, |n| async move {
        let path = format!("{pods}/pod-{:05}", n % count);
        server.client.request_text(http_get(&path)).await.expect("found");
    })
    .await;
    row(server, "list all Pods", 5, 1, |_| async move {
        server.client.request_text(http_get(pods)).await.expect("listed");
    })
    .await;
    row(server, "strategic-merge patch of Pod status", options.pods.min(5000), width, |n| async move {
        let path = format!("{pods}/pod-{:05}/status", n % count);
        let request = Request::patch(path).header("content-type", "application/strategic-merge-patch+json");
        let body = json!({"status": {"phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250)}});
        let request = request.body(body.to_string().into_bytes()).expect("a request");
        server.client.request::<Value>(request).await.expect("patched");
    })
    .await;
    row(server, "create a Service", 200, width, |n| async move {
        let name = format!("service-{n}");
        let body = json!({"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
        server.post("/api/v1/namespaces/default/services", &body).await;
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    println!("{:<44} {:>10.1} MB", "memory after all that", server.memory());
}
