//! CustomResourceDefinition: its stored versions, and the beginning of its end.

use machinery::meta;
use serde_json::{Value, json};

/// Holds a definition until its objects are gone.
const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Objects are stored in the storage version from now on, among others.
pub(super) fn add_stored_version(object: &mut Value) {
    let storage = object
        .pointer("/spec/versions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|v| v.get("storage") == Some(&json!(true)))
        .and_then(|v| v.get("name"))
        .cloned();
    let Some(storage) = storage else { return };
    let status = meta::object_mut(meta::object_mut(object).entry("status").or_insert_with(|| json!({})));
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    match stored.as_array_mut() {
        Some(versions) if !versions.contains(&storage) => versions.push(storage),
        Some(_) => {}
        None => *stored = json!([storage]),
    }
}

/// Marks a definition whose objects are to be deleted.
pub(in crate::strategy) fn mark_deleting(object: &mut Value) {
    let now = meta::text(object, "deletionTimestamp").to_owned();
    let condition = json!({
        "type": "Terminating",
        "status": "True",
        "reason": "InstanceDeletionPending",
        "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        "lastTransitionTime": now,
    });
    let pending = |c: &Value| c.get("type") == Some(&json!("Terminating"));
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    if conditions.is_some_and(|list| list.iter().any(pending)) {
        return;
    }
    let finalizers = meta::metadata_mut(object).entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut().filter(|list| !list.contains(&json!(CLEANUP_FINALIZER))) {
        list.push(json!(CLEANUP_FINALIZER));
    }
    let status = meta::object_mut(meta::object_mut(object).entry("status").or_insert_with(|| json!({})));
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(list) = conditions.as_array_mut() {
        list.push(condition);
    }
}
