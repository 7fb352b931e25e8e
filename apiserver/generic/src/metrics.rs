//! `apiserver_*` metrics of the handler chain, with upstream's names and labels.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, StatusCode, header};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use runtime::metrics::{Stability, counter, counter_vec, gauge_vec, histogram_vec};

use crate::request::{Query, RequestInfo};

/// Upstream's buckets for request durations, seconds.
const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
/// Those of handlers that come before the API.
const FILTER_BUCKETS: &[f64] = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0, 10.0, 15.0, 30.0];
/// Names of the labels that say what was asked for.
const ASKED: [&str; 8] = ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];
/// Time over which the most requests at once are told.
const SECOND: Duration = Duration::from_secs(1);

/// What a request asks for, as metrics label it.
#[derive(Clone, Debug)]
pub struct Asked {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    streams: bool,
}

impl Asked {
    /// The labels of a request.
    pub fn of(info: &RequestInfo, method: &Method, query: &Query, headers: &HeaderMap) -> Self {
        let kind = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let applies = info.verb == "patch" && kind.starts_with(b"application/apply-patch");
        let health = ["/healthz", "/livez", "/readyz"].into_iter().find(|path| info.path.starts_with(path));
        Self {
            verb: if applies { "APPLY" } else { verb_label(info, method) },
            dry_run: if query.get("dryRun").is_some_and(|value| value == "All") { "All" } else { "" },
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: health.map_or_else(|| info.subresource.clone(), str::to_owned),
            scope: scope_label(info),
            streams: info.is_long_running(),
        }
    }

    /// The verb.
    pub(crate) fn verb(&self) -> &'static str {
        self.verb
    }

    /// How much of the API it is about.
    pub(crate) fn scope(&self) -> &'static str {
        self.scope
    }

    /// Names of resources nobody serves would let clients grow metrics without bound.
    fn unknown(&self) -> Self {
        let nothing = String::new;
        let Self { verb, dry_run, streams, .. } = *self;
        let subresource = if self.subresource.starts_with('/') { self.subresource.clone() } else { nothing() };
        let (group, version, resource) = (nothing(), nothing(), nothing());
        Self { verb, dry_run, group, version, resource, subresource, scope: "", streams }
    }

    fn labels(&self) -> [&str; 8] {
        let Self { verb, dry_run, group, version, resource, subresource, scope, .. } = self;
        [verb, dry_run, group, version, resource, subresource, scope, "apiserver"]
    }
}

/// Request metrics.
pub struct Metrics {
    total: IntCounterVec,
    duration: HistogramVec,
    indicator: HistogramVec,
    sizes: HistogramVec,
    bodies: HistogramVec,
    streaming: IntGaugeVec,
    terminations: IntCounterVec,
    aborts: IntCounterVec,
    deprecated: IntGaugeVec,
    filters: HistogramVec,
    running: [HighWater; 2],
    waiting: [HighWater; 2],
    /// How authentication went.
    pub authentication: Outcomes<3>,
    /// How authorization went.
    pub authorization: Outcomes<4>,
    users: IntCounterVec,
    other_users: IntCounter,
    late: IntCounterVec,
    watch_events: IntCounterVec,
    watch_sizes: HistogramVec,
    watch_lists: HistogramVec,
}

/// What is told of one watch.
pub(crate) struct Watched {
    events: IntCounter,
    sizes: Histogram,
    /// Until the objects that were there at its beginning have been sent.
    list: Option<(Instant, Histogram)>,
}

impl Watched {
    /// A frame of this size is sent.
    pub(crate) fn sent(&self, size: usize) {
        self.events.inc();
        #[allow(clippy::cast_precision_loss)]
        self.sizes.observe(size as f64);
    }

    /// The objects that were there have been sent.
    pub(crate) fn listed(&mut self) {
        if let Some((began, seconds)) = self.list.take() {
            seconds.observe(began.elapsed().as_secs_f64());
        }
    }
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

/// The most requests at once in the last second.
struct HighWater {
    now: Arc<AtomicI64>,
    most: AtomicI64,
    told: IntGauge,
}

impl HighWater {
    fn new(told: IntGauge) -> Self {
        Self { now: Arc::default(), most: AtomicI64::new(0), told }
    }

