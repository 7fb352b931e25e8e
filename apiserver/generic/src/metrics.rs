//! `apiserver_*` metrics of the handler chain, with upstream's names and labels.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use runtime::metrics::{Stability, counter_vec, histogram_vec};

use crate::request::RequestInfo;

/// Upstream's buckets for request durations, seconds.
const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Request metrics.
pub struct Metrics {
    total: IntCounterVec,
    duration: HistogramVec,
    reading: IntGauge,
    mutating: IntGauge,
    /// How authentication went.
    pub authentication: Outcomes<3>,
    /// How authorization went.
    pub authorization: Outcomes<4>,
    users: IntCounterVec,
    other_users: IntCounter,
}

/// Attempts and their durations by result.
pub struct Outcomes<const N: usize>([(IntCounter, Histogram); N]);

impl<const N: usize> Outcomes<N> {
    fn new(registry: &Registry, what: &str, attempts: &str, results: [&str; N]) -> Result<Self, prometheus::Error> {
        let counters =
            counter_vec(registry, Stability::Alpha, attempts, &format!("Counter of {what} attempts."), &["result"])?;
        let seconds = histogram_vec(
            registry,
            Stability::Alpha,
            &format!("{what}_duration_seconds"),
            &format!("Duration of {what} in seconds broken out by result."),
            &["result"],
            &runtime::metrics::exponential_buckets(0.001, 2.0, 15),
        )?;
        Ok(Self(results.map(|result| (counters.with_label_values(&[result]), seconds.with_label_values(&[result])))))
    }

    /// Counts an attempt with the `result`th result.
    pub fn count(&self, result: usize, took: Duration) {
        if let Some((attempts, seconds)) = self.0.get(result) {
            attempts.inc();
            seconds.observe(took.as_secs_f64());
        }
    }
}

/// A request that runs, and is counted as long as this lives.
pub struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers the metrics. Fails if a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let labels = &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"];
        let total = IntCounterVec::new(
            Opts::new(
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
            ),
            labels,
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
            )
            .buckets(DURATION_BUCKETS.to_vec()),
            &labels[..8],
        )?;
        let in_flight = IntGaugeVec::new(
            Opts::new(
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
            ),
            &["request_kind"],
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        let (reading, mutating) =
            (in_flight.with_label_values(&["readOnly"]), in_flight.with_label_values(&["mutating"]));
        let users = counter_vec(
            registry,
            Stability::Alpha,
            "authenticated_user_requests",
            "Counter of authenticated requests broken out by username.",
            &["username"],
        )?;
        let other_users = users.with_label_values(&["other"]);
        Ok(Self {
            total,
            duration,
            reading,
            mutating,
            authentication: Outcomes::new(
                registry,
                "authentication",
                "authentication_attempts",
                ["success", "failure", "error"],
            )?,
            authorization: Outcomes::new(
                registry,
                "authorization",
                "authorization_attempts_total",
                ["allowed", "denied", "no-opinion", "error"],
            )?,
            users,
            other_users,
        })
    }

    /// Records an answered request.
    pub fn observe(&self, info: &RequestInfo, method: &Method, code: StatusCode, took: Duration) {
        let verb = verb_label(info, method);
        let scope = scope_label(info);
        let common = [
            verb,
            "",
            info.group.as_str(),
            info.version.as_str(),
            info.resource.as_str(),
            info.subresource.as_str(),
            scope,
            "apiserver",
        ];
        // Names of resources nobody serves would let clients grow the metric without bound.
        let unknown =
            code == StatusCode::NOT_FOUND || code == StatusCode::FORBIDDEN || code == StatusCode::UNAUTHORIZED;
        let common = if unknown { [verb, "", "", "", "", "", "", "apiserver"] } else { common };
        let mut with_code = [""; 9];
        with_code[..8].copy_from_slice(&common);
        with_code[8] = code.as_str();
        self.total.with_label_values(&with_code).inc();
        if verb != "WATCH" && verb != "CONNECT" {
            self.duration.with_label_values(&common).observe(took.as_secs_f64());
        }
    }

    /// Counts a request of a user. Few names are shown, so that users cannot make the metric grow.
    pub fn user(&self, name: &str) {
        const SHOWN: [&str; 5] =
            ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];
        match name {
            shown if SHOWN.contains(&shown) => self.users.with_label_values(&[shown]).inc(),
            address if address.contains('@') => self.users.with_label_values(&["email_id"]).inc(),
            _ => self.other_users.inc(),
        }
    }

    /// Counts a running request.
    pub fn runs(&self, reads: bool) -> Running {
        let gauge = if reads { &self.reading } else { &self.mutating };
        gauge.inc();
        Running(gauge.clone())
    }
}

fn verb_label(info: &RequestInfo, method: &Method) -> &'static str {
    if info.is_resource && info.is_long_running() && info.verb != "watch" && info.subresource != "log" {
        return "CONNECT";
    }
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "OTHER",
        },
    }
}

fn scope_label(info: &RequestInfo) -> &'static str {
    match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
}
