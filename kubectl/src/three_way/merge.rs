//! JSON merge patches.

use serde_json::{Map, Value};

/// Additions and changes of `current` to `modified`, deletions of `original` to `modified`.
pub fn three_way(original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = keep(diff(current, modified), false);
    combine(&mut patch, keep(diff(original, modified), true));
    patch
}

/// The merge patch from one value to another.
pub fn diff(from: &Value, to: &Value) -> Value {
    let (empty_from, empty_to) = (Map::new(), Map::new());
    let from = from.as_object().unwrap_or(&empty_from);
    let to = to.as_object().unwrap_or(&empty_to);
    let mut patch = Map::new();
    for (key, new) in to {
        match from.get(key) {
            Some(old) if old == new => {}
            Some(old) if old.is_object() && new.is_object() => {
                patch.insert(key.clone(), diff(old, new));
            }
            _ => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    patch.extend(from.keys().filter(|k| !to.contains_key(*k)).map(|k| (k.clone(), Value::Null)));
    Value::Object(patch)
}

/// Only the deletions of a patch, or all but them.
fn keep(patch: Value, deletions: bool) -> Value {
    let Value::Object(map) = patch else { return patch };
    let mut kept = Map::new();
    for (key, value) in map {
        match value {
            Value::Null if deletions => {
                kept.insert(key, Value::Null);
            }
            Value::Null => {}
            Value::Object(_) => {
                let was_empty = value.as_object().is_some_and(Map::is_empty);
                let inner = keep(value, deletions);
                let is_empty = inner.as_object().is_some_and(Map::is_empty);
                if !is_empty || (was_empty && !deletions) {
                    kept.insert(key, inner);
                }
            }
            other if !deletions => {
                kept.insert(key, other);
            }
            _ => {}
        }
    }
    Value::Object(kept)
}

fn combine(patch: &mut Value, more: Value) {
    let (Value::Object(patch), Value::Object(more)) = (patch, more) else { return };
    for (key, value) in more {
        match patch.get_mut(&key) {
            Some(held) if held.is_object() && value.is_object() => combine(held, value),
            _ => {
                patch.insert(key, value);
            }
        }
    }
}
