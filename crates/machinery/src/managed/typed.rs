//! Value trees seen through their types: their path sets, comparison, merge and removal.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::set::Set;
use crate::{
    schema::{ListType, SchemaRef, Shape},
    status::{ApiError, ApiResult, Reason},
};

/// Fields that Go holds by value, so that they exist even when empty: their own path is never recorded.
const EMBEDDED: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "template",
    "strategy",
    "updateStrategy",
    "jobTemplate",
    "loadBalancer",
    "daemonEndpoints",
    "kubeletEndpoint",
    "nodeInfo",
    "involvedObject",
    "source",
    "claimRef",
    "roleRef",
    "regarding",
];

/// How a value is divided into paths.
enum Parts<'a> {
    /// Owned as a whole.
    Leaf,
    /// Struct or map.
    Fields(&'a Map<String, Value>),
    /// Associative list: items with their path element.
    Items(Vec<(String, &'a Value)>),
}

fn parts<'a>(value: &'a Value, schema: SchemaRef<'_>) -> Parts<'a> {
    match (schema.shape(), value) {
        _ if schema.get().atomic => Parts::Leaf,
        (Shape::Struct(_) | Shape::Map { .. }, Value::Object(map)) => Parts::Fields(map),
        (Shape::List { merge, .. }, Value::Array(list)) => match merge {
            ListType::Atomic => Parts::Leaf,
            ListType::Set => Parts::Items(list.iter().map(|v| (format!("v:{v}"), v)).collect()),
            ListType::Map(keys) => {
                let item = schema.item();
                Parts::Items(list.iter().map(|v| (key_element(v, keys, item), v)).collect())
            }
        },
        _ => Parts::Leaf,
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
    format!("k:{}", Value::Object(map))
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// The paths that a configuration sets.
pub(super) fn field_set(value: &Value, schema: SchemaRef<'_>) -> Set {
    let mut set = Set::default();
    match parts(value, schema) {
        _ if is_blank(value) => set.member = true,
        Parts::Leaf => set.member = true,
        Parts::Fields(map) => {
            for (key, inner) in map {
                let Some(schema) = schema.field(key) else { continue };
                set.children.insert(format!("f:{key}"), field_set(inner, schema));
            }
        }
        Parts::Items(items) => {
            for (element, item) in items {
                let mut child = schema.item().map(|s| field_set(item, s)).unwrap_or_default();
                child.member = true;
                set.children.insert(element, child);
            }
        }
    }
    set
}

/// What differs between two values.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Added or changed paths.
    pub(super) written: Set,
    /// Paths that are gone.
    pub(super) removed: Set,
}

/// Compares an old and a new value.
pub(super) fn compare(old: Option<&Value>, new: Option<&Value>, schema: SchemaRef<'_>) -> Comparison {
    let mut out = Comparison::default();
    compare_into(old, new, schema, false, &mut out.written, &mut out.removed);
    out
}

fn compare_into(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: SchemaRef<'_>,
    embedded: bool,
    written: &mut Set,
    removed: &mut Set,
) {
    if old == new {
        return;
    }
    let divided =
        |value: Option<&'_ Value>| value.filter(|v| !v.is_null()).map(|v| matches!(parts(v, schema), Parts::Leaf));
    if divided(old) == Some(true) || divided(new) == Some(true) {
        match new {
            Some(_) => written.member = true,
            None => removed.member = true,
        }
        return;
    }
    if !embedded {
        match (old.is_some(), new.is_some()) {
            (false, true) => written.member = true,
            (true, false) => removed.member = true,
            _ => {}
        }
    }
    let (old_parts, new_parts) = (children(old, schema), children(new, schema));
    let elements: BTreeSet<&String> = old_parts.iter().chain(&new_parts).map(|(element, ..)| element).collect();
    for element in elements {
        let find = |list: &[(String, Value, bool)]| list.iter().find(|(e, ..)| e == element).map(|(_, v, _)| v.clone());
        let (a, b) = (find(&old_parts), find(&new_parts));
        let Some(inner) = child_schema(schema, element) else { continue };
        let embedded = element.strip_prefix("f:").is_some_and(|name| {
            EMBEDDED.contains(&name) && matches!(inner.shape(), Shape::Struct(_)) && !inner.get().atomic
        });
        let (mut w, mut r) = (Set::default(), Set::default());
        compare_into(a.as_ref(), b.as_ref(), inner, embedded, &mut w, &mut r);
        if !w.is_empty() {
            written.children.insert(element.clone(), w);
        }
        if !r.is_empty() {
            removed.children.insert(element.clone(), r);
        }
    }
}

fn child_schema<'a>(schema: SchemaRef<'a>, element: &str) -> Option<SchemaRef<'a>> {
    match element.strip_prefix("f:") {
        Some(name) => schema.field(name),
        None => schema.item(),
    }
}

fn children(value: Option<&Value>, schema: SchemaRef<'_>) -> Vec<(String, Value, bool)> {
    match value.map(|v| parts(v, schema)) {
        Some(Parts::Fields(map)) => map.iter().map(|(k, v)| (format!("f:{k}"), v.clone(), false)).collect(),
        Some(Parts::Items(items)) => items.into_iter().map(|(e, v)| (e, v.clone(), true)).collect(),
        _ => Vec::new(),
    }
}

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
                match schema.field(key) {
                    Some(schema) => merge(target.entry(key.clone()).or_insert(Value::Null), inner, schema),
                    None => {
                        target.insert(key.clone(), inner.clone());
                    }
                }
            }
        }
        Parts::Items(items) => merge_items(live, items, schema),
    }
}

