//! HorizontalPodAutoscaler.

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::{
    checks::{self, choice, non_negative, quantity},
    read::{list, number, present, text},
    spec_path,
};

const MAX_WINDOW: i64 = 3600;
const MAX_PERIOD: i64 = 1800;
const SOURCES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

/// Checks a HorizontalPodAutoscaler.
pub(super) fn autoscaler(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    let min = number(spec, "minReplicas");
    if let Some(min) = min.filter(|min| *min < 1) {
        errors.invalid(&path.child("minReplicas"), &json!(min), "must be greater than or equal to 1");
    }
    let max = number(spec, "maxReplicas").unwrap_or(0);
    if max < 1 {
        errors.required(&path.child("maxReplicas"), "must be set and greater than 0");
    } else if min.is_some_and(|min| max < min) {
        errors.invalid(&path.child("maxReplicas"), &json!(max), "must be greater than or equal to `minReplicas`");
    }
    let target = spec.get("scaleTargetRef").unwrap_or(&none);
    reference(target, &path.child("scaleTargetRef"), errors);
    target_group(target, &path.child("scaleTargetRef"), errors);
    for (at, metric) in list(spec, "metrics").iter().enumerate() {
        check_metric(metric, &path.child("metrics").index(at), errors);
    }
    let behavior = spec.get("behavior").unwrap_or(&none);
    for direction in ["scaleUp", "scaleDown"] {
        if let Some(rules) = present(behavior, direction) {
            scaling(rules, &path.child("behavior").child(direction), errors);
        }
    }
}

/// Checks what is scaled, or what a metric is about.
fn reference(target: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["kind", "name"] {
        let value = text(target, field);
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            errors.invalid_all(&path.child(field), &json!(value), names::path_segment(value));
        }
    }
}

/// What is scaled names its group.
fn target_group(target: &Value, path: &Path, errors: &mut ErrorList) {
    let version = text(target, "apiVersion");
    let path = path.child("apiVersion");
    if version.matches('/').count() > 1 {
        let text = format!("unexpected GroupVersion string: {version}");
        errors.invalid(&path, &json!(version), &text);
    } else if !version.contains('/') && text(target, "kind") != "ReplicationController" {
        errors.invalid(&path, &json!(version), "apiVersion must specify API group");
    }
}

fn field_of(kind: &str) -> String {
    let mut chars = kind.chars();
    chars.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(chars).collect()
}

fn check_metric(metric: &Value, path: &Path, errors: &mut ErrorList) {
    let kind = text(metric, "type");
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric source type");
        return;
    }
    if !SOURCES.contains(&kind) {
        errors.not_supported(&path.child("type"), &json!(kind), &SOURCES);
    }
    let fields = ["object", "pods", "resource", "containerResource", "external"];
    let given: Vec<&str> = fields.into_iter().filter(|field| present(metric, field).is_some()).collect();
    let expected = field_of(kind);
    for (at, field) in given.iter().enumerate() {
        if at > 0 {
            let text = "must populate the given metric source only";
            errors.forbidden(&path.child(field), text);
        } else {
            source(field, &metric[*field], &path.child(field), errors);
        }
    }
    if SOURCES.contains(&kind) && !given.contains(&expected.as_str()) {
        let text = "must populate information for the given metric source";
        errors.required(&path.child(&expected), text);
    }
}

