//! Services.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::{
    container::enumeration,
    read::{list, number, present, text},
    spec_path,
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const DAY: i64 = 86_400;
const PORT: std::ops::RangeInclusive<i64> = 1..=65535;
const PORT_TEXT: &str = "must be between 1 and 65535, inclusive";

/// Checks a new or changed Service.
pub(super) fn check(object: &Value, errors: &mut ErrorList) {
    let path = spec_path();
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == "None" || list(spec, "clusterIPs").first() == Some(&json!("None"));
    let ports = list(spec, "ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.required(&path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let text = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&path.child("clusterIPs").index(0), &json!("None"), &text);
        }
        "ExternalName" => external_name(spec, &path, errors),
        _ => {}
    }
    for (at, port) in ports.iter().enumerate() {
        check_port(port, ports.len() > 1, kind, &path.child("ports").index(at), errors);
    }
    unique_ports(ports, &path.child("ports"), errors);
    affinity(spec, &path, errors);
    enumeration(spec, "type", &TYPES, &path, errors);
    addresses(spec, &path, errors);
    if kind != "LoadBalancer" && present(spec, "loadBalancerClass").is_some() {
        let text = "may only be used when `type` is 'LoadBalancer'";
        errors.forbidden(&path.child("loadBalancerClass"), text);
    }
    let preferences = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    enumeration(spec, "trafficDistribution", &preferences, &path, errors);
}

fn external_name(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if !list(spec, "clusterIPs").is_empty() {
        errors.forbidden(&path.child("clusterIPs"), "may not be set for ExternalName services");
    }
    let full = text(spec, "externalName");
    let name = full.strip_suffix('.').unwrap_or(full);
    if name.is_empty() {
        errors.required(&path.child("externalName"), "");
    } else {
        errors.invalid_all(&path.child("externalName"), &json!(name), names::dns1123_subdomain(name));
    }
}

fn check_port(port: &Value, named: bool, kind: &str, path: &Path, errors: &mut ErrorList) {
    let name = text(port, "name");
    if name.is_empty() {
        if named {
            errors.required(&path.child("name"), "");
        }
    } else {
        errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
    }
    let value = number(port, "port").unwrap_or(0);
    if !PORT.contains(&value) {
        errors.invalid(&path.child("port"), &json!(value), PORT_TEXT);
    }
    enumeration(port, "protocol", &["SCTP", "TCP", "UDP"], path, errors);
    match present(port, "targetPort") {
        Some(target @ Value::Number(n)) if n.as_i64().is_none_or(|n| !PORT.contains(&n)) => {
            errors.invalid(&path.child("targetPort"), target, PORT_TEXT);
        }
        Some(target @ Value::String(name)) => {
            errors.invalid_all(&path.child("targetPort"), target, names::port_name(&name.to_lowercase()));
        }
        _ => {}
    }
    let node_port = number(port, "nodePort").unwrap_or(0);
    if node_port != 0 && kind == "ClusterIP" {
        errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
    }
}

fn unique_ports(ports: &[Value], path: &Path, errors: &mut ErrorList) {
    let (mut seen_names, mut seen, mut seen_nodes) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let name = text(port, "name");
        if !name.is_empty() && !seen_names.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
        let protocol = text(port, "protocol");
        let value = number(port, "port").unwrap_or(0);
        if !seen.insert((protocol, value)) {
            errors.duplicate(&path, &json!({"protocol": protocol, "port": value}));
        }
        let node_port = number(port, "nodePort").unwrap_or(0);
        if node_port != 0 && !seen_nodes.insert((protocol, node_port)) {
            errors.duplicate(&path.child("nodePort"), &json!(node_port));
        }
    }
}

fn affinity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    enumeration(spec, "sessionAffinity", &["ClientIP", "None"], path, errors);
    let config = path.child("sessionAffinityConfig");
    match (text(spec, "sessionAffinity"), present(spec, "sessionAffinityConfig")) {
        ("None", Some(_)) => errors.forbidden(&config, "must not be set when session affinity is None"),
        ("ClientIP", Some(value)) => {
            let timeout = value.pointer("/clientIP/timeoutSeconds").and_then(Value::as_i64);
            if let Some(timeout) = timeout.filter(|n| !(1..=DAY).contains(n)) {
                let text = format!("must be greater than 0 and less than {DAY}");
                errors.invalid(&config.child("clientIP").child("timeoutSeconds"), &json!(timeout), &text);
            }
        }
        _ => {}
    }
}

fn addresses(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let list = list(spec, "clusterIPs");
    let path = path.child("clusterIPs");
    let first = list.first().and_then(Value::as_str).unwrap_or("");
    let primary = text(spec, "clusterIP");
    if !list.is_empty() && !primary.is_empty() && first != primary {
        errors.invalid(&path, &json!(list), "first value must match `clusterIP`");
    }
    if list.len() > 2 {
        errors.invalid(&path, &json!(list), "may only hold up to 2 values");
    }
}

/// Checks what may not change of a stored Service.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    if external(new) || external(old) {
        return;
    }
    let path = spec_path();
    let (sent, stored) = (text(new, "clusterIP"), text(old, "clusterIP"));
    if !sent.is_empty() && !stored.is_empty() && sent != stored {
        let value = new.get("clusterIPs").cloned().unwrap_or_else(|| json!([sent]));
        errors.invalid(&path.child("clusterIPs").index(0), &value, "may not change once set");
    }
    let class = |spec: &Value| present(spec, "loadBalancerClass").cloned();
    let balanced = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balanced(new) && balanced(old) && class(new) != class(old) {
        let value = class(new).unwrap_or_default();
        errors.invalid(&path.child("loadBalancerClass"), &value, "may not change once set");
    }
}
