//! Packing of endpoints into slices with as few writes as possible: pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use k8s_openapi::{
    api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use super::TRIGGER_TIME;

/// What all slices of a set have in common.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    pub(crate) namespace: String,
    /// With the dash.
    pub(crate) generate_name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: OwnerReference,
    /// Endpoints in a slice.
    pub(crate) most: usize,
    /// When the change happened that is written.
    pub(crate) trigger: Option<String>,
    /// Whether no endpoints still make one empty slice.
    pub(crate) placeholder: bool,
}

/// Endpoints of one address type that have the same ports.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) address_type: String,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// What to write.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<EndpointSlice>,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.delete.is_empty()
    }
}

/// What makes two endpoints the same one: it may have changed since.
type Identity = (Vec<String>, String, String, String);

fn identity(endpoint: &Endpoint) -> Identity {
    let target = endpoint.target_ref.clone().unwrap_or_default();
    let mut addresses = endpoint.addresses.clone();
    addresses.sort_unstable();
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    (addresses, text(&endpoint.hostname), text(&target.namespace), text(&target.name))
}

/// Ports in an order of their own, as text.
fn port_key(ports: &[EndpointPort]) -> String {
    let mut texts: Vec<String> = ports.iter().map(|p| serde_json::to_string(p).unwrap_or_default()).collect();
    texts.sort_unstable();
    texts.join(",")
}

