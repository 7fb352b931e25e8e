//! Pods and templates of Pods.

use std::collections::{HashMap, HashSet};

use machinery::{meta, names, quantity::Quantity};
use serde_json::Value;

use super::{Warnings, addresses, is_set, labels, list, text, volumes};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Warns about a Pod.
pub(super) fn pod(object: &Value, warnings: &mut Warnings) {
    name(object, "this is used in the Pod's hostname", warnings);
    about(object, "", warnings);
}

/// Warns about a template at a path.
pub(super) fn template(template: Option<&Value>, path: &str, warnings: &mut Warnings) {
    if let Some(template) = template {
        about(template, &format!("{path}."), warnings);
    }
}

/// Warns about a name that is no host name.
pub(super) fn name(object: &Value, used: &str, warnings: &mut Warnings) {
    let name = meta::name(object);
    let problems = names::dns1123_label(name);
    if !name.is_empty() && !problems.is_empty() {
        warnings.add(format!(
            "metadata.name: {used}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            problems.join(" ")
        ));
    }
}

fn about(object: &Value, prefix: &str, warnings: &mut Warnings) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = format!("{prefix}spec");
    placement(spec, &path, warnings);
    labels::annotations(object, prefix, warnings);
    for (at, volume) in list(spec, "volumes").iter().enumerate() {
        volumes::source(volume, &format!("{path}.volumes[{at}]"), warnings);
    }
    list(spec, "volumes").iter().for_each(|volume| volumes::files(volume, warnings));
    aliases(spec, &path, warnings);
    pull_secrets(spec, &path, warnings);
    for field in CONTAINERS {
        for (at, container) in list(spec, field).iter().enumerate() {
            let path = format!("{path}.{field}[{at}]");
            fractions(container.get("resources").unwrap_or(&none), &format!("{path}.resources"), warnings);
            variables(container, &path, warnings);
        }
    }
    for resource in ["memory", "ephemeral-storage"] {
        fraction(spec.get("overhead").unwrap_or(&none), resource, &format!("{path}.overhead"), warnings);
    }
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        warnings.add(format!(
            "{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        ));
    }
    null_selectors(spec, &path, warnings);
    ports(spec, &path, warnings);
    let config = spec.get("dnsConfig").unwrap_or(&none);
    for (at, server) in list(config, "nameservers").iter().filter_map(Value::as_str).enumerate() {
        addresses::ip(server, &format!("{path}.dnsConfig.nameservers[{at}]"), warnings);
    }
    for (at, alias) in list(spec, "hostAliases").iter().enumerate() {
        addresses::ip(text(alias, "ip"), &format!("{path}.hostAliases[{at}].ip"), warnings);
    }
}

fn placement(spec: &Value, path: &str, warnings: &mut Warnings) {
    labels::selector(spec, "nodeSelector", path, warnings);
    if let Some(affinity) = spec.pointer("/affinity/nodeAffinity") {
        let path = format!("{path}.affinity.nodeAffinity");
        let required = affinity.get(REQUIRED).map_or(&[][..], |required| list(required, "nodeSelectorTerms"));
        for (at, term) in required.iter().enumerate() {
            labels::term(term, false, &format!("{path}.{REQUIRED}.nodeSelectorTerms[{at}]"), warnings);
        }
        for (at, term) in list(affinity, PREFERRED).iter().enumerate() {
            let preference = term.get("preference").unwrap_or(&Value::Null);
            labels::term(preference, true, &format!("{path}.{PREFERRED}[{at}].preference"), warnings);
        }
    }
    for (at, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{path}.topologySpreadConstraints[{at}]");
        labels::key(text(constraint, "topologyKey"), &format!("{path}.topologyKey"), warnings);
        if !is_set(constraint, "labelSelector") {
            warnings.add(format!("{path}.labelSelector: {NULL_SELECTOR}"));
        }
    }
}

fn null_selectors(spec: &Value, path: &str, warnings: &mut Warnings) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.get("affinity").and_then(|affinity| affinity.get(kind)) else { continue };
        let path = format!("{path}.affinity.{kind}");
        let required =
            list(affinity, REQUIRED).iter().enumerate().map(|(at, term)| (format!("{REQUIRED}[{at}]"), term));
        let preferred = list(affinity, PREFERRED).iter().enumerate().filter_map(|(at, term)| {
            term.get("podAffinityTerm").map(|term| (format!("{PREFERRED}[{at}].podAffinityTerm"), term))
        });
        for (at, term) in required.chain(preferred) {
            if !is_set(term, "labelSelector") {
                warnings.add(format!("{path}.{at}.labelSelector: {NULL_SELECTOR}"));
            }
        }
    }
}

