//! Services.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::{
    checks::{IMMUTABLE, choice, cidr, endpoint_ip, enumeration, ip, lenient_ip, port_number, port_or_name},
    core::app_protocol,
    read::{list, number, present, text},
    service_addresses, spec_path,
};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const DAY: i64 = 86_400;
const BALANCED_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None" || list(spec, "clusterIPs").first() == Some(&json!("None"))
}

/// Checks a Service.
pub(super) fn service(object: &Value, errors: &mut ErrorList) {
    let path = spec_path();
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let kind = text(spec, "type");
    let headless = is_headless(spec);
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
    check_ports(ports, &path.child("ports"), errors);
    affinity(spec, &path, errors);
    service_addresses::check(spec, &path, errors);
    for (at, address) in list(spec, "externalIPs").iter().enumerate() {
        let (address, path) = (address.as_str().unwrap_or(""), path.child("externalIPs").index(at));
        ip(address, &path, errors);
        endpoint_ip(address, &path, errors);
    }
    choice(spec, "type", &TYPES, &path, errors);
    unique_ports(ports, kind, &path.child("ports"), errors);
    balancer(object, spec, &path, errors);
    traffic(spec, &path, errors);
}

fn external_name(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let no = "may not be set for ExternalName services";
    for field in ["clusterIPs", "ipFamilies"] {
        if !list(spec, field).is_empty() {
            errors.forbidden(&path.child(field), no);
        }
    }
    if present(spec, "ipFamilyPolicy").is_some() {
        errors.forbidden(&path.child("ipFamilyPolicy"), no);
    }
    let full = text(spec, "externalName");
    let name = full.strip_suffix('.').unwrap_or(full);
    if name.is_empty() {
        errors.required(&path.child("externalName"), "");
    } else {
        errors.invalid_all(&path.child("externalName"), &json!(name), names::dns1123_subdomain(name));
    }
}

fn check_ports(ports: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.required(&path.child("name"), "");
            }
        } else {
            errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
            if !seen.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            }
        }
        port_number(number(port, "port").unwrap_or(0), &path.child("port"), errors);
        choice(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        if let Some(target) = present(port, "targetPort") {
            port_or_name(Some(target), &path.child("targetPort"), errors);
        }
        app_protocol(port, &path, errors);
    }
}

fn unique_ports(ports: &[Value], kind: &str, path: &Path, errors: &mut ErrorList) {
    let (mut seen, mut seen_nodes) = (HashSet::new(), HashSet::new());
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let protocol = text(port, "protocol");
        let node_port = number(port, "nodePort").unwrap_or(0);
        if node_port != 0 {
            if kind == "ClusterIP" {
                errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
            } else if !seen_nodes.insert((protocol, node_port)) {
                errors.duplicate(&path.child("nodePort"), &json!(node_port));
            }
        }
        let value = number(port, "port").unwrap_or(0);
        if !seen.insert((protocol, value)) {
            errors.duplicate(&path, &json!({"protocol": protocol, "port": value}));
        }
    }
}

fn affinity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    choice(spec, "sessionAffinity", &["ClientIP", "None"], path, errors);
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

const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn balancer(object: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let balanced = text(spec, "type") == "LoadBalancer";
    let ranges = list(spec, "loadBalancerSourceRanges");
    let annotation = object.pointer("/metadata/annotations").map_or("", |annotations| text(annotations, RANGES)).trim();
    if !ranges.is_empty() {
        if !balanced {
            errors.forbidden(&path.child("LoadBalancerSourceRanges"), BALANCED_ONLY);
        }
        for (at, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
            cidr(range.trim(), &path.child("LoadBalancerSourceRanges").index(at), errors);
        }
    } else if !annotation.is_empty() && !balanced {
        errors.forbidden(&Path::new("metadata").child("annotations").key(RANGES), BALANCED_ONLY);
    }
    if !balanced && present(spec, "allocateLoadBalancerNodePorts").is_some() {
        errors.forbidden(&path.child("allocateLoadBalancerNodePorts"), BALANCED_ONLY);
    }
    if let Some(class) = present(spec, "loadBalancerClass") {
        let path = path.child("loadBalancerClass");
        if balanced {
            errors.invalid_all(&path, class, names::qualified_name(class.as_str().unwrap_or("")));
        } else {
            errors.forbidden(&path, BALANCED_ONLY);
        }
    }
}

fn needs_health_port(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn traffic(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let kind = text(spec, "type");
    let reachable =
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !list(spec, "externalIPs").is_empty());
    let policy = text(spec, "externalTrafficPolicy");
    if reachable {
        choice(spec, "externalTrafficPolicy", &["Cluster", "Local"], path, errors);
    } else if !policy.is_empty() {
        let text = "may only be set for externally-accessible services";
        errors.invalid(&path.child("externalTrafficPolicy"), &json!(policy), text);
    }
    let health = number(spec, "healthCheckNodePort").unwrap_or(0);
    if health != 0 && !needs_health_port(spec) {
        let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.invalid(&path.child("healthCheckNodePort"), &json!(health), text);
    }
    enumeration(spec, "internalTrafficPolicy", &["Cluster", "Local"], path, errors);
    let preferences = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    enumeration(spec, "trafficDistribution", &preferences, path, errors);
}

/// Checks what may change of a stored Service.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let external = |spec: &Value| text(spec, "type") == "ExternalName";
    if external(new) || external(old) {
        return;
    }
    let path = spec_path();
    service_addresses::update(new, old, &path, errors);
    let class = |spec: &Value| present(spec, "loadBalancerClass").cloned();
    let balanced = |spec: &Value| text(spec, "type") == "LoadBalancer";
    if balanced(new) && balanced(old) && class(new) != class(old) {
        let value = class(new).unwrap_or_default();
        errors.invalid(&path.child("loadBalancerClass"), &value, "may not change once set");
    }
    let health = |spec: &Value| number(spec, "healthCheckNodePort").unwrap_or(0);
    if needs_health_port(new) && needs_health_port(old) && health(old) != 0 && health(new) != health(old) {
        errors.forbidden(&path.child("healthCheckNodePort"), IMMUTABLE);
    }
}

/// Checks the status of a Service.
pub(super) fn status(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let balancer = object.pointer("/status/loadBalancer").unwrap_or(&none);
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = list(balancer, "ingress");
    if !ingress.is_empty() && object.pointer("/spec/type") != Some(&json!("LoadBalancer")) {
        errors.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return;
    }
    for (at, point) in ingress.iter().enumerate() {
        let path = path.index(at);
        let (address, mode) = (text(point, "ip"), present(point, "ipMode"));
        if address.is_empty() {
            if mode.is_some() {
                errors.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set");
            }
        } else {
            ip(address, &path.child("ip"), errors);
            if mode.is_none() {
                errors.required(&path.child("ipMode"), "must be specified when `ip` is set");
            }
        }
        enumeration(point, "ipMode", &["Proxy", "VIP"], &path, errors);
        host_name(point, &path.child("hostname"), errors);
    }
}

/// Checks the name that a load balancer answers at.
pub(super) fn host_name(point: &Value, path: &Path, errors: &mut ErrorList) {
    let host = text(point, "hostname");
    if host.is_empty() {
        return;
    }
    errors.invalid_all(path, &json!(host), names::dns1123_subdomain(host));
    if lenient_ip(host).is_some() {
        errors.invalid(path, &json!(host), "must be a DNS name, not an IP address");
    }
}