fn merge_items(live: &mut Value, items: Vec<(String, &Value)>, schema: SchemaRef<'_>) {
    let present: Vec<String> = match parts(live, schema) {
        Parts::Items(items) => items.into_iter().map(|(element, _)| element).collect(),
        _ => Vec::new(),
    };
    if !live.is_array() {
        *live = Value::Array(Vec::new());
    }
    let (Value::Array(list), Some(item_schema)) = (live, schema.item()) else { return };
    for (element, item) in items {
        match present.iter().position(|e| *e == element) {
            Some(at) => {
                if let Some(target) = list.get_mut(at) {
                    merge(target, item, item_schema);
                }
            }
            None => list.push(item.clone()),
        }
    }
}

/// Removes paths from a value. Items and fields that `kept` (or something below) holds stay.
pub(super) fn remove(value: &mut Value, gone: &Set, kept: &Set, schema: SchemaRef<'_>) {
    let elements: Vec<String> = match parts(value, schema) {
        Parts::Items(items) => items.into_iter().map(|(element, _)| element).collect(),
        _ => Vec::new(),
    };
    match value {
        Value::Object(map) => {
            for (element, inner_gone) in &gone.children {
                let Some(name) = element.strip_prefix("f:") else { continue };
                let (Some(inner), Some(schema)) = (map.get_mut(name), schema.field(name)) else { continue };
                let nothing = Set::default();
                let inner_kept = kept.children.get(element).unwrap_or(&nothing);
                let whole = inner_gone.member && inner_kept.is_empty();
                if !whole {
                    remove(inner, inner_gone, inner_kept, schema);
                }
                if whole || (is_blank(inner) && inner_kept.is_empty() && !inner_gone.children.is_empty()) {
                    map.remove(name);
                }
            }
        }
        Value::Array(list) => {
            let mut at = 0;
            let mut elements = elements.into_iter();
            let nothing = Set::default();
            list.retain_mut(|item| {
                at += 1;
                let Some(element) = elements.next() else { return true };
                let Some(inner_gone) = gone.children.get(&element) else { return true };
                let inner_kept = kept.children.get(&element).unwrap_or(&nothing);
                if inner_gone.member && inner_kept.is_empty() {
                    return false;
                }
                if let Some(schema) = schema.item() {
                    remove(item, inner_gone, inner_kept, schema);
                }
                true
            });
        }
        _ => {}
    }
}

/// Checks that a configuration fits its schema and names no list item twice.
pub(super) fn check(value: &Value, schema: SchemaRef<'_>, path: &mut String, problems: &mut Vec<String>) {
    let length = path.len();
    match (schema.shape(), value) {
        (Shape::Struct(fields), Value::Object(map)) => {
            for (key, inner) in map {
                path.push('.');
                path.push_str(key);
                match fields.get(key) {
                    None => problems.push(format!("{path}: field not declared in schema")),
                    Some(field) => check(inner, schema.follow(field.type_id), path, problems),
                }
                path.truncate(length);
            }
        }
        (Shape::Map { value: inner }, Value::Object(map)) => {
            for (key, item) in map {
                path.push('.');
                path.push_str(key);
                check(item, schema.follow(*inner), path, problems);
                path.truncate(length);
            }
        }
        (Shape::List { item, .. }, Value::Array(list)) => {
            if let Parts::Items(items) = parts(value, schema) {
                let mut seen = BTreeSet::new();
                for (element, _) in &items {
                    if !seen.insert(element) {
                        problems.push(format!("{path}: duplicate entries for key {}", element.split_at(2).1));
                    }
                }
            }
            for (at, inner) in list.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                check(inner, schema.follow(*item), path, problems);
                path.truncate(length);
            }
        }
        (Shape::Any, _) | (_, Value::Null) => {}
        (Shape::Struct(_) | Shape::Map { .. }, other) => {
            problems.push(format!("{path}: expected map, got {}", shown(other)))
        }
        (Shape::List { .. }, other) => problems.push(format!("{path}: expected list, got {}", shown(other))),
        (Shape::String | Shape::Time | Shape::MicroTime, other) if !other.is_string() => {
            problems.push(format!("{path}: expected string, got {}", shown(other)));
        }
        (Shape::Boolean, other) if !other.is_boolean() => {
            problems.push(format!("{path}: expected boolean, got {}", shown(other)));
        }
        (Shape::Integer(_) | Shape::Number, other) if !other.is_number() => {
            problems.push(format!("{path}: expected numeric (int or float), got {}", shown(other)));
        }
        _ => {}
    }
}

fn shown(value: &Value) -> String {
    format!("&{{{value}}}")
}

/// The error for a configuration that does not fit.
pub(super) fn unfit(object: &str, problems: &[String]) -> ApiResult<()> {
    let text = match problems {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    Err(ApiError::new(500, Reason::Unknown, format!("failed to create typed patch object ({object}): {text}")))
}
