//! Path sets of values, and what differs between two values.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    parts::{Parts, field, is_blank, is_leaf_type, parts},
    set::Set,
};
use crate::{
    quantity::Quantity,
    schema::{SchemaRef, Shape},
};

/// Optional fields that Go holds by value, so that they exist even when empty: their own path is never recorded.
const EMBEDDED: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "template",
    "strategy",
    "updateStrategy",
    "resources",
    "jobTemplate",
    "loadBalancer",
    "daemonEndpoints",
    "kubeletEndpoint",
    "nodeInfo",
    "involvedObject",
    "source",
    "roleRef",
    "regarding",
    "lastState",
    "state",
    "names",
    "acceptedNames",
];

/// Metadata that nobody owns.
const UNTRACKED: [&str; 8] =
    ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"];

/// Where in an object a value is: some fields near its root are never tracked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Metadata,
    Inner,
}

impl Place {
    fn tracks(self, field: &str) -> bool {
        match self {
            Self::Root => !matches!(field, "apiVersion" | "kind"),
            Self::Metadata => !UNTRACKED.contains(&field),
            Self::Inner => true,
        }
    }

    fn below(self, field: &str) -> Self {
        if self == Self::Root && field == "metadata" { Self::Metadata } else { Self::Inner }
    }
}

/// The paths that an object sets.
pub(super) fn field_set(object: &Value, schema: SchemaRef<'_>) -> Set {
    match object {
        Value::Object(map) if !map.is_empty() => fields_of(map, schema, Place::Root),
        _ => Set::default(),
    }
}

fn fields_of(map: &Map<String, Value>, schema: SchemaRef<'_>, place: Place) -> Set {
    let mut set = Set::default();
    for (key, inner) in map {
        let Some(schema) = field(schema, key).filter(|_| place.tracks(key)) else { continue };
        let below = place.below(key);
        let child = match inner {
            Value::Object(map) if below == Place::Metadata => fields_of(map, schema, below),
            inner => set_of(inner, schema),
        };
        if !child.is_empty() {
            set.children.insert(format!("f:{key}"), child);
        }
    }
    set
}

fn set_of(value: &Value, schema: SchemaRef<'_>) -> Set {
    if is_blank(value) {
        return Set::leaf();
    }
    match parts(value, schema) {
        Parts::Leaf => Set::leaf(),
        Parts::Fields(map) => fields_of(map, schema, Place::Inner),
        Parts::Items(items) => {
            let mut set = Set::default();
            for (element, item) in items {
                let mut child = schema.item().map(|s| set_of(item, s)).unwrap_or_default();
                child.member = true;
                set.children.insert(element, child);
            }
            set
        }
    }
}

/// What differs between two values.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Added or changed paths.
    pub(super) written: Set,
    /// Paths that are gone.
    pub(super) removed: Set,
}

/// Compares an old object (if any) with a new one.
pub(super) fn compare(old: Option<&Value>, new: &Value, schema: SchemaRef<'_>) -> Comparison {
    let mut out = Comparison::default();
    let empty = Value::Object(Map::new());
    let old = old.unwrap_or(&empty);
    if let (Value::Object(a), Value::Object(b)) = (old, new) {
        compare_fields(Some(a), Some(b), schema, Place::Root, &mut out);
    }
    out
}

