//! Volumes, claims and what the storage group says of them.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Map, Value, json};

use super::{
    checks::{
        IMMUTABLE, NOT_POSITIVE, enumeration, immutable, no_backsteps, quantity, required, resource_amount, selector,
    },
    pod::{network_source, node_selector, one_source},
    read::{difference, list, number, pairs, present, same, text},
    spec_path,
};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];
const MAX_DRIVER_NAME: usize = 63;
/// The sources of a PersistentVolume, in the order in which they are looked at.
const SOURCES: [&str; 22] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "hostPath",
    "glusterfs",
    "nfs",
    "iscsi",
    "rbd",
    "cinder",
    "cephfs",
    "fc",
    "flocker",
    "azureFile",
    "quobyte",
    "flexVolume",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// Checks the name of a CSI driver.
pub(super) fn driver_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
        return;
    }
    if name.len() > MAX_DRIVER_NAME {
        errors.too_long(path, MAX_DRIVER_NAME);
    }
    errors.invalid_all(path, &json!(name), names::dns1123_subdomain(&name.to_lowercase()));
}

/// Checks a PersistentVolumeClaim.
pub(super) fn claim(object: &Value, errors: &mut ErrorList) {
    claim_spec(object.get("spec").unwrap_or(&Value::Null), &spec_path(), errors);
}

/// Checks the spec of a claim or of a template of claims.
pub(super) fn claim_spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if list(spec, "accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    selector(spec.get("selector"), &path.child("selector"), errors);
    access_modes(spec, path, errors);
    let storage = path.child("resources").key("storage");
    match spec.pointer("/resources/requests/storage") {
        None | Some(Value::Null) => errors.required(&storage, ""),
        Some(value) => positive(value, &storage, errors),
    }
    class_name(spec, "storageClassName", path, errors);
    enumeration(spec, "volumeMode", &VOLUME_MODES, path, errors);
    for field in ["dataSource", "dataSourceRef"] {
        if let Some(source) = present(spec, field) {
            data_source(source, &path.child(field), errors);
        }
    }
    class_name(spec, "volumeAttributesClassName", path, errors);
}