    fn enter(&self) -> Running {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        Running(Arc::clone(&self.now))
    }

    fn tell(&self) {
        let now = self.now.load(Ordering::Relaxed);
        self.told.set(self.most.swap(now, Ordering::Relaxed).max(now));
    }
}

/// A request that is counted as long as this lives.
pub struct Running(Arc<AtomicI64>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that is counted as long as this lives.
pub(crate) struct Streaming(IntGauge);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn high_waters(
    registry: &Registry,
    level: Stability,
    name: &str,
    help: &str,
) -> Result<[HighWater; 2], prometheus::Error> {
    let gauges = gauge_vec(registry, level, name, help, &["request_kind"])?;
    Ok(["mutating", "readOnly"].map(|kind| HighWater::new(gauges.with_label_values(&[kind]))))
}

impl Metrics {
    /// Registers the metrics. Fails if a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        use Stability::{Alpha, Stable};
        let with_code: Vec<&str> = ASKED.into_iter().chain(["code"]).collect();
        let without_dry_run: Vec<&str> = ASKED.into_iter().filter(|label| *label != "dry_run").collect();
        let terminated: Vec<&str> = without_dry_run.iter().copied().chain(["code"]).collect();
        let histogram = |level, name, help, labels: &[&str], buckets: &[f64]| {
            histogram_vec(registry, level, name, help, labels, buckets)
        };
        let users = counter_vec(
            registry,
            Alpha,
            "authenticated_user_requests",
            "Counter of authenticated requests broken out by username.",
            &["username"],
        )?;
        let handshakes = counter(
            registry,
            Alpha,
            "apiserver_tls_handshake_errors_total",
            "Number of requests dropped with 'TLS handshake error from' error",
        )?;
        runtime::serving::count_failed_handshakes(handshakes);
        // There are no requests of this server to itself: what it needs of itself it calls.
        counter_vec(
            registry,
            Alpha,
            "apiserver_selfrequest_total",
            "Counter of apiserver self-requests broken out for each verb, API resource and subresource.",
            &["verb", "group", "resource", "subresource"],
        )?;
        let other_users = users.with_label_values(&["other"]);
        Ok(Self {
            total: counter_vec(
                registry,
                Stable,
                "apiserver_request_total",
                "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, \
                 scope, component, and HTTP response code.",
                &with_code,
            )?,
            duration: histogram(
                Stable,
                "apiserver_request_duration_seconds",
                "Response latency distribution in seconds for each verb, dry run value, group, version, resource, \
                 subresource, scope and component.",
                &ASKED,
                DURATION_BUCKETS,
            )?,
            indicator: histogram(
                Alpha,
                "apiserver_request_sli_duration_seconds",
                "Response latency distribution (not counting webhook duration and priority & fairness queue wait \
                 times) in seconds for each verb, group, version, resource, subresource, scope and component.",
                &without_dry_run,
                &DURATION_BUCKETS[2..],
            )?,
            sizes: histogram(
                Stable,
                "apiserver_response_sizes",
                "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and \
                 component.",
                &without_dry_run,
                &runtime::metrics::exponential_buckets(1000.0, 10.0, 7),
            )?,
            bodies: histogram(
                Alpha,
                "apiserver_request_body_size_bytes",
                "Apiserver request body size in bytes broken out by resource and verb.",
                &["resource", "verb", "group"],
                &(0..31).map(|n| 50_000.0 + 100_000.0 * f64::from(n)).collect::<Vec<_>>(),
            )?,
            streaming: gauge_vec(
                registry,
                Stable,
                "apiserver_longrunning_requests",
                "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, \
                 scope and component. Not all requests are tracked this way.",
                &without_dry_run,
            )?,
            terminations: counter_vec(
                registry,
                Alpha,
                "apiserver_request_terminations_total",
                "Number of requests which apiserver terminated in self-defense.",
                &terminated,
            )?,
            aborts: counter_vec(
                registry,
                Alpha,
                "apiserver_request_aborts_total",
                "Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, \
                 resource, subresource and scope",
                &["verb", "group", "version", "resource", "subresource", "scope"],
            )?,
            deprecated: gauge_vec(
                registry,
                Stable,
                "apiserver_requested_deprecated_apis",
                "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, \
                 subresource, and removed_release.",
                &["group", "version", "resource", "subresource", "removed_release"],
            )?,
            filters: histogram(
                Alpha,
                "apiserver_request_filter_duration_seconds",
                "Request filter latency distribution in seconds, for each filter type",
                &["filter"],
                FILTER_BUCKETS,
            )?,
            running: high_waters(
                registry,
                Stable,
                "apiserver_current_inflight_requests",
                "Maximal number of currently used inflight request limit of this apiserver per request kind in last \
                 second.",
            )?,
            waiting: high_waters(
                registry,
                Alpha,
                "apiserver_current_inqueue_requests",
                "Maximal number of queued requests in this apiserver per request kind in last second.",
            )?,
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
            watch_events: counter_vec(
                registry,
                Alpha,
                "apiserver_watch_events_total",
                "Number of events sent in watch clients",
                &["group", "version", "resource"],
            )?,
            watch_sizes: histogram(
                Alpha,
                "apiserver_watch_events_sizes",
                "Watch event size distribution in bytes",
                &["group", "version", "resource"],
                &runtime::metrics::exponential_buckets(1024.0, 2.0, 8),
            )?,
            watch_lists: histogram(
                Stability::Beta,
                "apiserver_watch_list_duration_seconds",
                "Response latency distribution in seconds for watch list requests broken by group, version, resource \
                 and scope.",
                &["group", "version", "resource", "scope"],
                &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0],
            )?,
            late: counter_vec(
                registry,
                Alpha,
                "apiserver_request_post_timeout_total",
                "Tracks the activity of the request handlers after the associated requests have been timed out by the \
                 apiserver",
                &["source", "status"],
            )?,
        })
    }