fn same(old: &Value, new: &Value, schema: SchemaRef<'_>) -> bool {
    if old == new {
        return true;
    }
    match (schema.shape(), old, new) {
        (Shape::Quantity, Value::String(a), Value::String(b)) => {
            matches!((Quantity::parse(a), Quantity::parse(b)), (Ok(a), Ok(b)) if a == b)
        }
        (_, Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64() && a.is_f64() != b.is_f64(),
        _ => false,
    }
}

/// Compares one path; `embedded` values count as present on both sides.
fn compare_value(
    old: Option<&Value>,
    new: Option<&Value>,
    schema: SchemaRef<'_>,
    embedded: bool,
    place: Place,
    out: &mut Comparison,
) {
    if let (Some(a), Some(b)) = (old, new)
        && same(a, b, schema)
    {
        return;
    }
    let empty = |side: Option<&Value>| side.is_none_or(is_blank);
    let is_leaf =
        |side: Option<&Value>| side.is_some_and(|v| !v.is_null() && matches!(parts_kind(v, schema), Kind::Leaf));
    if is_leaf_type(schema) || is_leaf(old) || is_leaf(new) || (empty(old) && empty(new)) {
        if new.is_some() {
            out.written.member = true;
        } else {
            out.removed.member = true;
        }
        return;
    }
    if !embedded {
        out.written.member |= old.is_none();
        out.removed.member |= new.is_none();
    }
    match parts_kind(old.filter(|v| !empty(Some(v))).or(new).unwrap_or(&Value::Null), schema) {
        Kind::Fields => {
            compare_fields(old.and_then(Value::as_object), new.and_then(Value::as_object), schema, place, out);
        }
        Kind::Items => compare_items(old, new, schema, out),
        Kind::Leaf => {}
    }
}

enum Kind {
    Leaf,
    Fields,
    Items,
}

fn parts_kind(value: &Value, schema: SchemaRef<'_>) -> Kind {
    match (schema.shape(), value) {
        _ if is_leaf_type(schema) => Kind::Leaf,
        (Shape::Struct(_) | Shape::Map { .. } | Shape::Any, Value::Object(_)) => Kind::Fields,
        (Shape::List { .. }, Value::Array(_)) => Kind::Items,
        _ => Kind::Leaf,
    }
}

fn compare_fields(
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    schema: SchemaRef<'_>,
    place: Place,
    out: &mut Comparison,
) {
    let added = new.into_iter().flatten().filter(|(k, _)| old.is_none_or(|o| !o.contains_key(*k)));
    let keys = old.into_iter().flatten().map(|(k, _)| k).chain(added.map(|(k, _)| k));
    for key in keys {
        let Some(inner) = field(schema, key).filter(|_| place.tracks(key)) else { continue };
        let (a, b) = (old.and_then(|m| m.get(key)), new.and_then(|m| m.get(key)));
        let mut child = Comparison::default();
        let by_value = is_by_value(schema, key, inner);
        compare_value(a, b, inner, by_value, place.below(key), &mut child);
        keep(child, || format!("f:{key}"), out);
    }
}

/// Whether Go holds a field by value, so that it is never absent.
fn is_by_value(schema: SchemaRef<'_>, name: &str, inner: SchemaRef<'_>) -> bool {
    match inner.shape() {
        _ if inner.get().atomic => false,
        Shape::Struct(_) => EMBEDDED.contains(&name) || schema.field_fact(name).is_some_and(|f| f.required),
        Shape::List { .. } => schema.field_fact(name).is_some_and(|f| f.required),
        _ => false,
    }
}

fn compare_items(old: Option<&Value>, new: Option<&Value>, schema: SchemaRef<'_>, out: &mut Comparison) {
    let Some(item_schema) = schema.item() else { return };
    let (old, new) = (by_element(old, schema), by_element(new, schema));
    let elements = old.keys().chain(new.keys().filter(|e| !old.contains_key(*e)));
    for element in elements {
        let mut child = Comparison::default();
        let (a, b) = (old.get(element).copied(), new.get(element).copied());
        compare_value(a, b, item_schema, false, Place::Inner, &mut child);
        keep(child, || element.clone(), out);
    }
}

/// Items of an associative list by their element; of duplicates the first.
fn by_element<'a>(list: Option<&'a Value>, schema: SchemaRef<'_>) -> HashMap<String, &'a Value> {
    let Some(Parts::Items(items)) = list.map(|v| parts(v, schema)) else { return HashMap::new() };
    let mut index = HashMap::with_capacity(items.len());
    for (element, item) in items {
        index.entry(element).or_insert(item);
    }
    index
}

fn keep(child: Comparison, element: impl Fn() -> String, out: &mut Comparison) {
    if !child.written.is_empty() {
        out.written.children.insert(element(), child.written);
    }
    if !child.removed.is_empty() {
        out.removed.children.insert(element(), child.removed);
    }
}
