//! Where a Pod may run: affinity, tolerations, spread constraints, gates.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::super::{
    checks::{NOT_POSITIVE, enumeration, label_values, selector},
    read::{list, number, present, text},
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NO_TOPOLOGY: &str = "can not be empty";
const WEIGHT: &str = "must be in the range 1-100";
const BAD_OPERATOR: &str = "not a valid selector operator";

/// Checks `affinity`.
pub(super) fn affinity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(affinity) = present(spec, "affinity") else { return };
    if let Some(node) = present(affinity, "nodeAffinity") {
        node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        if let Some(pods) = present(affinity, kind) {
            pod_affinity(pods, &path.child(kind), errors);
        }
    }
}

fn node_affinity(affinity: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(required) = present(affinity, REQUIRED) {
        node_selector(required, true, &path.child(REQUIRED), errors);
    }
    for (at, preferred) in list(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(at);
        weight(preferred, &path, errors);
        if let Some(term) = present(preferred, "preference") {
            node_selector_term(term, false, &path.child("preference"), errors);
        }
    }
}

/// Checks a node selector; `values` says whether label values count as such.
pub(in super::super) fn node_selector(selector: &Value, values: bool, path: &Path, errors: &mut ErrorList) {
    let path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (at, term) in terms.iter().enumerate() {
        node_selector_term(term, values, &path.index(at), errors);
    }
}

fn node_selector_term(term: &Value, values: bool, path: &Path, errors: &mut ErrorList) {
    for (at, requirement) in list(term, "matchExpressions").iter().enumerate() {
        node_requirement(requirement, values, &path.child("matchExpressions").index(at), errors);
    }
    for (at, requirement) in list(term, "matchFields").iter().enumerate() {
        node_field(requirement, &path.child("matchFields").index(at), errors);
    }
}

fn node_requirement(requirement: &Value, check_values: bool, path: &Path, errors: &mut ErrorList) {
    let values = list(requirement, "values");
    let at = path.child("values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), &json!(other), BAD_OPERATOR),
    }
    if check_values {
        label_values(values, &at, errors);
    }
    label_name(text(requirement, "key"), &path.child("key"), errors);
}

fn node_field(requirement: &Value, path: &Path, errors: &mut ErrorList) {
    let values = list(requirement, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.len() != 1 => {
            let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.required(&path.child("values"), text);
        }
        "In" | "NotIn" => {}
        other => errors.invalid(&path.child("operator"), &json!(other), BAD_OPERATOR),
    }
    let key = text(requirement, "key");
    if key != "metadata.name" {
        errors.invalid(&path.child("key"), &json!(key), "not a valid field selector key");
        return;
    }
    for (at, value) in values.iter().enumerate() {
        let problems = names::dns1123_subdomain(value.as_str().unwrap_or(""));
        errors.invalid_all(&path.child("values").index(at), value, problems);
    }
}

fn label_name(name: &str, path: &Path, errors: &mut ErrorList) {
    errors.invalid_all(path, &json!(name), names::qualified_name(name));
}

fn weight(term: &Value, path: &Path, errors: &mut ErrorList) {
    let weight = number(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), &json!(weight), WEIGHT);
    }
}

