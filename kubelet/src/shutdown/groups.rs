//! Who ends when.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::config::{KubeletConfiguration, ShutdownGrace};
use crate::pods::{self, SYSTEM_CRITICAL_PRIORITY};

/// Pods of one priority and above, up to the next group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Lowest priority.
    pub priority: i32,
    /// Time that its Pods have together.
    pub time: Duration,
}

/// Groups of a configuration, lowest priority first; none where nothing is asked for.
pub fn groups(config: &KubeletConfiguration) -> Vec<Group> {
    let mut groups: Vec<Group> = config.shutdown_grace_period_by_pod_priority.iter().map(group).collect();
    let (all, critical) = (config.shutdown_grace_period.0, config.shutdown_grace_period_critical_pods.0);
    if groups.is_empty() && !all.is_zero() {
        groups = vec![
            Group { priority: 0, time: all.saturating_sub(critical) },
            Group { priority: SYSTEM_CRITICAL_PRIORITY, time: critical },
        ];
    }
    groups.sort_by_key(|group| group.priority);
    groups
}

fn group(one: &ShutdownGrace) -> Group {
    let seconds = u64::try_from(one.shutdown_grace_period_seconds).unwrap_or(0);
    Group { priority: one.priority, time: Duration::from_secs(seconds) }
}

/// The group a Pod is in: the last one that does not begin above it, or the first of all.
pub(super) fn position(groups: &[Group], pod: &Pod) -> usize {
    let priority = pods::spec(pod).priority.unwrap_or(0);
    groups.partition_point(|group| group.priority <= priority).saturating_sub(1)
}
