//! What the benchmarks share: requests, processes' use of the machine, rows of the budget table.

use std::{future::Future, time::Instant};

use futures::{StreamExt, stream};
use http::Request;
use kube::Client;
use serde_json::Value;

/// Kernel clock ticks per second.
const TICKS: f64 = 100.0;
/// Bytes of a page.
const PAGE: f64 = 4096.0;

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// CPU time since its start, seconds.
    pub cpu: f64,
    /// Resident memory, MB.
    pub memory: f64,
}

impl Usage {
    /// Of a process of this machine.
    pub fn of(process: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process runs");
        Self::parse(&stat)
    }

    /// From a line of `/proc/<pid>/stat`.
    pub fn parse(stat: &str) -> Self {
        let (_, rest) = stat.rsplit_once(") ").expect("a stat line");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields[at].parse::<f64>().expect("a number");
        Self { cpu: (number(11) + number(12)) / TICKS, memory: number(21) * PAGE / 1e6 }
    }
}

/// Sends an object; it must be accepted.
pub async fn send(client: &Client, method: &str, path: &str, body: &Value) {
    let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    send_as(client, method, path, media, body).await;
}

/// The same with another media type.
pub async fn send_as(client: &Client, method: &str, path: &str, media: &str, body: &Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", media);
    let request = request.body(body.to_string().into_bytes()).expect("a request");
    client.request::<Value>(request).await.expect("accepted");
}

/// Runs `count` steps, `width` at once.
pub async fn all<F: Future<Output = ()>>(count: usize, width: usize, one: impl Fn(usize) -> F) {
    stream::iter(0..count).map(one).buffer_unordered(width).for_each(|()| async {}).await;
}

/// Runs `count` steps, `width` at once, and prints a row: CPU of a process for each, and how many in a second.
pub async fn row<F: Future<Output = ()>>(
    process: u32,
    what: &str,
    count: usize,
    width: usize,
    one: impl Fn(usize) -> F,
) {
    let (start, before) = (Instant::now(), Usage::of(process).cpu);
    all(count, width, one).await;
    rate(what, count, Usage::of(process).cpu - before, start.elapsed().as_secs_f64());
}

/// Prints a row of `count` things that took so many seconds, and of CPU.
pub fn rate(what: &str, count: usize, cpu: f64, took: f64) {
    #[allow(clippy::cast_precision_loss)]
    let n = count as f64;
    println!("{what:<52} {:>10.3} ms CPU  {:>9.0}/s", cpu / n * 1e3, n / took);
}

/// Prints a row of one figure.
pub fn figure(what: &str, value: f64, unit: &str) {
    println!("{what:<52} {value:>10.3} {unit}");
}

/// A Pod of about 4.9 KB of JSON, as the budgets assume.
pub fn pod(name: &str, labels: &Value, spec: Value) -> Value {
    let mut pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "annotations": {"filler": "x".repeat(2600)}},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "registry/image:v1",
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}});
    if let (Some(into), Value::Object(more)) = (pod["spec"].as_object_mut(), spec) {
        into.extend(more);
    }
    pod
}
