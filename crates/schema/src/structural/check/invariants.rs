//! What makes a schema structural.

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::{Place, is, list_of, nested, object_of, text_of};

const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";

pub(super) fn check(schema: &Value, place: Place, path: &Path, errors: &mut ErrorList) {
    kind(schema, place, path, errors);
    extensions(schema, path, errors);
    if place == Place::Root || is(schema, EMBEDDED) {
        resource(schema, path, errors);
    }
    list(schema, path, errors);
    map_type(schema, path, errors);
    nested::check(schema, path, errors);
    for (name, inner) in object_of(schema, "properties") {
        check(inner, Place::Field, &path.child("properties").key(name), errors);
    }
    if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
        check(inner, Place::Field, &path.child("additionalProperties"), errors);
    }
    if let Some(inner) = schema.get("items").filter(|inner| inner.is_object()) {
        check(inner, Place::Item, &path.child("items"), errors);
    }
}

fn kind(schema: &Value, place: Place, path: &Path, errors: &mut ErrorList) {
    let kind = text_of(schema, "type");
    let path = path.child("type");
    let embedded = "must be object if x-kubernetes-embedded-resource is true";
    match (kind, place) {
        ("", _) if is(schema, EMBEDDED) => errors.required(&path, embedded),
        (kind, _) if is(schema, EMBEDDED) && kind != "object" => errors.invalid(&path, &json!(kind), embedded),
        ("", Place::Root) => errors.required(&path, "must not be empty at the root"),
        ("", _) if is(schema, INT_OR_STRING) || is(schema, PRESERVE) => {}
        ("", Place::Item) => errors.required(&path, "must not be empty for specified array items"),
        ("", Place::Field) => errors.required(&path, "must not be empty for specified object fields"),
        (kind, Place::Root) if kind != "object" => errors.invalid(&path, &json!(kind), "must be object at the root"),
        _ => {}
    }
    if kind == "array" && schema.get("items").is_none_or(Value::is_null) {
        let parent = path.as_str().strip_suffix(".type").unwrap_or("");
        errors.required(&Path::new(parent).child("items"), "must be specified");
    }
}

fn extensions(schema: &Value, path: &Path, errors: &mut ErrorList) {
    if schema.get(PRESERVE) == Some(&json!(false)) {
        errors.invalid(&path.child(PRESERVE), &json!(false), "must be true or undefined");
    }
    if is(schema, INT_OR_STRING) {
        let given = text_of(schema, "type");
        if !given.is_empty() {
            let text = "must be empty if x-kubernetes-int-or-string is true";
            errors.invalid(&path.child("type"), &json!(given), text);
        }
        for key in [PRESERVE, EMBEDDED] {
            if is(schema, key) {
                let text = "must be false if x-kubernetes-int-or-string is true";
                errors.invalid(&path.child(key), &json!(true), text);
            }
        }
    }
    if is(schema, EMBEDDED) {
        if schema.get("additionalProperties").is_some_and(|a| !a.is_null()) {
            let text = "must not be used if x-kubernetes-embedded-resource is set";
            errors.forbidden(&path.child("additionalProperties"), text);
        }
        if !is(schema, PRESERVE) && object_of(schema, "properties").next().is_none() {
            let text = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
            errors.required(&path.child("properties"), text);
        }
    }
}

/// What a schema may say of the fields that every object has.
fn resource(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("properties");
    for name in ["kind", "apiVersion"] {
        let Some(given) = schema.pointer(&format!("/properties/{name}")) else { continue };
        let kind = text_of(given, "type");
        if kind != "string" {
            errors.invalid(&path.key(name).child("type"), &json!(kind), "must be string");
        }
    }
    let Some(metadata) = schema.pointer("/properties/metadata") else { return };
    let path = path.key("metadata");
    let kind = text_of(metadata, "type");
    if kind != "object" {
        errors.invalid(&path.child("type"), &json!(kind), "must be object");
    }
    if metadata.get("additionalProperties").is_some_and(|a| !a.is_null()) {
        errors.forbidden(&path.child("additionalProperties"), "must not be set on metadata");
    }
    for (name, _) in object_of(metadata, "properties") {
        if !matches!(name.as_str(), "name" | "generateName") {
            let text = "only restrictions on metadata.name and metadata.generateName are supported";
            errors.forbidden(&path.child("properties").key(name), text);
        }
    }
}

