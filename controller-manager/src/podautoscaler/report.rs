//! Metrics of the controller itself.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, Registry};
use runtime::metrics::{self, Stability};

/// What a look at an autoscaler, or at one of its metrics, led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Action {
    ScaleUp,
    ScaleDown,
    #[default]
    None,
}

impl Action {
    /// From one number of replicas to another.
    pub(super) fn of(current: i32, desired: i32) -> Self {
        match desired.cmp(&current) {
            std::cmp::Ordering::Greater => Self::ScaleUp,
            std::cmp::Ordering::Less => Self::ScaleDown,
            std::cmp::Ordering::Equal => Self::None,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::ScaleUp => "scale_up",
            Self::ScaleDown => "scale_down",
            Self::None => "none",
        }
    }
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The autoscaler is wrong.
    Spec,
    /// Something else.
    Internal,
}

fn error_label(fault: Option<Fault>) -> &'static str {
    match fault {
        Some(Fault::Spec) => "spec",
        Some(Fault::Internal) => "internal",
        None => "none",
    }
}

/// `horizontal_pod_autoscaler_controller_*`.
pub(super) struct Report {
    reconciliations: IntCounterVec,
    durations: HistogramVec,
    computations: IntCounterVec,
    computation_durations: HistogramVec,
}

impl Report {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        const PREFIX: &str = "horizontal_pod_autoscaler_controller";
        let name = |tail: &str| format!("{PREFIX}_{tail}");
        let buckets = metrics::exponential_buckets(0.001, 2.0, 15);
        let counter = |tail: &str, help: &str, labels: &[&str]| {
            metrics::counter_vec(registry, Stability::Alpha, &name(tail), help, labels)
        };
        let histogram = |tail: &str, help: &str, labels: &[&str]| {
            metrics::histogram_vec(registry, Stability::Alpha, &name(tail), help, labels, &buckets)
        };
        let (whole, single) = (&["action", "error"][..], &["action", "error", "metric_type"][..]);
        Ok(Self {
            reconciliations: counter("reconciliations_total", "Number of reconciliations of HPA controller.", whole)?,
            durations: histogram(
                "reconciliation_duration_seconds",
                "The time(seconds) that the HPA controller takes to reconcile once.",
                whole,
            )?,
            computations: counter("metric_computation_total", "Number of metric computations.", single)?,
            computation_durations: histogram(
                "metric_computation_duration_seconds",
                "The time(seconds) that the HPA controller takes to calculate one metric.",
                single,
            )?,
        })
    }

    pub(super) fn reconciled(&self, action: Action, fault: Option<Fault>, took: Duration) {
        let labels = &[action.label(), error_label(fault)];
        self.reconciliations.with_label_values(labels).inc();
        self.durations.with_label_values(labels).observe(took.as_secs_f64());
    }

    pub(super) fn computed(&self, action: Action, fault: Option<Fault>, kind: &str, took: Duration) {
        let labels = &[action.label(), error_label(fault), kind];
        self.computations.with_label_values(labels).inc();
        self.computation_durations.with_label_values(labels).observe(took.as_secs_f64());
    }
}
