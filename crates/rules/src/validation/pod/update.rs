//! What may change of a stored Pod through its main resource.

use std::collections::HashSet;

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::{
    super::{
        read::{difference, list, number, same, text},
        spec_path,
    },
    CONTAINER_LISTS, MIRROR,
};

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const ONLY_THESE: &str = "pod updates may not change fields other than \
     `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
     additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
     previously negative)";

/// Checks the update of a Pod through its main resource.
pub(in super::super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = spec_path();
    let none = Value::Null;
    let (sent, stored) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    annotations_unchanged(new, old, errors);
    if same("spec", Some(sent), Some(stored)) {
        return;
    }
    for field in CONTAINER_LISTS {
        if list(sent, field).len() != list(stored, field).len() {
            errors.forbidden(&path.child(field), "pod updates may not add or remove containers");
            return;
        }
    }
    deadline(sent, stored, &path.child("activeDeadlineSeconds"), errors);
    only_more_tolerations(sent, stored, &path.child("tolerations"), errors);
    only_fewer_gates(sent, stored, &path.child("schedulingGates"), errors);
    let gated = !list(stored, "schedulingGates").is_empty();
    if gated {
        only_more_node_labels(sent, stored, &path, errors);
        only_tighter_affinity(sent, stored, &path, errors);
    }
    let expected = with_allowed(stored, sent, gated);
    if !same("spec", Some(sent), Some(&expected)) {
        errors.forbidden(&path, &format!("{ONLY_THESE}\n{}", difference(sent, &expected)));
    }
}

/// Annotations that a Pod keeps as it was created with them.
fn annotations_unchanged(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (new, old) = (new.pointer("/metadata/annotations"), old.pointer("/metadata/annotations"));
    let (new, old) = (new.unwrap_or(&none), old.unwrap_or(&none));
    let mut keys: Vec<&String> = [new, old].iter().filter_map(|a| a.as_object()).flat_map(|a| a.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let path = Path::new("metadata").child("annotations");
    for key in keys.into_iter().filter(|key| new.get(*key) != old.get(*key)) {
        let what = match key.as_str() {
            MIRROR => "mirror pod annotation",
            key if key.starts_with(APP_ARMOR) => "AppArmor annotations",
            _ => continue,
        };
        let verb = if old.get(key).is_none() { "add" } else { "remove or update" };
        errors.forbidden(&path.key(key), &format!("may not {verb} {what}"));
    }
}

fn deadline(sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let value = number(sent, "activeDeadlineSeconds");
    match (value, number(stored, "activeDeadlineSeconds")) {
        (Some(new), Some(old)) if new > old => {
            errors.invalid(path, &json!(new), "must be less than or equal to previous value");
        }
        (None, Some(_)) => errors.invalid(path, &Value::Null, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn only_more_tolerations(sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let sent: Vec<Value> = list(sent, "tolerations").iter().map(bare).collect();
    let kept = |old: &Value| sent.iter().any(|new| same("", Some(new), Some(&bare(old))));
    if !list(stored, "tolerations").iter().all(kept) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

fn only_fewer_gates(sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let old: HashSet<&str> = list(stored, "schedulingGates").iter().map(|gate| text(gate, "name")).collect();
    for (at, gate) in list(sent, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !old.contains(name) {
            let text = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&path.index(at).child("name"), &text);
        }
    }
}

fn only_more_node_labels(sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let labels = |spec: &Value| spec.get("nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
    let (new, old) = (labels(sent), labels(stored));
    if old.iter().any(|(key, value)| new.get(key) != Some(value)) {
        let text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&path.child("nodeSelector"), &json!(new), text);
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";

/// Required node affinity that exists may only gain requirements.
fn only_tighter_affinity(sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    fn terms(spec: &Value) -> &[Value] {
        let required = spec.pointer("/affinity/nodeAffinity").and_then(|affinity| affinity.get(REQUIRED));
        required.map_or(&[][..], |required| list(required, "nodeSelectorTerms"))
    }
    let (new, old) = (terms(sent), terms(stored));
    if old.is_empty() {
        return;
    }
    let path = path.child("affinity").child("nodeAffinity").child(REQUIRED).child("nodeSelectorTerms");
    if new.len() != old.len() {
        let text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.invalid(&path, &json!(new), text);
        return;
    }
    for (at, (new, old)) in new.iter().zip(old).enumerate() {
        let kept = |field: &str| {
            let (new, old) = (list(new, field), list(old, field));
            new.len() >= old.len() && old.iter().zip(new).all(|(old, new)| same("", Some(old), Some(new)))
        };
        // A term without requirements selects nothing; to give it some would loosen it.
        let blank = |term: &Value| list(term, "matchExpressions").is_empty() && list(term, "matchFields").is_empty();
        if !(kept("matchExpressions") && kept("matchFields")) || (blank(old) && !blank(new)) {
            errors.invalid(&path.index(at), new, "only additions are allowed (no mutations or deletions)");
        }
    }
}

/// The stored spec with what a client may change taken from the request.
fn with_allowed(stored: &Value, sent: &Value, gated: bool) -> Value {
    let mut expected = stored.clone();
    let Some(map) = expected.as_object_mut() else { return expected };
    let mut free = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    if gated {
        free.extend(["nodeSelector", "affinity"]);
    }
    let grace = "terminationGracePeriodSeconds";
    if number(stored, grace).is_some_and(|n| n < 0) && number(sent, grace) == Some(1) {
        free.push(grace);
    }
    for field in free {
        match sent.get(field) {
            Some(value) => map.insert(field.to_owned(), value.clone()),
            None => map.remove(field),
        };
    }
    if gated {
        let pod_affinity = ["podAffinity", "podAntiAffinity"];
        let kept = |kind: &str| stored.get("affinity").and_then(|a| a.get(kind)).cloned();
        for kind in pod_affinity {
            if let Some(affinity) = map.get_mut("affinity").and_then(Value::as_object_mut) {
                affinity.insert(kind.to_owned(), kept(kind).unwrap_or(Value::Null));
            } else if let Some(value) = kept(kind) {
                map.insert("affinity".into(), json!({ kind: value }));
            }
        }
    }
    for field in CONTAINER_LISTS {
        let images = list(sent, field).iter().map(|one| one.get("image").cloned());
        let containers = map.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        for (one, image) in containers.zip(images) {
            if let Some(one) = one.as_object_mut() {
                one.insert("image".into(), image.unwrap_or_default());
            }
        }
    }
    expected
}
