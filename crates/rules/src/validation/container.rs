//! Containers of Pods and pod templates.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    names,
    quantity::Quantity,
};
use serde_json::{Value, json};

use super::read::{is_true, list, number, pairs, present, text};

const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const PORT: std::ops::RangeInclusive<i64> = 1..=65535;
const PORT_TEXT: &str = "must be between 1 and 65535, inclusive";

/// Checks every container of a pod spec.
pub(super) fn all(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let volumes: HashSet<&str> = list(spec, "volumes").iter().map(|v| text(v, "name")).collect();
    let containers = list(spec, "containers");
    if containers.is_empty() {
        errors.required(&path.child("containers"), "");
    }
    let mut seen = HashSet::new();
    for (field, init) in [("containers", false), ("initContainers", true)] {
        let mut host_ports = HashSet::new();
        for (at, container) in list(spec, field).iter().enumerate() {
            let path = path.child(field).index(at);
            if init {
                host_ports.clear();
            }
            one(container, &path, errors);
            name(container, &path, &mut seen, errors);
            ports(container, is_true(spec, "hostNetwork"), &mut host_ports, &path.child("ports"), errors);
            mounts(container, &volumes, &path.child("volumeMounts"), errors);
            if init && text(container, "restartPolicy") != "Always" {
                never_for_init(container, &path, errors);
            }
        }
    }
}

fn name<'a>(container: &'a Value, path: &Path, seen: &mut HashSet<&'a str>, errors: &mut ErrorList) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
        return;
    }
    errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
    if !seen.insert(name) {
        errors.duplicate(&path.child("name"), &json!(name));
    }
}

fn one(container: &Value, path: &Path, errors: &mut ErrorList) {
    if text(container, "image").is_empty() {
        errors.required(&path.child("image"), "");
    }
    enumeration(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    enumeration(container, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], path, errors);
    environment(container, &path.child("env"), errors);
    resources(container, &path.child("resources"), errors);
    for kind in PROBES {
        if let Some(probe) = present(container, kind) {
            check_probe(kind, probe, &path.child(kind), errors);
        }
    }
    let security = container.get("securityContext").unwrap_or(&Value::Null);
    if is_true(security, "privileged") && security.get("allowPrivilegeEscalation") == Some(&json!(false)) {
        let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(&path.child("securityContext"), security, text);
    }
}

/// Checks that a set field has one of `values`.
pub(super) fn enumeration(value: &Value, field: &str, values: &[&str], path: &Path, errors: &mut ErrorList) {
    let have = text(value, field);
    if !have.is_empty() && !values.contains(&have) {
        errors.not_supported(&path.child(field), &json!(have), values);
    }
}

fn never_for_init(container: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if present(container, field).is_some() {
            errors.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
        }
    }
}

fn ports(container: &Value, host_network: bool, host_ports: &mut HashSet<String>, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, port) in list(container, "ports").iter().enumerate() {
        let path = path.index(at);
        let name = text(port, "name");
        if !name.is_empty() {
            let problems = names::port_name(&name.to_lowercase());
            if problems.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            }
            errors.invalid_all(&path.child("name"), &json!(name), problems);
        }
        let number_of = number(port, "containerPort").unwrap_or(0);
        if number_of == 0 {
            errors.required(&path.child("containerPort"), "");
        } else if !PORT.contains(&number_of) {
            errors.invalid(&path.child("containerPort"), &json!(number_of), PORT_TEXT);
        }
        enumeration(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
        let host_port = number(port, "hostPort").unwrap_or(0);
        if host_port == 0 {
            continue;
        }
        let path = path.child("hostPort");
        if !PORT.contains(&host_port) {
            errors.invalid(&path, &json!(host_port), PORT_TEXT);
        } else if host_network && host_port != number_of {
            errors.invalid(&path, &json!(host_port), "must match `containerPort` when `hostNetwork` is true");
        }
        let key = format!("{}/{}/{host_port}", text(port, "protocol"), text(port, "hostIP"));
        if !host_ports.insert(key.clone()) {
            errors.duplicate(&path, &json!(key));
        }
    }
}