fn list(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let given = text_of(schema, LIST_TYPE);
    let keys = list_of(schema, LIST_KEYS);
    if given.is_empty() {
        if !keys.is_empty() {
            let text = "must be map if x-kubernetes-list-map-keys is non-empty";
            errors.required(&path.child(LIST_TYPE), text);
        }
        return;
    }
    if text_of(schema, "type") != "array" {
        errors.invalid(&path.child("type"), &schema["type"], "must be array if x-kubernetes-list-type is specified");
        return;
    }
    let none = Value::Null;
    let items = schema.get("items").unwrap_or(&none);
    match given {
        "atomic" => {}
        "set" => set(items, path, errors),
        "map" => keyed(items, keys, path, errors),
        other => errors.not_supported(&path.child(LIST_TYPE), &json!(other), &["atomic", "map", "set"]),
    }
    if given != "map" && !keys.is_empty() {
        let text = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.invalid(&path.child(LIST_TYPE), &json!(given), text);
    }
}

fn set(items: &Value, path: &Path, errors: &mut ErrorList) {
    if is(items, "nullable") {
        errors
            .forbidden(&path.child("items").child("nullable"), "cannot be nullable when x-kubernetes-list-type is set");
    }
    let atomic = match text_of(items, "type") {
        "object" => text_of(items, MAP_TYPE) == "atomic",
        "array" => text_of(items, LIST_TYPE) == "atomic" || text_of(items, LIST_TYPE).is_empty(),
        _ => true,
    };
    if !atomic {
        let field = if text_of(items, "type") == "object" { MAP_TYPE } else { LIST_TYPE };
        let text = "must be atomic as item of a list with x-kubernetes-list-type=set";
        errors.invalid(&path.child("items").child(field), &json!(text_of(items, field)), text);
    }
}

fn keyed(items: &Value, keys: &[Value], path: &Path, errors: &mut ErrorList) {
    if keys.is_empty() {
        errors.required(&path.child(LIST_KEYS), "must not be empty if x-kubernetes-list-type is map");
        return;
    }
    let kind = text_of(items, "type");
    if kind != "object" {
        let text = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(&path.child("items").child("type"), &json!(kind), text);
        return;
    }
    let properties = path.child("items").child("properties");
    let mut seen: Vec<&str> = Vec::new();
    for (at, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        if seen.contains(&key) {
            errors.duplicate(&path.child(LIST_KEYS).index(at), &json!(key));
            continue;
        }
        seen.push(key);
        let Some(property) = items.get("properties").and_then(|p| p.get(key)) else {
            let text = format!("must refer to a property of items, but {key:?} is not one");
            errors.invalid(&path.child(LIST_KEYS).index(at), &json!(key), &text);
            continue;
        };
        let scalar = matches!(text_of(property, "type"), "string" | "integer" | "number" | "boolean")
            || is(property, INT_OR_STRING);
        if !scalar {
            let text = "must be a scalar type if parent array's x-kubernetes-list-type is map";
            errors.invalid(&properties.key(key).child("type"), &json!(text_of(property, "type")), text);
        }
        if is(property, "nullable") {
            let text = "cannot be nullable as it is part of x-kubernetes-list-map-keys";
            errors.forbidden(&properties.key(key).child("nullable"), text);
        }
        let required = list_of(items, "required").contains(&json!(key));
        if !required && property.get("default").is_none() {
            let text =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&properties.key(key).child("default"), text);
        }
    }
}

fn map_type(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let given = text_of(schema, MAP_TYPE);
    if given.is_empty() {
        return;
    }
    if !matches!(given, "atomic" | "granular") {
        errors.not_supported(&path.child(MAP_TYPE), &json!(given), &["atomic", "granular"]);
    }
    if text_of(schema, "type") != "object" {
        errors.invalid(&path.child("type"), &schema["type"], "must be object if x-kubernetes-map-type is specified");
    }
}
