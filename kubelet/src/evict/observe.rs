//! Signals read from statistics.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::threshold::Signal;
use crate::platform::FsUsage;
use crate::stats::NodeStats;

/// A signal's value at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What there is.
    pub available: u64,
    /// Of this.
    pub capacity: u64,
    /// When.
    pub at: Timestamp,
}

/// Values by signal; what could not be read is absent.
pub type Observations = BTreeMap<Signal, Observation>;

/// Reads all signals.
pub(super) fn observe(node: &NodeStats, now: Timestamp) -> Observations {
    let mut out = Observations::new();
    if node.memory_capacity > 0 {
        let available = node.memory_capacity.saturating_sub(node.group.usage.working_set());
        out.insert(Signal::Memory, Observation { available, capacity: node.memory_capacity, at: node.group.at });
    }
    if let Some((_, pods)) = node.system.iter().find(|(name, _)| *name == "pods")
        && let Some(capacity) = pods.usage.memory_limit
    {
        let available = capacity.saturating_sub(pods.usage.working_set());
        out.insert(Signal::AllocatableMemory, Observation { available, capacity, at: pods.at });
    }
    let mut fs = |usage: &FsUsage, bytes: Signal, inodes: Signal| {
        out.insert(bytes, Observation { available: usage.available, capacity: usage.capacity, at: now });
        // Some file systems make inodes as they need them.
        if usage.inodes > 0 {
            out.insert(inodes, Observation { available: usage.inodes_free, capacity: usage.inodes, at: now });
        }
    };
    if let Some(usage) = &node.fs {
        fs(usage, Signal::NodeFs, Signal::NodeFsInodes);
    }
    if let Some((usage, _)) = &node.image_fs {
        fs(usage, Signal::ImageFs, Signal::ImageFsInodes);
    }
    if let Some((usage, _)) = &node.container_fs {
        fs(usage, Signal::ContainerFs, Signal::ContainerFsInodes);
    }
    if let Some(ids) = node.processes {
        let available = ids.max.saturating_sub(ids.used);
        out.insert(Signal::Pid, Observation { available, capacity: ids.max, at: now });
    }
    out
}