fn endpoints_of(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

fn ports_of(slice: &EndpointSlice) -> &[EndpointPort] {
    slice.ports.as_deref().unwrap_or_default()
}

/// Compares the slices that exist with the endpoints there should be. `types` are the address types of the set; groups
/// have one of these.
pub(crate) fn pack(blueprint: &Blueprint, types: &[&str], existing: &[Arc<EndpointSlice>], groups: Vec<Group>) -> Plan {
    let mut plan = Plan::default();
    let mut by_type: BTreeMap<&str, Vec<Group>> = types.iter().map(|t| (*t, Vec::new())).collect();
    for group in groups {
        if let Some(of_type) = by_type.get_mut(group.address_type.as_str()) {
            of_type.push(group);
        }
    }
    for (address_type, groups) in by_type {
        let present: Vec<&EndpointSlice> =
            existing.iter().map(AsRef::as_ref).filter(|s| s.address_type == address_type).collect();
        pack_type(blueprint, address_type, &present, groups, &mut plan);
    }
    let strange = existing.iter().filter(|s| !types.contains(&s.address_type.as_str()));
    plan.delete.extend(strange.map(|s| EndpointSlice::clone(s)));
    for slice in plan.create.iter_mut().chain(&mut plan.update) {
        stamp(blueprint, slice);
    }
    plan
}

fn stamp(blueprint: &Blueprint, slice: &mut EndpointSlice) {
    let annotations = slice.metadata.annotations.get_or_insert_default();
    match &blueprint.trigger {
        Some(time) => drop(annotations.insert(TRIGGER_TIME.into(), time.clone())),
        None => drop(annotations.remove(TRIGGER_TIME)),
    }
    if annotations.is_empty() {
        slice.metadata.annotations = None;
    }
}

fn pack_type(
    blueprint: &Blueprint,
    address_type: &str,
    present: &[&EndpointSlice],
    groups: Vec<Group>,
    plan: &mut Plan,
) {
    let mut by_ports: BTreeMap<String, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in present {
        by_ports.entry(port_key(ports_of(slice))).or_default().push(slice);
    }
    let mut local = Plan::default();
    for group in groups.into_iter().filter(|g| !g.endpoints.is_empty()) {
        let slices = by_ports.remove(&port_key(&group.ports)).unwrap_or_default();
        pack_group(blueprint, &slices, group, &mut local);
    }
    local.delete.extend(by_ports.into_values().flatten().cloned());
    if blueprint.placeholder && local.create.is_empty() && local.delete.len() == present.len() {
        let empty = fresh(blueprint, address_type, Vec::new(), Vec::new());
        match local.delete.as_slice() {
            [one] if endpoints_of(one).is_empty() && ports_of(one).is_empty() && common(blueprint, one) => {
                local.delete.clear();
            }
            _ => local.create.push(empty),
        }
    }
    reuse(&mut local);
    plan.create.append(&mut local.create);
    plan.update.append(&mut local.update);
    plan.delete.append(&mut local.delete);
}

/// Whether labels and annotations are those of the set.
fn common(blueprint: &Blueprint, slice: &EndpointSlice) -> bool {
    let annotations = slice.metadata.annotations.iter().flatten().filter(|(k, _)| *k != TRIGGER_TIME);
    slice.metadata.labels.as_ref() == Some(&blueprint.labels)
        && (blueprint.annotations.is_empty() || annotations.eq(blueprint.annotations.iter()))
}

fn dressed(blueprint: &Blueprint, slice: &EndpointSlice) -> EndpointSlice {
    let mut slice = slice.clone();
    slice.metadata.labels = Some(blueprint.labels.clone());
    if !blueprint.annotations.is_empty() {
        slice.metadata.annotations = Some(blueprint.annotations.clone());
    }
    slice
}

fn fresh(
    blueprint: &Blueprint,
    address_type: &str,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(blueprint.generate_name.clone()),
            namespace: Some(blueprint.namespace.clone()),
            labels: Some(blueprint.labels.clone()),
            annotations: Some(blueprint.annotations.clone()).filter(|a| !a.is_empty()),
            owner_references: Some(vec![blueprint.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: address_type.to_owned(),
        ports: Some(ports),
        endpoints: Some(endpoints),
    }
}

fn pack_group(blueprint: &Blueprint, slices: &[&EndpointSlice], group: Group, plan: &mut Plan) {
    let order: Vec<Identity> = group.endpoints.iter().map(identity).collect();
    let mut wanted: HashMap<Identity, Endpoint> = order.iter().cloned().zip(group.endpoints).collect();
    let (mut changed, mut unchanged) = (Vec::new(), Vec::new());
    // What is there stays where it is.
    for slice in slices {
        let mut same = true;
        let kept: Vec<Endpoint> = endpoints_of(slice)
            .iter()
            .filter_map(|present| {
                let next = wanted.remove(&identity(present));
                same &= next.as_ref() == Some(present);
                next
            })
            .collect();
        if kept.is_empty() {
            plan.delete.push((*slice).clone());
        } else if same && kept.len() == endpoints_of(slice).len() {
            if common(blueprint, slice) {
                unchanged.push((*slice).clone());
            } else {
                changed.push(dressed(blueprint, slice));
            }
        } else {
            changed.push(EndpointSlice { endpoints: Some(kept), ..dressed(blueprint, slice) });
        }
    }
    let mut rest: Vec<Endpoint> = order.iter().filter_map(|i| wanted.remove(i)).collect();
    // Slices that are written anyway are filled, the fullest first.
    changed.sort_by_key(|s| std::cmp::Reverse(endpoints_of(s).len()));
    for slice in &mut changed {
        fill(slice, &mut rest, blueprint.most);
    }
    // One slice that takes all of the rest saves a new one.
    if !rest.is_empty() && rest.len() < blueprint.most {
        let fits = |s: &&EndpointSlice| endpoints_of(s).len() + rest.len() <= blueprint.most;
        let fullest = unchanged.iter().filter(fits).max_by_key(|s| endpoints_of(s).len()).cloned();
        if let Some(mut slice) = fullest {
            fill(&mut slice, &mut rest, blueprint.most);
            changed.push(slice);
        }
    }
    while !rest.is_empty() {
        let mut slice = fresh(blueprint, &group.address_type, group.ports.clone(), Vec::new());
        fill(&mut slice, &mut rest, blueprint.most);
        plan.create.push(slice);
    }
    plan.update.append(&mut changed);
}

fn fill(slice: &mut EndpointSlice, rest: &mut Vec<Endpoint>, most: usize) {
    let room = most.saturating_sub(endpoints_of(slice).len()).min(rest.len());
    slice.endpoints.get_or_insert_default().extend(rest.drain(..room));
}

/// A slice to delete becomes one to create: one write instead of two, and no gap.
fn reuse(plan: &mut Plan) {
    while !plan.create.is_empty()
        && let Some(at) = plan.delete.iter().position(|s| s.metadata.deletion_timestamp.is_none())
    {
        let old = plan.delete.remove(at);
        let Some(new) = plan.create.pop() else { return };
        let metadata = ObjectMeta {
            labels: new.metadata.labels,
            annotations: new.metadata.annotations.or_else(|| old.metadata.annotations.clone()),
            ..old.metadata
        };
        plan.update.push(EndpointSlice { metadata, ..new });
    }
}

#[cfg(test)]
mod tests;
