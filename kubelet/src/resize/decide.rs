//! Which resizes are taken, in which order, and which can never be.

use std::cmp::Reverse;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::given::{Given, same};
use crate::admission::{self, Refusal, Situation};
use crate::config::KubeletConfiguration;
use crate::pods;
use crate::pods::resources::{Effective, Qos, limit, qos, request};
use crate::spec::{Settings, may_swap};

/// Reason of a refusal that no waiting helps against.
pub(crate) const INFEASIBLE: &str = "Infeasible";

/// Whether the node can give a Pod what it wants instead of what it has.
pub fn decide(
    wanted: &Pod,
    has: &Pod,
    config: &KubeletConfiguration,
    settings: &Settings,
    situation: &Situation<'_>,
) -> Result<(), Refusal> {
    let guaranteed = qos(wanted) == Qos::Guaranteed;
    if guaranteed && config.cpu_manager_policy == "static" {
        let text = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
        return Err(Refusal::new(INFEASIBLE, text));
    }
    if guaranteed && config.memory_manager_policy == "Static" {
        let text = "Resize is infeasible for Guaranteed Pods alongside Memory Manager policy \"Static\"";
        return Err(Refusal::new(INFEASIBLE, text));
    }
    if changes_swap(wanted, has, settings) {
        return Err(Refusal::new(INFEASIBLE, "In-place resize of containers with swap is not supported."));
    }
    admission::admit_resize(wanted, has, situation)
}

/// Whether a container's share of the swap would change while it runs.
fn changes_swap(wanted: &Pod, has: &Pod, settings: &Settings) -> bool {
    let memory = |container: &Container| request(container.resources.as_ref(), "memory");
    pods::containers(wanted).iter().any(|container| {
        let Some(before) = pods::containers(has).iter().find(|before| before.name == container.name) else {
            return false;
        };
        memory(container) != memory(before)
            && !needs_restart(before, "memory")
            && (may_swap(wanted, container, settings) || may_swap(has, before, settings))
    })
}

/// Whether a container has to start anew for a change of a resource.
pub(crate) fn needs_restart(container: &Container, resource: &str) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
}

/// What comes first: smaller Pods, then the more important, then Guaranteed ones, then those that wait longest.
pub(crate) fn precedence(wanted: &Pod, has: &Pod, since: i64) -> impl Ord + use<> {
    let class = match qos(wanted) {
        Qos::Guaranteed => 0,
        Qos::Burstable => 1,
        Qos::BestEffort => 2,
    };
    (Reverse(shrinks(wanted, has)), Reverse(pods::priority(wanted)), class, since)
}

/// Whether no request grows.
fn shrinks(wanted: &Pod, has: &Pod) -> bool {
    ["cpu", "memory"].iter().all(|name| Effective::of(wanted).request(name) <= Effective::of(has).request(name))
}

/// Which requests and limits of containers change: resource, `requests` or `limits`, and what happens to it.
pub(crate) fn requested(wanted: &Pod, has: &Pod) -> Vec<[&'static str; 3]> {
    let (to, from) = (Given::of(wanted), Given::of(has));
    let mut out = Vec::new();
    for (name, after) in &to.containers {
        let before = from.containers.get(name);
        for resource in ["cpu", "memory"].into_iter().filter(|name| !same(before, Some(after), name)) {
            for (what, old, new) in [
                ("requests", request(before, resource), request(Some(after), resource)),
                ("limits", limit(before, resource), limit(Some(after), resource)),
            ] {
                let operation = match (old, new) {
                    (None, Some(_)) => "add",
                    (Some(_), None) => "remove",
                    (Some(old), Some(new)) if new > old => "increase",
                    (Some(old), Some(new)) if new < old => "decrease",
                    _ => continue,
                };
                out.push([resource, what, operation]);
            }
        }
    }
    out
}
