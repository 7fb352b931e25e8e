//! What webhooks did, counted under upstream's names.

use std::time::Duration;

use generic::admission::AdmissionRequest;
use prometheus::{HistogramVec, IntCounterVec, Registry};
use runtime::metrics::{Stability, counter_vec, histogram_vec};

/// Upstream's buckets, seconds.
const BUCKETS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];

/// Metrics of all webhooks.
#[derive(Clone)]
pub(crate) struct WebhookMetrics {
    seconds: HistogramVec,
    requests: IntCounterVec,
    rejections: IntCounterVec,
    fail_open: IntCounterVec,
}

/// How a call ended.
pub(super) struct Called<'a> {
    pub(super) webhook: &'a str,
    pub(super) mutates: bool,
    pub(super) took: Duration,
    /// Why it was rejected, and with which code.
    pub(super) rejected: Option<(&'static str, u16)>,
    /// Whether the webhook failed, and that did not matter.
    pub(super) failed_open: bool,
}

impl WebhookMetrics {
    /// Registers the metrics.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let name = |end: &str| format!("apiserver_admission_webhook_{end}");
        let counter =
            |end: &str, help: &str, labels: &[&str]| counter_vec(registry, Stability::Alpha, &name(end), help, labels);
        Ok(Self {
            seconds: histogram_vec(
                registry,
                Stability::Stable,
                &name("admission_duration_seconds"),
                "Admission webhook latency histogram in seconds, identified by name and broken out for each operation \
                 and API resource and type (validate or admit).",
                &["name", "type", "operation", "rejected"],
                &BUCKETS,
            )?,
            requests: counter(
                "request_total",
                "Admission webhook request total, identified by name and broken out for each admission type \
                 (validating or mutating) and operation. Additional labels specify whether the request was rejected or \
                 not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics \
                 cardinality bounded.",
                &["name", "type", "operation", "code", "rejected"],
            )?,
            rejections: counter(
                "rejection_count",
                "Admission webhook rejection count, identified by name and broken out for each admission type \
                 (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error \
                 or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero \
                 rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver \
                 when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the \
                 metrics cardinality bounded.",
                &["name", "type", "operation", "error_type", "rejection_code"],
            )?,
            fail_open: counter(
                "fail_open_count",
                "Admission webhook fail open count, identified by name and broken out for each admission type \
                 (validating or mutating).",
                &["name", "type"],
            )?,
        })
    }

    /// Counts a call.
    pub(super) fn observe(&self, request: &AdmissionRequest, called: &Called<'_>) {
        let Called { webhook, mutates, took, rejected, failed_open } = *called;
        let (kind, operation) = (if mutates { "admit" } else { "validating" }, request.operation.as_str());
        let refused = if rejected.is_some() { "true" } else { "false" };
        self.seconds.with_label_values(&[webhook, kind, operation, refused]).observe(took.as_secs_f64());
        let code = rejected.map_or(200, |(_, code)| code).min(600).to_string();
        self.requests.with_label_values(&[webhook, kind, operation, &code, refused]).inc();
        if let Some((why, code)) = rejected {
            let code = if why == "no_error" { code.min(600).to_string() } else { "0".to_owned() };
            self.rejections.with_label_values(&[webhook, kind, operation, why, &code]).inc();
        }
        if failed_open {
            self.fail_open.with_label_values(&[webhook, kind]).inc();
        }
    }
}
