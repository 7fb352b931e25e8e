//! How values divide into path elements, by their types.

use serde_json::{Map, Value};

use crate::schema::{ListType, SchemaRef, Shape};

/// How a value is divided into paths.
pub(super) enum Parts<'a> {
    /// Owned as a whole.
    Leaf,
    /// Struct or map.
    Fields(&'a Map<String, Value>),
    /// Associative list: items with their path element.
    Items(Vec<(String, &'a Value)>),
}

/// Whether values of a type are owned as a whole.
pub(super) fn is_leaf_type(schema: SchemaRef<'_>) -> bool {
    schema.get().atomic
        || match schema.shape() {
            Shape::Struct(_) | Shape::Map { .. } | Shape::Any => false,
            Shape::List { merge, .. } => *merge == ListType::Atomic,
            _ => true,
        }
}

/// Divides a value. Of values of unknown type objects are granular and lists atomic.
pub(super) fn parts<'a>(value: &'a Value, schema: SchemaRef<'_>) -> Parts<'a> {
    match (schema.shape(), value) {
        _ if is_leaf_type(schema) => Parts::Leaf,
        (Shape::Struct(_) | Shape::Map { .. } | Shape::Any, Value::Object(map)) => Parts::Fields(map),
        (Shape::List { .. }, Value::Array(list)) => Parts::Items(elements(list, schema)),
        _ => Parts::Leaf,
    }
}

fn elements<'a>(list: &'a [Value], schema: SchemaRef<'_>) -> Vec<(String, &'a Value)> {
    let Shape::List { merge, .. } = schema.shape() else { return Vec::new() };
    match merge {
        ListType::Atomic => Vec::new(),
        ListType::Set => list.iter().map(|v| (format!("v:{v}"), v)).collect(),
        ListType::Map(keys) => {
            let item = schema.item();
            list.iter().map(|v| (key_element(v, keys, item), v)).collect()
        }
    }
}

/// `k:{...}` of a list item; absent keys take their default.
fn key_element(item: &Value, keys: &[String], schema: Option<SchemaRef<'_>>) -> String {
    let mut map = Map::new();
    for key in keys {
        let default = || schema.and_then(|s| s.field_fact(key)).and_then(|f| f.default.clone());
        if let Some(value) = item.get(key).cloned().or_else(default) {
            map.insert(key.clone(), value);
        }
    }
    let mut element = String::from("k:");
    element.push_str(&Value::Object(map).to_string());
    element
}

/// The type of a field, also within values of unknown type.
pub(super) fn field<'a>(schema: SchemaRef<'a>, name: &str) -> Option<SchemaRef<'a>> {
    if schema.is_any() { Some(schema) } else { schema.field(name) }
}

/// Whether a value is null or holds nothing.
pub(super) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
