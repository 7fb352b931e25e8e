//! What particular kinds do to an object before it is validated.

mod claims;
pub(super) mod definitions;
mod profiles;

use base64::{Engine, engine::general_purpose::STANDARD};
use machinery::{GroupVersionKind, meta};
use serde_json::{Map, Value, json};

use super::{Context, Subresource};

/// Prepares a new object. Status is reset already.
pub(super) fn create(gvk: &GroupVersionKind, object: &mut Value, context: &Context<'_>) {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => pod(object),
        ("", "Namespace") => namespace(object),
        ("", "Secret") => string_data(object),
        ("", "ServiceAccount") => service_account(object),
        ("", "PersistentVolume") => object["status"]["lastPhaseTransitionTime"] = json!(context.now),
        ("", "PersistentVolumeClaim") => claims::data_sources(object),
        ("", "Node") => node(object),
        ("batch", "Job") => job(object),
        ("coordination.k8s.io", "Lease") => lease(object),
        ("discovery.k8s.io", "EndpointSlice") => without_topology(object),
        ("resource.k8s.io", "ResourceSlice") => taint_times(object, context),
        ("certificates.k8s.io", "CertificateSigningRequest") => signing_request(object, context),
        ("apps", "DaemonSet") => template_generation(object, 1),
        ("apps", "StatefulSet") => set_at_once(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definitions::add_stored_version(object),
        _ => {}
    }
}

/// Prepares an update. Status and spec are kept already where the subresource may not change them.
pub(super) fn update(
    gvk: &GroupVersionKind,
    new: &mut Value,
    old: &Value,
    subresource: Subresource<'_>,
    context: &Context<'_>,
) {
    match (gvk.group.as_str(), gvk.kind.as_str(), subresource) {
        ("", "Pod", "status") => pod_status(new, old),
        ("", "Pod", "ephemeralcontainers") => only(new, old, &["ephemeralContainers"]),
        ("", "Pod", "resize") => resize(new, old),
        ("", "Namespace", "finalize") => keep(new, old, "status"),
        ("", "Namespace", "") => keep_at(new, old, "spec", "finalizers"),
        ("", "Secret", "") => {
            string_data(new);
            let kind = new.get("type").and_then(Value::as_str).unwrap_or("");
            if kind.is_empty() {
                keep(new, old, "type");
            }
        }
        ("", "ServiceAccount", "") => service_account(new),
        ("", "PersistentVolumeClaim", "") => claims::data_sources(new),
        ("", "PersistentVolume", "status") => volume_status(new, old, context),
        ("apps", "Deployment", "status") => keep_at(new, old, "metadata", "labels"),
        ("apps", "StatefulSet", "") => set_at_once(new),
        ("coordination.k8s.io", "Lease", "") => lease(new),
        ("discovery.k8s.io", "EndpointSlice", "") if new.get("endpoints") != old.get("endpoints") => {
            without_topology(new);
        }
        ("resource.k8s.io", "ResourceSlice", "") => taint_times(new, context),
        ("resource.k8s.io", "ResourceClaim", "status") => {
            keep_metadata(new, old);
            claims::devices_of_allocation(new);
        }
        ("storage.k8s.io", "VolumeAttachment", "status")
        | ("networking.k8s.io", "ServiceCIDR", "status")
        | ("admissionregistration.k8s.io" | "flowcontrol.apiserver.k8s.io" | "apiextensions.k8s.io", _, "status") => {
            keep_metadata(new, old);
        }
        ("apps", "DaemonSet", "") => {
            let current = template_generation_of(old);
            let changed = new.pointer("/spec/template") != old.pointer("/spec/template");
            template_generation(new, if changed { current + 1 } else { current });
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition", "") => definitions::add_stored_version(new),
        ("certificates.k8s.io", "CertificateSigningRequest", "") => {
            keep(new, old, "spec");
            keep(new, old, "status");
        }
        ("certificates.k8s.io", "CertificateSigningRequest", "approval") => approval(new, old, context),
        ("certificates.k8s.io", "CertificateSigningRequest", "status") => {
            keep_decisions(new, old);
            stamp_conditions(new, old, context);
        }
        _ => {}
    }
}

fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

fn keep_at(new: &mut Value, old: &Value, outer: &str, field: &str) {
    let stored = old.get(outer).and_then(|o| o.get(field)).cloned();
    let map = meta::object_mut(meta::object_mut(new).entry(outer).or_insert_with(|| json!({})));
    match stored {
        Some(value) => map.insert(field.to_owned(), value),
        None => map.remove(field),
    };
}

/// Everything from the stored object but these fields of `spec`.
fn only(new: &mut Value, old: &Value, fields: &[&str]) {
    let mut merged = old.clone();
    for field in fields {
        let sent = new.get("spec").and_then(|s| s.get(*field)).cloned();
        let spec = meta::object_mut(&mut merged["spec"]);
        match sent {
            Some(value) => spec.insert((*field).to_owned(), value),
            None => spec.remove(*field),
        };
    }
    take_identity(&mut merged, new);
    *new = merged;
}

/// Metadata are those of the stored object but for what the request is made with.
fn keep_metadata(new: &mut Value, old: &Value) {
    let mut kept = json!({"metadata": old.get("metadata").cloned().unwrap_or_default()});
    take_identity(&mut kept, new);
    if let (Some(map), Some(metadata)) = (new.as_object_mut(), kept.get("metadata")) {
        map.insert("metadata".into(), metadata.clone());
    }
}

/// The resourceVersion and managedFields of the request stay.
fn take_identity(merged: &mut Value, new: &Value) {
    for field in ["resourceVersion", "managedFields"] {
        if let Some(value) = new.pointer(&format!("/metadata/{field}")) {
            meta::metadata_mut(merged).insert(field.into(), value.clone());
        }
    }
}

fn pod(object: &mut Value) {
    let spec = object.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut status = json!({"phase": "Pending", "qosClass": semantics::qos::class(&spec)});
    if spec.get("schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty()) {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": null,
        }]);
    }
    object["status"] = status;
    label_keys(object);
    profiles::from_annotations(object);
}

