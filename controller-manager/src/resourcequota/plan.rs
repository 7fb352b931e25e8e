//! What a ResourceQuota counts, and the sum.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{ResourceQuotaSpec, ResourceQuotaStatus},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use machinery::{GroupResource, quantity::Quantity};
use semantics::{
    quota::{DEVICES_SUFFIX, in_scope, usage},
    resources::ResourceList,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

const CLASS: &str = ".storageclass.storage.k8s.io/";

/// The resource whose objects a name of a quota counts; `None` for names that count nothing.
pub(super) fn counted(name: &str) -> Option<GroupResource> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some(GroupResource::new(group, resource));
    }
    let resource = match name {
        "pods" | "cpu" | "memory" | "ephemeral-storage" => "pods",
        "services" | "services.nodeports" | "services.loadbalancers" => "services",
        "persistentvolumeclaims" | "requests.storage" => "persistentvolumeclaims",
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => name,
        claims if claims.contains(CLASS) => "persistentvolumeclaims",
        devices if devices.ends_with(DEVICES_SUFFIX) => {
            return Some(GroupResource::new("resource.k8s.io", "resourceclaims"));
        }
        compute if ["requests.", "limits.", "hugepages-"].iter().any(|p| compute.starts_with(p)) => "pods",
        _ => return None,
    };
    Some(GroupResource::new("", resource))
}

/// Whether more than the number of a resource's objects can be counted.
pub(super) fn has_content(resource: &GroupResource) -> bool {
    matches!(
        (resource.group.as_str(), resource.resource.as_str()),
        ("", "pods" | "services" | "persistentvolumeclaims") | ("resource.k8s.io", "resourceclaims")
    )
}

/// The parts of an object that are charged or scoped by.
pub(super) fn trimmed(resource: &GroupResource, object: &Value) -> Value {
    let meta = &object["metadata"];
    let spec = &object["spec"];
    let mut kept = json!({"metadata": {}, "spec": {}});
    let mut keep = |from: &Value, section: &str, fields: &[&str]| {
        for field in fields {
            if let Some(value) = from.get(field) {
                kept[section][field] = value.clone();
            }
        }
    };
    match resource.resource.as_str() {
        "pods" => {
            keep(meta, "metadata", &["deletionTimestamp", "deletionGracePeriodSeconds"]);
            let fields = ["activeDeadlineSeconds", "priorityClassName", "affinity", "overhead", "resources"];
            keep(spec, "spec", &fields);
            for list in ["containers", "initContainers"] {
                if let Some(containers) = spec[list].as_array() {
                    kept["spec"][list] = containers.iter().map(container).collect();
                }
            }
            kept["status"] = status(&object["status"]);
        }
        "resourceclaims" => keep(spec, "spec", &["devices"]),
        "services" => keep(spec, "spec", &["type", "ports", "allocateLoadBalancerNodePorts"]),
        _ => {
            keep(meta, "metadata", &["annotations"]);
            keep(spec, "spec", &["storageClassName", "resources", "volumeAttributesClassName"]);
        }
    }
    kept
}

fn container(container: &Value) -> Value {
    json!({"name": container["name"], "resources": container["resources"], "restartPolicy": container["restartPolicy"]})
}

/// The phase, and what a Pod holds while it is resized.
fn status(status: &Value) -> Value {
    let statuses = |list: &str| -> Value {
        let of = |s: &Value| {
            json!({"name": s["name"], "resources": s["resources"],
            "allocatedResources": s["allocatedResources"]})
        };
        status[list].as_array().into_iter().flatten().map(of).collect()
    };
    json!({
        "phase": status["phase"],
        "resources": status["resources"],
        "allocatedResources": status["allocatedResources"],
        "containerStatuses": statuses("containerStatuses"),
        "initContainerStatuses": statuses("initContainerStatuses"),
    })
}

/// Objects of a resource in the namespace of a quota; `None` where they are not known now.
pub(super) type Objects<'a> = BTreeMap<GroupResource, Option<Vec<&'a Value>>>;

/// The status of a quota. What is not known stays as it was.
pub(super) fn status_of(
    spec: &ResourceQuotaSpec,
    old: Option<&ResourceQuotaStatus>,
    objects: &Objects<'_>,
    now: OffsetDateTime,
) -> ResourceQuotaStatus {
    let hard = spec.hard.clone().unwrap_or_default();
    let scopes = serde_json::to_value(spec).unwrap_or_default();
    let mut used: BTreeMap<String, Text> = BTreeMap::new();
    let before = old.and_then(|status| status.used.as_ref());
    let sums: BTreeMap<&GroupResource, ResourceList> = objects
        .iter()
        .filter_map(|(resource, objects)| Some((resource, sum(&scopes, resource, objects.as_deref()?, now))))
        .collect();
    for name in hard.keys() {
        let Some(resource) = counted(name) else { continue };
        let value = match sums.get(&resource) {
            Some(sum) => Some(Text(sum.get(name).copied().unwrap_or_default().to_string())),
            None => before.and_then(|used| used.get(name)).cloned(),
        };
        used.extend(value.map(|value| (name.clone(), value)));
    }
    ResourceQuotaStatus { hard: Some(hard), used: Some(used) }
}

fn sum(scopes: &Value, resource: &GroupResource, objects: &[&Value], now: OffsetDateTime) -> ResourceList {
    let (group, name) = (resource.group.as_str(), resource.resource.as_str());
    let mut sum = ResourceList::new();
    for object in objects.iter().filter(|object| in_scope(scopes, group, name, object)) {
        for (name, quantity) in usage(group, name, object, now) {
            *sum.entry(name).or_default() += quantity;
        }
    }
    sum
}

/// Whether two statuses say the same, however they write it.
pub(super) fn same(old: Option<&ResourceQuotaStatus>, new: &ResourceQuotaStatus) -> bool {
    let Some(old) = old else { return false };
    equal(old.hard.as_ref(), new.hard.as_ref()) && equal(old.used.as_ref(), new.used.as_ref())
}

/// Whether two lists have the same names and amounts.
pub(super) fn equal(a: Option<&BTreeMap<String, Text>>, b: Option<&BTreeMap<String, Text>>) -> bool {
    let read = |list: Option<&BTreeMap<String, Text>>| -> Vec<(String, Option<Quantity>)> {
        list.into_iter().flatten().map(|(name, text)| (name.clone(), Quantity::parse(&text.0).ok())).collect()
    };
    read(a) == read(b)
}

/// Whether a change of an object frees or takes some of what a quota counts.
pub(super) fn matters(resource: &GroupResource, old: &Value, new: &Value, now: OffsetDateTime) -> bool {
    let charge = |object: &Value| usage(&resource.group, &resource.resource, object, now);
    let scope = |object: &Value| {
        [
            object.pointer("/spec/activeDeadlineSeconds").cloned(),
            object.pointer("/spec/volumeAttributesClassName").cloned(),
        ]
    };
    charge(old) != charge(new) || scope(old) != scope(new)
}

#[cfg(test)]
mod tests;
