//! Numbers for control groups.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::Settings;
use crate::cri::v1;
use crate::node::NodeFacts;
use crate::platform::CgroupLimits;
use crate::pods;
use crate::pods::resources::{self, Effective, Qos};

/// A container's limits.
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    node: &NodeFacts,
    settings: &Settings,
) -> v1::LinuxContainerResources {
    let own = container.resources.as_ref();
    let pod_level = pods::spec(pod).resources.as_ref();
    let limit = |name: &str| resources::limit(own, name).or_else(|| resources::limit(pod_level, name));
    let cpu_request = resources::request(own, "cpu").unwrap_or(0);
    let cpu_limit = limit("cpu").unwrap_or(0);
    let quota = if settings.cpu_quota { resources::quota(cpu_limit, settings.cpu_period) } else { -1 };
    let mut out = v1::LinuxContainerResources {
        cpu_shares: resources::shares(cpu_request),
        cpu_quota: quota,
        cpu_period: settings.cpu_period,
        memory_limit_in_bytes: limit("memory").unwrap_or(0),
        oom_score_adj: resources::oom_score_adj(pod, container, node.memory_capacity()),
        hugepage_limits: hugepages(settings, |name| resources::limit(own, name).unwrap_or(0))
            .into_iter()
            .map(|(page_size, bytes)| v1::HugepageLimit { page_size, limit: u64::try_from(bytes).unwrap_or(0) })
            .collect(),
        ..v1::LinuxContainerResources::default()
    };
    if settings.oom_group {
        out.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    if settings.unified {
        let swap = swap_bytes(pod, container, node, settings);
        out.unified.insert("memory.swap.max".to_owned(), swap.to_string());
    }
    out
}

/// Whether a container has a share of the node's swap.
pub fn may_swap(pod: &Pod, container: &Container, settings: &Settings) -> bool {
    let request = resources::request(container.resources.as_ref(), "memory").unwrap_or(0);
    settings.limited_swap
        && resources::qos(pod) == Qos::Burstable
        && !pods::is_critical(pod)
        && request > 0
        && resources::limit(container.resources.as_ref(), "memory") != Some(request)
}

/// Swap in proportion to the request, for those who may have it.
fn swap_bytes(pod: &Pod, container: &Container, node: &NodeFacts, settings: &Settings) -> i64 {
    if !may_swap(pod, container, settings) || node.memory_capacity() <= 0 {
        return 0;
    }
    let request = resources::request(container.resources.as_ref(), "memory").unwrap_or(0);
    let share = i128::from(request) * i128::from(settings.swap_capacity) / i128::from(node.memory_capacity());
    i64::try_from(share).unwrap_or(0)
}

fn hugepages(settings: &Settings, amount: impl Fn(&str) -> i64) -> Vec<(String, i64)> {
    let resource =
        |size: &str| format!("hugepages-{}", size.replace("KB", "Ki").replace("MB", "Mi").replace("GB", "Gi"));
    settings.huge_pages.iter().map(|size| (size.clone(), amount(&resource(size)))).collect()
}

/// Limits of a Pod's group.
pub fn pod_limits(pod: &Pod, settings: &Settings) -> CgroupLimits {
    let sums = Effective::of(pod);
    let qos = resources::qos(pod);
    let mut limits = CgroupLimits { pids: settings.pids_limit, ..CgroupLimits::default() };
    limits.hugepages = hugepages(settings, |name| sums.request(name));
    if qos == Qos::BestEffort {
        limits.cpu_shares = Some(resources::MIN_SHARES);
        return limits;
    }
    limits.cpu_shares = Some(resources::shares(sums.request("cpu")));
    let quota = match sums.limit("cpu") {
        Some(limit) if settings.cpu_quota => resources::quota(limit, settings.cpu_period),
        _ => -1,
    };
    limits.cpu_quota = Some(quota);
    limits.cpu_period = Some(settings.cpu_period);
    limits.memory = Some(sums.limit("memory").unwrap_or(-1));
    limits
}

/// Limits of a class's group, given the Pods in it.
pub fn qos_limits<'a>(qos: Qos, pods: impl Iterator<Item = &'a Pod>) -> CgroupLimits {
    let shares = match qos {
        Qos::BestEffort => resources::MIN_SHARES,
        Qos::Burstable | Qos::Guaranteed => {
            let sum = pods.filter(|pod| resources::qos(pod) == qos).map(|pod| Effective::of(pod).request("cpu"));
            resources::shares(sum.fold(0_i64, i64::saturating_add))
        }
    };
    CgroupLimits { cpu_shares: Some(shares), ..CgroupLimits::default() }
}
