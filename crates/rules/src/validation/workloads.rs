//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController.

use machinery::{
    field::{ErrorList, Path},
    intstr::IntOrString,
    names,
    selector::LabelSelector,
};
use serde_json::{Value, json};

use super::{
    container::non_negative,
    pod,
    read::{list, number, present, same, text},
    spec_path,
};

const MISMATCH: &str = "`selector` does not match template `labels`";
const SET_FIELDS: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// Checks a new object of `apps`.
pub(super) fn create(kind: &str, object: &Value, errors: &mut ErrorList) {
    numbers(object, errors);
    let Some(word) = word(kind) else { return };
    selector(word, object, errors);
    template(kind, object, errors);
    match kind {
        "Deployment" => deployment(object, errors),
        "DaemonSet" => daemon_set(object, errors),
        _ => {}
    }
}

fn word(kind: &str) -> Option<&'static str> {
    match kind {
        "StatefulSet" => Some("statefulset"),
        "DaemonSet" => Some("daemonset"),
        "Deployment" | "ReplicaSet" => Some("deployment"),
        _ => None,
    }
}

fn selector(word: &str, object: &Value, errors: &mut ErrorList) {
    let path = spec_path().child("selector");
    let Some(selector) = object.pointer("/spec/selector").filter(|s| !s.is_null()) else {
        errors.required(&path, "");
        return;
    };
    let Ok(parsed) = LabelSelector::from_object(selector) else {
        errors.invalid(&path, selector, "invalid label selector");
        return;
    };
    if parsed.is_everything() {
        errors.invalid(&path, selector, &format!("empty selector is invalid for {word}"));
        return;
    }
    selects_template(&parsed, object, errors);
}

fn selects_template(selector: &LabelSelector, object: &Value, errors: &mut ErrorList) {
    let labels = object.pointer("/spec/template/metadata/labels");
    let lookup = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    if !selector.matches(lookup) {
        let value = labels.cloned().unwrap_or_else(|| json!({}));
        let path = spec_path().child("template").child("metadata").child("labels");
        errors.invalid(&path, &value, MISMATCH);
    }
}

/// Numbers that may not be negative, where the kind has them.
fn numbers(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        non_negative(spec, field, &spec_path(), errors);
    }
}

fn template(kind: &str, object: &Value, errors: &mut ErrorList) {
    let path = spec_path().child("template").child("spec");
    let Some(spec) = object.pointer("/spec/template/spec") else { return };
    // The template of a StatefulSet mounts claims that only its Pods have as volumes.
    if kind != "StatefulSet" {
        pod::spec(spec, &path, errors);
    }
    if !list(spec, "ephemeralContainers").is_empty() {
        let path = path.child("ephemeralContainers");
        errors.forbidden(&path, "ephemeral containers not allowed in pod template");
    }
    let policy = text(spec, "restartPolicy");
    if policy != "Always" {
        errors.not_supported(&path.child("restartPolicy"), &json!(policy), &["Always"]);
    }
    if present(spec, "activeDeadlineSeconds").is_some() {
        let owner = if kind == "Deployment" { "ReplicaSet" } else { kind };
        let text = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), &text);
    }
}

fn deployment(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    let path = spec_path().child("strategy");
    let rolling = spec.pointer("/strategy/rollingUpdate").filter(|v| !v.is_null());
    match spec.pointer("/strategy/type").and_then(Value::as_str).unwrap_or("") {
        "Recreate" if rolling.is_some() => {
            let text = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(&path.child("rollingUpdate"), text);
        }
        "Recreate" | "" => {}
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                let path = path.child("rollingUpdate");
                let unavailable = share(rolling, "maxUnavailable", true, &path, errors);
                let surge = share(rolling, "maxSurge", false, &path, errors);
                if unavailable == 0 && surge == 0 {
                    let value = rolling.get("maxUnavailable").unwrap_or(&Value::Null);
                    errors.invalid(&path.child("maxUnavailable"), value, "may not be 0 when `maxSurge` is 0");
                }
            }
        }
        other => errors.not_supported(&path.child("type"), &json!(other), &["Recreate", "RollingUpdate"]),
    }
    let ready = number(spec, "minReadySeconds").unwrap_or(0);
    if let Some(deadline) = number(spec, "progressDeadlineSeconds").filter(|deadline| *deadline <= ready) {
        let path = spec_path().child("progressDeadlineSeconds");
        errors.invalid(&path, &json!(deadline), "must be greater than minReadySeconds");
    }
}

