//! CustomResourceDefinition.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

use super::{
    admission::service_reference,
    checks::{IMMUTABLE, choice, enumeration},
    read::{is_true, list, pairs, present, same, text},
    spec_path,
};

const SCOPES: [&str; 2] = ["Cluster", "Namespaced"];

/// Checks a CustomResourceDefinition.
pub(super) fn definition(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    let given = spec.get("names").unwrap_or(&none);
    let group = text(spec, "group");
    let expected = format!("{}.{group}", text(given, "plural"));
    if meta::name(object) != expected {
        let text = "must be spec.names.plural+\".\"+spec.group";
        errors.invalid(&Path::new("metadata").child("name"), &json!(meta::name(object)), text);
    }
    if group.is_empty() {
        errors.required(&path.child("group"), "");
    } else {
        let problems = names::dns1123_subdomain(group);
        if !problems.is_empty() {
            errors.invalid(&path.child("group"), &json!(group), &problems.join(","));
        } else if !group.contains('.') {
            errors.invalid(&path.child("group"), &json!(group), "should be a domain with at least one dot");
        }
    }
    choice(spec, "scope", &SCOPES, &path, errors);
    versions(list(spec, "versions"), &path.child("versions"), errors);
    check_names(given, &path.child("names"), errors);
    conversion(spec.get("conversion").unwrap_or(&none), &path.child("conversion"), errors);
}

fn versions(versions: &[Value], path: &Path, errors: &mut ErrorList) {
    let (mut seen, mut storage, mut unique) = (HashSet::new(), 0, true);
    for (at, version) in versions.iter().enumerate() {
        let path = path.index(at);
        let name = text(version, "name");
        unique &= seen.insert(name);
        storage += usize::from(is_true(version, "storage"));
        let problems = names::dns1035_label(name);
        if !problems.is_empty() {
            errors.invalid(&path.child("name"), &json!(name), &problems.join(","));
        }
        if present(version, "deprecationWarning").is_some() && !is_true(version, "deprecated") {
            let value = &version["deprecationWarning"];
            errors.invalid(&path.child("deprecationWarning"), value, "can only be set for deprecated versions");
        }
        let path = path.child("schema").child("openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema").filter(|schema| !schema.is_null()) {
            None => errors.required(&path, "schemas are required"),
            Some(schema) => structural(schema, Place::Root, &path, errors),
        }
    }
    if !unique {
        let names: Vec<&str> = versions.iter().map(|version| text(version, "name")).collect();
        errors.invalid(path, &json!(names), "must contain unique version names");
    }
    if storage != 1 {
        let names: Vec<&str> = versions.iter().map(|version| text(version, "name")).collect();
        errors.invalid(path, &json!(names), "must have exactly one version marked as storage version");
    }
}

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Field,
    Item,
}

/// Every value that the schema names has a type.
fn structural(schema: &Value, place: Place, path: &Path, errors: &mut ErrorList) {
    let kind = text(schema, "type");
    let free = is_true(schema, "x-kubernetes-int-or-string") || is_true(schema, "x-kubernetes-preserve-unknown-fields");
    match (place, kind) {
        (Place::Root, "") => errors.required(&path.child("type"), "must not be empty at the root"),
        (Place::Root, kind) if kind != "object" => {
            errors.invalid(&path.child("type"), &json!(kind), "must be object at the root");
        }
        (Place::Field, "") if !free => {
            errors.required(&path.child("type"), "must not be empty for specified object fields");
        }
        (Place::Item, "") if !free => {
            errors.required(&path.child("type"), "must not be empty for specified array items");
        }
        _ => {}
    }
    for (name, inner) in pairs(schema, "properties") {
        structural(inner, Place::Field, &path.child("properties").key(name), errors);
    }
    if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
        structural(inner, Place::Field, &path.child("additionalProperties"), errors);
    }
    if let Some(inner) = schema.get("items").filter(|inner| inner.is_object()) {
        structural(inner, Place::Item, &path.child("items"), errors);
    }
}

