//! Kinds of the smaller groups: RBAC, policy, scheduling, coordination, node.

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use super::{
    checks::{IMMUTABLE, enumeration, non_negative, share},
    pod,
    read::{list, number, pairs, present, same, text},
    spec_path,
};

const MAX_PRIORITY: i64 = 1_000_000_000;

/// Checks the rules of a Role or ClusterRole.
pub(super) fn role(object: &Value, namespaced: bool, errors: &mut ErrorList) {
    for (at, rule) in list(object, "rules").iter().enumerate() {
        let path = Path::new("rules").index(at);
        if list(rule, "verbs").is_empty() {
            errors.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        let urls = list(rule, "nonResourceURLs");
        let (groups, resources) = (list(rule, "apiGroups"), list(rule, "resources"));
        if !urls.is_empty() {
            let path = path.child("nonResourceURLs");
            if namespaced {
                errors.invalid(&path, &json!(urls), "namespaced rules cannot apply to non-resource URLs");
            }
            if !groups.is_empty() || !resources.is_empty() || !list(rule, "resourceNames").is_empty() {
                let text = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid(&path, &json!(urls), text);
            }
            continue;
        }
        if groups.is_empty() {
            errors.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if resources.is_empty() {
            errors.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Checks a RoleBinding or ClusterRoleBinding.
pub(super) fn binding(object: &Value, namespaced: bool, errors: &mut ErrorList) {
    let role = object.get("roleRef").unwrap_or(&Value::Null);
    let path = Path::new("roleRef");
    if text(role, "apiGroup") != RBAC {
        errors.not_supported(&path.child("apiGroup"), &json!(text(role, "apiGroup")), &[RBAC]);
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(role, "kind")) {
        errors.not_supported(&path.child("kind"), &json!(text(role, "kind")), kinds);
    }
    let name = text(role, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_all(&path.child("name"), &json!(name), names::path_segment(name));
    }
    for (at, subject) in list(object, "subjects").iter().enumerate() {
        check_subject(subject, namespaced, &Path::new("subjects").index(at), errors);
    }
}

fn check_subject(subject: &Value, namespaced: bool, path: &Path, errors: &mut ErrorList) {
    let (kind, name, group) = (text(subject, "kind"), text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    match kind {
        "ServiceAccount" => {
            if !name.is_empty() {
                errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_subdomain(name));
            }
            if !group.is_empty() {
                errors.not_supported(&path.child("apiGroup"), &json!(group), &[""]);
            }
            if !namespaced && text(subject, "namespace").is_empty() {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => {
            if group != RBAC {
                errors.not_supported(&path.child("apiGroup"), &json!(group), &[RBAC]);
            }
        }
        other => {
            errors.not_supported(&path.child("kind"), &json!(other), &["ServiceAccount", "User", "Group"]);
        }
    }
}

/// Checks that a binding keeps its role.
pub(super) fn same_role(new: &Value, old: &Value, errors: &mut ErrorList) {
    if !same("roleRef", new.get("roleRef"), old.get("roleRef")) {
        let value = new.get("roleRef").unwrap_or(&Value::Null);
        errors.invalid(&Path::new("roleRef"), value, "cannot change roleRef");
    }
}

/// Checks a PodDisruptionBudget.
pub(super) fn budget(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    let path = spec_path();
    let bounds = ["minAvailable", "maxUnavailable"];
    if bounds.iter().all(|bound| present(spec, bound).is_some()) {
        errors.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for bound in bounds {
        share(spec, bound, true, &path, errors);
    }
    super::checks::selector(spec.get("selector"), &path.child("selector"), errors);
    enumeration(spec, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"], &path, errors);
}

/// Checks the status of a PodDisruptionBudget.
pub(super) fn budget_status(object: &Value, errors: &mut ErrorList) {
    let status = object.get("status").unwrap_or(&Value::Null);
    let path = Path::new("status");
    super::checks::conditions(list(status, "conditions"), &path.child("conditions"), errors);
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        non_negative(status, field, &path, errors);
    }
}

/// The classes that every cluster has, with their values.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// Checks a PriorityClass.
pub(super) fn priority_class(object: &Value, errors: &mut ErrorList) {
    let (name, value) = (meta::name(object), number(object, "value").unwrap_or(0));
    if name.starts_with("system-") {
        let why = match SYSTEM_CLASSES.iter().find(|(system, _)| *system == name) {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
            Some(_) => None,
        };
        if let Some(why) = why {
            let text =
                format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
            errors.forbidden(&Path::new("metadata").child("name"), &text);
        }
    } else if value > MAX_PRIORITY {
        let text = format!("maximum allowed value of a user defined priority is {MAX_PRIORITY}");
        errors.forbidden(&Path::new("value"), &text);
    }
    enumeration(object, "preemptionPolicy", &["PreemptLowerPriority", "Never"], &Path::default(), errors);
}

/// Checks what may not change of a stored PriorityClass.
pub(super) fn priority_class_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    if number(new, "value").unwrap_or(0) != number(old, "value").unwrap_or(0) {
        errors.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    immutable(new, old, &["preemptionPolicy"], errors);
}

/// Checks that top fields stay as they are.
pub(super) fn immutable(new: &Value, old: &Value, fields: &[&str], errors: &mut ErrorList) {
    for field in fields {
        if !same(field, new.get(*field), old.get(*field)) {
            errors.invalid(&Path::new(field), new.get(*field).unwrap_or(&Value::Null), IMMUTABLE);
        }
    }
}

/// Checks a RuntimeClass.
pub(super) fn runtime_class(object: &Value, errors: &mut ErrorList) {
    let handler = text(object, "handler");
    errors.invalid_all(&Path::new("handler"), &json!(handler), names::dns1123_label(handler));
    if let Some(overhead) = present(object, "overhead") {
        pod::overhead(overhead.get("podFixed"), &Path::new("overhead"), errors);
    }
    if let Some(scheduling) = present(object, "scheduling") {
        let path = Path::new("scheduling");
        let selector = path.child("nodeSelector");
        for (key, value) in pairs(scheduling, "nodeSelector") {
            errors.invalid_all(&selector, &json!(key), names::qualified_name(key));
            errors.invalid_all(&selector, value, names::label_value(value.as_str().unwrap_or("")));
        }
        pod::tolerations(list(scheduling, "tolerations"), &path.child("tolerations"), errors);
    }
}

/// Checks a Lease.
pub(super) fn lease(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    if let Some(seconds) = number(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        let path = spec_path().child("leaseDurationSeconds");
        errors.invalid(&path, &json!(seconds), "must be greater than 0");
    }
    non_negative(spec, "leaseTransitions", &spec_path(), errors);
}
