//! The strategies of the built-in kinds, as one table of what is special about each.

use std::{collections::HashMap, sync::LazyLock};

use machinery::{GroupVersionKind, field::ErrorList, meta, names};
use serde_json::{Map, Value, json};

use super::{Context, DefaultPropagation, SelectableField, Strategy, Subresource, fields};
use crate::{
    defaults,
    metadata::{self, NameRule},
    validation,
};

/// When `metadata.generation` rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generation {
    /// Not kept.
    None,
    /// When `spec` changes.
    Spec,
    /// When `spec` or the annotations change.
    SpecOrAnnotations,
    /// When anything but metadata and status changes.
    Content,
    /// When anything but metadata and status changes, or the labels do.
    ContentOrLabels,
    /// When `spec` changes, but not set on create.
    LaterSpec,
    /// Set on create, never raised.
    Once,
}

/// What is special about one kind.
struct KindStrategy {
    gvk: GroupVersionKind,
    namespaced: bool,
    has_status: bool,
    name_rule: NameRule,
    generation: Generation,
    create_on_update: bool,
    unconditional_update: bool,
    returns_object: bool,
    propagation: DefaultPropagation,
    fields: &'static [SelectableField],
}

static STRATEGIES: LazyLock<HashMap<GroupVersionKind, KindStrategy>> = LazyLock::new(|| {
    let stored = api::api().kinds().iter().filter(|k| k.is_stored());
    stored.map(|k| (k.gvk.clone(), KindStrategy::of(k))).collect()
});

/// The strategy of a built-in kind in its storage version.
pub fn for_kind(gvk: &GroupVersionKind) -> Option<&'static dyn Strategy> {
    STRATEGIES.get(gvk).map(|s| s as &'static dyn Strategy)
}

impl KindStrategy {
    fn of(kind: &api::Kind) -> Self {
        let gvk = kind.gvk.clone();
        let (group, name) = (gvk.group.as_str(), gvk.kind.as_str());
        let refuses_blind = matches!(
            name,
            "Lease"
                | "RuntimeClass"
                | "PodDisruptionBudget"
                | "CSIDriver"
                | "CSINode"
                | "CSIStorageCapacity"
                | "VolumeAttachment"
                | "CustomResourceDefinition"
                | "APIService"
        ) || group == "admissionregistration.k8s.io";
        let creates = matches!(
            name,
            "Service"
                | "Endpoints"
                | "Event"
                | "LimitRange"
                | "Lease"
                | "RuntimeClass"
                | "Role"
                | "RoleBinding"
                | "ClusterRole"
                | "ClusterRoleBinding"
        );
        let returns_object = matches!(
            name,
            "Pod"
                | "Service"
                | "ServiceAccount"
                | "PersistentVolume"
                | "PersistentVolumeClaim"
                | "PodTemplate"
                | "ResourceQuota"
                | "Namespace"
                | "CSIDriver"
                | "CSINode"
                | "StorageClass"
                | "VolumeAttachment"
                | "VolumeAttributesClass"
        ) || group == "resource.k8s.io";
        Self {
            namespaced: kind.namespaced,
            has_status: kind.subresources.iter().any(|s| s.name == "status"),
            name_rule: name_rule(name),
            generation: generation(group, name),
            create_on_update: creates,
            unconditional_update: !refuses_blind,
            returns_object,
            propagation: match name {
                "Job" | "ReplicationController" => DefaultPropagation::Orphan,
                "Event" => DefaultPropagation::Unsupported,
                _ => DefaultPropagation::Background,
            },
            fields: fields::of(name),
            gvk,
        }
    }

    fn is(&self, group: &str, kind: &str) -> bool {
        self.gvk.group == group && self.gvk.kind == kind
    }

    /// Whether the part that the generation counts differs.
    fn differs(&self, new: &Value, old: &Value) -> bool {
        let spec = || !same(new.get("spec"), old.get("spec"));
        match self.generation {
            Generation::None | Generation::Once => false,
            Generation::Spec | Generation::LaterSpec => spec(),
            Generation::SpecOrAnnotations => {
                spec() || !same(new.pointer("/metadata/annotations"), old.pointer("/metadata/annotations"))
            }
            Generation::ContentOrLabels if !same(new.pointer("/metadata/labels"), old.pointer("/metadata/labels")) => {
                true
            }
            Generation::Content | Generation::ContentOrLabels => {
                let content = |object: &Value| -> Map<String, Value> {
                    let map = object.as_object().into_iter().flatten();
                    map.filter(|(k, _)| !matches!(k.as_str(), "metadata" | "status" | "apiVersion" | "kind"))
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect()
                };
                content(new) != content(old)
            }
        }
    }
}

/// Equality that holds absent, null and empty for the same.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    fn blank(value: Option<&Value>) -> bool {
        match value {
            None | Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        }
    }
    a == b || (blank(a) && blank(b))
}