fn access_modes(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let path = path.child("accessModes");
    let modes = list(spec, "accessModes");
    for mode in modes.iter().filter(|mode| !mode.as_str().is_some_and(|mode| ACCESS_MODES.contains(&mode))) {
        errors.not_supported(&path, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.contains(&json!("ReadWriteOncePod")) {
        errors.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(value: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(amount) = quantity(value).filter(|amount| amount.is_zero() || amount.is_negative()) {
        errors.invalid(path, &json!(amount.to_string()), NOT_POSITIVE);
    }
}

fn class_name(spec: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    let name = text(spec, field);
    if !name.is_empty() {
        errors.invalid_all(&path.child(field), &json!(name), names::dns1123_subdomain(name));
    }
}

fn data_source(source: &Value, path: &Path, errors: &mut ErrorList) {
    required(source, &["name", "kind"], path, errors);
    let kind = text(source, "kind");
    if text(source, "apiGroup").is_empty() && kind != "PersistentVolumeClaim" {
        let text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.invalid(path, &json!(kind), text);
    }
}

/// Checks what may change of a stored claim.
pub(super) fn claim_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (sent, stored) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let bound = old.pointer("/status/phase") == Some(&json!("Bound"));
    let storage = "/resources/requests/storage";
    let mut expected = Value::Object(expected_claim(sent, stored, bound));
    if let (true, Some(value), Some(place)) = (bound, sent.pointer(storage), expected.pointer_mut(storage)) {
        *place = value.clone();
    }
    if !same("spec", Some(sent), Some(&expected)) {
        let text = format!(
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
             claims\n{}",
            difference(sent, &expected)
        );
        errors.forbidden(&spec_path(), &text);
    }
    let amount = |object: &Value, at: &str| object.pointer(at).and_then(quantity);
    let wish = amount(sent, storage);
    if wish < amount(stored, storage) && wish < amount(old, "/status/capacity/storage") {
        let path = spec_path().child("resources").child("requests").child("storage");
        errors.forbidden(&path, "field can not be less than status.capacity");
    }
}

/// The stored spec with what a client may change taken from the request.
fn expected_claim(sent: &Value, stored: &Value, bound: bool) -> Map<String, Value> {
    let mut expected: Map<String, Value> = stored.as_object().cloned().unwrap_or_default();
    let mut take = |field: &str, allowed: bool| {
        if let (true, Some(value)) = (allowed, sent.get(field)) {
            expected.insert(field.to_owned(), value.clone());
        }
    };
    take("volumeName", text(stored, "volumeName").is_empty());
    take("storageClassName", present(stored, "storageClassName").is_none());
    take("volumeAttributesClassName", bound);
    expected
}

/// Checks the status of a claim.
pub(super) fn claim_status(new: &Value, errors: &mut ErrorList) {
    let status = new.get("status").unwrap_or(&Value::Null);
    let path = Path::new("status");
    for field in ["capacity", "allocatedResources"] {
        for (name, amount) in pairs(status, field) {
            resource_amount(name, amount, &path.child(field).key(name), errors);
        }
    }
}

/// Checks a PersistentVolume.
pub(super) fn volume(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    if list(spec, "accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    access_modes(spec, &path, errors);
    capacity(spec, &path.child("capacity"), errors);
    let reclaim = ["Delete", "Recycle", "Retain"];
    enumeration(spec, "persistentVolumeReclaimPolicy", &reclaim, &path, errors);
    if let Some(affinity) = present(spec, "nodeAffinity") {
        let path = path.child("nodeAffinity").child("required");
        match present(affinity, "required") {
            Some(required) => node_selector(required, false, &path, errors),
            None => errors.required(&path, "must specify required node constraints"),
        }
    }
    volume_source(spec, &path, errors);
    let root = spec.pointer("/hostPath/path") == Some(&json!("/"));
    if root && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        let text = "may not be 'recycle' for a hostPath mount of '/'";
        errors.forbidden(&path.child("persistentVolumeReclaimPolicy"), text);
    }
    class_name(spec, "storageClassName", &path, errors);
    enumeration(spec, "volumeMode", &VOLUME_MODES, &path, errors);
    class_name(spec, "volumeAttributesClassName", &path, errors);
}

fn capacity(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut count = 0;
    for (name, amount) in pairs(spec, "capacity") {
        count += 1;
        resource_amount(name, amount, &path.key(name), errors);
        positive(amount, &path.key(name), errors);
    }
    let storage = spec.get("capacity").is_some_and(|capacity| capacity.get("storage").is_some());
    if count == 0 {
        errors.required(path, "");
    }
    if !storage || count > 1 {
        errors.not_supported(path, spec.get("capacity").unwrap_or(&Value::Null), &["storage"]);
    }
}

fn volume_source(spec: &Value, path: &Path, errors: &mut ErrorList) {
    one_source(spec, &SOURCES, path, errors, |kind, value, path, errors| match kind {
        "local" => {
            required(value, &["path"], path, errors);
            no_backsteps(text(value, "path"), &path.child("path"), errors);
            if present(spec, "nodeAffinity").is_none() {
                let path = Path::new("metadata").child("annotations");
                errors.required(&path, "Local volume requires node affinity");
            }
        }
        "csi" => csi_source(value, path, errors),
        kind => network_source(kind, value, path, errors),
    });
}

fn csi_source(value: &Value, path: &Path, errors: &mut ErrorList) {
    driver_name(text(value, "driver"), &path.child("driver"), errors);
    required(value, &["volumeHandle"], path, errors);
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        if let Some(secret) = present(value, field) {
            required(secret, &["name", "namespace"], &path.child(field), errors);
        }
    }
}

/// Checks what may change of a stored PersistentVolume.
pub(super) fn volume_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (sent, stored) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let sources = |spec: &Value| {
        let pairs = SOURCES.iter().filter_map(|kind| present(spec, kind).map(|v| ((*kind).to_owned(), v.clone())));
        Value::Object(pairs.collect())
    };
    let (now, before) = (sources(sent), sources(stored));
    if !same("", Some(&now), Some(&before)) {
        let text = format!("spec.persistentvolumesource is immutable after creation\n{}", difference(&now, &before));
        errors.forbidden(&spec_path().child("persistentvolumesource"), &text);
    }
    if !same("volumeMode", sent.get("volumeMode"), stored.get("volumeMode")) {
        errors.invalid(&Path::new("volumeMode"), sent.get("volumeMode").unwrap_or(&none), IMMUTABLE);
    }
    let affinity = |spec: &Value| spec.get("nodeAffinity").map(stable_labels);
    if affinity(stored).is_some() && !same("nodeAffinity", affinity(sent).as_ref(), affinity(stored).as_ref()) {
        let text = "field is immutable, except for updating from beta label to GA";
        errors.invalid(&Path::new("nodeAffinity"), sent.get("nodeAffinity").unwrap_or(&none), text);
    }
    let class = "volumeAttributesClassName";
    if present(stored, class).is_some() && present(sent, class).is_none() {
        errors.forbidden(&spec_path().child(class), "update from non-nil value to nil is forbidden");
    }
}

/// A value with the beta names of node labels replaced by the stable ones.
fn stable_labels(value: &Value) -> Value {
    match value {
        Value::String(text) => json!(match text.as_str() {
            "beta.kubernetes.io/os" => "kubernetes.io/os",
            "beta.kubernetes.io/arch" => "kubernetes.io/arch",
            "beta.kubernetes.io/instance-type" => "node.kubernetes.io/instance-type",
            "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
            "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
            other => other,
        }),
        Value::Array(list) => list.iter().map(stable_labels).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), stable_labels(v))).collect()),
        other => other.clone(),
    }
}

