//! Environment variables and the fields they come from.

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::{
    super::{
        checks::is_hugepages,
        read::{list, present, text},
    },
    container::Surroundings,
};

const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
const AT_ONCE: &str = "may not have more than one field specified at a time";
/// Fields of a Pod that environment variables may hold.
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a Pod that volumes may hold.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that the API can name at all.
const KNOWN: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const MEMORY_UNITS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Checks `env`.
pub(super) fn variables(container: &Value, around: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    for (at, variable) in list(container, "env").iter().enumerate() {
        let path = path.index(at);
        let name = text(variable, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), &json!(name), names::env_name(name));
        }
        if let Some(from) = present(variable, "valueFrom") {
            value_from(variable, from, around, &path.child("valueFrom"), errors);
        }
    }
}

fn value_from(variable: &Value, from: &Value, around: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    let sources: Vec<&str> = SOURCES.into_iter().filter(|source| present(from, source).is_some()).collect();
    for source in &sources {
        let path = path.child(source);
        match *source {
            "fieldRef" => field_ref(&from["fieldRef"], &ENV_FIELDS, &path, errors),
            "resourceFieldRef" => resource_ref(&from["resourceFieldRef"], false, &path, errors),
            "fileKeyRef" => file_key(&from["fileKeyRef"], around, &path, errors),
            source => key_ref(&from[source], &path, errors),
        }
    }
    if sources.is_empty() {
        let text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                    `fileKeyRef`";
        errors.invalid(path, &json!(""), text);
    } else if !text(variable, "value").is_empty() {
        errors.invalid(path, &json!(""), "may not be specified when `value` is not empty");
    } else if sources.len() > 1 {
        errors.invalid(path, &json!(""), AT_ONCE);
    }
}

fn key_ref(source: &Value, path: &Path, errors: &mut ErrorList) {
    let (name, key) = (text(source, "name"), text(source, "key"));
    errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_subdomain(name));
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.invalid_all(&path.child("key"), &json!(key), names::config_key(key));
    }
}

fn file_key(source: &Value, around: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    let (volume, key) = (text(source, "volumeName"), text(source, "key"));
    if volume.is_empty() {
        errors.required(&path.child("volumeName"), "");
    } else if around.volumes.get(volume).is_none() {
        errors.not_found(&path.child("volumeName"), &json!(volume));
    }
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    }
    let file = text(source, "path");
    if file.is_empty() {
        errors.required(&path.child("path"), "");
    } else {
        super::super::checks::unreserved(file, &path.child("path"), errors);
    }
}

/// Checks a reference to a field of the Pod.
pub(super) fn field_ref(source: &Value, allowed: &[&str], path: &Path, errors: &mut ErrorList) {
    let (version, field) = (text(source, "apiVersion"), text(source, "fieldPath"));
    if version.is_empty() {
        errors.required(&path.child("apiVersion"), "");
        return;
    }
    if field.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return;
    }
    let at = path.child("fieldPath");
    if version != "v1" {
        let text = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.invalid(&at, &json!(field), &text);
        return;
    }
    let unknown = format!("error converting fieldPath: field label not supported: {field}");
    if let Some((map, key)) = subscript(field) {
        match map {
            "metadata.annotations" => {
                errors.invalid_all(path, &json!(key), names::qualified_name(&key.to_lowercase()));
            }
            "metadata.labels" => errors.invalid_all(path, &json!(key), names::qualified_name(key)),
            _ => errors.invalid(&at, &json!(field), &unknown),
        }
        return;
    }
    let field = if field == "spec.host" { "spec.nodeName" } else { field };
    if !KNOWN.contains(&field) {
        errors.invalid(&at, &json!(field), &unknown);
    } else if !allowed.contains(&field) {
        errors.not_supported(&at, &json!(field), allowed);
    }
}

/// `metadata.labels['a']` as its two parts.
fn subscript(field: &str) -> Option<(&str, &str)> {
    let inner = field.strip_suffix("']")?;
    inner.split_once("['")
}

/// Checks a reference to a resource of a container.
pub(super) fn resource_ref(source: &Value, names_container: bool, path: &Path, errors: &mut ErrorList) {
    let resource = text(source, "resource");
    if names_container && text(source, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
        return;
    }
    if resource.is_empty() {
        errors.required(&path.child("resource"), "");
        return;
    }
    let huge = ["limits.", "requests."].iter().any(|kind| resource.strip_prefix(kind).is_some_and(is_hugepages));
    if !huge && !RESOURCES.contains(&resource) {
        errors.not_supported(&path.child("resource"), &json!(resource), &RESOURCES);
    }
    let word = resource.split_once('.').map_or("", |(_, word)| word);
    let divisor = source.get("divisor").and_then(super::super::checks::quantity).filter(|divisor| !divisor.is_zero());
    let Some(divisor) = divisor.map(|divisor| divisor.to_string()) else { return };
    let units = match word {
        "cpu" if !["1m", "1"].contains(&divisor.as_str()) => "1m and 1 are supported with the cpu resource".to_owned(),
        "memory" if !MEMORY_UNITS.contains(&divisor.as_str()) => {
            format!("{} are supported with the memory resource", MEMORY_UNITS.join(", "))
        }
        _ => return,
    };
    errors.invalid(&path.child("divisor"), &json!(word), &format!("only divisor's values {units}"));
}

/// Checks `envFrom`.
pub(super) fn sources(container: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, source) in list(container, "envFrom").iter().enumerate() {
        let item = path.index(at);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            errors.invalid_all(&item.child("prefix"), &json!(prefix), names::env_name(prefix));
        }
        let kinds = ["configMapRef", "secretRef"];
        let given: Vec<&str> = kinds.into_iter().filter(|kind| present(source, kind).is_some()).collect();
        for kind in &given {
            let (name, path) = (text(&source[*kind], "name"), item.child(kind).child("name"));
            if name.is_empty() {
                errors.required(&path, "");
            } else {
                errors.invalid_all(&path, &json!(name), names::dns1123_subdomain(name));
            }
        }
        if given.is_empty() {
            errors.invalid(path, &json!(""), "must specify one of: `configMapRef` or `secretRef`");
        } else if given.len() > 1 {
            errors.invalid(path, &json!(""), AT_ONCE);
        }
    }
}
