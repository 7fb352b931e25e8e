//! Ingress, IngressClass, NetworkPolicy, ServiceCIDR and IPAddress.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use super::{
    checks::{self, IMMUTABLE, cidr, domain_path, immutable, ip, lenient_ip, port_or_name},
    read::{list, number, present, same, text},
    service::host_name,
    spec_path,
};

const CLASS: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const BAD_PARTS: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_ENDS: [&str; 2] = ["/..", "/."];
const MAX_CONTROLLER: usize = 250;

/// Checks an Ingress.
pub(super) fn ingress(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    let rules = list(spec, "rules");
    let default = present(spec, "defaultBackend");
    if rules.is_empty() && default.is_none() {
        errors.invalid(&path, &json!(rules), "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = default {
        ingress_backend(backend, &path.child("defaultBackend"), errors);
    }
    for (at, rule) in rules.iter().enumerate() {
        ingress_rule(rule, &path.child("rules").index(at), errors);
    }
    for (at, tls) in list(spec, "tls").iter().enumerate() {
        let path = path.child("tls").index(at).child("hosts");
        for (at, host) in list(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
            host_rule(host, &path.index(at), errors);
        }
    }
    if let Some(class) = present(spec, "ingressClassName") {
        let name = class.as_str().unwrap_or("");
        errors.invalid_all(&path.child("ingressClassName"), class, names::dns1123_subdomain(name));
    }
}

/// Checks what only a new Ingress obeys.
pub(super) fn new_ingress(object: &Value, errors: &mut ErrorList) {
    let annotated = object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(CLASS));
    let class = object.pointer("/spec/ingressClassName").filter(|class| !class.is_null());
    if let (Some(annotated), Some(class)) = (annotated, class)
        && annotated != class
    {
        let path = Path::new("annotations").child(CLASS);
        errors.invalid(&path, annotated, "must match `ingressClassName` when both are specified");
    }
}

fn host_rule(host: &str, path: &Path, errors: &mut ErrorList) {
    let rule = if host.contains('*') { names::wildcard_dns1123_subdomain } else { names::dns1123_subdomain };
    errors.invalid_all(path, &json!(host), rule(host));
}

fn ingress_rule(rule: &Value, path: &Path, errors: &mut ErrorList) {
    let host = text(rule, "host");
    if !host.is_empty() {
        if lenient_ip(host).is_some() {
            errors.invalid(&path.child("host"), &json!(host), "must be a DNS name, not an IP address");
        }
        host_rule(host, &path.child("host"), errors);
    }
    let Some(http) = present(rule, "http") else { return };
    let path = path.child("http").child("paths");
    let paths = list(http, "paths");
    if paths.is_empty() {
        errors.required(&path, "");
    }
    for (at, one) in paths.iter().enumerate() {
        ingress_path(one, &path.index(at), errors);
    }
}

fn ingress_path(one: &Value, path: &Path, errors: &mut ErrorList) {
    let value = text(one, "path");
    let at = path.child("path");
    match present(one, "pathType").and_then(Value::as_str) {
        None => {
            errors.required(&path.child("pathType"), "pathType must be specified");
        }
        Some("Exact" | "Prefix") => {
            if !value.starts_with('/') {
                errors.invalid(&at, &json!(value), "must be an absolute path");
            }
            for part in BAD_PARTS.into_iter().filter(|part| value.contains(part)) {
                errors.invalid(&at, &json!(value), &format!("must not contain '{part}'"));
            }
            for end in BAD_ENDS.into_iter().filter(|end| value.ends_with(end)) {
                errors.invalid(&at, &json!(value), &format!("cannot end with '{end}'"));
            }
        }
        Some("ImplementationSpecific") => {
            if !value.is_empty() && !value.starts_with('/') {
                errors.invalid(&at, &json!(value), "must be an absolute path");
            }
        }
        Some(other) => errors.not_supported(&path.child("pathType"), &json!(other), &PATH_TYPES),
    }
    ingress_backend(one.get("backend").unwrap_or(&Value::Null), &path.child("backend"), errors);
}

