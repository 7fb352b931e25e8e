//! Pods: the spec they share with templates, and what may change of a stored one.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::{
    container,
    read::{difference, is_true, list, number, present, same, text},
    spec_path,
};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const ONLY_THESE: &str = "pod updates may not change fields other than \
     `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
     additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
     previously negative)";
const CONTAINER_LISTS: [&str; 2] = ["containers", "initContainers"];

/// Checks a new Pod.
pub(super) fn create(pod: &Value, errors: &mut ErrorList) {
    let path = spec_path();
    let none = Value::Null;
    let pod_spec = pod.get("spec").unwrap_or(&none);
    annotations(pod, pod_spec, errors);
    spec(pod_spec, &path, errors);
    trimmed_images(pod_spec, &path, errors);
    if !list(pod_spec, "ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(pod_spec, "nodeName").is_empty() && !list(pod_spec, "schedulingGates").is_empty() {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

fn trimmed_images(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in CONTAINER_LISTS {
        for (at, one) in list(spec, field).iter().enumerate() {
            let image = text(one, "image");
            if image.trim() != image {
                let path = path.child(field).index(at).child("image");
                errors.invalid(&path, &json!(image), "must not have leading or trailing whitespace");
            }
        }
    }
}

fn annotations(pod: &Value, spec: &Value, errors: &mut ErrorList) {
    let path = Path::new("metadata").child("annotations");
    let get = |key: &str| pod.get("metadata").and_then(|m| m.get("annotations")).and_then(|a| a.get(key));
    if let Some(mirror) = get(MIRROR).filter(|_| text(spec, "nodeName").is_empty()) {
        errors.invalid(&path.key(MIRROR), mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    let cost = get(DELETION_COST).filter(|cost| cost.as_str().is_none_or(|text| text.parse::<i32>().is_err()));
    if let Some(cost) = cost {
        errors.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
    }
}

/// Checks a pod spec, of a Pod or of a template.
pub(super) fn spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    volumes(spec, &path.child("volumes"), errors);
    container::all(spec, path, errors);
    container::enumeration(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    container::enumeration(spec, "dnsPolicy", &policies, path, errors);
    if text(spec, "dnsPolicy") == "None"
        && list(spec.get("dnsConfig").unwrap_or(&Value::Null), "nameservers").is_empty()
    {
        match present(spec, "dnsConfig") {
            None => errors.required(&path.child("dnsConfig"), "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(_) => {
                let path = path.child("dnsConfig").child("nameservers");
                errors.required(&path, "must provide at least one DNS nameserver when `dnsPolicy` is None");
            }
        }
    }
    security(spec, path, errors);
    for field in ["hostname", "subdomain"] {
        let name = text(spec, field);
        if !name.is_empty() {
            errors.invalid_all(&path.child(field), &json!(name), names::dns1123_label(name));
        }
    }
    for field in ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"] {
        let name = text(spec, field);
        if !name.is_empty() {
            errors.invalid_all(&path.child(field), &json!(name), names::dns1123_subdomain(name));
        }
    }
    if let Some(deadline) = number(spec, "activeDeadlineSeconds").filter(|n| !(1..=2_147_483_647).contains(n)) {
        let text = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&path.child("activeDeadlineSeconds"), &json!(deadline), text);
    }
    tolerations(spec, &path.child("tolerations"), errors);
    spread(spec, &path.child("topologySpreadConstraints"), errors);
}

fn security(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if is_true(spec, "shareProcessNamespace") && is_true(spec, "hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), &json!(true), text);
    }
}

fn volumes(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, volume) in list(spec, "volumes").iter().enumerate() {
        let path = path.index(at);
        let name = text(volume, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
            if !seen.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            }
        }
        let required = [
            ("secret", "secretName"),
            ("configMap", "name"),
            ("persistentVolumeClaim", "claimName"),
            ("hostPath", "path"),
        ];
        for (source, field) in required {
            let Some(value) = present(volume, source) else { continue };
            let path = path.child(source).child(field);
            if text(value, field).is_empty() {
                errors.required(&path, "");
            }
            if source == "hostPath" && text(value, field).split('/').any(|part| part == "..") {
                errors.invalid(&path, &json!(text(value, field)), "must not contain '..'");
            }
        }
    }
}

fn tolerations(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = path.index(at);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        if !key.is_empty() {
            errors.invalid_all(&path.child("key"), &json!(key), names::qualified_name(key));
        } else if operator != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.child("operator"), &json!(operator), text);
        }
        if number(toleration, "tolerationSeconds").is_some() && text(toleration, "effect") != "NoExecute" {
            let value = json!(text(toleration, "effect"));
            errors.invalid(&path.child("effect"), &value, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        match operator {
            "" | "Equal" => {
                let value = text(toleration, "value");
                errors.invalid_all(&path.child("operator"), &json!(value), names::label_value(value));
            }
            "Exists" if !text(toleration, "value").is_empty() => {
                let text = "value must be empty when `operator` is 'Exists'";
                errors.invalid(&path.child("operator"), &toleration["value"], text);
            }
            "Exists" | "Lt" | "Gt" => {}
            other => errors.not_supported(&path.child("operator"), &json!(other), &["Equal", "Exists"]),
        }
        if !text(toleration, "effect").is_empty() {
            let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
            container::enumeration(toleration, "effect", &effects, &path, errors);
        }
    }
}

fn spread(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = path.index(at);
        let skew = number(constraint, "maxSkew").unwrap_or(0);
        if skew <= 0 {
            errors.invalid(&path.child("maxSkew"), &json!(skew), "must be greater than zero");
        }
        if text(constraint, "topologyKey").is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&text(constraint, "whenUnsatisfiable")) {
            let value = json!(text(constraint, "whenUnsatisfiable"));
            errors.not_supported(&path.child("whenUnsatisfiable"), &value, &actions);
        }
    }
}

/// Checks the update of a Pod through its main resource.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let path = spec_path();
    let none = Value::Null;
    let (sent, stored) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    annotations(new, sent, errors);
    mirror_unchanged(new, old, errors);
    if same("spec", Some(sent), Some(stored)) {
        return;
    }
    for field in CONTAINER_LISTS {
        if list(sent, field).len() != list(stored, field).len() {
            errors.forbidden(&path.child(field), "pod updates may not add or remove containers");
            return;
        }
    }
    spec(sent, &path, errors);
    trimmed_images(sent, &path, errors);
    deadline(sent, stored, &path.child("activeDeadlineSeconds"), errors);
    only_more_tolerations(sent, stored, &path.child("tolerations"), errors);
    only_fewer_gates(sent, stored, &path.child("schedulingGates"), errors);
    let gated = !list(stored, "schedulingGates").is_empty();
    if gated {
        only_more_node_labels(sent, stored, &path, errors);
    }
    let expected = with_allowed(stored, sent, gated);
    if !same("spec", Some(sent), Some(&expected)) {
        errors.forbidden(&path, &format!("{ONLY_THESE}\n{}", difference(sent, &expected)));
    }
}

fn mirror_unchanged(new: &Value, old: &Value, errors: &mut ErrorList) {
    let get = |pod: &Value| pod.get("metadata").and_then(|m| m.get("annotations")).and_then(|a| a.get(MIRROR)).cloned();
    let path = Path::new("metadata").child("annotations").key(MIRROR);
    match (get(new), get(old)) {
        (new, old) if new == old => {}
        (_, None) => errors.forbidden(&path, "may not add mirror pod annotation"),
        _ => errors.forbidden(&path, "may not remove or update mirror pod annotation"),
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
