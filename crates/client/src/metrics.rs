//! `rest_client_*`.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry};
use runtime::metrics::{self, Stability};

const SECONDS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const BYTES: &[f64] =
    &[64.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// Metrics of all clients of a process. Cheap to clone; made once per registry.
#[derive(Clone, Debug)]
pub struct ClientMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    limiter: HistogramVec,
    request_size: HistogramVec,
    response_size: HistogramVec,
    lookups: HistogramVec,
    retries: IntCounterVec,
    transports: IntGauge,
    transports_made: IntCounterVec,
}

impl ClientMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let alpha = Stability::Alpha;
        let by_host = &["verb", "host"];
        // No credential that a program gives has a certificate that ends: what client-go says of that case.
        metrics::float_gauge(
            registry,
            alpha,
            "rest_client_exec_plugin_ttl_seconds",
            "Gauge of the shortest TTL (time-to-live) of the client certificate(s) managed by the auth exec plugin. The \
             value is in seconds until certificate expiry (negative if already expired). If auth exec plugins are unused \
             or manage no TLS certificates, the value will be +INF.",
        )?
        .set(f64::INFINITY);
        Ok(Self {
            requests: metrics::counter_vec(
                registry,
                alpha,
                "rest_client_requests_total",
                "Number of HTTP requests, partitioned by status code, method, and host.",
                &["code", "host", "method"],
            )?,
            duration: metrics::histogram_vec(
                registry,
                alpha,
                "rest_client_request_duration_seconds",
                "Request latency in seconds. Broken down by verb, and host.",
                by_host,
                SECONDS,
            )?,
            limiter: metrics::histogram_vec(
                registry,
                alpha,
                "rest_client_rate_limiter_duration_seconds",
                "Client side rate limiter latency in seconds. Broken down by verb, and host.",
                by_host,
                SECONDS,
            )?,
            request_size: metrics::histogram_vec(
                registry,
                alpha,
                "rest_client_request_size_bytes",
                "Request size in bytes. Broken down by verb and host.",
                by_host,
                BYTES,
            )?,
            response_size: metrics::histogram_vec(
                registry,
                alpha,
                "rest_client_response_size_bytes",
                "Response size in bytes. Broken down by verb and host.",
                by_host,
                BYTES,
            )?,
            lookups: metrics::histogram_vec(
                registry,
                alpha,
                "rest_client_dns_resolution_duration_seconds",
                "DNS resolver latency in seconds. Broken down by host.",
                &["host"],
                SECONDS,
            )?,
            retries: metrics::counter_vec(
                registry,
                alpha,
                "rest_client_request_retries_total",
                "Number of request retries, partitioned by status code, verb, and host.",
                &["code", "verb", "host"],
            )?,
            transports: metrics::gauge(
                registry,
                alpha,
                "rest_client_transport_cache_entries",
                "Number of transport entries in the internal cache.",
            )?,
            transports_made: metrics::counter_vec(
                registry,
                alpha,
                "rest_client_transport_create_calls_total",
                "Number of calls to get a new transport, partitioned by the result of the operation hit: obtained from \
                 the cache, miss: created and added to the cache, uncacheable: created and not cached",
                &["result"],
            )?,
        })
    }

    pub(crate) fn waited(&self, verb: &str, host: &str, time: Duration) {
        self.limiter.with_label_values(&[verb, host]).observe(time.as_secs_f64());
    }

    /// A client has got connections of its own.
    pub(crate) fn connected(&self) {
        self.transports.inc();
        self.transports_made.with_label_values(&["miss"]).inc();
    }

    pub(crate) fn resolved(&self, host: &str, time: Duration) {
        self.lookups.with_label_values(&[host]).observe(time.as_secs_f64());
    }

    pub(crate) fn again(&self, code: u16, verb: &str, host: &str) {
        self.retries.with_label_values(&[&code.to_string(), verb, host]).inc();
    }

    pub(crate) fn finished(&self, verb: &str, host: &str, code: &str, time: Duration) {
        self.requests.with_label_values(&[code, host, verb]).inc();
        self.duration.with_label_values(&[verb, host]).observe(time.as_secs_f64());
    }

    pub(crate) fn sizes(&self, verb: &str, host: &str, sent: Option<u64>, received: Option<u64>) {
        // Sizes stay far below the range in which f64 is exact.
        if let Some(bytes) = sent {
            self.request_size.with_label_values(&[verb, host]).observe(bytes as f64);
        }
        if let Some(bytes) = received {
            self.response_size.with_label_values(&[verb, host]).observe(bytes as f64);
        }
    }
}