/// Checks a StorageClass.
pub(super) fn storage_class(object: &Value, errors: &mut ErrorList) {
    let root = Path::default();
    provisioner(text(object, "provisioner"), &root.child("provisioner"), errors);
    parameters(object, &root.child("parameters"), errors);
    enumeration(object, "reclaimPolicy", &["Delete", "Retain"], &root, errors);
    enumeration(object, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], &root, errors);
    for (at, topology) in list(object, "allowedTopologies").iter().enumerate() {
        for (label_at, label) in list(topology, "matchLabelExpressions").iter().enumerate() {
            let path = Path::new("allowedTopologies").index(at).child("matchLabelExpressions").index(label_at);
            if list(label, "values").is_empty() {
                errors.required(&path.child("values"), "");
            }
            let key = text(label, "key");
            errors.invalid_all(&path.child("key"), &json!(key), names::qualified_name(key));
        }
    }
}

fn provisioner(name: &str, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.required(path, "");
    } else {
        errors.invalid_all(path, &json!(name), names::qualified_name(&name.to_lowercase()));
    }
}

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETERS_SIZE: usize = 256 * 1024;

fn parameters(object: &Value, path: &Path, errors: &mut ErrorList) {
    let (mut count, mut total) = (0, 0);
    for (key, value) in pairs(object, "parameters") {
        count += 1;
        total += key.len() + value.as_str().map_or(0, str::len);
        if key.is_empty() {
            errors.invalid(path, &json!(key), "field can not be empty.");
        }
    }
    if count > MAX_PARAMETERS {
        errors.too_long(path, MAX_PARAMETERS);
    }
    if total > MAX_PARAMETERS_SIZE {
        errors.too_long(path, MAX_PARAMETERS_SIZE);
    }
}

/// Checks that top fields of an object stay, in the words of the storage group.
pub(super) fn frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut ErrorList) {
    for field in fields {
        if !same(field, new.get(*field), old.get(*field)) {
            errors.forbidden(&Path::new(field), &format!("updates to {field} are forbidden."));
        }
    }
}

/// Checks a VolumeAttributesClass.
pub(super) fn attributes_class(object: &Value, errors: &mut ErrorList) {
    driver_name(text(object, "driverName"), &Path::new("driverName"), errors);
    let path = Path::new("parameters");
    parameters(object, &path, errors);
    if pairs(object, "parameters").next().is_none() {
        errors.required(&path, "must contain at least one parameter");
    }
}

/// Checks a CSIDriver.
pub(super) fn csi_driver(object: &Value, errors: &mut ErrorList) {
    driver_name(meta::name(object), &Path::new("metadata").child("name"), errors);
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    let policies = ["File", "None", "ReadWriteOnceWithFSType"];
    enumeration(spec, "fsGroupPolicy", &policies, &path, errors);
    let modes = ["Ephemeral", "Persistent"];
    for mode in list(spec, "volumeLifecycleModes") {
        if !mode.as_str().is_some_and(|mode| modes.contains(&mode)) {
            errors.not_supported(&path.child("volumeLifecycleModes"), mode, &modes);
        }
    }
    let mut seen = HashSet::new();
    for (at, request) in list(spec, "tokenRequests").iter().enumerate() {
        let path = path.child("tokenRequests").index(at);
        let audience = text(request, "audience");
        if !seen.insert(audience) {
            errors.duplicate(&path.child("audience"), &json!(audience));
        }
        let Some(seconds) = number(request, "expirationSeconds") else { continue };
        let path = path.child("expirationSeconds");
        if seconds < 600 {
            errors.invalid(&path, &json!(seconds), "may not specify a duration less than 10 minutes");
        }
        if seconds > 1 << 32 {
            errors.invalid(&path, &json!(seconds), "may not specify a duration larger than 2^32 seconds");
        }
    }
}

