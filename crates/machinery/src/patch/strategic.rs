//! Strategic merge patch: merge keys and directives, by the type's facts.

use serde_json::{Map, Value};

use crate::{
    schema::{SchemaRef, Shape},
    status::{ApiError, ApiResult, Reason},
};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies a patch to an object of the given type.
pub fn apply(current: &Value, patch: &Value, schema: SchemaRef<'_>) -> ApiResult<Value> {
    let Value::Object(patch) = patch else {
        return Err(ApiError::bad_request("error decoding patch: json: cannot unmarshal into a map"));
    };
    let mut map = current.as_object().cloned().unwrap_or_default();
    merge_map(&mut map, patch, Some(schema))?;
    Ok(Value::Object(map))
}

fn bad_format(text: &str) -> ApiError {
    ApiError::bad_request(text)
}

/// The directive of a map, if it has one.
fn directive(patch: &Map<String, Value>) -> ApiResult<Option<&str>> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(text)) if matches!(text.as_str(), "delete" | "replace" | "merge") => Ok(Some(text)),
        Some(Value::String(text)) => Err(bad_format(&format!("unknown patch type found: {text}"))),
        Some(_) => Err(bad_format("invalid patch format: $patch directive must be a string")),
    }
}

fn merge_map(current: &mut Map<String, Value>, patch: &Map<String, Value>, schema: Option<SchemaRef<'_>>) -> ApiResult<()> {
    match directive(patch)? {
        Some("delete") => {
            current.clear();
            return Ok(());
        }
        Some("replace") => {
            let rest = patch.iter().filter(|(k, _)| k.as_str() != DIRECTIVE);
            *current = rest.map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        _ => {}
    }
    retain_keys(current, patch)?;
    for (key, value) in patch {
        if key == DIRECTIVE || key == RETAIN_KEYS {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            delete_primitives(current, field, value)?;
        } else if !key.starts_with(ELEMENT_ORDER) {
            merge_field(current, key, value, patch.get(&format!("{ELEMENT_ORDER}{key}")), schema)?;
        }
    }
    order_untouched_lists(current, patch, schema)
}

/// Drops what `$retainKeys` does not list.
fn retain_keys(current: &mut Map<String, Value>, patch: &Map<String, Value>) -> ApiResult<()> {
    let Some(list) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let list = list.as_array().ok_or_else(|| bad_format("invalid patch format of retainKeys"))?;
    let kept: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    let stray = patch.iter().any(|(k, v)| !k.starts_with('$') && !v.is_null() && !kept.contains(&k.as_str()));
    if stray {
        return Err(ApiError::new(422, Reason::Invalid, "patch content doesn't match retainKeys list"));
    }
    current.retain(|key, _| kept.contains(&key.as_str()));
    Ok(())
}

fn delete_primitives(current: &mut Map<String, Value>, field: &str, values: &Value) -> ApiResult<()> {
    let values = values.as_array().ok_or_else(|| bad_format("invalid patch format of primitive list"))?;
    if let Some(list) = current.get_mut(field).and_then(Value::as_array_mut) {
        list.retain(|item| !values.contains(item));
    }
    Ok(())
}

fn merge_field(
    current: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    order: Option<&Value>,
    schema: Option<SchemaRef<'_>>,
) -> ApiResult<()> {
    let inner = schema.and_then(|s| s.field(key));
    match value {
        Value::Null => {
            current.remove(key);
        }
        Value::Object(patch) => {
            let target = current.entry(key.to_owned()).or_insert_with(|| Value::Object(Map::new()));
            if !target.is_object() {
                *target = Value::Object(Map::new());
            }
            if let Value::Object(map) = target {
                merge_map(map, patch, inner)?;
            }
        }
        Value::Array(patch) => {
            let fact = schema.and_then(|s| s.field_fact(key));
            let merged = match fact.filter(|f| f.patch_merge) {
                Some(fact) => {
                    let old = current.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
                    merge_list(old, patch, order, fact.merge_key.as_deref(), inner.and_then(SchemaRef::item))?
                }
                None => without_list_directive(patch),
            };
            current.insert(key.to_owned(), Value::Array(merged));
        }
        scalar => {
            current.insert(key.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

/// A list as it replaces another: a bare `{"$patch":"replace"}` element only says so.
fn without_list_directive(patch: &[Value]) -> Vec<Value> {
    patch.iter().filter(|item| !is_replace_marker(item)).cloned().collect()
}

fn is_replace_marker(item: &Value) -> bool {
    item.as_object().is_some_and(|m| m.len() == 1 && m.get(DIRECTIVE).and_then(Value::as_str) == Some("replace"))
}

/// Whether two items of a list are the same one.
fn same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
        None => a == b,
    }
}

fn merge_list(
    old: Vec<Value>,
    patch: &[Value],
    order: Option<&Value>,
    key: Option<&str>,
    schema: Option<SchemaRef<'_>>,
) -> ApiResult<Vec<Value>> {
    if patch.iter().any(is_replace_marker) {
        return Ok(without_list_directive(patch));
    }
    let server_order = old.clone();
    let mut merged = old;
    let mut touched = Vec::new();
    for item in patch {
        let Some(map) = item.as_object().filter(|_| key.is_some()) else {
            touched.push(item.clone());
            if !merged.contains(item) {
                merged.push(item.clone());
            }
            continue;
        };
        let merge_key = key.unwrap_or_default();
        if map.get(merge_key).is_none() {
            let text = format!("map: {item} does not contain declared merge key: {merge_key}");
            return Err(ApiError::new(500, Reason::Unknown, text));
        }
        match directive(map)? {
            Some("delete") => merged.retain(|have| !same(have, item, key)),
            Some("replace") => {
                let mut replacement = map.clone();
                replacement.remove(DIRECTIVE);
                merged.retain(|have| !same(have, item, key));
                merged.push(Value::Object(replacement));
                touched.push(item.clone());
            }
            _ => {
                touched.push(item.clone());
                let at = merged.iter().position(|have| same(have, item, key));
                let mut target = at.and_then(|at| merged[at].as_object().cloned()).unwrap_or_default();
                merge_map(&mut target, map, schema)?;
                match at {
                    Some(at) => merged[at] = Value::Object(target),
                    None => merged.push(Value::Object(target)),
                }
            }
        }
    }
    let wanted = order.and_then(Value::as_array).cloned().unwrap_or(touched);
    Ok(in_order(merged, &wanted, &server_order, key))
}

/// Items that `wanted` lists come in its order; the others keep their server order and their place among them; new
/// items end up after the existing ones.
fn in_order(merged: Vec<Value>, wanted: &[Value], server: &[Value], key: Option<&str>) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|have| same(have, item, key));
    let (mut listed, others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(wanted, item).is_some());
    listed.sort_by_key(|item| place(wanted, item));
    let mut out = Vec::with_capacity(listed.len() + others.len());
    let mut listed = listed.into_iter().peekable();
    for other in others {
        let own = place(server, &other);
        while let Some(next) = listed.next_if(|next| place(server, next).is_some_and(|at| Some(at) < own)) {
            out.push(next);
        }
        out.push(other);
    }
    out.extend(listed);
    out
}

/// `$setElementOrder` of lists that the patch does not otherwise touch.
fn order_untouched_lists(
    current: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
) -> ApiResult<()> {
    for (directive, order) in patch {
        let Some(field) = directive.strip_prefix(ELEMENT_ORDER).filter(|f| !patch.contains_key(*f)) else { continue };
        let order = order.as_array().ok_or_else(|| bad_format("invalid patch format of setElementOrder list"))?;
        let merge_key = schema.and_then(|s| s.field_fact(field)).and_then(|f| f.merge_key.clone());
        let is_list = schema.and_then(|s| s.field(field)).is_none_or(|s| matches!(s.shape(), Shape::List { .. }));
        if let (true, Some(list)) = (is_list, current.get_mut(field).and_then(Value::as_array_mut)) {
            let server = list.clone();
            *list = in_order(std::mem::take(list), order, &server, merge_key.as_deref());
        }
    }
    Ok(())
}