fn name_rule(kind: &str) -> NameRule {
    match kind {
        "Namespace" | "StatefulSet" | "Service" => names::dns1123_label,
        "Role"
        | "ClusterRole"
        | "RoleBinding"
        | "ClusterRoleBinding"
        | "CertificateSigningRequest"
        | "PodDisruptionBudget"
        | "Event"
        | "APIService"
        | "IPAddress" => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

fn generation(group: &str, kind: &str) -> Generation {
    match (group, kind) {
        ("apps", "Deployment") => Generation::SpecOrAnnotations,
        ("", "Pod" | "ReplicationController")
        | ("apps", "ReplicaSet" | "DaemonSet" | "StatefulSet")
        | ("batch", _)
        | ("networking.k8s.io", "Ingress" | "IngressClass" | "NetworkPolicy")
        | ("policy", "PodDisruptionBudget")
        | ("flowcontrol.apiserver.k8s.io", _)
        | ("resource.k8s.io", "ResourceSlice" | "DeviceClass")
        | ("apiextensions.k8s.io", _) => Generation::Spec,
        ("admissionregistration.k8s.io", _) | ("", "PodTemplate") => Generation::Content,
        ("discovery.k8s.io", _) => Generation::ContentOrLabels,
        ("storage.k8s.io", "CSIDriver") => Generation::LaterSpec,
        ("scheduling.k8s.io", "PriorityClass") => Generation::Once,
        _ => Generation::None,
    }
}

/// Puts the stored value of a top-level field into an object.
fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

impl Strategy for KindStrategy {
    fn defaults(&self, object: &mut Value) {
        defaults::apply(&self.gvk, object);
    }

    fn prepare_create(&self, object: &mut Value, context: &Context<'_>) {
        if self.has_status && !self.is("", "Node") {
            if let Some(map) = object.as_object_mut() {
                map.remove("status");
            }
            defaults::apply(&self.gvk, object);
        }
        if matches!(self.generation, Generation::None | Generation::LaterSpec) {
            meta::metadata_mut(object).remove("generation");
        } else {
            meta::metadata_mut(object).insert("generation".into(), json!(1));
        }
        super::prepare::create(&self.gvk, object, context);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = metadata::validate(object, self.namespaced, self.name_rule);
        errors.append(validation::create(&self.gvk, object));
        errors
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: Subresource<'_>, context: &Context<'_>) {
        match subresource {
            "" if self.has_status => keep(new, old, "status"),
            "status" => {
                let map = new.as_object().into_iter().flatten();
                let others: Vec<String> =
                    map.map(|(k, _)| k.clone()).filter(|k| k != "status" && k != "metadata").collect();
                for field in others {
                    keep(new, old, &field);
                }
                keep(new, old, "spec");
            }
            _ => {}
        }
        super::prepare::update(&self.gvk, new, old, subresource, context);
        let stored = old.pointer("/metadata/generation").and_then(Value::as_i64);
        let metadata_generation = match stored {
            Some(generation) if subresource != "status" && self.differs(new, old) => Some(generation + 1),
            None if self.generation != Generation::None && subresource != "status" && self.differs(new, old) => Some(1),
            other => other,
        };
        let metadata = meta::metadata_mut(new);
        match metadata_generation {
            Some(generation) => metadata.insert("generation".into(), json!(generation)),
            None => metadata.remove("generation"),
        };
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: Subresource<'_>) -> ErrorList {
        validation::update(&self.gvk, new, old, subresource)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        super::warnings::of(&self.gvk, object, old)
    }

    fn create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn unconditional_update(&self) -> bool {
        self.unconditional_update
    }

    fn grace_period(&self, object: &Value, wish: Option<i64>) -> Option<i64> {
        if !self.is("", "Pod") {
            return None;
        }
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or("");
        let own = object.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
        let unstarted = text("/spec/nodeName").is_empty();
        let finished = matches!(text("/status/phase"), "Succeeded" | "Failed");
        let grace = if unstarted || finished { 0 } else { wish.unwrap_or(own) };
        Some(if grace < 0 { 1 } else { grace })
    }

    fn default_propagation(&self) -> DefaultPropagation {
        self.propagation
    }

    fn delete_returns_object(&self) -> bool {
        self.returns_object
    }

    fn holds_deletion(&self, object: &Value) -> bool {
        let finalizers = object.pointer("/spec/finalizers").and_then(Value::as_array);
        (self.is("", "Namespace") && finalizers.is_some_and(|f| !f.is_empty()))
            || (self.is("apiextensions.k8s.io", "CustomResourceDefinition") && !meta::is_deleting(object))
    }

    fn mark_deleting(&self, object: &mut Value) {
        if self.is("", "Namespace") {
            object["status"]["phase"] = json!("Terminating");
        }
        if self.is("apiextensions.k8s.io", "CustomResourceDefinition") {
            super::prepare::definitions::mark_deleting(object);
        }
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        self.fields
    }
}
