//! Defaults per kind, on value trees in the storage version.
//!
//! "Unset" means absent; zero values that the API treats as unset are named where they matter.

mod autoscaling;
mod core;
mod extension;
mod pod;
mod quantities;
mod workloads;

use machinery::GroupVersionKind;
use serde_json::{Map, Value, json};

pub use pod::{pod, pod_template_spec};

/// Fills the defaults of one object.
pub fn apply(gvk: &GroupVersionKind, object: &mut Value) {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", kind) => core::apply(kind, object),
        ("apps" | "batch", kind) => workloads::apply(kind, object),
        ("autoscaling", _) => autoscaling::horizontal_pod_autoscaler(object),
        (group, kind) => extension::apply(group, kind, object),
    }
}

/// The object at `key` for writing, made if absent. Values of another type are left to validation: they are answered
/// as a throw-away map.
fn child<'a>(map: &'a mut Map<String, Value>, key: &str) -> Option<&'a mut Map<String, Value>> {
    map.entry(key).or_insert_with(|| json!({})).as_object_mut()
}

/// `object.spec` for writing, made if absent.
fn spec(object: &mut Value) -> Option<&mut Map<String, Value>> {
    child(object.as_object_mut()?, "spec")
}

/// Sets a field that is absent or null.
fn set(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    match map.get(key) {
        None | Some(Value::Null) => {
            map.insert(key.to_owned(), value.into());
        }
        Some(_) => {}
    }
}

/// Sets a field that is absent, null, `""` or `0`.
fn set_zero(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let zero = match map.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(_) => false,
    };
    if zero {
        map.insert(key.to_owned(), value.into());
    }
}

/// The objects of a list field.
fn items<'a>(map: &'a mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The text of a field, or `""`.
fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or("")
}

/// Whether a map or list field is absent or empty.
fn is_empty(map: &Map<String, Value>, key: &str) -> bool {
    match map.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::Object(inner)) => inner.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(_) => false,
    }
}
