//! What policies did, counted under upstream's names.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, HistogramVec, IntCounterVec, Registry};
use runtime::metrics::{self, Stability};

/// Upstream's buckets for the duration of checks, seconds.
const CHECK_BUCKETS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];
/// Those of compilation and evaluation.
const CEL_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Label of a check that found nothing wrong.
pub(super) const NO_ERROR: &str = "no_error";

/// Metrics of both kinds of policies.
pub(crate) struct PolicyMetrics {
    validating: (IntCounterVec, HistogramVec),
    mutating: (IntCounterVec, HistogramVec),
    compilation: Histogram,
    evaluation: Histogram,
}

/// One check, for its metric.
pub(super) struct Checked<'a> {
    pub(super) policy: &'a str,
    pub(super) binding: &'a str,
    pub(super) error: &'a str,
    pub(super) took: Duration,
}

fn check(
    registry: &Registry,
    level: Stability,
    kind: &str,
    labels: &[&str],
) -> Result<(IntCounterVec, HistogramVec), prometheus::Error> {
    let prefix = format!("apiserver_{}_admission_policy_check", kind.to_lowercase());
    let help = format!("{kind} admission policy check total, labeled by policy and further identified by binding.");
    let total = metrics::counter_vec(registry, level, &format!("{prefix}_total"), &help, labels)?;
    let help = format!(
        "{kind} admission latency for individual expressions in seconds, labeled by policy and further including \
         binding."
    );
    let name = format!("{prefix}_duration_seconds");
    Ok((total, metrics::histogram_vec(registry, level, &name, &help, labels, &CHECK_BUCKETS)?))
}

impl PolicyMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let labels = ["policy", "policy_binding", "error_type", "enforcement_action"];
        let cel = |what: &str, help: &str| {
            let name = format!("apiserver_cel_{what}_duration_seconds");
            metrics::histogram(registry, Stability::Beta, &name, help, &CEL_BUCKETS)
        };
        Ok(Arc::new(Self {
            validating: check(registry, Stability::Beta, "Validating", &labels)?,
            mutating: check(registry, Stability::Alpha, "Mutating", &labels[..3])?,
            compilation: cel("compilation", "CEL compilation time in seconds.")?,
            evaluation: cel("evaluation", "CEL evaluation time in seconds.")?,
        }))
    }

    pub(super) fn validated(&self, checked: &Checked<'_>, action: &str) {
        let labels = [checked.policy, checked.binding, checked.error, action];
        self.validating.0.with_label_values(&labels).inc();
        self.validating.1.with_label_values(&labels).observe(checked.took.as_secs_f64());
    }

    pub(super) fn mutated(&self, checked: &Checked<'_>) {
        let labels = [checked.policy, checked.binding, checked.error];
        self.mutating.0.with_label_values(&labels).inc();
        self.mutating.1.with_label_values(&labels).observe(checked.took.as_secs_f64());
    }

    /// Expressions of a policy that is used for the first time since it was read.
    pub(super) fn compiled(&self, times: &[Duration]) {
        times.iter().for_each(|took| self.compilation.observe(took.as_secs_f64()));
    }

    pub(super) fn evaluated(&self, took: Duration) {
        self.evaluation.observe(took.as_secs_f64());
    }
}