fn source(kind: &str, source: &Value, path: &Path, errors: &mut ErrorList) {
    let target = source.get("target").unwrap_or(&Value::Null);
    let at = path.child("target");
    match kind {
        "resource" | "containerResource" => {
            if text(source, "name").is_empty() {
                errors.required(&path.child("name"), "must specify a resource name");
            }
            if kind == "containerResource" && text(source, "container").is_empty() {
                errors.required(&path.child("container"), "must specify a container");
            }
            check_target(target, &at, errors);
            let (utilization, average) = (present(target, "averageUtilization"), present(target, "averageValue"));
            match (utilization, average) {
                (None, None) => {
                    let text = "must set either a target raw value or a target utilization";
                    errors.required(&at.child("averageUtilization"), text);
                }
                (Some(_), Some(_)) => {
                    let text = "may not set both a target raw value and a target utilization";
                    errors.forbidden(&at.child("averageValue"), text);
                }
                _ => {}
            }
        }
        kind => {
            if kind == "object" {
                let object = source.get("describedObject").unwrap_or(&Value::Null);
                reference(object, &path.child("describedObject"), errors);
            }
            let metric = source.get("metric").unwrap_or(&Value::Null);
            identifier(metric, &path.child("metric"), errors);
            check_target(target, &at, errors);
            let (value, average) = (present(target, "value"), present(target, "averageValue"));
            if kind == "pods" && average.is_none_or(|v| quantity(v).is_none_or(|q| q.is_zero() || q.is_negative())) {
                errors.required(&at.child("averageValue"), "must specify a positive target averageValue");
            }
            if kind != "pods" && value.is_none() && average.is_none() {
                let text = "must set either a target value for metric or a per-pod target";
                errors.required(&at.child("averageValue"), text);
            }
            if kind == "external" && value.is_some() && average.is_some() {
                let text = "may not set both a target value for metric and a per-pod target";
                errors.forbidden(&at.child("value"), text);
            }
        }
    }
}

fn identifier(metric: &Value, path: &Path, errors: &mut ErrorList) {
    let name = text(metric, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a metric name");
    } else {
        errors.invalid_all(&path.child("name"), &json!(name), names::path_segment(name));
    }
    checks::selector(metric.get("selector"), &path.child("selector"), errors);
}

fn check_target(target: &Value, path: &Path, errors: &mut ErrorList) {
    let kinds = ["AverageValue", "Utilization", "Value"];
    match text(target, "type") {
        "" => errors.required(&path.child("type"), "must specify a metric target type"),
        kind if !kinds.contains(&kind) => {
            errors.invalid(&path.child("type"), &json!(kind), "must be either Utilization, Value, or AverageValue");
        }
        _ => {}
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = target.get(field).and_then(quantity).filter(|q| q.is_zero() || q.is_negative()) {
            errors.invalid(&path.child(field), &json!(amount.to_string()), "must be positive");
        }
    }
    if let Some(percent) = number(target, "averageUtilization").filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), &json!(percent), "must be greater than 0");
    }
}

fn scaling(rules: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(window) = number(rules, "stabilizationWindowSeconds") {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.invalid(&path, &json!(window), "must be greater than or equal to zero");
        }
        if window > MAX_WINDOW {
            errors.invalid(&path, &json!(window), &format!("must be less than or equal to {MAX_WINDOW}"));
        }
    }
    checks::enumeration(rules, "selectPolicy", &["Disabled", "Max", "Min"], path, errors);
    let path = path.child("policies");
    let policies = list(rules, "policies");
    if policies.is_empty() {
        errors.required(&path, "must specify at least one Policy");
    }
    for (at, policy) in policies.iter().enumerate() {
        let path = path.index(at);
        choice(policy, "type", &["Percent", "Pods"], &path, errors);
        for field in ["value", "periodSeconds"] {
            let have = number(policy, field).unwrap_or(0);
            if have <= 0 {
                errors.invalid(&path.child(field), &json!(have), "must be greater than zero");
            }
        }
        if let Some(period) = number(policy, "periodSeconds").filter(|period| *period > MAX_PERIOD) {
            let text = format!("must be less than or equal to {MAX_PERIOD}");
            errors.invalid(&path.child("periodSeconds"), &json!(period), &text);
        }
    }
}

/// Checks the status of a HorizontalPodAutoscaler.
pub(super) fn status(object: &Value, errors: &mut ErrorList) {
    let status = object.get("status").unwrap_or(&Value::Null);
    for field in ["currentReplicas", "desiredReplicas"] {
        non_negative(status, field, &Path::new("status"), errors);
    }
}