fn ingress_backend(backend: &Value, path: &Path, errors: &mut ErrorList) {
    match (present(backend, "resource"), present(backend, "service")) {
        (Some(_), Some(_)) => errors.invalid(path, &json!(""), "cannot set both resource and service backends"),
        (None, None) => errors.required(path, "resource or service backend is required"),
        (Some(resource), None) => {
            let path = path.child("resource");
            for field in ["kind", "name"] {
                if text(resource, field).is_empty() {
                    errors.required(&path.child(field), "");
                }
            }
        }
        (None, Some(service)) => service_backend(service, &path.child("service"), errors),
    }
}

fn service_backend(service: &Value, path: &Path, errors: &mut ErrorList) {
    let name = text(service, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
    }
    let port = service.get("port").unwrap_or(&Value::Null);
    let (name, number) = (text(port, "name"), number(port, "number").unwrap_or(0));
    match (name.is_empty(), number) {
        (false, 0) => errors.invalid_all(&path.child("port").child("name"), &json!(name), names::port_name(name)),
        (false, _) => errors.invalid(path, &json!(""), "cannot set both port name & port number"),
        (true, 0) => errors.required(path, "port name or number is required"),
        (true, number) => checks::port_number(number, &path.child("port").child("number"), errors),
    }
}

/// Checks the status of an Ingress.
pub(super) fn ingress_status(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let balancer = object.pointer("/status/loadBalancer").unwrap_or(&none);
    for (at, point) in list(balancer, "ingress").iter().enumerate() {
        let path = Path::new("status").child("loadBalancer").child("ingress").index(at);
        if !text(point, "ip").is_empty() {
            ip(text(point, "ip"), &path.child("ip"), errors);
        }
        host_name(point, &path.child("hostname"), errors);
    }
}

/// Checks an IngressClass.
pub(super) fn ingress_class(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let controller = text(spec, "controller");
    let path = spec_path();
    if controller.len() > MAX_CONTROLLER {
        errors.too_long(&path.child("controller"), MAX_CONTROLLER);
    }
    domain_path(controller, &path.child("controller"), errors);
    let Some(parameters) = present(spec, "parameters") else { return };
    let path = path.child("parameters");
    for field in ["kind", "name"] {
        if text(parameters, field).is_empty() {
            errors.required(&path.child(field), &format!("{field} is required"));
        } else {
            let value = text(parameters, field);
            errors.invalid_all(&path.child(field), &json!(value), names::path_segment(value));
        }
    }
    let namespace = present(parameters, "namespace");
    match text(parameters, "scope") {
        "" => errors.required(&path.child("scope"), ""),
        "Cluster" if namespace.is_some() => {
            let text = "`parameters.scope` is set to 'Cluster'";
            errors.forbidden(&path.child("namespace"), text);
        }
        "Namespace" => match namespace.and_then(Value::as_str) {
            None => errors.required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'"),
            Some(name) => {
                errors.invalid_all(&path.child("namespace"), &json!(name), names::dns1123_label(name));
            }
        },
        "Cluster" => {}
        other => errors.not_supported(&path.child("scope"), &json!(other), &["Cluster", "Namespace"]),
    }
}

/// Checks what may change of a stored IngressClass.
pub(super) fn ingress_class_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    immutable(new, old, &["controller"], &spec_path(), errors);
}

/// Checks a NetworkPolicy.
pub(super) fn policy(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    checks::selector(spec.get("podSelector"), &path.child("podSelector"), errors);
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        for (at, rule) in list(spec, direction).iter().enumerate() {
            let path = path.child(direction).index(at);
            for (at, port) in list(rule, "ports").iter().enumerate() {
                policy_port(port, &path.child("ports").index(at), errors);
            }
            for (at, peer) in list(rule, side).iter().enumerate() {
                policy_peer(peer, &path.child(side).index(at), errors);
            }
        }
    }
    let types = list(spec, "policyTypes");
    let path = path.child("policyTypes");
    if types.len() > 2 {
        errors.invalid(&path, &json!(types), "may not specify more than two policyTypes");
        return;
    }
    for (at, kind) in types.iter().enumerate() {
        if !kind.as_str().is_some_and(|kind| matches!(kind, "Ingress" | "Egress")) {
            errors.not_supported(&path.index(at), kind, &["Egress", "Ingress"]);
        }
    }
}

