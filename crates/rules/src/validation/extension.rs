//! Kinds of the other groups: RBAC, policy, scheduling, coordination, storage.

use machinery::{
    field::{ErrorList, Path},
    meta,
};
use serde_json::{Value, json};

use super::{
    read::{list, number, present, same, text},
    spec_path,
};

const IMMUTABLE: &str = "field is immutable";
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

/// Checks the subjects of a binding.
pub(super) fn binding(object: &Value, namespaced: bool, errors: &mut ErrorList) {
    let role = object.get("roleRef").unwrap_or(&Value::Null);
    if text(role, "name").is_empty() {
        errors.required(&Path::new("roleRef").child("name"), "");
    }
    for (at, subject) in list(object, "subjects").iter().enumerate() {
        let path = Path::new("subjects").index(at);
        if text(subject, "name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        let homeless = text(subject, "kind") == "ServiceAccount" && text(subject, "namespace").is_empty();
        if homeless && !namespaced {
            errors.required(&path.child("namespace"), "");
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
    if present(spec, "minAvailable").is_some() && present(spec, "maxUnavailable").is_some() {
        errors.invalid(&spec_path(), spec, "minAvailable and maxUnavailable cannot be both set");
    }
}

/// Checks a new PriorityClass.
pub(super) fn priority_class(object: &Value, errors: &mut ErrorList) {
    let value = number(object, "value").unwrap_or(0);
    if value > MAX_PRIORITY && !meta::name(object).starts_with("system-") {
        let text = format!("maximum allowed value of a user defined priority is {MAX_PRIORITY}");
        errors.forbidden(&Path::new("value"), &text);
    }
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

/// Checks a Lease.
pub(super) fn lease(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    if let Some(seconds) = number(spec, "leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
        let path = spec_path().child("leaseDurationSeconds");
        errors.invalid(&path, &json!(seconds), "must be greater than 0");
    }
    super::container::non_negative(spec, "leaseTransitions", &spec_path(), errors);
}

/// Checks a new CertificateSigningRequest.
pub(super) fn signing_request(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    if list(spec, "usages").is_empty() {
        errors.required(&spec_path().child("usages"), "");
    }
    let path = spec_path().child("signerName");
    match text(spec, "signerName") {
        "" => errors.required(&path, ""),
        name if !name.split_once('/').is_some_and(|(domain, rest)| domain.contains('.') && !rest.is_empty()) => {
            let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.invalid(&path, &json!(name), text);
        }
        "kubernetes.io/legacy-unknown" => {
            let value = json!("kubernetes.io/legacy-unknown");
            errors.invalid(&path, &value, "the legacy signerName is not allowed via this API version");
        }
        _ => {}
    }
    if let Some(seconds) = number(spec, "expirationSeconds").filter(|seconds| *seconds < 600) {
        let text = "may not specify a duration less than 600 seconds";
        errors.invalid(&spec_path().child("expirationSeconds"), &json!(seconds), text);
    }
}
