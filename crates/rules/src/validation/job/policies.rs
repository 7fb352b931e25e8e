//! Pod failure and success policies of Jobs.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::super::{
    checks::non_negative,
    read::{list, number, present, text},
};

const MAX_RULES: usize = 20;
const MAX_CODES: usize = 255;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const OPERATORS: [&str; 2] = ["In", "NotIn"];
const MAX_INDEXES_TEXT: usize = 64 * 1024;

fn valid_values(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

/// A field with one of `values`, whose absence is told with them.
fn one_of(value: &Value, field: &str, values: &[&str], path: &Path, errors: &mut ErrorList) {
    match text(value, field) {
        "" => errors.required(&path.child(field), &valid_values(values)),
        have if !values.contains(&have) => errors.not_supported(&path.child(field), &json!(have), values),
        _ => {}
    }
}

/// Checks `podFailurePolicy`.
pub(super) fn failure(spec: &Value, policy: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("rules");
    let rules = list(policy, "rules");
    if rules.len() > MAX_RULES {
        errors.too_many(&path, rules.len(), MAX_RULES);
    }
    let template = spec.pointer("/template/spec").unwrap_or(&Value::Null);
    let containers = ["containers", "initContainers"].iter().flat_map(|field| list(template, field));
    let containers: HashSet<&str> = containers.map(|container| text(container, "name")).collect();
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        if text(rule, "action") == "FailIndex" && present(spec, "backoffLimitPerIndex").is_none() {
            let value = json!("FailIndex");
            errors.invalid(&path.child("action"), &value, "requires the backoffLimitPerIndex to be set");
        }
        one_of(rule, "action", &ACTIONS, &path, errors);
        let (codes, conditions) = (present(rule, "onExitCodes"), list(rule, "onPodConditions"));
        if let Some(codes) = codes {
            exit_codes(codes, &containers, &path.child("onExitCodes"), errors);
        }
        pod_conditions(conditions, &path.child("onPodConditions"), errors);
        match (codes, conditions.is_empty()) {
            (Some(_), false) => {
                let text = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.invalid(&path, rule, text);
            }
            (None, true) => {
                let text = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.invalid(&path, rule, text);
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: &Value, containers: &HashSet<&str>, path: &Path, errors: &mut ErrorList) {
    one_of(codes, "operator", &OPERATORS, path, errors);
    if let Some(name) = present(codes, "containerName").and_then(Value::as_str)
        && !containers.contains(name)
    {
        let text = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), &json!(name), text);
    }
    let path = path.child("values");
    let values = list(codes, "values");
    if values.is_empty() {
        errors.invalid(&path, &json!(values), "at least one value is required");
    } else if values.len() > MAX_CODES {
        errors.too_many(&path, values.len(), MAX_CODES);
    }
    let (mut seen, mut ordered, mut last) = (HashSet::new(), true, i64::MIN);
    for (at, value) in values.iter().enumerate() {
        let code = value.as_i64().unwrap_or(0);
        if text(codes, "operator") == "In" && code == 0 {
            errors.invalid(&path.index(at), value, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            errors.duplicate(&path.index(at), value);
        }
        ordered &= last <= code;
        last = code;
    }
    if !ordered {
        errors.invalid(&path, &json!(values), "must be ordered");
    }
}

fn pod_conditions(conditions: &[Value], path: &Path, errors: &mut ErrorList) {
    if conditions.len() > MAX_RULES {
        errors.too_many(path, conditions.len(), MAX_RULES);
    }
    for (at, condition) in conditions.iter().enumerate() {
        let path = path.index(at);
        let kind = text(condition, "type");
        errors.invalid_all(&path.child("type"), &json!(kind), names::qualified_name(kind));
        one_of(condition, "status", &STATUSES, &path, errors);
    }
}

/// Checks `successPolicy`.
pub(super) fn success(spec: &Value, policy: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("rules");
    let rules = list(policy, "rules");
    if rules.is_empty() {
        errors.required(&path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > MAX_RULES {
        errors.too_many(&path, rules.len(), MAX_RULES);
    }
    for (at, rule) in rules.iter().enumerate() {
        let path = path.index(at);
        let (count, indexes) = (number(rule, "succeededCount"), present(rule, "succeededIndexes"));
        if count.is_none() && indexes.is_none() {
            errors.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        non_negative(rule, "succeededCount", &path, errors);
        if text(rule, "succeededIndexes").len() > MAX_INDEXES_TEXT {
            errors.too_long(&path.child("succeededIndexes"), MAX_INDEXES_TEXT);
        }
        let completions = number(spec, "completions").unwrap_or(0);
        if let Some(count) = count.filter(|count| *count > completions) {
            let text = format!("must be less than or equal to {completions} (the number of specified completions)");
            errors.invalid(&path.child("succeededCount"), &json!(count), &text);
        }
    }
}