fn policy_port(port: &Value, path: &Path, errors: &mut ErrorList) {
    checks::enumeration(port, "protocol", &["SCTP", "TCP", "UDP"], path, errors);
    let (own, end) = (present(port, "port"), number(port, "endPort"));
    let at = path.child("endPort");
    if let Some(own) = own {
        port_or_name(Some(own), &path.child("port"), errors);
    }
    let Some(end) = end else { return };
    match own {
        None => errors.invalid(&at, &json!(end), "may not be specified when `port` is not specified"),
        Some(Value::String(_)) => errors.invalid(&at, &json!(end), "may not be specified when `port` is non-numeric"),
        Some(own) => {
            if end < own.as_i64().unwrap_or(0) {
                errors.invalid(&at, &json!(end), "must be greater than or equal to `port`");
            }
            checks::port_number(end, &at, errors);
        }
    }
}

fn policy_peer(peer: &Value, path: &Path, errors: &mut ErrorList) {
    let kinds = ["podSelector", "namespaceSelector", "ipBlock"];
    let given = kinds.iter().filter(|kind| present(peer, kind).is_some()).count();
    for field in ["podSelector", "namespaceSelector"] {
        checks::selector(peer.get(field), &path.child(field), errors);
    }
    if let Some(block) = present(peer, "ipBlock") {
        ip_block(block, &path.child("ipBlock"), errors);
        if given > 1 {
            errors.forbidden(path, "may not specify both ipBlock and another peer");
        }
    }
    if given == 0 {
        errors.required(path, "must specify a peer");
    }
}

fn ip_block(block: &Value, path: &Path, errors: &mut ErrorList) {
    let whole = text(block, "cidr");
    if whole.is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    let Some(whole) = cidr(whole, &path.child("cidr"), errors) else { return };
    for (at, except) in list(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("except").index(at);
        let Some(part) = cidr(except, &path, errors) else { return };
        if !whole.contains(&part.addr()) || whole.prefix_len() >= part.prefix_len() {
            errors.invalid(&path, &json!(except), "must be a strict subset of `cidr`");
        }
    }
}

/// Checks a ServiceCIDR.
pub(super) fn service_cidr(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let cidrs = list(object.get("spec").unwrap_or(&none), "cidrs");
    let path = spec_path().child("cidrs");
    if cidrs.is_empty() {
        errors.required(&path, "at least one CIDR required");
        return;
    }
    if cidrs.len() > 2 {
        errors.invalid(&path, &json!(cidrs), "may only hold up to 2 values");
    }
    let mut found = Vec::new();
    for (at, value) in cidrs.iter().enumerate() {
        let path = path.index(at);
        let range = value.as_str().unwrap_or("");
        let before = errors.len();
        let Some(net) = cidr(range, &path, errors) else { continue };
        found.push(net.addr().is_ipv4());
        if errors.len() == before && net.to_string() != range {
            errors.invalid(&path, value, &format!("must be in canonical form (\"{net}\")"));
        }
    }
    if matches!(found.as_slice(), [a, b] if a == b) {
        let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
        errors.invalid(&path, &json!(cidrs), text);
    }
}

/// Checks that a ServiceCIDR only grows by the other family.
pub(super) fn service_cidr_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let of = |object: &Value| list(object.get("spec").unwrap_or(&none), "cidrs").to_vec();
    let (sent, stored) = (of(new), of(old));
    let path = spec_path().child("cidrs");
    match (stored.as_slice(), sent.as_slice()) {
        ([before], [after, _]) if before == after => {}
        ([_], [after, _]) => errors.invalid(&path.index(0), after, IMMUTABLE),
        (stored, sent) if stored != sent => errors.invalid(&path, &json!(sent), IMMUTABLE),
        _ => {}
    }
}

