//! Counting requests. Labels are of a few known values, whatever clients send.

use std::time::Instant;

use http::Method;

use crate::metrics::METRICS;

/// First segments of paths that are served.
const PATHS: [&str; 19] = [
    "attach",
    "checkpoint",
    "configz",
    "containerLogs",
    "debug",
    "exec",
    "flagz",
    "healthz",
    "logs",
    "metrics",
    "pods",
    "portForward",
    "run",
    "runningpods",
    "stats",
    "statusz",
    "version",
    "",
    "other",
];
const LONG: [&str; 4] = ["exec", "attach", "portForward", "containerLogs"];
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];

type Labels = [&'static str; 4];

/// A request that is being answered. Dropping it counts its end, however it came.
pub(super) struct Measured {
    labels: Labels,
    start: Instant,
}

impl Measured {
    /// A request begins. `server`: `readwrite` or `readonly`.
    pub(super) fn begin(method: &Method, path: &str, server: &'static str) -> Self {
        let labels = labels(method, path, server);
        METRICS.http_requests.with_label_values(&labels).inc();
        METRICS.http_inflight.with_label_values(&labels).inc();
        Self { labels, start: Instant::now() }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        METRICS.http_inflight.with_label_values(&self.labels).dec();
        METRICS.http_duration.with_label_values(&self.labels).observe(self.start.elapsed().as_secs_f64());
    }
}

/// Whether anybody may ask for a path, on the port without authentication, if there is one.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    let head = path.split('/').nth(1).unwrap_or_default();
    *method == Method::GET && matches!(head, "healthz" | "pods" | "metrics" | "stats")
}

/// A first segment of a path, if it is one that is served.
pub(super) fn known_path(first: &str) -> &'static str {
    PATHS.iter().copied().find(|path| *path == first).unwrap_or("other")
}

fn labels(method: &Method, path: &str, server: &'static str) -> Labels {
    let first = known_path(path.split('/').nth(1).unwrap_or_default());
    let long = if LONG.contains(&first) { "true" } else { "false" };
    let method = METHODS.iter().copied().find(|known| *known == method.as_str()).unwrap_or("other");
    [method, first, server, long]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CVE-2025-0426: checkpoints over the port without authentication filled the disk.
    #[test]
    fn nobody_changes_a_node_without_a_name() {
        assert_eq!(crate::config::KubeletConfiguration::default().read_only_port, 0, "there is no such port by itself");
        for path in ["/healthz", "/pods", "/metrics/cadvisor", "/stats/summary"] {
            assert!(is_open(&Method::GET, path), "{path}");
            assert!(!is_open(&Method::POST, path), "{path}");
        }
        for path in
            ["/checkpoint/ns/pod/c", "/run/ns/pod/c", "/exec/ns/pod/c", "/containerLogs/ns/pod/c", "/configz", "/"]
        {
            assert!(!is_open(&Method::GET, path) && !is_open(&Method::POST, path), "{path}");
        }
    }

    #[test]
    fn nobody_invents_labels() {
        let odd = Method::from_bytes(b"BREW").unwrap();
        for (method, path, expected) in [
            (&Method::GET, "/metrics/cadvisor", ["GET", "metrics", "readwrite", "false"]),
            (&Method::POST, "/exec/ns/pod/c", ["POST", "exec", "readwrite", "true"]),
            (&Method::GET, "/", ["GET", "", "readwrite", "false"]),
            (&odd, "/a1b2c3", ["other", "other", "readwrite", "false"]),
        ] {
            assert_eq!(labels(method, path, "readwrite"), expected, "{path}");
        }
    }
}
