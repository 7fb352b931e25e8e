//! Volumes of Pods and pod templates.

use std::collections::HashMap;

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::{
    super::{
        checks::{descending, enumeration, mode, no_backsteps, quantity, required, selector, unreserved, within},
        read::{list, number, present, text},
        storage,
    },
    environment::{VOLUME_FIELDS, field_ref, resource_ref},
};

/// The sources of a volume, in the order in which they are looked at.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "flexVolume",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];
const ONE_ONLY: &str = "may not specify more than 1 volume type";
pub(in super::super) const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const MIN_TOKEN_SECONDS: i64 = 600;

/// The valid volumes of a pod spec by name.
pub(super) struct Volumes<'a>(HashMap<&'a str, &'a Value>);

impl<'a> Volumes<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).copied()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// Checks the volumes of a pod spec; `pod` is the name of the Pod that it belongs to, if it is no template.
pub(super) fn all<'a>(spec: &'a Value, pod: Option<&str>, path: &Path, errors: &mut ErrorList) -> Volumes<'a> {
    let volumes = list(spec, "volumes");
    let created: Vec<String> = volumes
        .iter()
        .filter(|volume| present(volume, "ephemeral").is_some())
        .filter_map(|volume| pod.map(|pod| format!("{pod}-{}", text(volume, "name"))))
        .collect();
    let mut valid = HashMap::new();
    for (at, volume) in volumes.iter().enumerate() {
        let path = path.index(at);
        let before = errors.len();
        source(volume, pod, &path, errors);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
        }
        if valid.contains_key(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
        if errors.len() == before {
            valid.insert(name, volume);
        }
        let claim = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str).unwrap_or("");
        if created.iter().any(|name| name == claim) {
            let path = path.child("persistentVolumeClaim").child("claimName");
            errors.invalid(&path, &json!(claim), "must not reference a PVC that gets created for an ephemeral volume");
        }
    }
    Volumes(valid)
}

