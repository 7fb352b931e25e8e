//! ResourceQuota and LimitRange.

use std::collections::{BTreeSet, HashSet};

use machinery::{
    field::{ErrorList, Path},
    names,
    quantity::Quantity,
};
use serde_json::{Value, json};

use super::{
    checks::{IMMUTABLE, STANDARD, is_extended, is_hugepages, quantity, resource_amount, resource_name},
    read::{list, pairs, present, same, text},
    spec_path,
};

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Resources of Pods that BestEffort ones do not have.
const COMPUTE: [&str; 9] = [
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
    "ephemeral-storage",
    "requests.ephemeral-storage",
    "limits.ephemeral-storage",
];
const SCOPE_OPERATORS: [&str; 4] = ["DoesNotExist", "Exists", "In", "NotIn"];
const BAD_SCOPE: &str = "unsupported scope applied to resource";

/// Checks a ResourceQuota.
pub(super) fn resource_quota(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    amounts(spec, "hard", &spec_path(), errors);
    scopes(spec, &spec_path().child("scopes"), errors);
    scope_selector(spec, &spec_path().child("scopeSelector"), errors);
}

fn amounts(holder: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    for (name, amount) in pairs(holder, field) {
        let path = path.child(field).key(name);
        let before = errors.len();
        errors.invalid_all(&path, &json!(name), names::qualified_name(name));
        if errors.len() == before && !is_quota_resource(name) {
            errors.invalid(&path, &json!(name), "must be a standard resource for quota");
        }
        resource_amount(name, amount, &path, errors);
    }
}

fn is_quota_resource(name: &str) -> bool {
    let huge = name.strip_prefix("requests.").unwrap_or(name);
    name.contains('/') || STANDARD.contains(&name) || is_hugepages(huge)
}

fn hard(spec: &Value) -> BTreeSet<&str> {
    pairs(spec, "hard").map(|(name, _)| name.as_str()).collect()
}

fn scopes(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let names: Vec<&str> = list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    check_scopes(&names, spec, path, errors);
}

fn check_scopes(scopes: &[&str], spec: &Value, path: &Path, errors: &mut ErrorList) {
    let shown = json!(scopes);
    for scope in scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(path, &shown, "unsupported scope");
        }
        if hard(spec).iter().any(|name| *scope == "BestEffort" && COMPUTE.contains(name)) {
            errors.invalid(path, &shown, BAD_SCOPE);
        }
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&one) && scopes.contains(&other) {
            errors.invalid(path, &shown, "conflicting scopes");
        }
    }
}

fn scope_selector(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(selector) = present(spec, "scopeSelector") else { return };
    let path = path.child("matchExpressions");
    let expressions = list(selector, "matchExpressions");
    let mut scopes = Vec::new();
    for expression in expressions {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        let values = list(expression, "values");
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), &json!(scope), "unsupported scope");
        }
        if hard(spec).iter().any(|name| scope == "BestEffort" && COMPUTE.contains(name)) {
            errors.invalid(&path.child("scopeName"), &json!(scope), BAD_SCOPE);
        }
        let plain = !matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if plain && SCOPES.contains(&scope) && operator != "Exists" {
            let text = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                        ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                        ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), &json!(operator), text);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), text);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let text = "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), &json!(values), text);
            }
            operator if !SCOPE_OPERATORS.contains(&operator) => {
                errors.invalid(&path.child("operator"), &json!(operator), "not a valid selector operator");
            }
            _ => {}
        }
        scopes.push(scope);
    }
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&one) && scopes.contains(&other) {
            errors.invalid(&path, &json!(expressions), "conflicting scopes");
        }
    }
}

/// Checks that a quota keeps its scopes.
pub(super) fn resource_quota_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let of = |object: &Value| -> BTreeSet<String> {
        let scopes = list(object.get("spec").unwrap_or(&none), "scopes");
        scopes.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if of(new) != of(old) {
        errors.invalid(&spec_path().child("scopes"), &json!(of(new)), IMMUTABLE);
    }
    let selector = "/spec/scopeSelector";
    if !same("scopeSelector", new.pointer(selector), old.pointer(selector)) {
        let value = new.pointer(selector).unwrap_or(&none);
        errors.invalid(&spec_path().child("scopeSelector"), value, IMMUTABLE);
    }
}

/// Checks the status of a ResourceQuota.
pub(super) fn resource_quota_status(object: &Value, errors: &mut ErrorList) {
    let status = object.get("status").unwrap_or(&Value::Null);
    for field in ["hard", "used"] {
        amounts(status, field, &Path::new("status"), errors);
    }
}

