//! Strategic merge patch: merge keys and directives, by the type's facts.

mod lists;
#[cfg(test)]
mod tests;

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

fn bad_format(text: impl Into<String>) -> ApiError {
    ApiError::bad_request(text)
}

/// What a `$patch` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Delete,
    Replace,
    Merge,
}

/// The directive of a map, if it has one.
fn directive(patch: &Map<String, Value>) -> ApiResult<Option<Directive>> {
    match patch.get(DIRECTIVE) {
        None => Ok(None),
        Some(Value::String(text)) => match text.as_str() {
            "delete" => Ok(Some(Directive::Delete)),
            "replace" => Ok(Some(Directive::Replace)),
            "merge" => Ok(Some(Directive::Merge)),
            other => Err(bad_format(format!("unknown patch type found: {other}"))),
        },
        Some(other) => Err(bad_format(format!("unknown patch type found: {other}"))),
    }
}

fn merge_map(
    current: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Option<SchemaRef<'_>>,
) -> ApiResult<()> {
    match directive(patch)? {
        Some(Directive::Delete) => {
            current.clear();
            return Ok(());
        }
        Some(Directive::Replace) => {
            let rest = patch.iter().filter(|(k, _)| k.as_str() != DIRECTIVE);
            *current = rest.map(|(k, v)| (k.clone(), v.clone())).collect();
            return Ok(());
        }
        Some(Directive::Merge) | None => {}
    }
    retain_keys(current, patch)?;
    for (key, value) in patch {
        if key == DIRECTIVE || key == RETAIN_KEYS {
            continue;
        }
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            if let Some(list) = current.get_mut(field).and_then(Value::as_array_mut) {
                lists::delete_primitives(list, value)?;
            } else if !value.is_array() {
                return Err(bad_format("invalid patch format of primitive list"));
            }
        } else if let Some(field) = key.strip_prefix(ELEMENT_ORDER) {
            if !patch.contains_key(field) {
                reorder_untouched(current, field, value, schema)?;
            }
        } else {
            merge_field(current, key, value, patch, schema)?;
        }
    }
    Ok(())
}

/// Drops what `$retainKeys` does not list.
fn retain_keys(current: &mut Map<String, Value>, patch: &Map<String, Value>) -> ApiResult<()> {
    let Some(list) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let list = list.as_array().ok_or_else(|| bad_format("invalid patch format of retainKeys"))?;
    let kept: std::collections::HashSet<&str> = list.iter().filter_map(Value::as_str).collect();
    let stray = patch.iter().any(|(k, v)| !k.starts_with('$') && !v.is_null() && !kept.contains(k.as_str()));
    if stray {
        return Err(ApiError::new(422, Reason::Invalid, "patch content doesn't match retainKeys list"));
    }
    current.retain(|key, _| kept.contains(key.as_str()));
    Ok(())
}

fn merge_field(
    current: &mut Map<String, Value>,
    key: &str,
    value: &Value,
    patch: &Map<String, Value>,
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
        Value::Array(items) => {
            let merged = match schema.and_then(|s| s.field_fact(key)).filter(|f| f.patch_merge) {
                Some(fact) => {
                    let old = match current.remove(key) {
                        Some(Value::Array(old)) => old,
                        _ => Vec::new(),
                    };
                    let order = patch.get(&format!("{ELEMENT_ORDER}{key}"));
                    let order = order.map(|o| o.as_array().ok_or_else(bad_order)).transpose()?;
                    match fact.merge_key.as_deref() {
                        Some(merge_key) => lists::merge(old, items, order, merge_key, inner.and_then(SchemaRef::item))?,
                        None => lists::merge_primitives(old, items, order),
                    }
                }
                None => lists::without_marker(items),
            };
            current.insert(key.to_owned(), Value::Array(merged));
        }
        scalar => {
            current.insert(key.to_owned(), scalar.clone());
        }
    }
    Ok(())
}

fn bad_order() -> ApiError {
    bad_format("invalid patch format of setElementOrder list")
}

/// `$setElementOrder` of a list that the patch does not otherwise touch.
fn reorder_untouched(
    current: &mut Map<String, Value>,
    field: &str,
    order: &Value,
    schema: Option<SchemaRef<'_>>,
) -> ApiResult<()> {
    let order = order.as_array().ok_or_else(bad_order)?;
    let merge_key = schema.and_then(|s| s.field_fact(field)).and_then(|f| f.merge_key.as_deref());
    let is_list = schema.and_then(|s| s.field(field)).is_none_or(|s| matches!(s.shape(), Shape::List { .. }));
    if let (true, Some(list)) = (is_list, current.get_mut(field).and_then(Value::as_array_mut)) {
        let old = std::mem::take(list);
        *list = lists::reorder(old, order, merge_key);
    }
    Ok(())
}