fn pod_affinity(affinity: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, term) in list(affinity, REQUIRED).iter().enumerate() {
        pod_term(term, &path.child(REQUIRED).index(at), errors);
    }
    for (at, weighted) in list(affinity, PREFERRED).iter().enumerate() {
        let path = path.child(PREFERRED).index(at);
        weight(weighted, &path, errors);
        pod_term(weighted.get("podAffinityTerm").unwrap_or(&Value::Null), &path.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["labelSelector", "namespaceSelector"] {
        selector(term.get(field), &path.child(field), errors);
    }
    for name in list(term, "namespaces").iter().filter_map(Value::as_str) {
        errors.invalid_all(&path.child("namespace"), &json!(name), names::dns1123_label(name));
    }
    let (matching, other) = (list(term, "matchLabelKeys"), list(term, "mismatchLabelKeys"));
    label_keys(term, "matchLabelKeys", path, errors);
    label_keys(term, "mismatchLabelKeys", path, errors);
    for (at, key) in matching.iter().enumerate().filter(|(_, key)| other.contains(key)) {
        let text = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(&path.child("matchLabelKeys").index(at), key, text);
    }
    topology_key(term, path, errors);
}

fn topology_key(term: &Value, path: &Path, errors: &mut ErrorList) {
    let key = text(term, "topologyKey");
    if key.is_empty() {
        errors.required(&path.child("topologyKey"), NO_TOPOLOGY);
    } else {
        label_name(key, &path.child("topologyKey"), errors);
    }
}

/// Checks the keys whose values come from the Pod's own labels. One requirement on such a key is the one that creation
/// has added.
fn label_keys(term: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    let keys = list(term, field);
    let path = path.child(field);
    let Some(selector) = present(term, "labelSelector") else {
        if !keys.is_empty() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
        }
        return;
    };
    let operator = if field == "matchLabelKeys" { "In" } else { "NotIn" };
    for (at, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        label_name(key, &path.index(at), errors);
        let named = selector.get("matchLabels").is_some_and(|labels| labels.get(key).is_some());
        let expressions: Vec<&Value> =
            list(selector, "matchExpressions").iter().filter(|e| text(e, "key") == key).collect();
        let added =
            matches!(expressions.as_slice(), [] | [_]) && expressions.iter().all(|e| text(e, "operator") == operator);
        if named || !added {
            errors.invalid(&path.index(at), &json!(key), &format!("exists in both {field} and labelSelector"));
        }
    }
}

/// Checks `tolerations`.
pub(in super::super) fn tolerations(tolerations: &[Value], path: &Path, errors: &mut ErrorList) {
    for (at, toleration) in tolerations.iter().enumerate() {
        let path = path.index(at);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        if !key.is_empty() {
            label_name(key, &path.child("key"), errors);
        } else if operator != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.child("operator"), &json!(operator), text);
        }
        if number(toleration, "tolerationSeconds").is_some() && text(toleration, "effect") != "NoExecute" {
            let value = json!(text(toleration, "effect"));
            errors.invalid(&path.child("effect"), &value, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        let value = text(toleration, "value");
        match operator {
            "" | "Equal" => {
                let problems = names::label_value(value);
                if !problems.is_empty() {
                    errors.invalid(&path.child("operator"), &json!(value), &problems.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                let text = "value must be empty when `operator` is 'Exists'";
                errors.invalid(&path.child("operator"), &json!(value), text);
            }
            "Exists" => {}
            other => errors.not_supported(&path.child("operator"), &json!(other), &["Equal", "Exists"]),
        }
        enumeration(toleration, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], &path, errors);
    }
}

/// Checks `topologySpreadConstraints`.
pub(super) fn spread(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.index(at);
        let skew = number(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), &json!(skew), NOT_POSITIVE);
        }
        topology_key(constraint, &path, errors);
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            errors.not_supported(&path.child("whenUnsatisfiable"), &json!(action), &actions);
        }
        if !seen.insert((key, action)) {
            let pair = path.child("{topologyKey, whenUnsatisfiable}");
            errors.duplicate(&pair, &json!(format!("{{{key}, {action}}}")));
        }
        min_domains(constraint, action, &path, errors);
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            enumeration(constraint, field, &["Honor", "Ignore"], &path, errors);
        }
        label_keys(constraint, "matchLabelKeys", &path, errors);
        selector(constraint.get("labelSelector"), &path.child("labelSelector"), errors);
    }
}

fn min_domains(constraint: &Value, action: &str, path: &Path, errors: &mut ErrorList) {
    let Some(domains) = number(constraint, "minDomains") else { return };
    let path = path.child("minDomains");
    if domains <= 0 {
        errors.invalid(&path, &json!(domains), NOT_POSITIVE);
    }
    if action != "DoNotSchedule" {
        let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.invalid(&path, &json!(domains), &text);
    }
}

/// Checks `schedulingGates` and `readinessGates`.
pub(super) fn gates(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, gate) in list(spec, "readinessGates").iter().enumerate() {
        label_name(text(gate, "conditionType"), &path.child("readinessGates").index(at).child("conditionType"), errors);
    }
    let mut seen = HashSet::new();
    for (at, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let path = path.child("schedulingGates").index(at);
        let name = text(gate, "name");
        label_name(name, &path, errors);
        if !seen.insert(name) {
            errors.duplicate(&path, &json!(name));
        }
    }
}