    /// Tells the most requests at once, every second; never ends.
    pub async fn measure(&self) {
        loop {
            tokio::time::sleep(SECOND).await;
            for water in self.running.iter().chain(&self.waiting) {
                water.tell();
            }
        }
    }

    /// Records an answered request. `waited` is how long it was in queues and with webhooks.
    pub fn observe(&self, asked: &Asked, code: StatusCode, took: Duration, waited: Duration, size: Option<u64>) {
        let unknown = matches!(code, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED);
        let hidden = unknown.then(|| asked.unknown());
        let asked = hidden.as_ref().unwrap_or(asked);
        let common = asked.labels();
        let [verb, _, group, version, resource, subresource, scope, component] = common;
        let without_dry_run = [verb, group, version, resource, subresource, scope, component];
        let mut with_code = [""; 9];
        with_code[..8].copy_from_slice(&common);
        with_code[8] = code.as_str();
        self.total.with_label_values(&with_code).inc();
        if verb == "CONNECT" {
            return;
        }
        self.duration.with_label_values(&common).observe(took.as_secs_f64());
        if verb != "WATCH" {
            let own = took.saturating_sub(waited);
            self.indicator.with_label_values(&without_dry_run).observe(own.as_secs_f64());
        }
        if let (true, Some(size)) = (matches!(verb, "GET" | "LIST"), size) {
            #[allow(clippy::cast_precision_loss)]
            self.sizes.with_label_values(&without_dry_run).observe(size as f64);
        }
    }

    /// Counts a request that the server ended to defend itself.
    pub(crate) fn terminated(&self, asked: &Asked, code: StatusCode) {
        let [verb, _, group, version, resource, subresource, scope, component] = asked.labels();
        let labels = [verb, group, version, resource, subresource, scope, component, code.as_str()];
        self.terminations.with_label_values(&labels).inc();
    }

    /// What is told of a watch, which sends first what is there if it `lists`.
    pub(crate) fn watched(&self, info: &RequestInfo, lists: bool) -> Watched {
        let labels = [info.group.as_str(), &info.version, &info.resource];
        let [group, version, resource] = labels;
        let seconds = || self.watch_lists.with_label_values(&[group, version, resource, scope_label(info)]);
        Watched {
            events: self.watch_events.with_label_values(&labels),
            sizes: self.watch_sizes.with_label_values(&labels),
            list: lists.then(|| (Instant::now(), seconds())),
        }
    }

