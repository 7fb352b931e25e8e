//! Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController.

use machinery::{
    field::{ErrorList, Path},
    names,
    selector::LabelSelector,
};
use serde_json::{Value, json};

use super::{
    checks::{self, IMMUTABLE, choice, enumeration, non_negative, share},
    pod,
    read::{list, number, present, same, text},
    spec_path, storage,
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

/// Checks an object of `apps`.
pub(super) fn workload(kind: &str, object: &Value, errors: &mut ErrorList) {
    let Some(word) = word(kind) else { return };
    numbers(object, errors);
    selector(word, object, errors);
    template(kind, object, errors);
    match kind {
        "Deployment" => deployment(object, errors),
        "DaemonSet" => daemon_set(object, errors),
        "StatefulSet" => stateful_set(object, errors),
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
    let before = errors.len();
    checks::selector(Some(selector), &path, errors);
    if errors.len() != before {
        return;
    }
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
    let path = spec_path().child("template");
    let none = Value::Null;
    let template = object.pointer("/spec/template").unwrap_or(&none);
    let spec = template.get("spec").unwrap_or(&none);
    // The template of a StatefulSet mounts claims that only its Pods have as volumes.
    if kind == "StatefulSet" {
        pod::template_metadata(template, &path, errors);
    } else {
        pod::template(template, &path, errors);
    }
    let path = path.child("spec");
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
    let none = Value::Null;
    let strategy = object.pointer("/spec/updateStrategy").unwrap_or(&none);
    let path = spec_path().child("updateStrategy");
    enumeration(strategy, "type", &["RollingUpdate", "OnDelete"], &path, errors);
    if text(strategy, "type") == "OnDelete" {
        return;
    }
    let Some(rolling) = present(strategy, "rollingUpdate") else { return };
    let path = path.child("rollingUpdate");
    let unavailable = share(rolling, "maxUnavailable", true, &path, errors);
    let surge = share(rolling, "maxSurge", true, &path, errors);
    if unavailable != 0 && surge != 0 {
        let text = "may not be set when maxUnavailable is non-zero";
        errors.invalid(&path.child("maxSurge"), &rolling["maxSurge"], text);
    } else if unavailable == 0 && surge == 0 {
        errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
    }
}

fn stateful_set(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    let path = spec_path();
    let policies = ["OrderedReady", "Parallel"];
    if !text(spec, "podManagementPolicy").is_empty() && !policies.contains(&text(spec, "podManagementPolicy")) {
        let text = "must be 'OrderedReady' or 'Parallel'";
        errors.invalid(&path.child("podManagementPolicy"), &spec["podManagementPolicy"], text);
    }
    let strategy = spec.get("updateStrategy").unwrap_or(&Value::Null);
    set_strategy(strategy, &path.child("updateStrategy"), errors);
    if let Some(policy) = present(spec, "persistentVolumeClaimRetentionPolicy") {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for field in ["whenDeleted", "whenScaled"] {
            choice(policy, field, &["Delete", "Retain"], &path, errors);
        }
    }
    if let Some(ordinals) = present(spec, "ordinals") {
        non_negative(ordinals, "start", &path.child("ordinals"), errors);
    }
}

fn set_strategy(strategy: &Value, path: &Path, errors: &mut ErrorList) {
    let rolling = present(strategy, "rollingUpdate");
    match text(strategy, "type") {
        "" => errors.required(path, ""),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let text = "only allowed for updateStrategy 'RollingUpdate'";
                errors.invalid(&path.child("rollingUpdate"), rolling, text);
            }
        }
        "RollingUpdate" => {
            if let Some(rolling) = rolling {
                non_negative(rolling, "partition", &path.child("rollingUpdate"), errors);
            }
        }
        other => {
            errors.invalid(path, &json!(other), "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

/// Checks what only a new StatefulSet obeys.
pub(super) fn new_stateful_set(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    let name = text(spec, "serviceName");
    if !name.is_empty() {
        errors.invalid_all(&spec_path().child("serviceName"), &json!(name), names::dns1123_label(name));
    }
    for (at, claim) in list(spec, "volumeClaimTemplates").iter().enumerate() {
        let path = spec_path().child("volumeClaimTemplates").index(at).child("spec");
        storage::claim_spec(claim.get("spec").unwrap_or(&Value::Null), &path, errors);
    }
}

/// Checks what may change of a stored object of `apps`.
pub(super) fn update(kind: &str, new: &Value, old: &Value, errors: &mut ErrorList) {
    if kind == "StatefulSet" {
        only_set_fields(new, old, errors);
        return;
    }
    let (sent, stored) = (new.pointer("/spec/selector"), old.pointer("/spec/selector"));
    if word(kind).is_some() && !same("selector", sent, stored) {
        errors.invalid(&spec_path().child("selector"), sent.unwrap_or(&Value::Null), IMMUTABLE);
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

/// Checks a ReplicationController.
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

/// Numbers in the status of each kind.
fn counters(kind: &str) -> &'static [&'static str] {
    match kind {
        "DaemonSet" => &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "observedGeneration",
            "collisionCount",
        ],
        "StatefulSet" => &["replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
        "Deployment" => &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ],
        _ => &[
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "terminatingReplicas",
            "observedGeneration",
        ],
    }
}

const BEYOND_REPLICAS: &str = "cannot be greater than status.replicas";

/// Checks the status of a workload against the stored one.
pub(super) fn status(kind: &str, new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let path = Path::new("status");
    let status = new.get("status").unwrap_or(&none);
    for field in counters(kind) {
        non_negative(status, field, &path, errors);
    }
    if kind != "DaemonSet" {
        let parts: &[&str] = match kind {
            "Deployment" => &["updatedReplicas", "readyReplicas", "availableReplicas"],
            "StatefulSet" => &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
            _ => &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
        };
        within_replicas(status, parts, &path, errors);
    }
    let collisions = |object: &Value| object.pointer("/status/collisionCount").and_then(Value::as_i64);
    if let Some(stored) = collisions(old) {
        let sent = collisions(new);
        if sent.is_none_or(|sent| sent < stored) {
            let value = sent.map_or(Value::Null, |sent| json!(sent));
            errors.invalid(&path.child("collisionCount"), &value, "cannot be decremented");
        }
    }
}

fn within_replicas(status: &Value, parts: &[&str], path: &Path, errors: &mut ErrorList) {
    let count = |field: &str| number(status, field).unwrap_or(0);
    for part in parts {
        if count(part) > count("replicas") {
            errors.invalid(&path.child(part), &json!(count(part)), BEYOND_REPLICAS);
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let value = json!(count("availableReplicas"));
        errors.invalid(&path.child("availableReplicas"), &value, "cannot be greater than readyReplicas");
    }
}
