//! Volume mounts and devices of containers.

use std::collections::HashSet;

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::{
    super::{
        checks::{descending, no_backsteps},
        read::{is_true, list, present, text},
    },
    volumes::Volumes,
};

const UNIQUE: &str = "must be unique";

/// Checks `volumeMounts`.
pub(super) fn mounts(container: &Value, volumes: &Volumes<'_>, path: &Path, errors: &mut ErrorList) {
    let devices = list(container, "volumeDevices");
    let mut seen = HashSet::new();
    for (at, mount) in list(container, "volumeMounts").iter().enumerate() {
        let path = path.index(at);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !volumes.contains(name) {
            errors.not_found(&path.child("name"), &json!(name));
        }
        if target.is_empty() {
            errors.required(&path.child("mountPath"), "");
        }
        if !seen.insert(target) {
            errors.invalid(&path.child("mountPath"), &json!(target), UNIQUE);
        }
        if devices.iter().any(|device| text(device, "name") == name) {
            errors.invalid(&path.child("name"), &json!(name), "must not already exist in volumeDevices");
        }
        if devices.iter().any(|device| text(device, "devicePath") == target) {
            let text = "must not already exist as a path in volumeDevices";
            errors.invalid(&path.child("mountPath"), &json!(target), text);
        }
        sub_path(mount, &path, errors);
        propagation(container, mount, &path, errors);
        recursive_read_only(mount, &path, errors);
    }
}

fn sub_path(mount: &Value, path: &Path, errors: &mut ErrorList) {
    let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
    if !sub.is_empty() {
        descending(sub, &path.child("subPath"), errors);
    }
    if expression.is_empty() {
        return;
    }
    if !sub.is_empty() {
        let text = "subPathExpr and subPath are mutually exclusive";
        errors.invalid(&path.child("subPathExpr"), &json!(expression), text);
    }
    descending(expression, &path.child("subPathExpr"), errors);
}

fn propagation(container: &Value, mount: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(value) = present(mount, "mountPropagation") else { return };
    let path = path.child("mountPropagation");
    let supported = ["Bidirectional", "HostToContainer", "None"];
    let mode = value.as_str().unwrap_or("");
    if !supported.contains(&mode) {
        errors.not_supported(&path, value, &supported);
    }
    let privileged = container.pointer("/securityContext/privileged") == Some(&json!(true));
    if mode == "Bidirectional" && !privileged {
        errors.forbidden(&path, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn recursive_read_only(mount: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(value) = present(mount, "recursiveReadOnly") else { return };
    let path = path.child("recursiveReadOnly");
    match value.as_str().unwrap_or("") {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !is_true(mount, "readOnly") {
                errors.forbidden(&path, "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                errors.forbidden(&path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        _ => errors.not_supported(&path, value, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// Checks `volumeDevices`.
pub(super) fn devices(container: &Value, volumes: &Volumes<'_>, path: &Path, errors: &mut ErrorList) {
    let mounts = list(container, "volumeMounts");
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (at, device) in list(container, "volumeDevices").iter().enumerate() {
        let path = path.index(at);
        let (name, target) = (text(device, "name"), text(device, "devicePath"));
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        if !names.insert(name) {
            errors.invalid(&path.child("name"), &json!(name), UNIQUE);
        }
        match volumes.get(name) {
            None => errors.not_found(&path.child("name"), &json!(name)),
            Some(volume)
                if present(volume, "persistentVolumeClaim").is_none() && present(volume, "ephemeral").is_none() =>
            {
                let text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&path.child("name"), &json!(name), text);
            }
            Some(_) => {}
        }
        if target.is_empty() {
            errors.required(&path.child("devicePath"), "");
        } else {
            if !paths.insert(target) {
                errors.invalid(&path.child("devicePath"), &json!(target), UNIQUE);
            }
            no_backsteps(target, &path.child("devicePath"), errors);
        }
        if mounts.iter().any(|mount| text(mount, "name") == name) {
            errors.invalid(&path.child("name"), &json!(name), "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|mount| text(mount, "mountPath") == target) {
            let text = "must not already exist as a path in volumeMounts";
            errors.invalid(&path.child("devicePath"), &json!(target), text);
        }
    }
}