fn check_names(given: &Value, path: &Path, errors: &mut ErrorList) {
    let mut label = |field: &str, mixed: bool| {
        let value = text(given, field);
        let checked = if mixed { value.to_lowercase() } else { value.to_owned() };
        let problems = names::dns1035_label(&checked);
        if !problems.is_empty() {
            let told = problems.join(",");
            let text = if mixed { format!("may have mixed case, but should otherwise match: {told}") } else { told };
            errors.invalid(&path.child(field), &json!(value), &text);
        }
    };
    label("plural", false);
    label("singular", false);
    label("kind", true);
    label("listKind", true);
    for field in ["shortNames", "categories"] {
        for (at, name) in list(given, field).iter().filter_map(Value::as_str).enumerate() {
            let problems = names::dns1035_label(name);
            if !problems.is_empty() {
                errors.invalid(&path.child(field).index(at), &json!(name), &problems.join(","));
            }
        }
    }
    let kind = text(given, "kind");
    if !kind.is_empty() && kind == text(given, "listKind") {
        errors.invalid(&path.child("listKind"), &json!(kind), "kind and listKind may not be the same");
    }
}

fn conversion(conversion: &Value, path: &Path, errors: &mut ErrorList) {
    enumeration(conversion, "strategy", &["None", "Webhook"], path, errors);
    let hook = present(conversion, "webhook");
    let path = path.child("webhook");
    if text(conversion, "strategy") != "Webhook" {
        if hook.is_some() {
            errors.forbidden(&path.child("clientConfig"), "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    let config = hook.and_then(|hook| present(hook, "clientConfig"));
    let Some(config) = config else {
        errors.required(&path.child("clientConfig"), "required when strategy is set to Webhook");
        return;
    };
    match (present(config, "url"), present(config, "service")) {
        (None, None) | (Some(_), Some(_)) => {
            let text = "exactly one of url or service is required";
            errors.required(&path.child("clientConfig").child("url"), text);
        }
        (_, Some(service)) => service_reference(service, &path.child("clientConfig").child("service"), errors),
        _ => {}
    }
    if hook.is_some_and(|hook| list(hook, "conversionReviewVersions").is_empty()) {
        errors.required(&path.child("conversionReviewVersions"), "");
    }
}

/// Checks that stored versions are among those that the definition has.
pub(super) fn stored_versions(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let stored = list(object.get("status").unwrap_or(&none), "storedVersions");
    let path = Path::new("status").child("storedVersions");
    if stored.is_empty() {
        errors.invalid(&path, &json!(stored), "must have at least one stored version");
        return;
    }
    let versions = list(object.get("spec").unwrap_or(&none), "versions");
    for version in versions.iter().filter(|version| is_true(version, "storage")) {
        let name = text(version, "name");
        if !stored.contains(&json!(name)) {
            errors.invalid(&path, &json!(stored), &format!("must have the storage version {name}"));
        }
    }
    for (at, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version.get("name") == Some(name)) {
            let version = name.as_str().unwrap_or("");
            let text = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {version} and removes \
                 {version} from status.storedVersions"
            );
            errors.invalid(&path.index(at), name, &text);
        }
    }
}

/// Checks what may change of a stored definition.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let established = old.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let established = established
        .filter(|condition| text(condition, "type") == "Established")
        .any(|condition| text(condition, "status") == "True");
    let mut fields = vec!["/spec/group", "/spec/names/plural"];
    if established {
        fields.extend(["/spec/scope", "/spec/names/kind"]);
    }
    for pointer in fields {
        if !same("", new.pointer(pointer), old.pointer(pointer)) {
            let path = pointer.split('/').skip(1).fold(Path::default(), |path, step| path.child(step));
            errors.invalid(&path, new.pointer(pointer).unwrap_or(&Value::Null), IMMUTABLE);
        }
    }
}