fn mounts(container: &Value, volumes: &HashSet<&str>, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    let privileged = container.pointer("/securityContext/privileged") == Some(&json!(true));
    for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = path.index(at);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !volumes.contains(name) {
            errors.not_found(&path.child("name"), &json!(name));
        }
        if target.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if !seen.insert(target) {
            errors.invalid(&path.child("mountPath"), &json!(target), "must be unique");
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        relative(sub, &path.child("subPath"), errors);
        if !sub.is_empty() && !expression.is_empty() {
            let text = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&path.child("subPathExpr"), &json!(expression), text);
        }
        relative(expression, &path.child("subPathExpr"), errors);
        if text(mount, "mountPropagation") == "Bidirectional" && !privileged {
            let text = "Bidirectional mount propagation is available only to privileged containers";
            errors.forbidden(&path.child("mountPropagation"), text);
        }
    }
}

/// Paths inside a volume: relative, never upwards.
fn relative(text: &str, path: &Path, errors: &mut ErrorList) {
    if text.starts_with('/') {
        errors.invalid(path, &json!(text), "must be a relative path");
    }
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, &json!(text), "must not contain '..'");
    }
}

fn environment(container: &Value, path: &Path, errors: &mut ErrorList) {
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    for (at, variable) in list(container, "env").iter().enumerate() {
        let path = path.index(at);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), &json!(name), names::env_name(name));
        }
        let Some(from) = present(variable, "valueFrom") else { continue };
        let path = path.child("valueFrom");
        let sources = SOURCES.iter().filter(|source| present(from, source).is_some()).count();
        if sources == 0 {
            let text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                        `fileKeyRef`";
            errors.invalid(&path, &json!(""), text);
        } else if !text(variable, "value").is_empty() {
            errors.invalid(&path, &json!(""), "may not be specified when `value` is not empty");
        } else if sources > 1 {
            errors.invalid(&path, &json!(""), "may not have more than one field specified at a time");
        }
    }
}

fn resources(container: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(resources) = present(container, "resources") else { return };
    for field in ["limits", "requests"] {
        for (name, amount) in pairs(resources, field) {
            let path = path.child(field).key(name);
            let Some(amount) = quantity(amount) else { continue };
            if amount.is_negative() {
                errors.invalid(&path, &json!(amount.to_string()), "must be greater than or equal to 0");
            }
            if name.contains('/') && amount.milli_value() % 1000 != 0 {
                errors.invalid(&path, &json!(amount.to_string()), "must be an integer");
            }
        }
    }
    over_limits(resources, &path.child("requests"), errors);
}

fn over_limits(resources: &Value, path: &Path, errors: &mut ErrorList) {
    for (name, request) in pairs(resources, "requests") {
        let limit = resources.get("limits").and_then(|limits| limits.get(name)).and_then(quantity);
        let (Some(request), Some(limit)) = (quantity(request), limit) else { continue };
        let exact = name.starts_with("hugepages-") || (name.contains('/') && !name.contains("kubernetes.io/"));
        let value = json!(request.to_string());
        if exact && request != limit {
            errors.invalid(path, &value, &format!("must be equal to {name} limit of {limit}"));
        } else if !exact && request > limit {
            errors.invalid(path, &value, &format!("must be less than or equal to {name} limit of {limit}"));
        }
    }
}

/// A quantity in any of its JSON forms.
pub(super) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

fn check_probe(kind: &str, probe: &Value, path: &Path, errors: &mut ErrorList) {
    let mut handlers = HANDLERS.iter().filter(|handler| present(probe, handler).is_some());
    if handlers.next().is_none() {
        errors.required(path, "must specify a handler type");
    }
    for handler in handlers {
        errors.forbidden(&path.child(handler), "may not specify more than 1 handler type");
    }
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        non_negative(probe, field, path, errors);
    }
    let grace = number(probe, "terminationGracePeriodSeconds");
    let grace_path = path.child("terminationGracePeriodSeconds");
    match (kind, grace) {
        ("readinessProbe", Some(grace)) => {
            errors.invalid(&grace_path, &json!(grace), "must not be set for readinessProbes");
        }
        (_, Some(grace)) if grace <= 0 => errors.invalid(&grace_path, &json!(grace), "must be greater than 0"),
        _ => {}
    }
    let successes = number(probe, "successThreshold").unwrap_or(1);
    if kind != "readinessProbe" && successes != 1 {
        errors.invalid(&path.child("successThreshold"), &json!(successes), "must be 1");
    }
}

/// Checks a number that may not be negative.
pub(super) fn non_negative(value: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(have) = number(value, field).filter(|n| *n < 0) {
        errors.invalid(&path.child(field), &json!(have), "must be greater than or equal to 0");
    }
}
