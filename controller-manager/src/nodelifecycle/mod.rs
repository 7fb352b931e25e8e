//! Node lifecycle: notices nodes that have gone silent, taints them, and evicts Pods that do not tolerate it.
//!
//! - [`monitor`]: every few seconds, which nodes are alive; conditions, `NoExecute` taints, zones.
//! - [`health`]: when a node was last heard of, by this process's clock.
//! - [`zones`]: how many nodes of a zone are down, and how fast they may be tainted.
//! - [`taints`]: `NoSchedule` taints and labels that follow the conditions at once.
//! - [`eviction`]: the taint-eviction controller.

pub(crate) mod eviction;
mod health;
mod monitor;
pub(crate) mod options;
mod taints;
mod zones;

pub(crate) use monitor::start;

use k8s_openapi::{
    api::core::v1::{Node, PodCondition, PodStatus, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};

pub(crate) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(crate) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a node that is not coming back.
pub(crate) const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const NO_EXECUTE: &str = "NoExecute";
const NO_SCHEDULE: &str = "NoSchedule";

/// Sets a condition of a Pod; the transition time changes only with the status.
pub(crate) fn set_condition(status: &mut PodStatus, kind: &str, value: &str, reason: &str, message: &str, now: Time) {
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    let new = PodCondition {
        type_: kind.to_owned(),
        status: value.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then(|| message.to_owned()),
        last_transition_time: Some(now),
        ..PodCondition::default()
    };
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(present) => {
            let since = if present.status == value { present.last_transition_time.clone() } else { None };
            *present = PodCondition { last_transition_time: since.or(new.last_transition_time.clone()), ..new };
        }
        None => conditions.push(new),
    }
}

/// Value of a condition; `None` if the node has none of the type.
fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// Whether the node says that it is ready.
pub(crate) fn is_ready(node: &Node) -> bool {
    condition(node, "Ready") == Some("True")
}

/// Whether a taint says that the node is out of service.
pub(crate) fn is_out_of_service(node: &Node) -> bool {
    taints_of(node).iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn taints_of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}
