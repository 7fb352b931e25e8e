//! What policies did, counted under upstream's names.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Upstream's buckets for the duration of checks and of evaluations, seconds.
const CHECK_BUCKETS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];

/// Labels of a check that found nothing wrong.
pub(super) const NO_ERROR: &str = "no_error";

/// Metrics of both kinds of policies.
pub(crate) struct PolicyMetrics {
    validating: (IntCounterVec, HistogramVec),
    mutating: (IntCounterVec, HistogramVec),
    evaluation: Histogram,
}

/// One check, for its metric.
pub(super) struct Checked<'a> {
    pub(super) policy: &'a str,
    pub(super) binding: &'a str,
    pub(super) error: &'a str,
    pub(super) took: Duration,
}

fn check(registry: &Registry, kind: &str, labels: &[&str]) -> Result<(IntCounterVec, HistogramVec), prometheus::Error> {
    let total = IntCounterVec::new(
        Opts::new(
            format!("apiserver_{kind}_admission_policy_check_total"),
            format!("{kind} admission policy check total, labeled by policy and further identified by binding."),
        ),
        labels,
    )?;
    let duration = HistogramVec::new(
        HistogramOpts::new(
            format!("apiserver_{kind}_admission_policy_check_duration_seconds"),
            format!(
                "{kind} admission latency for individual expressions in seconds, labeled by policy and further \
                 including binding."
            ),
        )
        .buckets(CHECK_BUCKETS.to_vec()),
        labels,
    )?;
    registry.register(Box::new(total.clone()))?;
    registry.register(Box::new(duration.clone()))?;
    Ok((total, duration))
}

impl PolicyMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let evaluation = Histogram::with_opts(
            HistogramOpts::new("apiserver_cel_evaluation_duration_seconds", "CEL evaluation time in seconds.")
                .buckets(vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
        )?;
        registry.register(Box::new(evaluation.clone()))?;
        Ok(Arc::new(Self {
            validating: check(
                registry,
                "validating",
                &["policy", "policy_binding", "error_type", "enforcement_action"],
            )?,
            mutating: check(registry, "mutating", &["policy", "policy_binding", "error_type"])?,
            evaluation,
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

    pub(super) fn evaluated(&self, took: Duration) {
        self.evaluation.observe(took.as_secs_f64());
    }
}