    /// Counts the end of a handler whose request had run out of time: it is dropped with the request.
    pub(crate) fn ended_late(&self) {
        self.late.with_label_values(&["timeout-handler", "error"]).inc();
    }

    /// Counts a request whose client left before the answer.
    pub(crate) fn aborted(&self, asked: &Asked) {
        let asked = asked.unknown();
        let [verb, _, group, version, resource, subresource, scope, _] = asked.labels();
        self.aborts.with_label_values(&[verb, group, version, resource, subresource, scope]).inc();
    }

    /// Counts a stream, if the request is one.
    pub(crate) fn streams(&self, asked: &Asked) -> Option<Streaming> {
        let [verb, _, group, version, resource, subresource, scope, component] = asked.labels();
        let gauge = asked.streams.then(|| {
            self.streaming.with_label_values(&[verb, group, version, resource, subresource, scope, component])
        })?;
        gauge.inc();
        Some(Streaming(gauge))
    }

    /// Counts the body of a request for a served resource.
    pub(crate) fn body(&self, info: &RequestInfo, size: usize) {
        #[allow(clippy::cast_precision_loss)]
        self.bodies.with_label_values(&[&info.resource, &info.verb, &info.group]).observe(size as f64);
    }

    /// Notes that a deprecated API is used.
    pub(crate) fn deprecated(&self, info: &RequestInfo) {
        self.deprecated.with_label_values(&[&info.group, &info.version, &info.resource, &info.subresource, ""]).set(1);
    }

    /// How long one of the handlers that come before the API took.
    pub(crate) fn filtered(&self, filter: &str, took: Duration) {
        self.filters.with_label_values(&[filter]).observe(took.as_secs_f64());
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
        self.running[usize::from(reads)].enter()
    }

    /// Counts a waiting request.
    pub(crate) fn waits(&self, reads: bool) -> Running {
        self.waiting[usize::from(reads)].enter()
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
            _ => "other",
        },
    }
}

fn scope_label(info: &RequestInfo) -> &'static str {
    match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        _ if info.verb == "create" => "resource",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, uri: &str, kind: &'static str) -> String {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let query = Query::parse(query);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
        let asked = Asked::of(&RequestInfo::parse(&method, path, &query), &method, &query, &headers);
        let [verb, dry_run, group, _, resource, subresource, scope, _] = asked.labels();
        [verb, dry_run, group, resource, subresource, scope].join("|")
    }

    #[test]
    fn labels_are_bounded_and_upstreams() {
        for (method, uri, kind, labels) in [
            (Method::GET, "/api/v1/pods", "", "LIST|||pods||cluster"),
            (Method::GET, "/api/v1/namespaces/a/pods", "", "LIST|||pods||namespace"),
            (Method::GET, "/api/v1/pods?watch=1&sendInitialEvents=true", "", "WATCH|||pods||cluster"),
            (Method::POST, "/api/v1/namespaces/a/pods?dryRun=All", "", "POST|All||pods||resource"),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/x",
                "application/apply-patch+yaml",
                "APPLY||apps|deployments||resource",
            ),
            (Method::PATCH, "/api/v1/nodes/n/status", "application/merge-patch+json", "PATCH|||nodes|status|resource"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "", "DELETECOLLECTION|||pods||namespace"),
            (Method::POST, "/api/v1/namespaces/a/pods/p/exec", "", "CONNECT|||pods|exec|resource"),
            (Method::GET, "/livez/ping", "", "GET||||/livez|"),
            (Method::TRACE, "/version", "", "other|||||"),
        ] {
            assert_eq!(asked(method, uri, kind), labels, "{uri}");
        }
    }

    #[test]
    fn the_most_requests_of_a_second_are_told() {
        let metrics = Metrics::new(&Registry::new()).expect("metrics");
        let water = &metrics.running[1];
        let running = [metrics.runs(true), metrics.runs(true)];
        drop(running);
        water.tell();
        assert_eq!(water.told.get(), 2);
        water.tell();
        assert_eq!(water.told.get(), 0);
    }
}
