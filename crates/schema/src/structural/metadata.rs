//! `apiVersion`, `kind` and `metadata` of an object and of the resources embedded in it.

use std::{collections::HashMap, sync::LazyLock};

use machinery::{
    decode::{self, FieldProblems},
    field::{ErrorList, Path},
    schema::{Field, Shape, Type, TypeId, TypeTable},
};
use serde_json::{Map, Value};

use super::{Additional, Schema, types};

/// An object of which only the metadata is known.
static METADATA: LazyLock<(TypeTable, TypeId)> = LazyLock::new(|| {
    let mut table = TypeTable::default();
    let metadata = types::object_meta(&mut table);
    let fields = HashMap::from([("metadata".to_owned(), Field::new(metadata))]);
    let root = table.add(Type { name: String::new(), shape: Shape::Struct(fields), atomic: false, rest: None });
    (table, root)
});

/// Brings the metadata of an object and of embedded resources into the form of typed metadata; unknown fields are
/// removed and reported, values of a wrong type are reported.
pub fn coerce(object: &mut Value, schema: &Schema) -> FieldProblems {
    let mut problems = FieldProblems::default();
    walk(object, schema, true, "", &mut problems);
    problems
}

fn walk(value: &mut Value, schema: &Schema, is_resource: bool, path: &str, problems: &mut FieldProblems) {
    let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => {
            if is_resource || schema.embedded {
                metadata(map, path, problems);
            }
            if !has_embedded(schema) {
                return;
            }
            for (name, inner) in map.iter_mut() {
                if let Some(property) = schema.field(name) {
                    walk(inner, property, false, &join(name), problems);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = schema.items.as_deref().filter(|i| has_embedded(i)) else { return };
            for (at, item) in list.iter_mut().enumerate() {
                walk(item, items, false, &format!("{path}[{at}]"), problems);
            }
        }
        _ => {}
    }
}

/// Whether resources are embedded at or below a schema.
fn has_embedded(schema: &Schema) -> bool {
    schema.embedded
        || schema.properties.iter().any(|(_, inner)| has_embedded(inner))
        || schema.items.as_deref().is_some_and(has_embedded)
        || matches!(&schema.additional, Additional::Of(inner) if has_embedded(inner))
}

fn metadata(map: &mut Map<String, Value>, path: &str, problems: &mut FieldProblems) {
    let Some(own) = map.remove("metadata") else { return };
    let mut envelope = Value::Object(Map::from_iter([("metadata".to_owned(), own)]));
    let (table, root) = &*METADATA;
    let found = decode::check_fields(&mut envelope, table.get(*root));
    problems.append(if path.is_empty() { found } else { found.below(path) });
    if let Some(own) = envelope.get_mut("metadata").map(Value::take).filter(|own| !own.is_null()) {
        map.insert("metadata".into(), own);
    }
}

/// What embedded resources lack: they must say what they are.
pub fn embedded_errors(object: &Value, schema: &Schema) -> ErrorList {
    let mut errors = ErrorList::default();
    if has_embedded(schema) {
        embedded(object, schema, true, &Path::default(), &mut errors);
    }
    errors
}

fn embedded(value: &Value, schema: &Schema, root: bool, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            if schema.embedded && !root {
                for field in ["apiVersion", "kind"] {
                    if map.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                        errors.required(&path.child(field), "must not be empty");
                    }
                }
            }
            for (name, inner) in map {
                let Some(property) = schema.field(name) else { continue };
                let below = if schema.property(name).is_some() { path.child(name) } else { path.key(name) };
                embedded(inner, property, false, &below, errors);
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for (at, item) in list.iter().enumerate() {
                embedded(item, items, false, &path.index(at), errors);
            }
        }
        _ => {}
    }
}