fn node(object: &mut Value) {
    for (outer, field) in [("spec", "configSource"), ("status", "config")] {
        if let Some(map) = object.get_mut(outer).and_then(Value::as_object_mut) {
            map.remove(field);
        }
    }
}

/// Fields of Leases that only coordinated leader election has.
fn lease(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("strategy");
        spec.remove("preferredHolder");
    }
}

/// StatefulSets update one Pod at a time.
fn set_at_once(object: &mut Value) {
    let rolling = object.pointer_mut("/spec/updateStrategy/rollingUpdate").and_then(Value::as_object_mut);
    if let Some(rolling) = rolling {
        rolling.remove("maxUnavailable");
    }
}

/// A field of an older version of EndpointSlices.
fn without_topology(object: &mut Value) {
    let endpoints = object.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten();
    for endpoint in endpoints.filter_map(Value::as_object_mut) {
        endpoint.remove("deprecatedTopology");
    }
}

/// New taints of devices begin now.
fn taint_times(object: &mut Value, context: &Context<'_>) {
    let devices = object.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten();
    for taint in devices.filter_map(|device| device.get_mut("taints")).filter_map(Value::as_array_mut).flatten() {
        if let Some(taint) = taint.as_object_mut().filter(|t| t.get("timeAdded").is_none_or(Value::is_null)) {
            taint.insert("timeAdded".into(), json!(context.now));
        }
    }
}

/// The time of the last change of phase.
fn volume_status(new: &mut Value, old: &Value, context: &Context<'_>) {
    let time = "lastPhaseTransitionTime";
    let of = |object: &Value, field: &str| object.get("status").and_then(|status| status.get(field)).cloned();
    let (sent, stored) = (of(new, time).filter(|t| !t.is_null()), of(old, time));
    let moved = of(new, "phase") != of(old, "phase");
    let wanted = match (moved, sent) {
        (true, sent) if sent.is_none() || sent == stored => Some(json!(context.now)),
        (_, None) => stored,
        (_, sent) => sent,
    };
    let status = meta::object_mut(meta::object_mut(new).entry("status").or_insert_with(|| json!({})));
    if let Some(wanted) = wanted {
        status.insert(time.into(), wanted);
    }
}