const BOUNDS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];
const LIMIT_TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];

/// Checks a LimitRange.
pub(super) fn limit_range(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let mut seen = HashSet::new();
    for (at, limit) in list(spec, "limits").iter().enumerate() {
        let path = spec_path().child("limits").index(at);
        let kind = text(limit, "type");
        if !LIMIT_TYPES.contains(&kind) {
            errors.invalid_all(&path.child("type"), &json!(kind), names::qualified_name(kind));
            if !kind.contains('/') {
                let text = "must be a standard limit type or fully qualified";
                errors.invalid(&path.child("type"), &json!(kind), text);
            }
        }
        if !seen.insert(kind) {
            errors.duplicate(&path.child("type"), &json!(kind));
        }
        check_limit(limit, kind, &path, errors);
    }
}

fn check_limit(limit: &Value, kind: &str, path: &Path, errors: &mut ErrorList) {
    let mut resources = BTreeSet::new();
    for field in BOUNDS {
        let refused = kind == "Pod" && matches!(field, "default" | "defaultRequest");
        if refused && pairs(limit, field).next().is_some() {
            errors.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
            continue;
        }
        for (name, _) in pairs(limit, field) {
            resources.insert(name.as_str());
            limited_resource(name, kind, &path.child(field).key(name), errors);
        }
    }
    if kind == "PersistentVolumeClaim" {
        let bounded = ["min", "max"].iter().any(|field| limit.get(*field).is_some_and(|m| m.get("storage").is_some()));
        if !bounded {
            let text = "either minimum or maximum storage value is required, but neither was provided";
            errors.required(&path.child("limits"), text);
        }
    }
    for name in resources {
        bounds_agree(limit, name, path, errors);
    }
}

fn limited_resource(name: &str, kind: &str, path: &Path, errors: &mut ErrorList) {
    if !resource_name(name, path, errors) || name.contains('/') {
        return;
    }
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_hugepages(name);
    match kind {
        "Pod" | "Container" if !standard => {
            errors.invalid(path, &json!(name), "must be a standard limit type or fully qualified");
        }
        _ => {}
    }
}

fn bounds_agree(limit: &Value, name: &str, path: &Path, errors: &mut ErrorList) {
    let of = |field: &str| limit.get(field).and_then(|bounds| bounds.get(name)).and_then(quantity);
    let (max, min, ratio) = (of("max"), of("min"), of("maxLimitRequestRatio"));
    let (default, request) = (of("default"), of("defaultRequest"));
    // Which field is told, then what is not to exceed what.
    let orders = [
        ("min", min, "min", max, "max"),
        ("defaultRequest", min, "min", request, "default request"),
        ("defaultRequest", request, "default request", max, "max"),
        ("defaultRequest", request, "default request", default, "default limit"),
        ("default", min, "min", default, "default"),
        ("default", default, "default", max, "max"),
    ];
    for (field, low, low_word, high, high_word) in orders {
        let (Some(low), Some(high)) = (low, high) else { continue };
        if low > high {
            let value = of(field).unwrap_or_default().to_string();
            let text = format!("{low_word} value {low} is greater than {high_word} value {high}");
            errors.invalid(&path.child(field).key(name), &json!(value), &text);
        }
    }
    ratio_agrees(name, ratio, (max, min), path, errors);
    let exact = is_extended(name) || is_hugepages(name);
    if let (true, Some(default), Some(request)) = (exact, default, request)
        && default != request
    {
        let text = format!("default value {default} must equal to defaultRequest value {request} in {name}");
        errors.invalid(&path.child("defaultRequest").key(name), &json!(request.to_string()), &text);
    }
}

fn ratio_agrees(
    name: &str,
    ratio: Option<Quantity>,
    (max, min): (Option<Quantity>, Option<Quantity>),
    path: &Path,
    errors: &mut ErrorList,
) {
    let Some(ratio) = ratio else { return };
    let path = path.child("maxLimitRequestRatio").key(name);
    if ratio.milli_value() < 1000 {
        errors.invalid(&path, &json!(ratio.to_string()), &format!("ratio {ratio} is less than 1"));
    }
    let (Some(max), Some(min)) = (max, min) else { return };
    let most = max.as_f64() / min.as_f64();
    if most.is_finite() && ratio.as_f64() > most {
        let text = format!("ratio {ratio} is greater than max/min = {most:.6}");
        errors.invalid(&path, &json!(ratio.to_string()), &text);
    }
}
