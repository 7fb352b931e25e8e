//! Rules of `metadata`, the same for every kind.

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

/// Total length of annotation keys and values, bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// How the name of a kind is checked; answers what is wrong.
pub type NameRule = fn(&str) -> Vec<String>;

/// Checks the metadata of a new object, its name by `rule`.
pub fn validate(object: &Value, namespaced: bool, rule: NameRule) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Path::new("metadata");
    let name = meta::name(object);
    let prefix = meta::text(object, "generateName");
    if !prefix.is_empty() {
        errors.invalid_all(&path.child("generateName"), &json!(prefix), rule(&mask_dash(prefix)));
    }
    if name.is_empty() {
        errors.required(&path.child("name"), "name or generateName is required");
    } else {
        errors.invalid_all(&path.child("name"), &json!(name), rule(name));
    }
    let namespace = meta::namespace(object);
    if namespaced {
        if namespace.is_empty() {
            errors.required(&path.child("namespace"), "");
        } else {
            errors.invalid_all(&path.child("namespace"), &json!(namespace), names::dns1123_label(namespace));
        }
    } else if !namespace.is_empty() {
        errors.forbidden(&path.child("namespace"), "not allowed on this type");
    }
    common(object, &path, &mut errors);
    errors
}

/// Name prefixes may end in a dash.
fn mask_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

/// Checks of a new object that hold whatever its kind: the name as a path segment.
pub fn validate_create(object: &Value, namespaced: bool) -> ErrorList {
    validate(object, namespaced, names::path_segment)
}

fn common(object: &Value, path: &Path, errors: &mut ErrorList) {
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    if generation < 0 {
        errors.invalid(&path.child("generation"), &json!(generation), "must be greater than or equal to 0");
    }
    labels(object, path, errors);
    annotations(object, &path.child("annotations"), errors);
    finalizers(object, path, errors);
    owners(object, path, errors);
    managers(object, &path.child("managedFields"), errors);
}

const MANAGER_LIMIT: usize = 128;
const SUBRESOURCE_LIMIT: usize = 256;

/// Who manages which fields.
fn managers(object: &Value, path: &Path, errors: &mut ErrorList) {
    let list = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    for (at, entry) in list.into_iter().flatten().enumerate() {
        let path = path.index(at);
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or("");
        if !matches!(text("operation"), "Apply" | "Update") {
            errors.invalid(&path.child("operation"), &json!(text("operation")), "must be `Apply` or `Update`");
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            errors.invalid(&path.child("fieldsType"), &json!(text("fieldsType")), "must be `FieldsV1`");
        }
        let manager = text("manager");
        if manager.len() > MANAGER_LIMIT {
            errors.too_long(&path.child("manager"), MANAGER_LIMIT);
        }
        if let Some((position, odd)) = manager.chars().enumerate().find(|(_, c)| c.is_control()) {
            let text = format!("invalid character U+{:04X} (at position {position})", u32::from(odd));
            errors.invalid(&path.child("manager"), &json!(manager), &text);
        }
        if text("subresource").len() > SUBRESOURCE_LIMIT {
            errors.too_long(&path.child("subresource"), SUBRESOURCE_LIMIT);
        }
    }
}

fn labels(object: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("labels");
    for (key, value) in meta::text_map(object, "labels") {
        errors.invalid_all(&path, &json!(key), names::qualified_name(key));
        errors.invalid_all(&path, &json!(value), names::label_value(value));
    }
}

/// Checks the annotations of an object or template; `path` is theirs.
pub(crate) fn annotations(object: &Value, path: &Path, errors: &mut ErrorList) {
    let mut total = 0;
    for (key, value) in meta::text_map(object, "annotations") {
        errors.invalid_all(path, &json!(key), names::qualified_name(&key.to_lowercase()));
        total += key.len() + value.len();
    }
    if total > ANNOTATIONS_LIMIT {
        errors.too_long(path, ANNOTATIONS_LIMIT);
    }
}

/// Whether a finalizer without a domain is one of the API's own.
pub(crate) fn is_standard_finalizer(name: &str) -> bool {
    STANDARD_FINALIZERS.contains(&name)
}

