//! `rest_client_*`.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, Registry};
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
}

impl ClientMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let alpha = Stability::Alpha;
        let by_host = &["verb", "host"];
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
        })
    }

    pub(crate) fn waited(&self, verb: &str, host: &str, time: Duration) {
        self.limiter.with_label_values(&[verb, host]).observe(time.as_secs_f64());
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