fn source(volume: &Value, pod: Option<&str>, path: &Path, errors: &mut ErrorList) {
    one_source(volume, &SOURCES, path, errors, |kind, value, path, errors| match kind {
        "emptyDir" => empty_dir(value, path, errors),
        "gitRepo" => {
            required(value, &["repository"], path, errors);
            descending(text(value, "directory"), &path.child("directory"), errors);
        }
        "secret" => {
            required(value, &["secretName"], path, errors);
            files(value, path, errors);
        }
        "configMap" => {
            required(value, &["name"], path, errors);
            files(value, path, errors);
        }
        "persistentVolumeClaim" => {
            required(value, &["claimName"], path, errors);
        }
        "downwardAPI" => {
            mode(value, "defaultMode", path, errors);
            downward(value, path, errors);
        }
        "projected" => projected(value, path, errors),
        "csi" => inline_csi(value, path, errors),
        "ephemeral" => ephemeral(volume, value, pod, path, errors),
        "image" => {
            enumeration(value, "pullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
        }
        kind => network_source(kind, value, path, errors),
    });
}

/// Checks that there is exactly one of the `kinds` of sources, and it, with `check`.
pub(in super::super) fn one_source(
    volume: &Value,
    kinds: &[&str],
    path: &Path,
    errors: &mut ErrorList,
    check: impl Fn(&str, &Value, &Path, &mut ErrorList),
) {
    let mut found = false;
    for kind in kinds {
        let Some(value) = present(volume, kind) else { continue };
        let path = path.child(kind);
        if found {
            errors.forbidden(&path, ONE_ONLY);
            continue;
        }
        found = true;
        check(kind, value, &path, errors);
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

/// Checks a source that Pods and PersistentVolumes share.
pub(in super::super) fn network_source(kind: &str, value: &Value, path: &Path, errors: &mut ErrorList) {
    let fields: &[&str] = match kind {
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "rbd" => &["image"],
        "quobyte" => &["registry", "volume"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "azureDisk" => &["diskName", "diskURI"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "flexVolume" => &["driver"],
        "hostPath" => &["path"],
        _ => &[],
    };
    required(value, fields, path, errors);
    match kind {
        "hostPath" => {
            no_backsteps(text(value, "path"), &path.child("path"), errors);
            let kind = text(value, "type");
            if !HOST_PATH_TYPES.contains(&kind) {
                errors.not_supported(&path.child("type"), &json!(kind), &HOST_PATH_TYPES);
            }
        }
        "nfs" if !text(value, "path").is_empty() && !text(value, "path").starts_with('/') => {
            errors.invalid(&path.child("path"), &value["path"], "must be an absolute path");
        }
        "rbd" | "cephfs" if list(value, "monitors").is_empty() => errors.required(&path.child("monitors"), ""),
        "iscsi" => {
            within(value, "lun", 0, 255, path, errors);
            let chap = ["chapAuthDiscovery", "chapAuthSession"];
            let authenticated = chap.iter().any(|field| super::super::read::is_true(value, field));
            if authenticated && present(value, "secretRef").is_none() {
                errors.required(&path.child("secretRef"), "");
            }
        }
        _ => {}
    }
}

fn empty_dir(value: &Value, path: &Path, errors: &mut ErrorList) {
    if value.get("sizeLimit").and_then(quantity).is_some_and(|limit| limit.is_negative()) {
        errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn files(value: &Value, path: &Path, errors: &mut ErrorList) {
    mode(value, "defaultMode", path, errors);
    items(value, path, errors);
}

fn items(value: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, item) in list(value, "items").iter().enumerate() {
        let path = path.child("items").index(at);
        required(item, &["key", "path"], &path, errors);
        unreserved(text(item, "path"), &path.child("path"), errors);
        mode(item, "mode", &path, errors);
    }
}

fn downward(value: &Value, path: &Path, errors: &mut ErrorList) {
    // The index of an item is not part of the paths that its errors name.
    list(value, "items").iter().for_each(|item| downward_file(item, path, errors));
}

fn downward_file(item: &Value, path: &Path, errors: &mut ErrorList) {
    required(item, &["path"], path, errors);
    unreserved(text(item, "path"), &path.child("path"), errors);
    match (present(item, "fieldRef"), present(item, "resourceFieldRef")) {
        (Some(field), resource) => {
            field_ref(field, &VOLUME_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                let text = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, &json!("resource"), text);
            }
        }
        (None, Some(resource)) => resource_ref(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(item, "mode", path, errors);
}

fn projected(value: &Value, path: &Path, errors: &mut ErrorList) {
    mode(value, "defaultMode", path, errors);
    let mut taken: Vec<String> = Vec::new();
    for (at, source) in list(value, "sources").iter().enumerate() {
        let path = path.child("sources").index(at);
        let mut found = false;
        for kind in ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle"] {
            let Some(value) = present(source, kind) else { continue };
            let inner = path.child(kind);
            if found {
                errors.forbidden(&inner, ONE_ONLY);
            } else {
                found = true;
                projection(kind, value, &inner, errors);
            }
            for file in paths_of(kind, value) {
                if taken.contains(&file) {
                    let shown = if matches!(kind, "secret" | "configMap") { text(value, "name") } else { &file };
                    errors.invalid(&path, &json!(shown), "conflicting duplicate paths");
                }
                taken.push(file);
            }
        }
    }
}

fn paths_of(kind: &str, value: &Value) -> Vec<String> {
    let own = || vec![text(value, "path").to_owned()];
    let found = match kind {
        "serviceAccountToken" | "clusterTrustBundle" => own(),
        _ => list(value, "items").iter().map(|item| text(item, "path").to_owned()).collect(),
    };
    found.into_iter().filter(|path| !path.is_empty()).collect()
}

fn projection(kind: &str, value: &Value, path: &Path, errors: &mut ErrorList) {
    match kind {
        "secret" | "configMap" => {
            required(value, &["name"], path, errors);
            items(value, path, errors);
        }
        "downwardAPI" => downward(value, path, errors),
        "serviceAccountToken" => token(value, path, errors),
        _ => selector(value.get("labelSelector"), &path.child("labelSelector"), errors),
    }
}

fn token(value: &Value, path: &Path, errors: &mut ErrorList) {
    let seconds = number(value, "expirationSeconds").unwrap_or(MIN_TOKEN_SECONDS);
    let at = path.child("expirationSeconds");
    if seconds < MIN_TOKEN_SECONDS {
        errors.invalid(&at, &json!(seconds), "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(&at, &json!(seconds), "may not specify a duration larger than 2^32 seconds");
    }
    if required(value, &["path"], path, errors) {
        unreserved(text(value, "path"), &path.child("path"), errors);
    }
}

fn inline_csi(value: &Value, path: &Path, errors: &mut ErrorList) {
    storage::driver_name(text(value, "driver"), &path.child("driver"), errors);
    if let Some(secret) = present(value, "nodePublishSecretRef") {
        required(secret, &["name"], &path.child("nodePublishSecretRef"), errors);
    }
}

fn ephemeral(volume: &Value, value: &Value, pod: Option<&str>, path: &Path, errors: &mut ErrorList) {
    let path = path.child("volumeClaimTemplate");
    let Some(template) = present(value, "volumeClaimTemplate") else {
        errors.required(&path, "");
        return;
    };
    storage::claim_spec(template.get("spec").unwrap_or(&Value::Null), &path.child("spec"), errors);
    let name = pod.filter(|pod| !pod.is_empty()).map(|pod| format!("{pod}-{}", text(volume, "name")));
    for problem in name.iter().flat_map(|name| names::dns1123_subdomain(name)) {
        let name = name.as_deref().unwrap_or("");
        let text = format!("PVC name {}: {problem}", machinery::field::go_quote(name));
        errors.invalid(&path.child("name"), &volume["name"], &text);
    }
}
