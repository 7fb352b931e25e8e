//! Flags of the autoscaler.

use std::time::Duration;

use clap::Args;
use runtime::flags::duration;

/// Horizontal scaling.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Horizontal Pod autoscaler flags")]
pub struct AutoscalerOptions {
    /// The number of horizontal pod autoscaler objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_horizontal_pod_autoscaler_syncs: usize,
    /// The period for syncing the number of pods in horizontal pod autoscaler.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub horizontal_pod_autoscaler_sync_period: Duration,
    /// The period for which autoscaler will look backwards and not scale down below any recommendation it made during
    /// that period.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub horizontal_pod_autoscaler_downscale_stabilization: Duration,
    /// The minimum change (from 1.0) in the desired-to-actual metrics ratio for the horizontal pod autoscaler to
    /// consider scaling.
    #[arg(long, default_value_t = 0.1)]
    pub horizontal_pod_autoscaler_tolerance: f64,
    /// The period after pod start when CPU samples might be skipped.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub horizontal_pod_autoscaler_cpu_initialization_period: Duration,
    /// The period after pod start during which readiness changes will be treated as initial readiness.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub horizontal_pod_autoscaler_initial_readiness_delay: Duration,
}

impl AutoscalerOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.concurrent_horizontal_pod_autoscaler_syncs < 1 {
            problems.push("concurrent-horizontal-pod-autoscaler-syncs must be greater than 0, but got 0".to_owned());
        }
        if self.horizontal_pod_autoscaler_sync_period.is_zero() {
            problems.push("horizontal-pod-autoscaler-sync-period must be greater than 0".to_owned());
        }
        let tolerance = self.horizontal_pod_autoscaler_tolerance;
        if !(tolerance.is_finite() && tolerance >= 0.0) {
            problems.push(format!("horizontal-pod-autoscaler-tolerance must not be negative, got {tolerance}"));
        }
        problems
    }
}
