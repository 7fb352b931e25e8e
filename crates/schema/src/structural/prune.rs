//! Fields that a schema does not know.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::{Additional, Schema};

/// What every object has, at the root and where resources are embedded.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes unknown fields from an object. Answers their paths (`spec.foo`, `spec.list[0].bar`).
pub fn prune(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut walk = Walk { path: String::new(), removed: Vec::new() };
    walk.value(object, schema, true);
    walk.removed
}

struct Walk {
    path: String,
    removed: Vec<String>,
}

impl Walk {
    fn value(&mut self, value: &mut Value, schema: &Schema, is_resource: bool) {
        let length = self.path.len();
        match value {
            Value::Array(list) => {
                let Some(items) = &schema.items else {
                    if !schema.preserves {
                        list.iter_mut().for_each(drop_all);
                    }
                    return;
                };
                for (at, item) in list.iter_mut().enumerate() {
                    let _infallible = write!(self.path, "[{at}]");
                    self.value(item, items, items.embedded);
                    self.path.truncate(length);
                }
            }
            Value::Object(map) => self.fields(map, schema, is_resource || schema.embedded),
            _ => {}
        }
    }

    fn fields(&mut self, map: &mut Map<String, Value>, schema: &Schema, is_resource: bool) {
        let length = self.path.len();
        let mut unknown = Vec::new();
        for (key, inner) in map.iter_mut() {
            if is_resource && OBJECT_FIELDS.contains(&key.as_str()) {
                continue;
            }
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(key);
            match (schema.property(key), &schema.additional) {
                (Some(known), _) => self.value(inner, known, false),
                (None, Additional::Of(values)) => self.value(inner, values, false),
                (None, Additional::Any) => {}
                (None, Additional::Absent) if schema.preserves => {}
                (None, Additional::Absent) => {
                    unknown.push(key.clone());
                    self.removed.push(self.path.clone());
                }
            }
            self.path.truncate(length);
        }
        for key in unknown {
            map.remove(&key);
        }
    }
}

/// Objects in a list of which nothing is known lose all their fields.
fn drop_all(value: &mut Value) {
    match value {
        Value::Object(map) => map.clear(),
        Value::Array(list) => list.iter_mut().for_each(drop_all),
        _ => {}
    }
}
