//! Namespace, Node and claims of storage.

use std::collections::HashSet;

use machinery::field::{ErrorList, Path};
use serde_json::{Map, Value, json};

use super::{
    container::quantity,
    read::{difference, list, present, same, text},
    spec_path,
};

/// Checks the taints of a new or changed Node.
pub(super) fn node(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let mut seen = HashSet::new();
    for (at, taint) in list(spec, "taints").iter().enumerate() {
        let path = Path::new("metadata").child("taints").index(at);
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        errors.invalid_all(&path.child("key"), &json!(key), machinery::names::qualified_name(key));
        if !seen.insert((key, effect)) {
            errors.duplicate(&path, taint);
        }
    }
}

/// Checks what may not change of a stored Node.
pub(super) fn node_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (sent, stored) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    if !list(stored, "podCIDRs").is_empty() && list(sent, "podCIDRs") != list(stored, "podCIDRs") {
        let path = spec_path().child("podCIDRs");
        errors.forbidden(&path, "node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = text(stored, "providerID");
    if !provider.is_empty() && text(sent, "providerID") != provider {
        let path = spec_path().child("providerID");
        errors.forbidden(&path, "node updates may not change providerID except from \"\" to valid");
    }
}

/// Checks a new PersistentVolumeClaim.
pub(super) fn claim(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    if list(spec, "accessModes").is_empty() {
        errors.required(&spec_path().child("accessModes"), "at least 1 access mode is required");
    }
    single_writer(spec, errors);
    let path = spec_path().child("resources");
    match spec.pointer("/resources/requests/storage") {
        None | Some(Value::Null) => errors.required(&path.key("storage"), ""),
        Some(value) if quantity(value).is_some_and(|amount| amount.is_zero() || amount.is_negative()) => {
            errors.invalid(&path.child("requests").key("storage"), value, "must be greater than zero");
        }
        Some(_) => {}
    }
}

fn single_writer(spec: &Value, errors: &mut ErrorList) {
    let modes = list(spec, "accessModes");
    if modes.len() > 1 && modes.contains(&json!("ReadWriteOncePod")) {
        let text = "may not use ReadWriteOncePod with other access modes";
        errors.forbidden(&spec_path().child("accessModes"), text);
    }
}

/// Checks what may not change of a stored PersistentVolumeClaim.
pub(super) fn claim_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (sent, stored) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let bound = old.pointer("/status/phase") == Some(&json!("Bound"));
    let mut expected: Map<String, Value> = stored.as_object().cloned().unwrap_or_default();
    let mut take = |field: &str| {
        match sent.get(field) {
            Some(value) => expected.insert(field.to_owned(), value.clone()),
            None => expected.remove(field),
        };
    };
    for field in ["volumeName", "storageClassName"] {
        if present(stored, field).is_none_or(|value| field == "volumeName" && value == "") {
            take(field);
        }
    }
    if bound {
        take("volumeAttributesClassName");
    }
    let mut expected = Value::Object(expected);
    let storage = "/resources/requests/storage";
    if let (true, Some(value), Some(place)) = (bound, sent.pointer(storage), expected.pointer_mut(storage)) {
        *place = value.clone();
    }
    if !same("spec", Some(sent), Some(&expected)) {
        let text = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
             claims\n{}",
            difference(sent, &expected)
        );
        errors.forbidden(&spec_path(), &text);
    }
    let amount = |object: &Value, at: &str| object.pointer(at).and_then(quantity);
    let wish = amount(sent, storage);
    if wish < amount(stored, storage) && wish < amount(old, "/status/capacity/storage") {
        let path = spec_path().child("resources").child("requests").child("storage");
        errors.forbidden(&path, "field can not be less than status.capacity");
    }
}

/// Checks a new PersistentVolume.
pub(super) fn volume(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    if list(spec, "accessModes").is_empty() {
        errors.required(&spec_path().child("accessModes"), "");
    }
    single_writer(spec, errors);
    let path = spec_path().child("capacity");
    match spec.pointer("/capacity/storage") {
        None | Some(Value::Null) => errors.required(&path, ""),
        Some(value) if quantity(value).is_some_and(|amount| amount.is_zero() || amount.is_negative()) => {
            errors.invalid(&path.key("storage"), value, "must be greater than zero");
        }
        Some(_) => {}
    }
    if present(spec, "local").is_some() && present(spec, "nodeAffinity").is_none() {
        errors.required(&Path::new("metadata").child("annotations"), "Local volume requires node affinity");
    }
}
