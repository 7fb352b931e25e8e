//! Drives a real kube-apiserver and prints its rows of the budget table in README.md.
//!
//! Run `cargo run --release -p timonel-bench` after `cargo build --release -p kube-apiserver`. CPU is the server
//! process's own, read from /proc; requests are bounded in number and go to the loopback address.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bench::{Usage, all, figure, pod, rate, row, send, send_as};
use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use harness::{ApiServer, server::http_get};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, api::WatchParams};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

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
    /// Watchers of one resource.
    #[arg(long, default_value_t = 200)]
    watchers: usize,
    /// CustomResourceDefinitions to create.
    #[arg(long, default_value_t = 100)]
    definitions: usize,
}

const PODS: &str = "/api/v1/namespaces/default/pods";
/// Changes that watchers are told of.
const CHANGES: usize = 500;

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let start = Instant::now();
    let server = ApiServer::start_with(&["--service-cluster-ip-range=10.64.0.0/12"]).await;
    let client = server.admin().await;
    figure("start to ready", start.elapsed().as_secs_f64(), "s");
    figure("idle memory", Usage::of(server.id()).memory, "MB");
    send(&client, "POST", "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}}))
        .await;
    pods(&server, &client, &options).await;
    services(&server, &client, &options).await;
    watchers(&server, &client, options.watchers, options.concurrency).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    figure("memory after all that", Usage::of(server.id()).memory, "MB");
    definitions(&server, &client, options.definitions).await;
}

async fn pods(server: &ApiServer, client: &Client, options: &Options) {
    let (process, width, count) = (server.id(), options.concurrency, options.pods.max(1));
    row(process, "create a Pod", options.pods, width, |n| async move {
        let spec = json!({"nodeName": format!("node-{}", n % 100)});
        send(client, "POST", PODS, &pod(&format!("pod-{n:05}"), &json!({"app": "bench"}), spec)).await;
    })
    .await;
    row(process, "get a Pod", options.gets, width, |n| async move {
        client.request_text(http_get(&format!("{PODS}/pod-{:05}", n % count))).await.expect("found");
    })
    .await;
    row(process, "list all Pods", 5, 1, |_| async move {
        client.request_text(http_get(PODS)).await.expect("listed");
    })
    .await;
    row(process, "strategic-merge patch of Pod status", options.pods.min(5000), width, |n| async move {
        let path = format!("{PODS}/pod-{:05}/status", n % count);
        let body = json!({"status": {"phase": "Running", "podIP": format!("10.0.{}.{}", n / 250, n % 250)}});
        send_as(client, "PATCH", &path, "application/strategic-merge-patch+json", &body).await;
    })
    .await;
}

async fn services(server: &ApiServer, client: &Client, options: &Options) {
    row(server.id(), "create a Service and its EndpointSlice", 1000, options.concurrency, |n| async move {
        let name = format!("service-{n}");
        let service = json!({"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
        send(client, "POST", "/api/v1/namespaces/default/services", &service).await;
        let slice = json!({"addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "metadata": {"name": format!("{name}-abcde"), "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": [format!("10.1.{}.{}", n / 250, n % 250 + 1)], "conditions": {"ready": true}}]});
        send(client, "POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
    })
    .await;
}

/// Changes one object while many watch its kind; each watcher has a connection of its own.
async fn watchers(server: &ApiServer, client: &Client, count: usize, writers: usize) {
    let maps = "/api/v1/namespaces/default/configmaps";
    let (ready, mut watching) = (Arc::new(Semaphore::new(0)), JoinSet::new());
    for _ in 0..count {
        let api: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
        let ready = Arc::clone(&ready);
        watching.spawn(async move {
            let mut events = api.watch(&WatchParams::default(), "0").await.expect("a watch").boxed();
            ready.add_permits(1);
            for _ in 0..CHANGES {
                events.try_next().await.expect("an event").expect("the watch goes on");
            }
        });
    }
    let wanted = u32::try_from(count).expect("a small number");
    let _all = ready.acquire_many(wanted).await.expect("all watch");
    let (start, before) = (Instant::now(), Usage::of(server.id()).cpu);
    all(CHANGES, writers, |n| async move {
        let body = json!({"metadata": {"name": format!("change-{n}")}, "data": {"key": "x".repeat(1000)}});
        send(client, "POST", maps, &body).await;
    })
    .await;
    while watching.join_next().await.is_some() {}
    let took = start.elapsed().as_secs_f64();
    rate(
        &format!("an event to one of {count} watchers"),
        CHANGES * count.max(1),
        Usage::of(server.id()).cpu - before,
        took,
    );
}

fn is_established(definition: &Value) -> bool {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|c| c["type"] == "Established" && c["status"] == "True")
}

async fn definitions(server: &ApiServer, client: &Client, count: usize) {
    let before = Usage::of(server.id()).memory;
    all(count, 1, |n| async move {
        let (plural, kind) = (format!("things{n}"), format!("Thing{n}"));
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "size": {"type": "integer"}, "name": {"type": "string"}}}}});
        let definition = json!({"metadata": {"name": format!("{plural}.example.com")}, "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        send(client, "POST", path, &definition).await;
        // Created is not served yet.
        let path = format!("{path}/{plural}.example.com");
        while !is_established(&client.request(http_get(&path)).await.expect("the definition")) {}
        let path = format!("/apis/example.com/v1/namespaces/default/{plural}");
        let kind = json!({"apiVersion": "example.com/v1", "kind": kind, "metadata": {"name": "one"}});
        send(client, "POST", &path, &kind).await;
    })
    .await;
    let (start, began) = (Instant::now(), Usage::of(server.id()).cpu);
    client.request::<Value>(http_get("/openapi/v3")).await.expect("OpenAPI");
    figure("OpenAPI v3 of all of them: CPU", Usage::of(server.id()).cpu - began, "s");
    figure("OpenAPI v3 of all of them: time", start.elapsed().as_secs_f64(), "s");
    #[allow(clippy::cast_precision_loss)]
    let each = (Usage::of(server.id()).memory - before) / count.max(1) as f64;
    figure("memory per CustomResourceDefinition", each, "MB");
}
