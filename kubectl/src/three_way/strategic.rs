//! Strategic merge patches, by the facts of a kind: which lists merge by which key.

use machinery::schema::SchemaRef;
use serde_json::{Map, Value, json};

const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";
const RETAIN: &str = "$retainKeys";

/// Which differences become part of a patch.
#[derive(Clone, Copy)]
struct Wanted {
    changes: bool,
    deletions: bool,
    order: bool,
}

/// Additions and changes of `current` to `modified`, deletions of `original` to `modified`.
pub fn three_way(original: &Value, modified: &Value, current: &Value, schema: SchemaRef<'_>) -> Value {
    let schema = Some(schema);
    let changes = Wanted { changes: true, deletions: false, order: true };
    let deletions = Wanted { changes: false, deletions: true, order: true };
    let mut patch = maps(object(original), object(modified), schema, deletions, false);
    combine(&mut patch, maps(object(current), object(modified), schema, changes, false), schema);
    Value::Object(patch)
}

/// The patch from one version to another.
pub fn two_way(original: &Value, modified: &Value, schema: SchemaRef<'_>) -> Value {
    let all = Wanted { changes: true, deletions: true, order: true };
    Value::Object(maps(object(original), object(modified), Some(schema), all, false))
}

fn object(value: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
    value.as_object().unwrap_or_else(|| EMPTY.get_or_init(Map::new))
}

fn maps(
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
    wanted: Wanted,
    retain: bool,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for (key, old) in from {
        let Some(new) = to.get(key) else {
            if wanted.deletions {
                patch.insert(key.clone(), Value::Null);
            }
            continue;
        };
        let fact = schema.and_then(|s| s.field_fact(key));
        let inner = schema.and_then(|s| s.field(key));
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                let below = maps(old, new, inner, wanted, fact.is_some_and(|f| f.retain_keys));
                if !below.is_empty() {
                    patch.insert(key.clone(), Value::Object(below));
                }
            }
            (Value::Array(old), Value::Array(new)) if fact.is_some_and(|f| f.patch_merge) => {
                let retain = fact.is_some_and(|f| f.retain_keys);
                match fact.and_then(|f| f.merge_key.as_deref()) {
                    Some(merge_key) => {
                        let item = inner.and_then(SchemaRef::item);
                        keyed(key, old, new, &Keyed { merge_key, item, retain }, wanted, &mut patch);
                    }
                    None => scalars(key, old, new, wanted, &mut patch),
                }
            }
            _ if old != new && wanted.changes => {
                patch.insert(key.clone(), new.clone());
            }
            _ => {}
        }
    }
    if wanted.changes {
        patch.extend(to.iter().filter(|(k, _)| !from.contains_key(*k)).map(|(k, v)| (k.clone(), v.clone())));
    }
    if retain && !patch.is_empty() {
        let keys: Vec<&String> = to.keys().collect();
        patch.insert(RETAIN.into(), json!(keys));
    }
    patch
}

/// What is known of a list of objects.
struct Keyed<'a> {
    merge_key: &'a str,
    item: Option<SchemaRef<'a>>,
    retain: bool,
}

fn keyed(key: &str, old: &[Value], new: &[Value], list: &Keyed<'_>, wanted: Wanted, patch: &mut Map<String, Value>) {
    if old.is_empty() {
        if wanted.changes && !new.is_empty() {
            patch.insert(key.to_owned(), json!(new));
        }
        return;
    }
    let merge_key = list.merge_key;
    let find = |items: &'_ [Value], id: &Value| items.iter().position(|i| &i[merge_key] == id);
    let mut changed: Vec<Value> = Vec::new();
    for item in new {
        let id = &item[merge_key];
        match find(old, id) {
            Some(at) => {
                let mut below = maps(object(&old[at]), object(item), list.item, wanted, list.retain);
                if !below.is_empty() {
                    below.insert(merge_key.to_owned(), id.clone());
                    changed.push(Value::Object(below));
                }
            }
            None if wanted.changes => changed.push(item.clone()),
            None => {}
        }
    }
    let mut removed: Vec<Value> = Vec::new();
    if wanted.deletions {
        let gone = old.iter().filter(|item| find(new, &item[merge_key]).is_none());
        removed.extend(gone.map(|item| json!({"$patch": "delete", merge_key: item[merge_key]})));
    }
    let ids = |items: &[Value], among: &[Value]| -> Vec<Value> {
        items.iter().map(|i| i[merge_key].clone()).filter(|id| find(among, id).is_some()).collect()
    };
    let same_order = ids(old, new) == ids(new, old);
    let ordered = (wanted.deletions && !removed.is_empty()) || (wanted.changes && (!changed.is_empty() || !same_order));
    if wanted.order && ordered {
        let order: Vec<Value> = new.iter().map(|i| json!({merge_key: i[merge_key]})).collect();
        if !order.is_empty() {
            patch.insert(format!("{ORDER}{key}"), json!(order));
        }
    }
    changed.extend(removed);
    if !changed.is_empty() {
        patch.insert(key.to_owned(), Value::Array(changed));
    }
}

fn scalars(key: &str, old: &[Value], new: &[Value], wanted: Wanted, patch: &mut Map<String, Value>) {
    let added: Vec<&Value> = new.iter().filter(|v| wanted.changes && !old.contains(v)).collect();
    let removed: Vec<&Value> = old.iter().filter(|v| wanted.deletions && !new.contains(v)).collect();
    let common = |a: &[Value], b: &[Value]| a.iter().filter(|v| b.contains(v)).cloned().collect::<Vec<_>>();
    let moved = wanted.changes && common(old, new) != common(new, old);
    if wanted.order && !new.is_empty() && (!removed.is_empty() || !added.is_empty() || moved) {
        patch.insert(format!("{ORDER}{key}"), json!(new));
    }
    if !added.is_empty() {
        patch.insert(key.to_owned(), json!(added));
    }
    if !removed.is_empty() {
        patch.insert(format!("{DELETE_FROM}{key}"), json!(removed));
    }
}

/// Puts two patches of the same kind together; `more` wins.
fn combine(patch: &mut Map<String, Value>, more: Map<String, Value>, schema: Option<SchemaRef<'_>>) {
    for (key, value) in more {
        let fact = schema.and_then(|s| s.field_fact(&key));
        let inner = schema.and_then(|s| s.field(&key));
        match (patch.get_mut(&key), value) {
            (Some(Value::Object(held)), Value::Object(value)) => combine(held, value, inner),
            (Some(Value::Array(held)), Value::Array(items)) if fact.is_some_and(|f| f.patch_merge) => {
                match fact.and_then(|f| f.merge_key.as_deref()) {
                    Some(merge_key) => combine_lists(held, items, merge_key, inner.and_then(SchemaRef::item)),
                    None => held.extend(items),
                }
            }
            (_, value) => {
                patch.insert(key, value);
            }
        }
    }
}

/// Changes come before deletions.
fn combine_lists(held: &mut Vec<Value>, items: Vec<Value>, merge_key: &str, item: Option<SchemaRef<'_>>) {
    let mut merged: Vec<Value> = Vec::new();
    for value in items {
        let same = held.iter().position(|h| h[merge_key] == value[merge_key]);
        match (same.map(|at| held.remove(at)), value) {
            (Some(Value::Object(mut old)), Value::Object(new)) => {
                combine(&mut old, new, item);
                merged.push(Value::Object(old));
            }
            (_, value) => merged.push(value),
        }
    }
    merged.append(held);
    *held = merged;
}
