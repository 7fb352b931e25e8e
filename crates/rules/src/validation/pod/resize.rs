//! What a resize of a Pod may change.

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::{
    super::{
        read::{list, pairs, present, same, text},
        spec_path,
    },
    CONTAINER_LISTS, MIRROR,
};

const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Checks a resized Pod against the stored one. The request holds nothing but resources and resize policies of its own.
pub(in super::super) fn resize(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (sent, stored) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let path = spec_path();
    let root = Path::new("[]");
    if old.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(MIRROR).is_some()) {
        errors.forbidden(&root, "static pods cannot be resized");
        return;
    }
    if stored.pointer("/os/name") == Some(&json!("windows")) {
        errors.forbidden(&root, "windows pods cannot be resized");
        return;
    }
    if !supported(old) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    pod_level(sent, stored, &path.child("resources"), errors);
    containers(sent, stored, &path.child("containers"), errors);
    init_containers(sent, stored, &path.child("initContainers"), errors);
    let class = |spec: &Value| semantics::qos::class(&spec.as_object().cloned().unwrap_or_default());
    if class(sent) != class(stored) {
        errors.invalid(&path, &json!(class(sent)), "Pod QOS Class may not change as a result of resizing");
    }
    if !same("spec", Some(&without_amounts(sent)), Some(&without_amounts(stored))) {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
}

/// Whether the node of a running container reports the resources it has.
fn supported(pod: &Value) -> bool {
    let statuses = pod.pointer("/status/containerStatuses").and_then(Value::as_array);
    statuses.into_iter().flatten().all(|status| {
        let running = status.pointer("/state/running").is_some_and(|running| !running.is_null());
        !running || present(status, "resources").is_some()
    })
}

/// The spec without the amounts that a resize may change.
fn without_amounts(spec: &Value) -> Value {
    let mut bare = spec.clone();
    strip(bare.get_mut("resources"));
    for field in CONTAINER_LISTS {
        for container in bare.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            strip(container.get_mut("resources"));
        }
    }
    bare
}

fn strip(resources: Option<&mut Value>) {
    let Some(resources) = resources else { return };
    for field in ["limits", "requests"] {
        if let Some(amounts) = resources.get_mut(field).and_then(Value::as_object_mut) {
            amounts.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
        }
    }
}

fn amounts<'a>(holder: &'a Value, field: &'a str) -> impl Iterator<Item = &'a str> {
    let resources = holder.get("resources").unwrap_or(&Value::Null);
    pairs(resources, field).map(|(name, _)| name.as_str()).filter(|name| RESIZABLE.contains(name))
}

fn removed(new: &Value, old: &Value, field: &'static str) -> bool {
    amounts(old, field).any(|name| !amounts(new, field).any(|kept| kept == name))
}

fn pod_level(sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let set = |spec: &Value| spec.get("resources").is_some_and(|r| !same("resources", Some(r), None));
    if !set(stored) {
        return;
    }
    if !set(sent) {
        errors.forbidden(path, "pod-level resources cannot be removed");
        return;
    }
    for (field, word) in [("limits", "limits"), ("requests", "requests")] {
        if removed(sent, stored, field) {
            errors.forbidden(&path.child(field), &format!("pod-level resource {word} cannot be removed"));
        }
    }
}

fn containers(sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let (new, old) = (list(sent, "containers"), list(stored, "containers"));
    if new.len() != old.len() {
        errors.forbidden(path, "containers may not be added or removed on resize");
        return;
    }
    for (at, (new, old)) in new.iter().zip(old).enumerate() {
        let path = path.index(at);
        if text(new, "name") != text(old, "name") {
            errors.forbidden(&path.child("name"), "containers may not be renamed or reordered on resize");
        }
        kept(new, old, &path.child("resources"), errors);
    }
}

fn kept(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    for (field, word) in [("limits", "resource limits"), ("requests", "resource requests")] {
        if removed(new, old, field) {
            errors.forbidden(&path.child(field), &format!("{word} cannot be removed"));
        }
    }
}

fn init_containers(sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let (new, old) = (list(sent, "initContainers"), list(stored, "initContainers"));
    for (at, (new, old)) in new.iter().zip(old).enumerate() {
        let path = path.index(at);
        kept(new, old, &path.child("resources"), errors);
        let resized = !same("resources", new.get("resources"), old.get("resources"));
        let restarts = list(new, "resizePolicy").iter().any(|p| text(p, "restartPolicy") == "RestartContainer");
        if resized && restarts && text(new, "restartPolicy") != "Always" {
            let text = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
            errors.forbidden(&path, text);
        }
    }
}
