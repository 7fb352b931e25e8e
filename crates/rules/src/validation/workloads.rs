//! Deployment, ReplicaSet, StatefulSet, DaemonSet.

use machinery::{field::ErrorList, selector::LabelSelector};
use serde_json::{Value, json};

use super::spec_path;

pub(super) fn create(kind: &str, object: &Value, errors: &mut ErrorList) {
    let path = spec_path().child("selector");
    let word = match kind {
        "StatefulSet" => "statefulset",
        "DaemonSet" => "daemonset",
        "Deployment" | "ReplicaSet" => "deployment",
        _ => return,
    };
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
    let labels = object.pointer("/spec/template/metadata/labels");
    let lookup = |key: &str| labels.and_then(|l| l.get(key)).and_then(Value::as_str);
    if !parsed.matches(lookup) {
        let value = labels.cloned().unwrap_or_else(|| json!({}));
        let path = spec_path().child("template").child("metadata").child("labels");
        errors.invalid(&path, &value, "`selector` does not match template `labels`");
    }
}

pub(super) fn update(kind: &str, new: &Value, old: &Value, errors: &mut ErrorList) {
    create(kind, new, errors);
    let (sent, stored) = (new.pointer("/spec/selector"), old.pointer("/spec/selector"));
    if kind != "ControllerRevision" && sent != stored {
        errors.invalid(&spec_path().child("selector"), sent.unwrap_or(&Value::Null), "field is immutable");
    }
}
