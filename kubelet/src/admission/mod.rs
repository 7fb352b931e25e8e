//! Whether the node takes a Pod that was bound to it. The first refusal counts; a refused Pod is never started.

mod features;
mod fit;
mod place;
mod preempt;
mod sysctls;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

pub use sysctls::Allowlist;

use crate::evict;
use crate::node::NodeFacts;
use crate::node::status::Pressure;
use crate::pods;
use crate::shutdown;

/// Why a Pod is not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Reason of status and event.
    pub reason: String,
    /// Text of the event; the status says it too.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// What not every node can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Support {
    /// The kernel enforces AppArmor profiles.
    pub apparmor: bool,
    /// The runtime leaves out groups that only the image knows.
    pub strict_groups: bool,
}

/// What the decision is made from.
pub struct Situation<'a> {
    /// The node.
    pub node: &'a NodeFacts,
    /// What is short.
    pub pressure: Pressure,
    /// What the node can do.
    pub support: Support,
    /// Whether the machine is going down.
    pub shutting_down: bool,
    /// Sysctls that Pods may set.
    pub sysctls: &'a Allowlist,
    /// Features that the Node declares, if it declares any.
    pub declared: Option<&'a [&'static str]>,
    /// Pods that are here and not over.
    pub others: &'a [Arc<Pod>],
}

/// Decides; answers the Pods that have to end first, which critical Pods demand.
pub fn admit(pod: &Pod, situation: &Situation<'_>) -> Result<Vec<Victim>, Refusal> {
    evict::admit(pod, situation.pressure)?;
    situation.sysctls.admit(pod)?;
    let shortages = fit::admit(pod, situation)?;
    let Some(first) = shortages.first() else {
        last(pod, situation)?;
        return Ok(Vec::new());
    };
    if !pods::is_critical(pod) {
        return Err(first.refusal());
    }
    let chosen = preempt::victims(&shortages, situation.others)?;
    last(pod, situation)?;
    Ok(chosen.into_iter().map(|pod| Victim { pod, resource: first.resource.clone() }).collect())
}

/// What is asked when there is room.
fn last(pod: &Pod, situation: &Situation<'_>) -> Result<(), Refusal> {
    features::admit(pod, situation.support)?;
    features::admit_declared(pod, None, situation.declared)?;
    let (reason, message) = shutdown::REFUSAL;
    if situation.shutting_down { Err(Refusal::new(reason, message)) } else { Ok(()) }
}

/// Decides about other amounts of a Pod that is here; nobody has to end for them.
pub fn admit_resize(pod: &Pod, has: &Pod, situation: &Situation<'_>) -> Result<(), Refusal> {
    evict::admit(pod, situation.pressure)?;
    situation.sysctls.admit(pod)?;
    if let Some(shortage) = fit::admit(pod, situation)?.first() {
        return Err(shortage.refusal());
    }
    features::admit_declared(pod, Some(has), situation.declared)
}

/// Whether the Pod and the Node want each other.
pub fn admit_to(pod: &Pod, node: &Node) -> Result<(), Refusal> {
    place::admit(pod, node)
}

/// A Pod that ends so that a critical one fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Victim {
    /// The Pod.
    pub pod: Arc<Pod>,
    /// What was short.
    pub resource: String,
}