/// `matchLabelKeys` of affinity terms and spread constraints become requirements on the Pod's own values.
fn label_keys(object: &mut Value) {
    let labels: Map<String, Value> =
        object.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let Some(spec) = object.get_mut("spec") else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.pointer_mut(&format!("/affinity/{kind}")) else { continue };
        let required = affinity.get_mut("requiredDuringSchedulingIgnoredDuringExecution");
        for term in required.and_then(Value::as_array_mut).into_iter().flatten() {
            require_own_labels(term, &labels);
        }
        let preferred = affinity.get_mut("preferredDuringSchedulingIgnoredDuringExecution");
        for term in preferred.and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(inner) = term.get_mut("podAffinityTerm") {
                require_own_labels(inner, &labels);
            }
        }
    }
    let constraints = spec.get_mut("topologySpreadConstraints").and_then(Value::as_array_mut);
    for constraint in constraints.into_iter().flatten() {
        require_own_labels(constraint, &labels);
    }
}

fn require_own_labels(term: &mut Value, labels: &Map<String, Value>) {
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys: Vec<String> = term
            .get(list)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|k| k.as_str().map(str::to_owned))
            .collect();
        let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_object_mut) else { return };
        for key in keys {
            let Some(value) = labels.get(&key) else { continue };
            let requirement = json!({"key": key, "operator": operator, "values": [value]});
            let expressions = selector.entry("matchExpressions").or_insert_with(|| json!([]));
            if let Some(list) = expressions.as_array_mut().filter(|l| !l.contains(&requirement)) {
                list.push(requirement);
            }
        }
    }
}

fn pod_status(new: &mut Value, old: &Value) {
    let owners = old.pointer("/metadata/ownerReferences").cloned();
    let metadata = meta::metadata_mut(new);
    match owners {
        Some(owners) => metadata.insert("ownerReferences".into(), owners),
        None => metadata.remove("ownerReferences"),
    };
    if let Some(class) = old.pointer("/status/qosClass").cloned() {
        let status = meta::object_mut(meta::object_mut(new).entry("status").or_insert_with(|| json!({})));
        let sent = status.get("qosClass").and_then(Value::as_str).unwrap_or("");
        if sent.is_empty() {
            status.insert("qosClass".into(), class);
        }
    }
    observed_generation(new, old);
}

/// What a status says of the generation it was made for stays until a newer one is told.
fn observed_generation(new: &mut Value, old: &Value) {
    let unset = |holder: &Value| holder.get("observedGeneration").and_then(Value::as_i64).unwrap_or(0) == 0;
    let stored = old.get("status").cloned().unwrap_or_default();
    let Some(status) = new.get_mut("status") else { return };
    let take = |holder: &mut Value, from: &Value| {
        if let (true, Some(value), Some(map)) = (!unset(from), from.get("observedGeneration"), holder.as_object_mut()) {
            map.insert("observedGeneration".into(), value.clone());
        }
    };
    if unset(status) {
        take(status, &stored);
    }
    let known = stored.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    for condition in status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if unset(condition)
            && let Some(before) = known.iter().find(|before| before["type"] == condition["type"])
        {
            take(condition, before);
        }
    }
}

fn resize(new: &mut Value, old: &Value) {
    let sent = new.get("spec").cloned().unwrap_or_default();
    let mut merged = old.clone();
    for list in ["containers", "initContainers"] {
        let wanted = sent.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let stored = merged.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for (have, want) in stored.into_iter().flatten().zip(&wanted) {
            if have.get("name") != want.get("name") {
                continue;
            }
            for field in ["resources", "resizePolicy"] {
                if let (Some(value), Some(map)) = (want.get(field), have.as_object_mut()) {
                    map.insert(field.into(), value.clone());
                }
            }
        }
    }
    if let Some(resources) = sent.get("resources") {
        merged["spec"]["resources"] = resources.clone();
    }
    take_identity(&mut merged, new);
    *new = merged;
}

fn namespace(object: &mut Value) {
    let spec = meta::object_mut(meta::object_mut(object).entry("spec").or_insert_with(|| json!({})));
    let finalizers = spec.entry("finalizers").or_insert_with(|| json!([]));
    if let Some(list) = finalizers.as_array_mut().filter(|l| !l.contains(&json!("kubernetes"))) {
        list.push(json!("kubernetes"));
    }
    object["status"] = json!({"phase": "Active"});
}

/// `stringData` is merged over `data` and never stored.
fn string_data(object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    let Some(Value::Object(texts)) = map.remove("stringData") else { return };
    let data = meta::object_mut(map.entry("data").or_insert_with(|| json!({})));
    for (key, value) in texts {
        let text = value.as_str().unwrap_or("");
        data.insert(key, json!(STANDARD.encode(text)));
    }
}

