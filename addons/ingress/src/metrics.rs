//! Metrics, named as those of ingress-nginx.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use runtime::metrics::{self, Stability};

use crate::table::Route;

const LEVEL: Stability = Stability::Alpha;
/// Labels of a request's place.
const PLACE: [&str; 5] = ["host", "namespace", "ingress", "service", "path"];
/// Labels of a request.
const REQUEST: [&str; 7] = ["host", "namespace", "ingress", "service", "path", "method", "status"];
const SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
const BYTES: [f64; 7] = [10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7];

/// All metrics.
pub(crate) struct IngressMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    header_duration: HistogramVec,
    connect_duration: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    pub(crate) retries: IntCounter,
    pub(crate) reloads: IntCounter,
    pub(crate) reload_time: IntGauge,
    pub(crate) reload_successful: IntGauge,
    pub(crate) ingresses: IntGauge,
    pub(crate) connections: IntGaugeVec,
    pub(crate) certificate_expiry: IntGaugeVec,
}

impl IngressMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |name: &str| format!("nginx_ingress_controller_{name}");
        let histogram = |short: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            metrics::histogram_vec(registry, LEVEL, &name(short), help, labels, buckets)
        };
        let gauge = |short: &str, help: &str| metrics::gauge(registry, LEVEL, &name(short), help);
        let counter = |short: &str, help: &str| metrics::counter(registry, LEVEL, &name(short), help);
        let made = Self {
            requests: metrics::counter_vec(
                registry,
                LEVEL,
                &name("requests"),
                "The total number of client requests",
                &REQUEST,
            )?,
            duration: histogram(
                "request_duration_seconds",
                "The request processing time in seconds",
                &REQUEST,
                &SECONDS,
            )?,
            header_duration: histogram(
                "header_duration_seconds",
                "The time spent on receiving first header from the upstream server",
                &PLACE,
                &SECONDS,
            )?,
            connect_duration: histogram(
                "connect_duration_seconds",
                "The time spent on establishing a connection with the upstream server",
                &PLACE,
                &SECONDS,
            )?,
            request_size: histogram("request_size", "The request length, bytes of the body", &PLACE, &BYTES)?,
            response_size: histogram("response_size", "The response length, bytes of the body", &PLACE, &BYTES)?,
            retries: counter("upstream_retries_total", "Requests that were tried at another endpoint")?,
            reloads: counter("success", "Cumulative number of routing tables put in place")?,
            reload_time: gauge(
                "config_last_reload_successful_timestamp_seconds",
                "Timestamp of the last successful configuration reload",
            )?,
            reload_successful: gauge(
                "config_last_reload_successful",
                "Whether the last configuration reload attempt was successful",
            )?,
            ingresses: gauge("ingresses", "Ingresses of this controller")?,
            connections: metrics::gauge_vec(
                registry,
                LEVEL,
                &name("nginx_process_connections"),
                "Current number of client connections with state {upgraded}",
                &["state"],
            )?,
            certificate_expiry: metrics::gauge_vec(
                registry,
                LEVEL,
                &name("ssl_expire_time_seconds"),
                "Number of seconds since 1970 to the SSL Certificate expire",
                &["host", "namespace", "secret_name"],
            )?,
        };
        Ok(made)
    }

    /// A connection to an endpoint was made.
    pub(crate) fn connected(&self, route: &Route, took: Duration) {
        self.connect_duration.with_label_values(&place(route)).observe(took.as_secs_f64());
    }

    /// An endpoint began its answer.
    pub(crate) fn answered(&self, route: &Route, took: Duration) {
        self.header_duration.with_label_values(&place(route)).observe(took.as_secs_f64());
    }

    /// A request is over.
    pub(crate) fn done(&self, request: &Finished<'_>) {
        let nowhere = [request.host, "", "", "", ""];
        let place = request.route.map_or(nowhere, place);
        let status = request.status.as_str();
        let [host, namespace, ingress, service, path] = place;
        let labels = [host, namespace, ingress, service, path, method(request.method), status];
        self.requests.with_label_values(&labels).inc();
        self.duration.with_label_values(&labels).observe(request.since.elapsed().as_secs_f64());
        // Counts below 2^53 are exact.
        self.request_size.with_label_values(&place).observe(request.received as f64);
        self.response_size.with_label_values(&place).observe(request.sent as f64);
    }
}

/// A request that is over.
pub(crate) struct Finished<'a> {
    /// Host of the rule; `_` without one.
    pub(crate) host: &'a str,
    pub(crate) route: Option<&'a Route>,
    pub(crate) method: &'a Method,
    pub(crate) status: StatusCode,
    pub(crate) since: Instant,
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

fn place(route: &Route) -> [&str; 5] {
    [&route.host, &route.namespace, &route.ingress, &route.backend.key.service.name, &route.path]
}

/// Clients do not make up labels.
fn method(method: &Method) -> &str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    known.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}
