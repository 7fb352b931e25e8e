//! What a status update of a Pod may say.

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::super::{
    checks::{IMMUTABLE, ip, lenient_ip},
    read::{list, number, present, text},
};

/// Conditions whose names are older than the rule for names.
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// Checks the status of a Pod against the stored one.
pub(in super::super) fn status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let path = Path::new("status");
    let (sent, stored) = (new.get("status").unwrap_or(&none), old.get("status").unwrap_or(&none));
    let spec = old.get("spec").unwrap_or(&none);
    let nominated = text(sent, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(stored, "nominatedNodeName") && !text(spec, "nodeName").is_empty() {
        let text = "may not be set on pods that are already bound to a node";
        errors.forbidden(&path.child("nominatedNodeName"), text);
    }
    conditions(sent, &path.child("conditions"), errors);
    let class = text(stored, "qosClass");
    if !class.is_empty() && text(sent, "qosClass") != class {
        errors.invalid(&path.child("qosClass"), &json!(text(sent, "qosClass")), IMMUTABLE);
    }
    for (field, containers) in [("containerStatuses", "containers"), ("initContainerStatuses", "initContainers")] {
        transitions(sent, stored, field, &path, errors, |name, code| restarts(spec, containers, name, code));
    }
    transitions(sent, stored, "ephemeralContainerStatuses", &path, errors, |_, _| false);
    pod_ips(sent, &path, errors);
    host_ips(sent, &path, errors);
}

fn conditions(status: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, condition) in list(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !SYSTEM_CONDITIONS.contains(&kind) {
            errors.invalid_all(&path.index(at).child("type"), &json!(kind), names::qualified_name(kind));
        }
    }
}

/// A container that has ended stays so, unless something restarts it.
fn transitions(
    sent: &Value,
    stored: &Value,
    field: &str,
    path: &Path,
    errors: &mut ErrorList,
    restarts: impl Fn(&str, i64) -> bool,
) {
    let path = path.child(field);
    for before in list(stored, field) {
        let name = text(before, "name");
        let Some(ended) = before.pointer("/state/terminated").filter(|state| !state.is_null()) else { continue };
        if restarts(name, number(ended, "exitCode").unwrap_or(0)) {
            continue;
        }
        let after = list(sent, field).iter().enumerate().find(|(_, after)| text(after, "name") == name);
        let Some((at, after)) = after else { continue };
        if after.pointer("/state/terminated").is_none_or(Value::is_null) {
            errors.forbidden(&path.index(at).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// Whether a container that ended with `code` may run again.
fn restarts(spec: &Value, containers: &str, name: &str, code: i64) -> bool {
    let container = list(spec, containers).iter().find(|container| text(container, "name") == name);
    let Some(container) = container else { return true };
    let every = ["containers", "initContainers"].iter().flat_map(|field| list(spec, field));
    let restarts_pod =
        every.flat_map(|c| list(c, "restartPolicyRules")).any(|rule| text(rule, "action") == "RestartAllContainers");
    if restarts_pod || list(container, "restartPolicyRules").iter().any(|rule| rule_matches(rule, code)) {
        return true;
    }
    let own = text(container, "restartPolicy");
    match if own.is_empty() { text(spec, "restartPolicy") } else { own } {
        // Init containers that are no sidecars run again with their Pod.
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

fn rule_matches(rule: &Value, code: i64) -> bool {
    let Some(codes) = present(rule, "exitCodes") else { return false };
    list(codes, "values").contains(&json!(code)) == (text(codes, "operator") == "In")
}

fn pod_ips(status: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("podIPs");
    let addresses = list(status, "podIPs");
    let mut families = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        families.extend(ip(text(address, "ip"), &path.index(at), errors).map(|ip| ip.is_ipv4()));
    }
    one_per_family(addresses, &families, &path, errors);
}

fn one_per_family(addresses: &[Value], families: &[bool], path: &Path, errors: &mut ErrorList) {
    let twice = |family: bool| families.iter().filter(|f| **f == family).count() > 1;
    if addresses.len() > 2 || twice(true) || twice(false) {
        errors.invalid(path, &json!(addresses), "may specify no more than one IP for each IP family");
    }
}

fn host_ips(status: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("hostIPs");
    let addresses = list(status, "hostIPs");
    let Some(first) = addresses.first() else { return };
    if text(first, "ip") != text(status, "hostIP") {
        errors.invalid(&path.index(0).child("ip"), &first["ip"], "must be equal to `hostIP`");
    }
    let mut families = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        ip(text(address, "ip"), &path.index(at), errors);
        families.extend(lenient_ip(text(address, "ip")).map(|ip| ip.is_ipv4()));
    }
    one_per_family(addresses, &families, &path, errors);
}
