//! kube-controller-manager's rows of the budget table: Deployments made into Pods.
//!
//! Run `cargo run --release -p timonel-bench --bin controllers-bench` after building kube-apiserver and
//! kube-controller-manager with `--release`. The time is from the first Deployment to the last Pod.

use std::time::{Duration, Instant};

use bench::{Usage, all, figure, rate, send};
use clap::Parser;
use harness::{
    ApiServer,
    process::{Process, binary, free_port},
    server::{ADMIN_TOKEN, http_get},
};
use kube::Client;
use serde_json::{Value, json};

/// Settings of a run.
#[derive(Debug, Parser)]
struct Options {
    /// Deployments.
    #[arg(long, default_value_t = 100)]
    deployments: usize,
    /// Replicas of each.
    #[arg(long, default_value_t = 30)]
    replicas: usize,
}

async fn pods(client: &Client) -> usize {
    let path = "/api/v1/namespaces/default/pods?limit=1";
    let list: Value = client.request(http_get(path)).await.expect("listed");
    let left = list.pointer("/metadata/remainingItemCount").and_then(Value::as_u64).unwrap_or(0);
    let first = list["items"].as_array().map_or(0, Vec::len);
    first + usize::try_from(left).unwrap_or(0)
}

/// Whether the controllers run: the default ServiceAccount is their work.
async fn started(client: &Client) -> bool {
    client.request::<Value>(http_get("/api/v1/namespaces/default/serviceaccounts/default")).await.is_ok()
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let server = ApiServer::start().await;
    let client = server.admin().await;
    let arguments = [
        format!("--kubeconfig={}", server.kubeconfig_file(ADMIN_TOKEN).display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", free_port()),
        "--leader-elect=false".to_owned(),
        "--kube-api-qps=100000".to_owned(),
        "--kube-api-burst=100000".to_owned(),
    ];
    let log = server.path().join("controller-manager.log");
    let manager = Process::start(&binary("kube-controller-manager"), &arguments, log);
    while !started(&client).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    figure("controller-manager: idle memory", Usage::of(manager.id()).memory, "MB");
    let (start, before) = (Instant::now(), Usage::of(manager.id()).cpu);
    let to = &client;
    all(options.deployments, 8, |n| async move {
        let labels = json!({"app": format!("app-{n}")});
        let deployment = json!({"metadata": {"name": format!("app-{n}")}, "spec": {"replicas": options.replicas,
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "registry/image:v1"}]}}}});
        send(to, "POST", "/apis/apps/v1/namespaces/default/deployments", &deployment).await;
    })
    .await;
    let wanted = options.deployments * options.replicas;
    while pods(&client).await < wanted {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = start.elapsed().as_secs_f64();
    let usage = Usage::of(manager.id());
    let what = format!("controller-manager: {} Deployments x {}", options.deployments, options.replicas);
    rate(&what, wanted, usage.cpu - before, took);
    figure("controller-manager: memory after that", usage.memory, "MB");
}
