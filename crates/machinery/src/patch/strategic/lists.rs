//! Lists whose items are merged: by a key, or as a set of scalars.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{DIRECTIVE, Directive, bad_format, directive, merge_map};
use crate::{
    field::go_value,
    schema::SchemaRef,
    status::{ApiError, ApiResult, Reason},
};

/// A list as it replaces another: a bare `{"$patch":"replace"}` element only says so.
pub(super) fn without_marker(patch: &[Value]) -> Vec<Value> {
    patch.iter().filter(|item| !is_marker(item)).cloned().collect()
}

fn is_marker(item: &Value) -> bool {
    item.as_object().is_some_and(|m| m.len() == 1 && m.get(DIRECTIVE).and_then(Value::as_str) == Some("replace"))
}

/// What tells one item from another: its merge key, or the item itself.
fn identity(item: &Value, merge_key: Option<&str>) -> Option<String> {
    match merge_key {
        Some(key) => item.get(key).map(Value::to_string),
        None => Some(item.to_string()),
    }
}

/// Removes scalars from a list.
pub(super) fn delete_primitives(list: &mut Vec<Value>, values: &Value) -> ApiResult<()> {
    let values = values.as_array().ok_or_else(|| bad_format("invalid patch format of primitive list"))?;
    let gone: HashSet<String> = values.iter().map(Value::to_string).collect();
    list.retain(|item| !gone.contains(&item.to_string()));
    Ok(())
}

/// Adds the scalars that are not there yet.
pub(super) fn merge_primitives(old: Vec<Value>, patch: &[Value], order: Option<&Vec<Value>>) -> Vec<Value> {
    if patch.iter().any(is_marker) {
        return without_marker(patch);
    }
    let places = places(&old, None);
    let mut seen: HashSet<String> = HashSet::new();
    let mut merged = Vec::with_capacity(old.len() + patch.len());
    for item in old.into_iter().chain(patch.iter().cloned()) {
        if seen.insert(item.to_string()) {
            merged.push(item);
        }
    }
    in_order(merged, order.map_or(patch, Vec::as_slice), &places, None)
}

/// Merges items by their key.
pub(super) fn merge(
    old: Vec<Value>,
    patch: &[Value],
    order: Option<&Vec<Value>>,
    merge_key: &str,
    schema: Option<SchemaRef<'_>>,
) -> ApiResult<Vec<Value>> {
    if patch.iter().any(is_marker) {
        return Ok(without_marker(patch));
    }
    let places = places(&old, Some(merge_key));
    let mut items: Vec<Option<Value>> = old.into_iter().map(Some).collect();
    let mut at: HashMap<String, Vec<usize>> = HashMap::new();
    for (position, item) in items.iter().enumerate() {
        if let Some(id) = item.as_ref().and_then(|i| identity(i, Some(merge_key))) {
            at.entry(id).or_default().push(position);
        }
    }
    for item in patch {
        let (Some(map), Some(id)) = (item.as_object(), identity(item, Some(merge_key))) else {
            return Err(missing_key(item, merge_key));
        };
        let own = at.remove(&id).unwrap_or_default();
        let asked = directive(map)?;
        match (asked, own.first()) {
            (Some(Directive::Delete), _) => own.iter().for_each(|position| items[*position] = None),
            (Some(Directive::Replace), first) => {
                let mut replacement = map.clone();
                replacement.remove(DIRECTIVE);
                let replacement = Some(Value::Object(replacement));
                let position = first.copied().unwrap_or(items.len());
                own.iter().for_each(|position| items[*position] = None);
                put(&mut items, position, replacement);
                at.insert(id, vec![position]);
            }
            (Some(Directive::Merge) | None, Some(&position)) => {
                let mut target = match items[position].take() {
                    Some(Value::Object(target)) => target,
                    _ => Map::new(),
                };
                merge_map(&mut target, map, schema)?;
                items[position] = Some(Value::Object(target));
                at.insert(id, own);
            }
            (Some(Directive::Merge) | None, None) => {
                let mut target = Map::new();
                merge_map(&mut target, map, schema)?;
                at.insert(id, vec![items.len()]);
                items.push(Some(Value::Object(target)));
            }
        }
    }
    let merged: Vec<Value> = items.into_iter().flatten().collect();
    Ok(in_order(merged, order.map_or(patch, Vec::as_slice), &places, Some(merge_key)))
}

fn put(items: &mut Vec<Option<Value>>, position: usize, item: Option<Value>) {
    match items.get_mut(position) {
        Some(slot) => *slot = item,
        None => items.push(item),
    }
}

/// The error prints the item as Go prints a map.
fn missing_key(item: &Value, merge_key: &str) -> ApiError {
    let text = format!("map: {} does not contain declared merge key: {merge_key}", go_value(item));
    ApiError::new(500, Reason::Unknown, text)
}

/// A list in the order that a `$setElementOrder` gives.
pub(super) fn reorder(list: Vec<Value>, order: &[Value], merge_key: Option<&str>) -> Vec<Value> {
    let places = places(&list, merge_key);
    in_order(list, order, &places, merge_key)
}

/// Where each item is in a list.
fn places(list: &[Value], merge_key: Option<&str>) -> HashMap<String, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (at, item) in list.iter().enumerate() {
        if let Some(id) = identity(item, merge_key) {
            places.entry(id).or_insert(at);
        }
    }
    places
}

/// Items that `wanted` lists come in its order; the others keep their server order and their place among them; new
/// items end up after the existing ones.
fn in_order(
    merged: Vec<Value>,
    wanted: &[Value],
    server: &HashMap<String, usize>,
    merge_key: Option<&str>,
) -> Vec<Value> {
    struct Placed {
        item: Value,
        wanted: Option<usize>,
        server: Option<usize>,
    }
    let order = places(wanted, merge_key);
    let total = merged.len();
    let (mut listed, others): (Vec<Placed>, Vec<Placed>) = merged
        .into_iter()
        .map(|item| {
            let id = identity(&item, merge_key);
            let find = |places: &HashMap<String, usize>| id.as_ref().and_then(|id| places.get(id).copied());
            Placed { wanted: find(&order), server: find(server), item }
        })
        .partition(|placed| placed.wanted.is_some());
    listed.sort_by_key(|placed| placed.wanted);
    let mut out = Vec::with_capacity(total);
    let mut listed = listed.into_iter().peekable();
    for other in others {
        while let Some(next) = listed.next_if(|next| next.server.is_some_and(|at| Some(at) < other.server)) {
            out.push(next.item);
        }
        out.push(other.item);
    }
    out.extend(listed.map(|placed| placed.item));
    out
}
