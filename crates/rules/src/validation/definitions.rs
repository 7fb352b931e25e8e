//! CustomResourceDefinition.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use schema::structural::{self, Schema, Type};
use serde_json::{Value, json};

use super::{
    admission::service_reference,
    checks::{IMMUTABLE, choice, enumeration},
    read::{is_true, list, present, same, text},
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
    if is_true(spec, "preserveUnknownFields") {
        let text =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&path.child("preserveUnknownFields"), &json!(true), text);
    }
    if group.ends_with(".k8s.io") || group.ends_with(".kubernetes.io") || matches!(group, "k8s.io" | "kubernetes.io") {
        approval(object, errors);
    }
    conversion(spec.get("conversion").unwrap_or(&none), &path.child("conversion"), errors);
}

const APPROVED: &str = "api-approved.kubernetes.io";

/// Groups of the project need the project's approval.
fn approval(object: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    let given = object.pointer("/metadata/annotations").and_then(|a| a.get(APPROVED)).and_then(Value::as_str);
    let hint = "see https://github.com/kubernetes/enhancements/pull/1111";
    match given.unwrap_or("") {
        "" => errors.required(&path, &format!("protected groups must have approval annotation \"{APPROVED}\", {hint}")),
        given if given.starts_with("unapproved") || given.contains("://") => {}
        given => {
            let text = format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting \
                 with \"unapproved\", {hint}"
            );
            errors.invalid(&path, &json!(given), &text);
        }
    }
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
        subresources(version, &path, errors);
        columns(version, &path, errors);
        selectable(version, &path, errors);
        let path = path.child("schema").child("openAPIV3Schema");
        match version.pointer("/schema/openAPIV3Schema").filter(|schema| !schema.is_null()) {
            None => errors.required(&path, "schemas are required"),
            Some(schema) => errors.append(structural::check::check(schema, &path)),
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

const SUBRESOURCE_PATHS: [(&str, &str, bool); 3] =
    [("specReplicasPath", ".spec.", true), ("statusReplicasPath", ".status.", true), ("labelSelectorPath", "", false)];

fn subresources(version: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(scale) = version.pointer("/subresources/scale") else { return };
    let path = path.child("subresources").child("scale");
    for (field, prefix, required) in SUBRESOURCE_PATHS {
        let given = text(scale, field);
        let path = path.child(field);
        if given.is_empty() {
            if required {
                errors.required(&path, "");
            }
            continue;
        }
        let under = if prefix.is_empty() { vec![".spec.", ".status."] } else { vec![prefix] };
        let simple = is_simple_path(given);
        if !simple {
            errors.invalid(&path, &json!(given), "should be a simple json path");
        } else if !under.iter().any(|prefix| given.starts_with(prefix)) {
            let names: Vec<&str> = under.iter().map(|p| p.trim_end_matches('.')).collect();
            errors.invalid(&path, &json!(given), &format!("should be a json path under {}", names.join(" or ")));
        }
    }
}

/// `.a.b.c`
fn is_simple_path(path: &str) -> bool {
    let name = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/".contains(&b));
    path.strip_prefix('.').is_some_and(|rest| rest.split('.').all(name))
}

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 9] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "name", "password"];

fn columns(version: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, column) in list(version, "additionalPrinterColumns").iter().enumerate() {
        let path = path.child("additionalPrinterColumns").index(at);
        if text(column, "name").is_empty() {
            errors.required(&path.child("name"), "");
        }
        match text(column, "type") {
            "" => errors.required(&path.child("type"), &format!("must be one of {}", COLUMN_TYPES.join(","))),
            kind if !COLUMN_TYPES.contains(&kind) => {
                let text = format!("must be one of {}", COLUMN_TYPES.join(","));
                errors.invalid(&path.child("type"), &json!(kind), &text);
            }
            _ => {}
        }
        let format = text(column, "format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let text = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.invalid(&path.child("format"), &json!(format), &text);
        }
        let json_path = text(column, "jsonPath");
        if json_path.is_empty() {
            errors.required(&path.child("jsonPath"), "");
        } else if !json_path.starts_with('.') {
            errors.invalid(&path.child("jsonPath"), &json!(json_path), "is invalid: must start with a dot");
        }
    }
}

/// Fields that selectors may name, of one version.
const MAX_SELECTABLE: usize = 8;

fn selectable(version: &Value, path: &Path, errors: &mut ErrorList) {
    let fields = list(version, "selectableFields");
    let path = path.child("selectableFields");
    if fields.len() > MAX_SELECTABLE {
        errors.too_many(&path, fields.len(), MAX_SELECTABLE);
        return;
    }
    let compiled = version.pointer("/schema/openAPIV3Schema").map(Schema::compile).unwrap_or_default();
    let mut seen = HashSet::new();
    for (at, field) in fields.iter().enumerate() {
        let path = path.index(at).child("jsonPath");
        let given = text(field, "jsonPath");
        if given.is_empty() {
            errors.required(&path, "");
            continue;
        }
        if !seen.insert(given) {
            errors.duplicate(&path, &json!(given));
            continue;
        }
        let steps = given.strip_prefix('.').unwrap_or("").split('.');
        if !is_simple_path(given) {
            errors.invalid(&path, &json!(given), "must be a simple json path");
        } else if steps.clone().next() == Some("metadata") {
            errors.invalid(&path, &json!(given), "must not point to fields in metadata");
        } else {
            match compiled.at(steps).map(|s| s.kind) {
                None => errors.invalid(&path, &json!(given), "does not refer to a valid field"),
                Some(Some(Type::String | Type::Boolean | Type::Integer)) => {}
                Some(_) => {
                    let text = "must point to a field of type string, boolean or integer. Enum string fields and \
                                strings with formats are allowed.";
                    errors.invalid(&path, &json!(given), text);
                }
            }
        }
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
