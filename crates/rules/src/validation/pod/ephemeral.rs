//! Ephemeral containers.

use std::collections::HashSet;

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::{
    super::read::{difference, list, present, same, text},
    container::{Surroundings, basics},
};

/// Fields that only make sense for a container that a Pod starts with.
const FORBIDDEN: [&str; 9] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
];
const NOT_HERE: &str = "cannot be set for an Ephemeral Container";

/// Checks the ephemeral containers of a pod spec.
pub(super) fn all<'a>(around: &Surroundings<'a>, path: &Path, seen: &mut HashSet<&'a str>, errors: &mut ErrorList) {
    let started: HashSet<&str> = seen.clone();
    for (at, container) in list(around.spec, "ephemeralContainers").iter().enumerate() {
        let path = path.index(at);
        basics(container, around, &path, errors);
        let name = text(container, "name");
        if !name.is_empty() && !seen.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !started.contains(target) {
            errors.not_found(&path.child("targetContainerName"), &json!(target));
        }
        for field in FORBIDDEN {
            if present(container, field).is_some_and(|value| !same(field, Some(value), None)) {
                errors.forbidden(&path.child(field), NOT_HERE);
            }
        }
        for (mount_at, mount) in list(container, "volumeMounts").iter().enumerate() {
            for field in ["subPath", "subPathExpr"].into_iter().filter(|field| !text(mount, field).is_empty()) {
                errors.forbidden(&path.child("volumeMounts").index(mount_at).child(field), NOT_HERE);
            }
        }
    }
}

/// Checks that ephemeral containers are only added.
pub(in super::super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let annotation = "/metadata/annotations/kubernetes.io~1config.mirror";
    if old.pointer(annotation).is_some() {
        errors.forbidden(&Path::new("[]"), "static pods do not support ephemeral containers");
        return;
    }
    let none = Value::Null;
    let containers = |pod: &Value| list(pod.get("spec").unwrap_or(&none), "ephemeralContainers").to_vec();
    let (sent, stored) = (containers(new), containers(old));
    let path = super::spec_path().child("ephemeralContainers");
    for before in &stored {
        let name = text(before, "name");
        match sent.iter().find(|after| text(after, "name") == name) {
            None => {
                errors.forbidden(&path, &format!("existing ephemeral containers \"{name}\" may not be removed\n"));
            }
            Some(after) if !same("", Some(before), Some(after)) => {
                let text = format!(
                    "existing ephemeral containers \"{name}\" may not be changed\n{}",
                    difference(after, before)
                );
                errors.forbidden(&path, &text);
            }
            Some(_) => {}
        }
    }
}