fn service_account(object: &mut Value) {
    for secret in object.get_mut("secrets").and_then(Value::as_array_mut).into_iter().flatten() {
        let name = secret.get("name").cloned().unwrap_or_default();
        *secret = json!({"name": name});
    }
}

/// Labels and selector that tie Pods to this Job.
fn job(object: &mut Value) {
    if object.pointer("/spec/manualSelector").and_then(Value::as_bool) == Some(true) {
        return;
    }
    let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let template = meta::object_mut(spec.entry("template").or_insert_with(|| json!({})));
    let metadata = meta::object_mut(template.entry("metadata").or_insert_with(|| json!({})));
    let labels = meta::object_mut(metadata.entry("labels").or_insert_with(|| json!({})));
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("job-name", &name),
    ] {
        labels.entry(key).or_insert_with(|| json!(value));
    }
    let selector = meta::object_mut(spec.entry("selector").or_insert_with(|| json!({})));
    let matched = meta::object_mut(selector.entry("matchLabels").or_insert_with(|| json!({})));
    matched.insert("batch.kubernetes.io/controller-uid".into(), json!(uid));
}

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation_of(object: &Value) -> i64 {
    let annotations = object.pointer("/metadata/annotations");
    let text = annotations.and_then(|a| a.get(TEMPLATE_GENERATION)).and_then(Value::as_str);
    text.and_then(|t| t.parse().ok()).unwrap_or(1)
}

fn template_generation(object: &mut Value, generation: i64) {
    let annotations = meta::metadata_mut(object).entry("annotations").or_insert_with(|| json!({}));
    meta::object_mut(annotations).insert(TEMPLATE_GENERATION.into(), json!(generation.to_string()));
}

fn signing_request(object: &mut Value, context: &Context<'_>) {
    let spec = meta::object_mut(meta::object_mut(object).entry("spec").or_insert_with(|| json!({})));
    spec.insert("username".into(), json!(context.user));
    if context.user_uid.is_empty() {
        spec.remove("uid");
    } else {
        spec.insert("uid".into(), json!(context.user_uid));
    }
    spec.insert("groups".into(), json!(context.groups));
    match context.extra {
        Some(extra) => spec.insert("extra".into(), extra.clone()),
        None => spec.remove("extra"),
    };
    if let Some(map) = object.as_object_mut() {
        map.insert("status".into(), json!({}));
    }
}

fn approval(new: &mut Value, old: &Value, context: &Context<'_>) {
    let conditions = new.pointer("/status/conditions").cloned();
    keep(new, old, "spec");
    keep(new, old, "status");
    let status = meta::object_mut(meta::object_mut(new).entry("status").or_insert_with(|| json!({})));
    match conditions {
        Some(conditions) => status.insert("conditions".into(), conditions),
        None => status.remove("conditions"),
    };
    stamp_conditions(new, old, context);
}

/// Approval and denial are made through their own subresource: the status keeps those that are stored.
fn keep_decisions(new: &mut Value, old: &Value) {
    let decides = |condition: &Value| matches!(condition["type"].as_str(), Some("Approved" | "Denied"));
    let stored = old.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let stored: Vec<Value> = stored.into_iter().filter(decides).collect();
    let Some(sent) = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut) else { return };
    let places: Vec<usize> = (0..sent.len()).filter(|at| decides(&sent[*at])).collect();
    if places.len() != stored.len() {
        return;
    }
    for (place, condition) in places.into_iter().zip(stored) {
        sent[place] = condition;
    }
}

/// Fills the times of conditions.
fn stamp_conditions(new: &mut Value, old: &Value, context: &Context<'_>) {
    let stored = old.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    for condition in new.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let previous = stored.iter().find(|c| c["type"] == condition["type"] && c["status"] == condition["status"]);
        let times = previous.and_then(|c| c.get("lastTransitionTime")).cloned().unwrap_or_else(|| json!(context.now));
        let Some(map) = condition.as_object_mut() else { continue };
        let set = |map: &mut Map<String, Value>, key: &str, value: Value| {
            if map.get(key).is_none_or(Value::is_null) {
                map.insert(key.to_owned(), value);
            }
        };
        set(map, "lastUpdateTime", json!(context.now));
        set(map, "lastTransitionTime", times);
    }
}
