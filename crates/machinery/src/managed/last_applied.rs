//! The bridge from `kubectl apply`'s annotation to server-side apply.

use serde_json::Value;

use super::{compare::field_set, set::Set};
use crate::{meta, schema::SchemaRef};

/// The one manager this is for.
const KUBECTL: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Bytes that all annotations of an object may have.
const ANNOTATIONS_LIMIT: usize = 262_144;

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()
}

/// Whether the writer may take over `conflicting` without force: all of it is still what its annotation says.
pub(super) fn allows(live: &Value, manager: &str, conflicting: &Set, schema: SchemaRef<'_>) -> bool {
    if manager != KUBECTL {
        return false;
    }
    let Some(last) = annotation(live).and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return false };
    let applied = field_set(&last, schema);
    let differs = super::compare::compare(Some(&last), live, schema);
    let unchanged = applied.difference(&differs.written).difference(&differs.removed);
    conflicting.difference(&unchanged).is_empty()
}

/// Keeps the annotation, if the object has one, in step with what was applied.
pub(super) fn refresh(object: &mut Value, live: Option<&Value>, config: &Value, manager: &str) {
    if manager != KUBECTL || live.and_then(annotation).is_none() {
        return;
    }
    let mut applied = config.clone();
    let metadata = meta::metadata_mut(&mut applied);
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{applied}\n");
    let metadata = meta::metadata_mut(object);
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        let others = annotations.iter().filter(|(k, _)| k.as_str() != ANNOTATION);
        let used: usize = others.map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
        if used + ANNOTATION.len() + text.len() <= ANNOTATIONS_LIMIT {
            annotations.insert(ANNOTATION.to_owned(), Value::String(text));
        } else {
            annotations.remove(ANNOTATION);
        }
    }
}
