//! Whether the node takes a Pod that was bound to it. The first refusal counts; a refused Pod is never started.

mod fit;
mod sysctls;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

pub use sysctls::Allowlist;

use crate::evict;
use crate::node::NodeFacts;
use crate::node::status::Pressure;

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

/// What the decision is made from.
pub struct Situation<'a> {
    /// The node.
    pub node: &'a NodeFacts,
    /// What is short.
    pub pressure: Pressure,
    /// Sysctls that Pods may set.
    pub sysctls: &'a Allowlist,
    /// Pods that are here and not over.
    pub others: &'a [Arc<Pod>],
}

/// Decides.
pub fn admit(pod: &Pod, situation: &Situation<'_>) -> Result<(), Refusal> {
    evict::admit(pod, situation.pressure)?;
    situation.sysctls.admit(pod)?;
    fit::admit(pod, situation)
}
