//! What is written of devices that were found.

use k8s_openapi::{
    api::{
        core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm},
        resource::v1::{
            AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
        },
    },
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    allocate::Choice,
    inventory::{Place, reach},
    wanted::WantedClaim,
};
use crate::objects::Reach;

/// The allocation of a claim. `share` makes names for parts of devices.
pub(super) fn allocation(
    claim: &WantedClaim,
    choices: &[Choice<'_>],
    place: &Place<'_>,
    share: impl Fn() -> String,
) -> AllocationResult {
    let results = choices.iter().map(|choice| {
        let amounts = choice.shared.as_ref().filter(|amounts| !amounts.is_empty());
        DeviceRequestAllocationResult {
            request: choice.want.name.to_string(),
            driver: choice.device.id.driver.to_string(),
            pool: choice.device.id.pool.to_string(),
            device: choice.device.id.device.to_string(),
            admin_access: choice.want.admin.then_some(true),
            tolerations: Some(choice.want.tolerations.clone()).filter(|t| !t.is_empty()),
            binding_conditions: choice.device.binding_conditions.clone(),
            binding_failure_conditions: choice.device.failure_conditions.clone(),
            share_id: choice.shared.as_ref().map(|_| share()),
            consumed_capacity: amounts.map(|amounts| {
                amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect()
            }),
        }
    });
    let results: Vec<_> = results.collect();
    let config = configuration(claim, choices);
    AllocationResult {
        devices: Some(DeviceAllocationResult {
            results: Some(results),
            config: Some(config).filter(|config| !config.is_empty()),
        }),
        node_selector: node_selector(choices, place),
        allocation_timestamp: None,
    }
}

/// Configuration of the classes, then that of the claim.
fn configuration(claim: &WantedClaim, choices: &[Choice<'_>]) -> Vec<DeviceAllocationConfiguration> {
    let mut all = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    for choice in choices {
        if told.contains(&&*choice.want.name) {
            continue;
        }
        told.push(&choice.want.name);
        all.extend(choice.want.class.config.iter().map(|config| DeviceAllocationConfiguration {
            source: "FromClass".to_owned(),
            requests: Some(vec![choice.want.name.to_string()]),
            opaque: config.opaque.clone(),
        }));
    }
    for config in claim.spec.config.iter().flatten() {
        if choices.iter().any(|choice| choice.want.is_among(config.requests.as_ref())) {
            all.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    all
}

/// Nodes from which all chosen devices can be used; `None` for all nodes.
fn node_selector(choices: &[Choice<'_>], place: &Place<'_>) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    for choice in choices {
        match reach(choice.slice, choice.device) {
            _ if choice.device.binds_to_node => return Some(only(place.name)),
            Some(Reach::Node(_)) => return Some(only(place.name)),
            Some(Reach::Nodes(_, selector)) => {
                // There is exactly one term.
                let Some(wanted) = selector.node_selector_terms.first() else { continue };
                merge(&mut term.match_expressions, wanted.match_expressions.as_ref());
                merge(&mut term.match_fields, wanted.match_fields.as_ref());
            }
            _ => {}
        }
    }
    (term != NodeSelectorTerm::default()).then(|| NodeSelector { node_selector_terms: vec![term] })
}

fn only(node: &str) -> NodeSelector {
    let name = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None };
    NodeSelector { node_selector_terms: vec![term] }
}

fn merge(into: &mut Option<Vec<NodeSelectorRequirement>>, more: Option<&Vec<NodeSelectorRequirement>>) {
    for requirement in more.into_iter().flatten() {
        let known = into.get_or_insert_default();
        if !known.contains(requirement) {
            known.push(requirement.clone());
        }
    }
}