fn finalizers(object: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("finalizers");
    let list = meta::finalizers(object);
    for (at, finalizer) in list.iter().enumerate() {
        errors.invalid_all(&path, &json!(finalizer), names::qualified_name(finalizer));
        if !finalizer.contains('/') && !is_standard_finalizer(finalizer) {
            let text = "name is neither a standard finalizer name nor is it fully qualified";
            errors.invalid(&path.index(at), &json!(finalizer), text);
        }
    }
    if list.contains(&"orphan") && list.contains(&"foregroundDeletion") {
        errors.invalid(&path, &json!(list), "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

fn owners(object: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("ownerReferences");
    let list = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let mut controller: Option<String> = None;
    for owner in list.into_iter().flatten() {
        let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or("");
        if text("apiVersion").is_empty() {
            errors.invalid(&path.child("apiVersion"), &json!(""), "version must not be empty");
        }
        for key in ["kind", "name", "uid"] {
            if text(key).is_empty() {
                errors.invalid(&path.child(key), &json!(""), "must not be empty");
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            errors.invalid(&path, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.get("controller").and_then(Value::as_bool) == Some(true) {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(other) => errors.invalid(
                    &path,
                    list.map_or(&Value::Null, |_| owner),
                    &format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for \
                         {other} and {this}"
                    ),
                ),
                None => controller = Some(this),
            }
        }
    }
}

/// Checks of an updated object's metadata against the stored one.
pub fn validate_update(new: &Value, old: &Value, _namespaced: bool) -> ErrorList {
    let mut errors = ErrorList::default();
    let path = Path::new("metadata");
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"] {
        let value = meta::text(new, field);
        if value != meta::text(old, field) {
            errors.invalid(&path.child(field), &json!(value), "field is immutable");
        }
    }
    let grace = "/metadata/deletionGracePeriodSeconds";
    if new.pointer(grace) != old.pointer(grace) {
        let value = new.pointer(grace).cloned().unwrap_or_default();
        errors.invalid(&path.child("deletionGracePeriodSeconds"), &value, "field is immutable");
    }
    let generation = |object: &Value| object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    if generation(new) < generation(old) {
        errors.invalid(&path.child("generation"), &json!(generation(new)), "must not be decremented");
    }
    if meta::is_deleting(old) {
        let stored = meta::finalizers(old);
        let added: Vec<String> =
            meta::finalizers(new).iter().filter(|f| !stored.contains(f)).map(|f| format!("{f:?}")).collect();
        if !added.is_empty() {
            let text = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(&path.child("finalizers"), &text);
        }
    }
    common(new, &path, &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let object = json!({"metadata": {"name": "Bad", "namespace": "ns"}});
        assert_eq!(validate(&object, true, names::dns1123_subdomain).len(), 1);
        let object = json!({"metadata": {"generateName": "good-", "name": "good-x", "namespace": "ns"}});
        assert!(validate(&object, true, names::dns1123_subdomain).is_empty());
    }

    #[test]
    fn managers_are_checked() {
        let object = json!({"metadata": {"name": "a", "managedFields": [
            {"operation": "Apply", "fieldsType": "FieldsV1", "manager": "m"},
            {"operation": "Guess", "manager": "bell\u{7}"},
        ]}});
        let errors = validate(&object, false, names::dns1123_subdomain);
        let texts: Vec<String> = errors.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert_eq!(
            texts,
            [
                "metadata.managedFields[1].operation: Invalid value: \"Guess\": must be `Apply` or `Update`",
                "metadata.managedFields[1].manager: Invalid value: \"bell\\x07\": invalid character U+0007 (at \
                 position 4)",
            ]
        );
    }

    #[test]
    fn system_fields_are_immutable() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "finalizers": ["a/b"]}});
        let mut new = old.clone();
        new["metadata"]["uid"] = json!("2");
        new["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        let errors = validate_update(&new, &old, false);
        let texts: Vec<&str> = errors.iter().map(|c| c.message.as_str()).collect();
        assert_eq!(texts[0], "Invalid value: \"2\": field is immutable");
        assert!(texts[1].ends_with("[]string{\"c/d\"}"));
    }
}