fn aliases(spec: &Value, path: &str, warnings: &mut Warnings) {
    let mut seen = HashSet::new();
    for (at, alias) in list(spec, "hostAliases").iter().enumerate() {
        let ip = text(alias, "ip");
        if !seen.insert(ip) {
            warnings.add(format!("{path}.hostAliases[{at}].ip: duplicate ip \"{ip}\""));
        }
    }
}

fn pull_secrets(spec: &Value, path: &str, warnings: &mut Warnings) {
    let mut seen = HashSet::new();
    for (at, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        let name = text(secret, "name");
        if !seen.insert(name) {
            warnings.add(format!("{path}.imagePullSecrets[{at}].name: duplicate name \"{name}\""));
        }
        if name.is_empty() {
            warnings.add(format!("{path}.imagePullSecrets[{at}].name: invalid empty name \"\""));
        }
    }
}

fn fractions(resources: &Value, path: &str, warnings: &mut Warnings) {
    for field in ["limits", "requests"] {
        for resource in ["memory", "ephemeral-storage"] {
            let amounts = resources.get(field).unwrap_or(&Value::Null);
            fraction(amounts, resource, &format!("{path}.{field}"), warnings);
        }
    }
}

/// Warns about an amount of bytes that is not whole.
pub(super) fn fraction(amounts: &Value, resource: &str, path: &str, warnings: &mut Warnings) {
    let Some(amount) = amounts.get(resource).and_then(Value::as_str).and_then(|text| Quantity::parse(text).ok()) else {
        return;
    };
    if amount.milli_value() % 1000 != 0 {
        warnings.add(format!("{path}[{resource}]: fractional byte value \"{amount}\" is invalid, must be an integer"));
    }
}

fn variables(container: &Value, path: &str, warnings: &mut Warnings) {
    let mut seen = HashSet::new();
    for (at, variable) in list(container, "env").iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        if seen.insert(name) {
            continue;
        }
        let own = format!("$({name})");
        if is_set(variable, "valueFrom") || value == own || !value.contains(&own) {
            warnings.add(format!(
                "{path}.env[{at}]: hides previous definition of \"{name}\", which may be dropped when using apply"
            ));
        }
    }
}

fn ports(spec: &Value, path: &str, warnings: &mut Warnings) {
    let mut by_number: HashMap<(i64, &str), Vec<(String, &Value)>> = HashMap::new();
    let mut by_name: HashMap<&str, String> = HashMap::new();
    let number = |port: &Value, field: &str| port.get(field).and_then(Value::as_i64).unwrap_or(0);
    for field in CONTAINERS {
        for (at, container) in list(spec, field).iter().enumerate() {
            for (port_at, port) in list(container, "ports").iter().enumerate() {
                let path = format!("{path}.{field}[{at}].ports[{port_at}]");
                if !text(port, "hostIP").is_empty() && number(port, "hostPort") == 0 {
                    warnings.add(format!("{path}: hostIP set without hostPort: {port}"));
                }
                let others = by_number.entry((number(port, "containerPort"), text(port, "protocol"))).or_default();
                for (other_path, other) in others.iter() {
                    if let Some(what) = conflict(port, other) {
                        warnings.add(format!("{path}: {what} port definition with {other_path}"));
                    }
                }
                others.push((path.clone(), port));
                let name = text(port, "name");
                if name.is_empty() {
                    continue;
                }
                match by_name.get(name) {
                    Some(other) => warnings.add(format!(
                        "{path}: duplicate port name \"{name}\" with {other}, services and probes that select ports \
                         by name will use {other}"
                    )),
                    None => {
                        by_name.insert(name, path);
                    }
                }
            }
        }
    }
}

/// How two definitions of one port are at odds.
fn conflict(one: &Value, other: &Value) -> Option<&'static str> {
    let of = |port: &Value| port.get("hostPort").and_then(Value::as_i64).unwrap_or(0);
    let (a, b) = (text(one, "hostIP"), text(other, "hostIP"));
    if a == b && of(one) == of(other) {
        Some("duplicate")
    } else if of(one) == 0 || of(other) == 0 {
        Some("overlapping")
    } else if of(one) == of(other) && a.is_empty() != b.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}
