//! Whether a configuration fits its schema.

use std::{collections::HashSet, fmt::Write};

use serde_json::Value;

use super::{
    parts::{Parts, field, parts},
    set::readable,
};
use crate::{
    field::{go_quote, go_value},
    meta,
    schema::{ListType, SchemaRef, Shape},
    status::{ApiError, ApiResult, Reason},
};

/// Problems reported of one configuration.
const MAX_PROBLEMS: usize = 100;

/// Refuses a configuration with undeclared fields, values of a wrong type, or list items named twice.
pub(super) fn check(config: &Value, schema: SchemaRef<'_>) -> ApiResult<()> {
    let mut walk = Walk { path: String::new(), problems: Vec::new() };
    walk.check(config, schema);
    let text = match walk.problems.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let message = format!("failed to create typed patch object ({}): {text}", describe(config));
    Err(ApiError::new(500, Reason::Unknown, message))
}

/// Paths of the lists, maps and structs of a configuration that are owned as a whole.
pub(super) fn wholes(config: &Value, schema: SchemaRef<'_>) -> Vec<String> {
    let mut found = Vec::new();
    find_wholes(config, schema, "", &mut found);
    found
}

fn find_wholes(value: &Value, schema: SchemaRef<'_>, path: &str, found: &mut Vec<String>) {
    match parts(value, schema) {
        Parts::Leaf if value.is_array() || value.is_object() => found.push(path.to_owned()),
        Parts::Leaf => {}
        Parts::Fields(map) => {
            for (key, inner) in map {
                if let Some(schema) = field(schema, key) {
                    find_wholes(inner, schema, &format!("{path}.{key}"), found);
                }
            }
        }
        Parts::Items(items) => {
            for (element, inner) in items {
                if let Some(schema) = schema.item() {
                    find_wholes(inner, schema, &format!("{path}{}", readable(&element)), found);
                }
            }
        }
    }
}

/// `<namespace>/<name>; <apiVersion>, Kind=<kind>`.
fn describe(config: &Value) -> String {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or("");
    let (namespace, name) = (meta::namespace(config), meta::name(config));
    format!("{namespace}/{name}; {}, Kind={}", text("apiVersion"), text("kind"))
}

struct Walk {
    path: String,
    problems: Vec<String>,
}

impl Walk {
    fn problem(&mut self, text: &str) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("{}: {text}", self.path));
        }
    }

    fn check(&mut self, value: &Value, schema: SchemaRef<'_>) {
        let length = self.path.len();
        match (schema.shape(), value) {
            (Shape::Any, _) | (_, Value::Null) => {}
            (Shape::Struct(_), Value::Object(map)) => {
                for (key, inner) in map {
                    self.descend(key);
                    match schema.field(key) {
                        None => self.problem("field not declared in schema"),
                        Some(field) => self.check(inner, field),
                    }
                    self.path.truncate(length);
                }
            }
            (Shape::Map { value: inner }, Value::Object(map)) => {
                for (key, item) in map {
                    self.descend(key);
                    self.check(item, schema.follow(*inner));
                    self.path.truncate(length);
                }
            }
            (Shape::List { item, merge }, Value::Array(list)) => {
                self.check_elements(value, merge, schema);
                for (at, inner) in list.iter().enumerate() {
                    let _infallible = write!(self.path, "[{at}]");
                    self.check(inner, schema.follow(*item));
                    self.path.truncate(length);
                }
            }
            (shape, other) => {
                if let Some(expected) = misfit(shape, other) {
                    self.problem(&format!("expected {expected}, got &{{{}}}", go_value(other)));
                }
            }
        }
    }

    fn descend(&mut self, key: &str) {
        self.path.push('.');
        self.path.push_str(key);
    }

    /// Items of associative lists must have their keys, once.
    fn check_elements(&mut self, value: &Value, merge: &ListType, schema: SchemaRef<'_>) {
        let Parts::Items(items) = parts(value, schema) else { return };
        let mut seen = HashSet::with_capacity(items.len());
        for (at, (element, item)) in items.iter().enumerate() {
            if let ListType::Map(keys) = merge {
                let has = |key: &String| {
                    let default = || schema.item()?.field_fact(key)?.default.as_ref();
                    item.get(key).is_some() || default().is_some()
                };
                if let Some(missing) = keys.iter().find(|k| !has(k)) {
                    let quoted = go_quote(missing);
                    self.problem(&format!(
                        "element {at}: associative list with keys has an element that omits key field {quoted} (and \
                         doesn't have default value)"
                    ));
                    continue;
                }
            }
            if !seen.insert(element.as_str()) {
                self.problem(&format!("duplicate entries for key {}", readable(element)));
            }
        }
    }
}

/// What was expected instead of a value.
fn misfit(shape: &Shape, value: &Value) -> Option<&'static str> {
    let fits = match shape {
        Shape::Any => true,
        Shape::Struct(_) | Shape::Map { .. } => return (!value.is_object()).then_some("map"),
        Shape::List { .. } => return (!value.is_array()).then_some("list"),
        Shape::String | Shape::Time | Shape::MicroTime | Shape::Bytes => {
            return (!value.is_string()).then_some("string");
        }
        Shape::Boolean => return (!value.is_boolean()).then_some("boolean"),
        Shape::Integer(_) | Shape::Number => return (!value.is_number()).then_some("numeric (int or float)"),
        Shape::Quantity | Shape::IntOrString => value.is_string() || value.is_number(),
    };
    (!fits).then_some("scalar")
}
