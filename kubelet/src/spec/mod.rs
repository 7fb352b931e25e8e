//! From a Pod to what the runtime is told: sandbox, containers, security, mounts, resources.

mod container;
mod mounts;
mod resources;
mod sandbox;
mod security;

use std::time::Duration;

pub use container::{ContainerInputs, Extras, container_config};
pub use resources::{container_resources, may_swap, pod_limits, qos_limits};
pub use sandbox::{SandboxInputs, pod_amounts, pod_cgroup, sandbox_config};
pub use security::ImageUser;

use crate::config::{self, Features, KubeletConfiguration};
use crate::net::dns::ClusterDns;
use crate::platform::{CgroupDriver, CgroupName};

/// A configuration that cannot be built from a Pod.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SpecError(pub String);

impl SpecError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Node-wide settings that shape containers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Cgroup driver in use.
    pub driver: CgroupDriver,
    /// Group above all Pods' groups.
    pub pods_root: CgroupName,
    /// Whether Pods have groups of their own by class.
    pub cgroups_per_qos: bool,
    /// Enforce cpu limits by quota.
    pub cpu_quota: bool,
    /// Quota period in microseconds.
    pub cpu_period: i64,
    /// Processes per Pod, if limited.
    pub pids_limit: Option<i64>,
    /// Containers without a profile get the runtime's.
    pub seccomp_default: bool,
    /// The whole container dies when one process is out of memory (v2).
    pub oom_group: bool,
    /// Whether the unified hierarchy is in use.
    pub unified: bool,
    /// Whether swap may be used by Burstable Pods.
    pub limited_swap: bool,
    /// Bytes of swap of the node.
    pub swap_capacity: i64,
    /// Huge page sizes of the kernel, as `2MB`.
    pub huge_pages: Vec<String>,
    /// Cluster DNS.
    pub dns: ClusterDns,
    /// The node's resolver file; empty means a local resolver.
    pub resolv_conf: String,
    /// The kernel enforces AppArmor profiles.
    pub apparmor: bool,
    /// What gates turn on and off.
    pub features: Features,
    /// Longest wait between restarts.
    pub max_restart_period: Duration,
}

impl Settings {
    /// Takes them from the configuration.
    pub fn new(config: &KubeletConfiguration, driver: CgroupDriver, unified: bool) -> Self {
        let root = CgroupName::parse(&config.cgroup_root);
        Self {
            driver,
            pods_root: if config.cgroups_per_qos { root.child("kubepods") } else { root },
            cgroups_per_qos: config.cgroups_per_qos,
            cpu_quota: config.cpu_cfs_quota,
            cpu_period: i64::try_from(config.cpu_cfs_quota_period.0.as_micros()).unwrap_or(100_000),
            pids_limit: Some(config.pod_pids_limit).filter(|limit| *limit > 0),
            seccomp_default: config.seccomp_default,
            oom_group: unified && config.single_process_oom_kill != Some(true),
            unified,
            limited_swap: config.memory_swap.swap_behavior == "LimitedSwap",
            swap_capacity: 0,
            huge_pages: Vec::new(),
            dns: ClusterDns { servers: config.cluster_dns.clone(), domain: config.cluster_domain.clone() },
            resolv_conf: config.resolv_conf.clone(),
            apparmor: false,
            features: Features::of(&config::gates(config)),
            max_restart_period: config.crash_loop_back_off.max_container_restart_period.0,
        }
    }
}

#[cfg(test)]
mod tests;
