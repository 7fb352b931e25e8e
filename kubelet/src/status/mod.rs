//! The status of a Pod, computed from its spec, the runtime's view and what went wrong on the way.

mod amounts;
mod conditions;
mod containers;
mod phase;
mod store;

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodCondition, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub use store::{Pending, StatusStore, merge};

/// Whether a condition is the kubelet's to set.
pub(crate) fn is_owned(condition: &str) -> bool {
    conditions::OWNED.contains(&condition)
}

use crate::cri::PodView;
use crate::node::NodeFacts;
use crate::pods;
use crate::pods::resources;
use crate::resize::Given;

/// Why a container does not run, as its waiting state shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
}

/// What probes say, for `started` and `ready`.
pub trait Readiness {
    /// Whether a running container has started.
    fn started(&self, container: &str, id: &str) -> bool;
    /// Whether a running, started container is ready.
    fn ready(&self, container: &str, id: &str) -> bool;
}

/// A status that overrides what containers say (rejected, evicted, deadline exceeded).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Phase.
    pub phase: &'static str,
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
    /// `DisruptionTarget` reason and message, where the kubelet ended the Pod.
    pub disruption: Option<(&'static str, String)>,
}

/// Everything a status is computed from.
pub struct StatusInput<'a> {
    /// Whether the Pod says when its sandbox is there.
    pub ready_to_start: bool,
    /// The Pod.
    pub pod: &'a Pod,
    /// The runtime's view.
    pub view: &'a PodView,
    /// The status before, or the API's.
    pub previous: Option<&'a PodStatus>,
    /// Start failures by container name.
    pub waiting: &'a HashMap<String, Waiting>,
    /// Termination messages by container id.
    pub messages: &'a HashMap<String, String>,
    /// Probe results.
    pub readiness: &'a dyn Readiness,
    /// The node.
    pub node: &'a NodeFacts,
    /// Scheme of container ids.
    pub runtime: &'a str,
    /// First seen.
    pub started: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// Everything has stopped for good.
    pub terminal: bool,
    /// What overrides.
    pub verdict: Option<&'a Verdict>,
    /// What the runtime was told of the containers' resources.
    pub actuated: &'a Given,
    /// Every container is being removed, to start from the beginning.
    pub restarting_all: bool,
    /// How far a resize is.
    pub resize: &'a [PodCondition],
}

/// Computes it.
pub fn compute(input: &StatusInput<'_>) -> PodStatus {
    let pod = input.pod;
    let mut status = PodStatus {
        init_container_statuses: containers::init(input),
        container_statuses: containers::regular(input),
        ephemeral_container_statuses: containers::ephemeral(input),
        ..PodStatus::default()
    };
    phase::set(input, &mut status);
    set_addresses(input, &mut status);
    status.qos_class = Some(resources::qos(pod).as_str().to_owned());
    status.start_time = input
        .previous
        .and_then(|previous| previous.start_time.clone())
        .or_else(|| Some(Time(whole_second(input.started))));
    status.observed_generation = pod.metadata.generation;
    amounts::set(input, &mut status);
    conditions::set(input, &mut status);
    status
}

/// The status of a Pod that is refused at the door.
pub fn rejected(pod: &Pod, reason: &str, message: &str) -> PodStatus {
    PodStatus {
        phase: Some("Failed".to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(format!("Pod was rejected: {message}")),
        qos_class: Some(resources::qos(pod).as_str().to_owned()),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// Timestamps go out in whole seconds.
pub(crate) fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn set_addresses(input: &StatusInput<'_>, status: &mut PodStatus) {
    let node: Vec<String> = input.node.addresses.iter().map(ToString::to_string).collect();
    status.host_ip = node.first().cloned();
    status.host_ips = (!node.is_empty()).then(|| node.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let from_view = order_by_family(input.view.ips(), &node);
    let previous = input.previous.and_then(|previous| previous.pod_ips.clone()).unwrap_or_default();
    let previous: Vec<String> = previous.into_iter().map(|ip| ip.ip).collect();
    let ips = match (pods::host_network(input.pod), previous.is_empty()) {
        (true, true) => node,
        (true, false) => extend_family(previous, &node),
        (false, _) if !from_view.is_empty() => from_view,
        (false, _) => previous,
    };
    status.pod_ip = ips.first().cloned();
    status.pod_ips = (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect());
}

/// At most one address per family, the node's primary family first.
pub(crate) fn order_by_family(ips: &[String], node: &[String]) -> Vec<String> {
    let v6_first = node.first().is_some_and(|ip| ip.contains(':'));
    let first = |v6: bool| ips.iter().find(|ip| ip.contains(':') == v6).cloned();
    [first(v6_first), first(!v6_first)].into_iter().flatten().collect()
}

/// Host addresses never change, but a second family may be added.
fn extend_family(mut ips: Vec<String>, node: &[String]) -> Vec<String> {
    if ips.len() == 1 {
        let other = node.iter().find(|ip| ip.contains(':') != ips[0].contains(':')).cloned();
        ips.extend(other);
    }
    ips
}

#[cfg(test)]
mod tests;
