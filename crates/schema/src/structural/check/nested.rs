//! Alternatives: they restrict values, but what there is to restrict is said outside of them.

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::{is, list_of, object_of};

/// Checks `allOf`, `anyOf`, `oneOf` and `not` of a structural schema.
pub(super) fn check(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let int_or_string = is(schema, "x-kubernetes-int-or-string");
    for key in ["allOf", "anyOf", "oneOf"] {
        for (at, inner) in list_of(schema, key).iter().enumerate() {
            let place = path.child(key).index(at);
            if int_or_string && is_type_choice(schema, key, inner) {
                continue;
            }
            value(inner, Some(schema), &place, path, errors);
        }
    }
    if let Some(inner) = schema.get("not").filter(|n| n.is_object()) {
        value(inner, Some(schema), &path.child("not"), path, errors);
    }
}

/// `anyOf: [{type: integer}, {type: string}]`, which values that are either may carry, alone or first in `allOf`.
fn is_type_choice(schema: &Value, key: &str, inner: &Value) -> bool {
    let choice = json!([{"type": "integer"}, {"type": "string"}]);
    match key {
        "anyOf" => schema.get("anyOf") == Some(&choice),
        "allOf" => list_of(schema, "allOf").first() == Some(inner) && inner.get("anyOf") == Some(&choice),
        _ => false,
    }
}

/// A schema within an alternative. `structure` is what is said outside of the same value.
fn value(inner: &Value, structure: Option<&Value>, place: &Path, outside: &Path, errors: &mut ErrorList) {
    for (key, text) in [
        ("type", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("title", "must be empty to be structural"),
        ("default", "must be undefined to be structural"),
        ("nullable", "must be false to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ] {
        let said = inner.get(key).is_some_and(|v| !matches!(v, Value::Null | Value::Bool(false)) && *v != json!(""));
        if said {
            errors.forbidden(&place.child(key), text);
        }
    }
    for (name, property) in object_of(inner, "properties") {
        let own = structure.and_then(|s| s.get("properties")).and_then(|p| p.get(name));
        let place = place.child("properties").key(name);
        let outside = outside.child("properties").key(name);
        if own.is_none() {
            errors.required(&outside, &format!("because it is defined in {place}"));
        }
        value(property, own, &place, &outside, errors);
    }
    if let Some(items) = inner.get("items").filter(|i| i.is_object()) {
        let own = structure.and_then(|s| s.get("items")).filter(|i| i.is_object());
        let (place, outside) = (place.child("items"), outside.child("items"));
        if own.is_none() {
            errors.required(&outside, &format!("because it is defined in {place}"));
        }
        value(items, own, &place, &outside, errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (at, deeper) in list_of(inner, key).iter().enumerate() {
            value(deeper, structure, &place.child(key).index(at), outside, errors);
        }
    }
    if let Some(deeper) = inner.get("not").filter(|n| n.is_object()) {
        value(deeper, structure, &place.child("not"), outside, errors);
    }
}