/// Checks an IPAddress.
pub(super) fn address(object: &Value, errors: &mut ErrorList) {
    let name = meta::name(object);
    let at = Path::new("metadata").child("name");
    if let Some(address) = ip(name, &at, errors)
        && address.to_string() != name
    {
        errors.invalid(&at, &json!(name), &format!("must be in canonical form (\"{address}\")"));
    }
    let path = spec_path().child("parentRef");
    let parent = object.pointer("/spec/parentRef").filter(|parent| !parent.is_null());
    let Some(parent) = parent else {
        errors.required(&path, "");
        return;
    };
    let group = text(parent, "group");
    if !group.is_empty() {
        errors.invalid_all(&path.child("group"), &json!(group), names::dns1123_subdomain(group));
    }
    for field in ["resource", "name"] {
        let value = text(parent, field);
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            errors.invalid_all(&path.child(field), &json!(value), names::path_segment(value));
        }
    }
    let namespace = text(parent, "namespace");
    if !namespace.is_empty() {
        errors.invalid_all(&path.child("namespace"), &json!(namespace), names::path_segment(namespace));
    }
}

/// Checks that an IPAddress keeps its owner.
pub(super) fn address_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let parent = |object: &Value| object.pointer("/spec/parentRef").cloned();
    if !same("parentRef", parent(new).as_ref(), parent(old).as_ref()) {
        errors.invalid(&spec_path().child("parentRef"), &parent(new).unwrap_or_default(), IMMUTABLE);
    }
}

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_HINTS: usize = 8;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

/// Checks an EndpointSlice.
pub(super) fn endpoint_slice(object: &Value, errors: &mut ErrorList) {
    let kind = text(object, "addressType");
    checks::choice(object, "addressType", &ADDRESS_TYPES, &Path::default(), errors);
    let path = Path::new("endpoints");
    let endpoints = list(object, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        errors.too_many(&path, endpoints.len(), MAX_ENDPOINTS);
        return;
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        slice_endpoint(endpoint, kind, &path.index(at), errors);
    }
    slice_ports(list(object, "ports"), errors);
}

fn slice_endpoint(endpoint: &Value, kind: &str, path: &Path, errors: &mut ErrorList) {
    let addresses = list(endpoint, "addresses");
    let at = path.child("addresses");
    if addresses.is_empty() {
        errors.required(&at, "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        errors.too_many(&at, addresses.len(), MAX_ADDRESSES);
    }
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        slice_address(address, kind, &at.index(index), errors);
    }
    let node = text(endpoint, "nodeName");
    if !node.is_empty() {
        errors.invalid_all(&path.child("nodeName"), &json!(node), names::dns1123_subdomain(node));
    }
    if let Some(host) = present(endpoint, "hostname") {
        errors.invalid_all(&path.child("hostname"), host, names::dns1123_label(host.as_str().unwrap_or("")));
    }
    let hints = endpoint.get("hints").unwrap_or(&Value::Null);
    for (field, rule) in
        [("forZones", names::label_value as fn(&str) -> Vec<String>), ("forNodes", names::dns1123_subdomain)]
    {
        let path = path.child("hints").child(field);
        let items = list(hints, field);
        if items.len() > MAX_HINTS {
            errors.too_many(&path, items.len(), MAX_HINTS);
            continue;
        }
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let (name, path) = (text(item, "name"), path.index(index).child("name"));
            if !seen.insert(name) {
                errors.duplicate(&path, &json!(name));
            }
            errors.invalid_all(&path, &json!(name), rule(name));
        }
    }
}

fn slice_address(address: &str, kind: &str, path: &Path, errors: &mut ErrorList) {
    let value = json!(address);
    match kind {
        "IPv4" | "IPv6" => {
            let Some(found) = ip(address, path, errors) else { return };
            if found.is_ipv4() != (kind == "IPv4") {
                errors.invalid(path, &value, &format!("must be an {kind} address"));
            }
            if found.is_ipv6() && found.to_string() != address {
                errors.invalid(path, &value, &format!("must be in canonical form (\"{found}\")"));
            }
            checks::endpoint_ip(address, path, errors);
        }
        "FQDN" => errors.invalid_all(path, &value, names::dns1123_subdomain(address)),
        _ => {}
    }
}

fn slice_ports(ports: &[Value], errors: &mut ErrorList) {
    let path = Path::new("ports");
    if ports.len() > MAX_PORTS {
        errors.too_many(&path, ports.len(), MAX_PORTS);
        return;
    }
    let mut seen = HashSet::new();
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let name = text(port, "name");
        if !name.is_empty() {
            errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
        }
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
        checks::choice(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        super::core::app_protocol(port, &path, errors);
    }
}
