//! A configuration merged over a live object, and paths removed from an object.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{
    parts::{Parts, field, parts},
    set::Set,
};
use crate::schema::{SchemaRef, Shape};

/// Merges a configuration over a live value.
pub(super) fn merge(live: &mut Value, config: &Value, schema: SchemaRef<'_>) {
    match parts(config, schema) {
        Parts::Leaf => *live = config.clone(),
        Parts::Fields(map) => {
            if !live.is_object() {
                *live = Value::Object(Map::new());
            }
            let Value::Object(target) = live else { return };
            for (key, inner) in map {
                match field(schema, key) {
                    Some(schema) => merge(target.entry(key.clone()).or_insert(Value::Null), inner, schema),
                    None => {
                        target.insert(key.clone(), inner.clone());
                    }
                }
            }
        }
        Parts::Items(items) => *live = Value::Array(merge_items(live, &items, schema)),
    }
}

/// Items of the configuration come in its order. Live items that it does not name keep their place before the next
/// item that both have.
fn merge_items(live: &Value, config: &[(String, &Value)], schema: SchemaRef<'_>) -> Vec<Value> {
    let live = match parts(live, schema) {
        Parts::Items(items) => items,
        _ => Vec::new(),
    };
    let mut live_at: HashMap<&str, &Value> = HashMap::with_capacity(live.len());
    for (element, item) in &live {
        live_at.entry(element).or_insert(item);
    }
    let configured: HashSet<&str> = config.iter().map(|(e, _)| e.as_str()).collect();
    let mut shared = config.iter().map(|(e, _)| e.as_str()).filter(|e| live_at.contains_key(e)).peekable();
    let mut taken: HashSet<&str> = HashSet::new();
    let mut out = Vec::with_capacity(live.len() + config.len());
    let merged = |element: &str, item: &Value| match (live_at.get(element), schema.item()) {
        (Some(old), Some(schema)) => {
            let mut both = (*old).clone();
            merge(&mut both, item, schema);
            both
        }
        _ => item.clone(),
    };
    let (mut l, mut c) = (0, 0);
    while l < live.len() || c < config.len() {
        if let Some((element, item)) = live.get(l) {
            if !configured.contains(element.as_str()) {
                out.push((*item).clone());
                l += 1;
                continue;
            }
            // Shared items come when the configuration's order says so.
            let is_next = config.get(c).is_some_and(|(e, _)| e == element);
            if !is_next && (taken.contains(element.as_str()) || shared.peek() != Some(&element.as_str())) {
                l += 1;
                continue;
            }
        }
        let Some((element, item)) = config.get(c) else { break };
        out.push(merged(element, item));
        taken.insert(element);
        shared.next_if(|next| next == element);
        if live.get(l).is_some_and(|(e, _)| e == element) {
            l += 1;
        }
        c += 1;
    }
    out
}

/// Removes from an object what `previous` holds and `kept` does not: fields with nothing kept below them go whole,
/// map keys and list items when they were held themselves.
pub(super) fn prune(object: &mut Value, previous: &Set, kept: &Set, schema: SchemaRef<'_>) {
    remove(object, previous, kept, schema, true);
}

fn remove(value: &mut Value, gone: &Set, kept: &Set, schema: SchemaRef<'_>, is_root: bool) {
    let nothing = Set::default();
    let names: Vec<String> = match parts(value, schema) {
        Parts::Items(items) => items.into_iter().map(|(element, _)| element).collect(),
        _ => Vec::new(),
    };
    match value {
        Value::Object(map) => {
            let is_struct = matches!(schema.shape(), Shape::Struct(_));
            for (element, inner_gone) in &gone.children {
                let Some(name) = element.strip_prefix("f:") else { continue };
                let (Some(inner), Some(schema)) = (map.get_mut(name), field(schema, name)) else { continue };
                let inner_kept = kept.children.get(element).unwrap_or(&nothing);
                let held = inner_gone.member || (is_struct && !inner_gone.is_empty());
                if held && inner_kept.is_empty() && !(is_root && name == "metadata") {
                    map.remove(name);
                } else {
                    remove(inner, inner_gone, inner_kept, schema, false);
                }
            }
        }
        Value::Array(list) => {
            let mut names = names.into_iter();
            list.retain_mut(|item| {
                let Some(element) = names.next() else { return true };
                let Some(inner_gone) = gone.children.get(&element) else { return true };
                let inner_kept = kept.children.get(&element).unwrap_or(&nothing);
                if inner_gone.member && inner_kept.is_empty() {
                    return false;
                }
                if let Some(schema) = schema.item() {
                    remove(item, inner_gone, inner_kept, schema, false);
                }
                true
            });
        }
        _ => {}
    }
}
