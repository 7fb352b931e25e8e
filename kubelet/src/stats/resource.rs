//! `/metrics/resource`.

use super::exposition::Exposition;
use super::{NodeStats, PodStats};
use crate::platform::CgroupUsage;

/// The exposition; every sample has the time it was taken at.
pub fn exposition(node: &NodeStats, pods: Option<&[PodStats]>) -> String {
    let mut out = Exposition::new("[STABLE] ");
    let at = node.group.at;
    let usage = &node.group.usage;
    out.family("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", "counter");
    out.sample(&[], seconds(usage.cpu_nanos), Some(at));
    out.family("node_memory_working_set_bytes", "Current working set of the node in bytes", "gauge");
    out.sample(&[], usage.working_set() as f64, Some(at));
    out.family(
        "node_swap_usage_bytes",
        "Current swap usage of the node in bytes. Reported only on non-windows systems",
        "gauge",
    );
    out.sample(&[], node.swap.0.saturating_sub(node.swap.1) as f64, Some(at));
    let all = pods.unwrap_or_default();
    containers(&mut out, all);
    of_pods(&mut out, all);
    let failed = f64::from(u8::from(pods.is_none()));
    let text = "1 if there was an error while getting container metrics, 0 otherwise";
    out.family("resource_scrape_error", text, "gauge");
    out.sample(&[], failed, None);
    out.family("scrape_error", &format!("(Deprecated since 1.29.0) {text}"), "gauge");
    out.sample(&[], failed, None);
    out.into_text()
}

/// A family that comes from a control group.
type Family = (&'static str, &'static str, &'static str, fn(&CgroupUsage) -> f64);

fn containers(out: &mut Exposition, pods: &[PodStats]) {
    let families: [Family; 3] = [
        (
            "container_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the container in core-seconds",
            "counter",
            |usage| seconds(usage.cpu_nanos),
        ),
        ("container_memory_working_set_bytes", "Current working set of the container in bytes", "gauge", |usage| {
            usage.working_set() as f64
        }),
        (
            "container_swap_usage_bytes",
            "Current amount of the container swap usage in bytes. Reported only on non-windows systems",
            "gauge",
            |usage| usage.swap as f64,
        ),
    ];
    let each = || pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    for (name, help, kind, of) in families {
        out.family(name, help, kind);
        for (pod, container) in each() {
            if let Some(group) = &container.group {
                out.sample(&labels(&container.name, pod), of(&group.usage), Some(group.at));
            }
        }
    }
    out.family(
        "container_swap_limit_bytes",
        "Current amount of the container swap limit in bytes. Reported only on non-windows systems",
        "gauge",
    );
    for (pod, container) in each() {
        if let Some((group, limit)) = container.group.and_then(|group| Some((group, group.usage.swap_limit?))) {
            out.sample(&labels(&container.name, pod), limit as f64, Some(group.at));
        }
    }
    out.family("container_start_time_seconds", "Start time of the container since unix epoch in seconds", "gauge");
    for (pod, container) in each() {
        if let Some(group) = &container.group {
            out.sample(
                &labels(&container.name, pod),
                container.started.as_millisecond() as f64 / 1000.0,
                Some(group.at),
            );
        }
    }
}

fn of_pods(out: &mut Exposition, pods: &[PodStats]) {
    let families: [Family; 3] = [
        (
            "pod_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the pod in core-seconds",
            "counter",
            |usage| seconds(usage.cpu_nanos),
        ),
        ("pod_memory_working_set_bytes", "Current working set of the pod in bytes", "gauge", |usage| {
            usage.working_set() as f64
        }),
        (
            "pod_swap_usage_bytes",
            "Current amount of the pod swap usage in bytes. Reported only on non-windows systems",
            "gauge",
            |usage| usage.swap as f64,
        ),
    ];
    for (name, help, kind, of) in families {
        out.family(name, help, kind);
        for pod in pods {
            if let Some(group) = &pod.group {
                let labels = [("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str())];
                out.sample(&labels, of(&group.usage), Some(group.at));
            }
        }
    }
}

fn labels<'a>(container: &'a str, pod: &'a PodStats) -> [(&'static str, &'a str); 3] {
    [("container", container), ("namespace", &pod.namespace), ("pod", &pod.name)]
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}
