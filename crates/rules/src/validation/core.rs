//! Namespace, Node, Endpoints and ControllerRevision.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use super::{
    checks::{choice, cidr, endpoint_ip, ip, resource_amount},
    read::{list, pairs, present, same, text},
    spec_path,
};

/// Checks a Node.
pub(super) fn node(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let mut seen = HashSet::new();
    for (at, taint) in list(spec, "taints").iter().enumerate() {
        let path = Path::new("metadata").child("taints").index(at);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.invalid_all(&path.child("key"), &json!(key), names::qualified_name(key));
        let problems = names::label_value(value);
        if !problems.is_empty() {
            errors.invalid(&path.child("value"), &json!(value), &problems.join(";"));
        }
        choice(taint, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], &path, errors);
        if !seen.insert((key, effect)) {
            errors.duplicate_in(&path, taint, "taints must be unique by key and effect pair");
        }
    }
    if let Some(status) = present(object, "status") {
        node_resources(status, errors);
    }
    let cidrs = list(spec, "podCIDRs");
    let path = spec_path().child("podCIDRs");
    let nets: Vec<ipnet::IpNet> = cidrs
        .iter()
        .enumerate()
        .filter_map(|(at, text)| cidr(text.as_str().unwrap_or(""), &path.index(at), errors))
        .collect();
    let same_family = matches!(nets.as_slice(), [a, b] if a.addr().is_ipv4() == b.addr().is_ipv4());
    if cidrs.len() > 2 || same_family {
        errors.invalid(&path, &json!(cidrs), "may specify no more than one CIDR for each IP family");
    }
}

fn node_resources(status: &Value, errors: &mut ErrorList) {
    let path = Path::new("status");
    for field in ["capacity", "allocatable"] {
        for (name, amount) in pairs(status, field) {
            resource_amount(name, amount, &path.child(field).child(name), errors);
        }
    }
}

/// Checks what may not change of a stored Node.
pub(super) fn node_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (sent, stored) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    if !list(stored, "podCIDRs").is_empty() && list(sent, "podCIDRs") != list(stored, "podCIDRs") {
        let path = spec_path().child("podCIDRs");
        errors.forbidden(&path, "node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = text(stored, "providerID");
    if !provider.is_empty() && text(sent, "providerID") != provider {
        let path = spec_path().child("providerID");
        errors.forbidden(&path, "node updates may not change providerID except from \"\" to valid");
    }
}

/// Checks the status of a Node.
pub(super) fn node_status(new: &Value, errors: &mut ErrorList) {
    let status = new.get("status").unwrap_or(&Value::Null);
    node_resources(status, errors);
    let mut seen = HashSet::new();
    for (at, address) in list(status, "addresses").iter().enumerate() {
        if !seen.insert((text(address, "type"), text(address, "address"))) {
            errors.duplicate(&Path::new("status").child("addresses").index(at), address);
        }
    }
}

/// Checks the status of a Namespace.
pub(super) fn namespace_status(new: &Value, errors: &mut ErrorList) {
    let path = Path::new("status").child("Phase");
    let phase = new.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
    match (meta::is_deleting(new), phase) {
        (false, "Active") | (true, "Terminating") => {}
        (false, phase) => {
            errors.invalid(&path, &json!(phase), "may only be 'Active' if `deletionTimestamp` is empty");
        }
        (true, phase) => {
            errors.invalid(&path, &json!(phase), "may only be 'Terminating' if `deletionTimestamp` is not empty");
        }
    }
}

/// Checks the finalizers of a Namespace.
pub(super) fn namespace_finalize(new: &Value, errors: &mut ErrorList) {
    let finalizers = new.pointer("/spec/finalizers").and_then(Value::as_array);
    let path = spec_path().child("finalizers");
    for (at, finalizer) in finalizers.into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or("");
        let path = path.index(at);
        errors.invalid_all(&path, &json!(name), names::qualified_name(name));
        if !name.contains('/') && !crate::metadata::is_standard_finalizer(name) {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path, &json!(name), text);
        }
    }
}

/// Checks Endpoints.
pub(super) fn endpoints(object: &Value, errors: &mut ErrorList) {
    for (at, subset) in list(object, "subsets").iter().enumerate() {
        let path = Path::new("subsets").index(at);
        let lists = ["addresses", "notReadyAddresses"];
        if lists.iter().all(|field| list(subset, field).is_empty()) {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in lists {
            for (at, address) in list(subset, field).iter().enumerate() {
                endpoint(address, &path.child(field).index(at), errors);
            }
        }
        let ports = list(subset, "ports");
        for (at, port) in ports.iter().enumerate() {
            endpoint_port(port, ports.len() > 1, &path.child("ports").index(at), errors);
        }
    }
}

fn endpoint(address: &Value, path: &Path, errors: &mut ErrorList) {
    let text_of = text(address, "ip");
    ip(text_of, &path.child("ip"), errors);
    let host = text(address, "hostname");
    if !host.is_empty() {
        errors.invalid_all(&path.child("hostname"), &json!(host), names::dns1123_label(host));
    }
    let node = text(address, "nodeName");
    if !node.is_empty() {
        errors.invalid_all(&path.child("nodeName"), &json!(node), names::dns1123_subdomain(node));
    }
    endpoint_ip(text_of, &path.child("ip"), errors);
}

fn endpoint_port(port: &Value, named: bool, path: &Path, errors: &mut ErrorList) {
    let name = text(port, "name");
    if name.is_empty() {
        if named {
            errors.required(&path.child("name"), "");
        }
    } else {
        errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
    }
    let number = super::read::number(port, "port").unwrap_or(0);
    super::checks::port_number(number, &path.child("port"), errors);
    choice(port, "protocol", &["SCTP", "TCP", "UDP"], path, errors);
    app_protocol(port, path, errors);
}

/// Checks `appProtocol`.
pub(super) fn app_protocol(port: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(protocol) = present(port, "appProtocol").and_then(Value::as_str) {
        errors.invalid_all(&path.child("appProtocol"), &json!(protocol), names::qualified_name(protocol));
    }
}

/// Checks a ControllerRevision.
pub(super) fn revision(object: &Value, errors: &mut ErrorList) {
    if present(object, "data").is_none() {
        errors.required(&Path::new("data"), "data is mandatory");
    }
    super::checks::non_negative(object, "revision", &Path::default(), errors);
}

/// Checks that a ControllerRevision keeps its data.
pub(super) fn revision_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    if !same("data", new.get("data"), old.get("data")) {
        let value = new.get("data").unwrap_or(&Value::Null);
        errors.invalid(&Path::new("data"), value, super::checks::IMMUTABLE);
    }
}