/// Checks what may change of a stored CSIDriver.
pub(super) fn csi_driver_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    if !same("attachRequired", new.get("attachRequired"), old.get("attachRequired")) {
        let value = new.get("attachRequired").unwrap_or(&none);
        errors.invalid(&spec_path().child("attachedRequired"), value, IMMUTABLE);
    }
    immutable(new, old, &["volumeLifecycleModes"], &spec_path(), errors);
}

const MAX_NODE_ID: usize = 256;

/// Checks a CSINode.
pub(super) fn csi_node(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let mut seen = HashSet::new();
    for (at, driver) in list(object.get("spec").unwrap_or(&none), "drivers").iter().enumerate() {
        let path = spec_path().child("drivers").index(at);
        let (name, id) = (text(driver, "name"), text(driver, "nodeID"));
        driver_name(name, &path.child("name"), errors);
        if id.is_empty() {
            errors.required(&path.child("nodeID"), "");
        } else if id.len() > MAX_NODE_ID {
            let text = format!("must be {MAX_NODE_ID} characters or less");
            errors.invalid(&path.child("nodeID"), &json!(id), &text);
        }
        if !seen.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
        let mut keys = HashSet::new();
        for key in list(driver, "topologyKeys").iter().filter_map(Value::as_str) {
            let path = path.child("topologyKeys");
            if key.is_empty() {
                errors.required(&path, "");
            }
            if !keys.insert(key) {
                errors.duplicate(&path, &json!(key));
            }
            errors.invalid_all(&path, &json!(key), names::qualified_name(key));
        }
    }
}

/// Checks what may change of a stored CSINode: drivers come and go, those that stay only change what they can hold.
pub(super) fn csi_node_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let drivers = |object: &Value| list(object.get("spec").unwrap_or(&none), "drivers").to_vec();
    let bare = |driver: &Value| {
        let mut driver = driver.clone();
        if let Some(map) = driver.as_object_mut() {
            map.remove("allocatable");
        }
        driver
    };
    let sent = drivers(new);
    for before in drivers(old) {
        let after = sent.iter().find(|after| text(after, "name") == text(&before, "name"));
        if after.is_some_and(|after| !same("", Some(&bare(after)), Some(&bare(&before)))) {
            errors.invalid(&Path::new("CSINodeDriver"), &json!(sent), IMMUTABLE);
        }
    }
}

/// Checks a VolumeAttachment.
pub(super) fn attachment(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    driver_name(text(spec, "attacher"), &path.child("attacher"), errors);
    let source = spec.get("source").unwrap_or(&none);
    let (inline, named) = (present(source, "inlineVolumeSpec"), present(source, "persistentVolumeName"));
    let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (inline, named) {
        (None, None) => errors.required(&path.child("source"), exactly_one),
        (Some(_), Some(_)) => errors.forbidden(&path.child("source"), exactly_one),
        (None, Some(name)) if name.as_str() == Some("") => {
            errors.required(
                &path.child("source").child("persistentVolumeName"),
                "must specify non empty persistentVolumeName",
            );
        }
        _ => {}
    }
    let node = text(spec, "nodeName");
    errors.invalid_all(&path.child("nodeName"), &json!(node), names::dns1123_subdomain(node));
}

/// Checks a CSIStorageCapacity.
pub(super) fn storage_capacity(object: &Value, errors: &mut ErrorList) {
    let class = text(object, "storageClassName");
    errors.invalid_all(&Path::new("storageClassName"), &json!(class), names::dns1123_subdomain(class));
    for field in ["capacity", "maximumVolumeSize"] {
        if let Some(amount) = object.get(field) {
            resource_amount("storage", amount, &Path::new(field), errors);
        }
    }
    selector(object.get("nodeTopology"), &Path::new("nodeTopology"), errors);
}