fn daemon_set(object: &Value, errors: &mut ErrorList) {
    let Some(rolling) = object.pointer("/spec/updateStrategy/rollingUpdate").filter(|v| !v.is_null()) else { return };
    let path = spec_path().child("updateStrategy").child("rollingUpdate");
    let unavailable = share(rolling, "maxUnavailable", true, &path, errors);
    let surge = share(rolling, "maxSurge", true, &path, errors);
    if unavailable != 0 && surge != 0 {
        let text = "may not be set when maxUnavailable is non-zero";
        errors.invalid(&path.child("maxSurge"), &rolling["maxSurge"], text);
    } else if unavailable == 0 && surge == 0 {
        errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
    }
}

/// Checks a number or percentage; answers its value without regard to what it is a part of.
fn share(value: &Value, field: &str, at_most_all: bool, path: &Path, errors: &mut ErrorList) -> i64 {
    let path = path.child(field);
    let Some(raw) = present(value, field) else { return 0 };
    match IntOrString::from_value(raw) {
        Some(IntOrString::Int(n)) => {
            if n < 0 {
                errors.invalid(&path, raw, "must be greater than or equal to 0");
            }
            i64::from(n)
        }
        Some(IntOrString::Text(text)) => {
            errors.invalid_all(&path, raw, names::percent(&text));
            let percent = text.trim_end_matches('%').parse::<i64>().unwrap_or(0);
            if at_most_all && percent > 100 {
                errors.invalid(&path, raw, "must not be greater than 100%");
            }
            percent
        }
        None => 0,
    }
}

/// Checks an update of `apps`.
pub(super) fn update(kind: &str, new: &Value, old: &Value, errors: &mut ErrorList) {
    if same("spec", new.get("spec"), old.get("spec")) {
        return;
    }
    if kind == "StatefulSet" {
        numbers(new, errors);
        if !same("template", new.pointer("/spec/template"), old.pointer("/spec/template")) {
            template(kind, new, errors);
            selector("statefulset", new, errors);
        }
        only_set_fields(new, old, errors);
        return;
    }
    create(kind, new, errors);
    let (sent, stored) = (new.pointer("/spec/selector"), old.pointer("/spec/selector"));
    if word(kind).is_some() && !same("selector", sent, stored) {
        errors.invalid(&spec_path().child("selector"), sent.unwrap_or(&Value::Null), "field is immutable");
    }
}

fn only_set_fields(new: &Value, old: &Value, errors: &mut ErrorList) {
    let rest = |object: &Value| {
        let mut spec = object.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
        spec.retain(|key, _| !SET_FIELDS.contains(&key.as_str()));
        if let Some(claims) = spec.get_mut("volumeClaimTemplates").and_then(Value::as_array_mut) {
            for claim in claims.iter_mut().filter_map(Value::as_object_mut) {
                claim.remove("status");
            }
        }
        Value::Object(spec)
    };
    if !same("spec", Some(&rest(new)), Some(&rest(old))) {
        let text = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                    'minReadySeconds' are forbidden";
        errors.forbidden(&spec_path(), text);
    }
}

/// Checks a new or changed ReplicationController.
pub(super) fn replication_controller(object: &Value, errors: &mut ErrorList) {
    numbers(object, errors);
    let labels = object.pointer("/spec/selector").and_then(Value::as_object);
    let selector: Vec<(&str, &str)> =
        labels.into_iter().flatten().filter_map(|(k, v)| v.as_str().map(|v| (k.as_str(), v))).collect();
    if selector.is_empty() {
        errors.required(&spec_path().child("selector"), "");
    }
    if object.pointer("/spec/template").is_none_or(Value::is_null) {
        errors.required(&spec_path().child("template"), "");
        return;
    }
    selects_template(&LabelSelector::from_map(selector), object, errors);
    template("ReplicationController", object, errors);
}
