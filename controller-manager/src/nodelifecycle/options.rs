//! Flags about nodes.

use std::time::Duration;

use clap::Args;
use runtime::flags::duration;

/// Watching nodes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Node lifecycle controller flags")]
pub struct NodeOptions {
    /// The period for syncing the status of nodes.
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub node_monitor_period: Duration,
    /// How long a running node may be silent before it is marked unhealthy.
    #[arg(long, default_value = "50s", value_parser = duration)]
    pub node_monitor_grace_period: Duration,
    /// How long a starting node may be silent before it is marked unhealthy.
    #[arg(long, default_value = "1m", value_parser = duration)]
    pub node_startup_grace_period: Duration,
    /// Nodes tainted per second in a zone that is healthy.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f64,
    /// Nodes tainted per second in a large zone that is not.
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f64,
    /// Nodes from which a zone is large; smaller ones are not tainted while unhealthy.
    #[arg(long, default_value_t = 50)]
    pub large_cluster_size_threshold: usize,
    /// Part of the nodes of a zone that must be down for it to be unhealthy; at least three.
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f64,
    /// Finished Pods that are kept; none is removed if 0 or less.
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: i64,
}

impl NodeOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (flag, value) in [
            ("--node-eviction-rate", self.node_eviction_rate),
            ("--secondary-node-eviction-rate", self.secondary_node_eviction_rate),
            ("--unhealthy-zone-threshold", self.unhealthy_zone_threshold),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                problems.push(format!("{flag} must not be negative, got {value}"));
            }
        }
        if self.node_monitor_period.is_zero() {
            problems.push("--node-monitor-period must be greater than zero".to_owned());
        }
        problems
    }
}
