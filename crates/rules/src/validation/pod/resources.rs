//! Resource requirements of containers and Pods.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    quantity::Quantity,
};
use serde_json::{Value, json};

use super::super::{
    checks::{is_extended, is_hugepages, is_native, quantity, resource_amount, resource_name},
    read::{list, pairs, present, same, text},
};

const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const POD_RESOURCES: [&str; 3] = ["cpu", "hugepages-", "memory"];

/// Checks the requirements of one container.
pub(super) fn container(container: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(resources) = present(container, "resources") else { return };
    for field in ["limits", "requests"] {
        for (name, amount) in pairs(resources, field) {
            let path = path.child(field).key(name);
            container_resource(name, &path, errors);
            resource_amount(name, amount, &path, errors);
            whole_pages(name, amount, &path, errors);
        }
    }
    against_limits(resources, path, errors);
    if present(spec, "resources").is_none() {
        pages_with_others(resources, path, errors);
    }
    claims(resources, spec, &path.child("claims"), errors);
}

fn container_resource(name: &str, path: &Path, errors: &mut ErrorList) {
    if !resource_name(name, path, errors) {
        return;
    }
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !is_hugepages(name) {
            errors.invalid(path, &json!(name), "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, &json!(name), "doesn't follow extended resource name standard");
    }
}

/// Pages are requested in whole.
fn whole_pages(name: &str, amount: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(size) = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok()) else { return };
    let Some(amount) = quantity(amount).filter(|amount| !amount.is_negative()) else { return };
    let (size, bytes) = (size.value(), amount.value());
    if size > 0 && (amount.milli_value() % 1000 != 0 || bytes % size != 0) {
        let text = format!("{amount} is not positive integer multiple of {name}");
        errors.invalid(path, &json!(amount.to_string()), &text);
    }
}

/// Requests stay within limits, and equal them where nodes cannot overcommit.
fn against_limits(resources: &Value, path: &Path, errors: &mut ErrorList) {
    for (name, request) in pairs(resources, "requests") {
        let limit = resources.get("limits").and_then(|limits| limits.get(name)).and_then(quantity);
        let overcommits = is_native(name) && !is_hugepages(name);
        let Some(request) = quantity(request) else { continue };
        let Some(limit) = limit else {
            if !overcommits {
                errors.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let value = json!(request.to_string());
        let path = path.child("requests");
        if !overcommits && request != limit {
            errors.invalid(&path, &value, &format!("must be equal to {name} limit of {limit}"));
        } else if request > limit {
            errors.invalid(&path, &value, &format!("must be less than or equal to {name} limit of {limit}"));
        }
    }
}

fn pages_with_others(resources: &Value, path: &Path, errors: &mut ErrorList) {
    let names = || pairs(resources, "limits").chain(pairs(resources, "requests")).map(|(name, _)| name.as_str());
    if names().any(is_hugepages) && !names().any(|name| matches!(name, "cpu" | "memory")) {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Claims that a container uses are those of its Pod.
fn claims(resources: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let known: Vec<&str> = list(spec, "resourceClaims").iter().map(|claim| text(claim, "name")).collect();
    let mut seen = HashSet::new();
    for (at, claim) in list(resources, "claims").iter().enumerate() {
        let path = path.index(at);
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !seen.insert((name, request)) {
            let value = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
            errors.duplicate(&path, &json!(value));
        }
        if known.is_empty() {
            errors.not_found_in(
                &path,
                &json!(name),
                "must be one of the names in pod.spec.resourceClaims which is empty",
            );
        } else if !known.contains(&name) {
            let text = format!("must be one of the names in pod.spec.resourceClaims: {}", known.join(", "));
            errors.not_found_in(&path, &json!(name), &text);
        }
    }
}

/// Checks `resizePolicy` of a container.
pub(super) fn resize_policy(container: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, policy) in list(container, "resizePolicy").iter().enumerate() {
        let path = path.index(at);
        let (resource, restart) = (text(policy, "resourceName"), text(policy, "restartPolicy"));
        match resource {
            "" => errors.required(&path.child("resourceName"), ""),
            "cpu" | "memory" => {}
            other => errors.not_supported(&path.child("resourceName"), &json!(other), &["cpu", "memory"]),
        }
        if !resource.is_empty() && !seen.insert(resource) {
            errors.duplicate(&path, &json!(resource));
        }
        match restart {
            "" => errors.required(&path.child("restartPolicy"), ""),
            "NotRequired" | "RestartContainer" => {}
            other => {
                let values = ["NotRequired", "RestartContainer"];
                errors.not_supported(&path.child("restartPolicy"), &json!(other), &values);
            }
        }
        if text(spec, "restartPolicy") == "Never" && restart == "RestartContainer" {
            let text = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(&path, &json!(restart), text);
        }
    }
}

/// Checks the requirements of a whole Pod.
pub(super) fn pod(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(resources) = present(spec, "resources") else { return };
    let spec_path = path;
    let path = path.child("resources");
    if !list(resources, "claims").is_empty() {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    for field in ["limits", "requests"] {
        for (name, amount) in pairs(resources, field) {
            let path = path.child(field).key(name);
            if !matches!(name.as_str(), "cpu" | "memory") && !is_hugepages(name) {
                errors.not_supported(&path, &json!(name), &POD_RESOURCES);
            }
            resource_amount(name, amount, &path, errors);
            whole_pages(name, amount, &path, errors);
        }
    }
    against_limits(resources, &path, errors);
    covers_containers(spec, resources, spec_path, errors);
    if spec.pointer("/os/name") == Some(&json!("windows")) && !same("resources", Some(resources), None) {
        errors.forbidden(&path, "may not be set for a windows pod");
    }
}

fn covers_containers(spec: &Value, resources: &Value, path: &Path, errors: &mut ErrorList) {
    let map = spec.as_object().cloned().unwrap_or_default();
    let sums = semantics::resources::sum_container_requests(&map);
    for (name, request) in pairs(resources, "requests") {
        let sum = sums.get(name).and_then(|sum| Quantity::parse(sum).ok());
        let (Some(request), Some(sum)) = (quantity(request), sum) else { continue };
        if sum > request {
            let text = format!("must be greater than or equal to aggregate container requests of {sum}");
            let path = path.child("resources").child("requests").key(name);
            errors.invalid(&path, &json!(request.to_string()), &text);
        }
    }
    for field in ["containers", "initContainers"] {
        for (at, container) in list(spec, field).iter().enumerate() {
            let limits = container.get("resources").and_then(|resources| resources.get("limits"));
            for (name, limit) in limits.and_then(Value::as_object).into_iter().flatten() {
                let most = resources.get("limits").and_then(|limits| limits.get(name)).and_then(quantity);
                let (Some(limit), Some(most)) = (quantity(limit), most) else { continue };
                if limit > most {
                    let path = path.child(field).index(at).child("resources").child("limits").key(name);
                    let text = format!("must be less than or equal to pod limits of {most}");
                    errors.invalid(&path, &json!(limit.to_string()), &text);
                }
            }
        }
    }
}

/// Checks the overhead of a pod sandbox.
pub(in super::super) fn overhead(overhead: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    for (name, amount) in overhead.and_then(Value::as_object).into_iter().flatten() {
        let path = path.child("limits").key(name);
        container_resource(name, &path, errors);
        resource_amount(name, amount, &path, errors);
    }
}
