//! Defaults of the core group.

use serde_json::{Map, Value, json};

use super::{child, is_empty, items, pod, pod_template_spec, quantities, set, set_zero, spec, text, workloads};

pub(super) fn apply(kind: &str, object: &mut Value) {
    match kind {
        "Pod" => super::pod(object),
        "PodTemplate" => {
            let template = object.as_object_mut().and_then(|o| child(o, "template"));
            if let Some(inner) = template.and_then(|t| child(t, "spec")) {
                pod_template_spec(inner);
            }
        }
        "Service" => service(object),
        "ReplicationController" => replication_controller(object),
        "PersistentVolume" => {
            if let Some(spec) = spec(object) {
                quantities::list(spec, "capacity");
                set_zero(spec, "persistentVolumeReclaimPolicy", "Retain");
                set(spec, "volumeMode", "Filesystem");
                pod::volume_sources(spec);
            }
            phase(object, "Pending");
        }
        "PersistentVolumeClaim" => {
            if let Some(spec) = spec(object) {
                set(spec, "volumeMode", "Filesystem");
                quantities::resources(spec);
            }
            phase(object, "Pending");
            quantities::status(object, &["capacity", "allocatedResources"]);
        }
        "ResourceQuota" => {
            if let Some(spec) = spec(object) {
                quantities::list(spec, "hard");
            }
            quantities::status(object, &["hard", "used"]);
        }
        "Namespace" => namespace(object),
        "Node" => node(object),
        "Secret" => {
            if let Some(map) = object.as_object_mut() {
                set_zero(map, "type", "Opaque");
            }
        }
        "Endpoints" => {
            let Some(map) = object.as_object_mut() else { return };
            for subset in items(map, "subsets") {
                for port in items(subset, "ports") {
                    set_zero(port, "protocol", "TCP");
                }
            }
        }
        "LimitRange" => limit_range(object),
        _ => {}
    }
}

fn phase(object: &mut Value, phase: &str) {
    if let Some(status) = object.as_object_mut().and_then(|o| child(o, "status")) {
        set_zero(status, "phase", phase);
    }
}

fn namespace(object: &mut Value) {
    let name = machinery::meta::name(object).to_owned();
    if !name.is_empty()
        && let Some(labels) = child(machinery::meta::metadata_mut(object), "labels")
    {
        labels.insert("kubernetes.io/metadata.name".into(), json!(name));
    }
    spec(object);
    phase(object, "Active");
}

fn node(object: &mut Value) {
    spec(object);
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    if let Some(capacity) = status.get("capacity").cloned() {
        set(status, "allocatable", capacity);
    }
    quantities::list(status, "capacity");
    quantities::list(status, "allocatable");
}

fn service(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    set_zero(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let config = child(spec, "sessionAffinityConfig").and_then(|c| child(c, "clientIP"));
            if let Some(client_ip) = config {
                set(client_ip, "timeoutSeconds", 10800);
            }
        }
        _ => {}
    }
    set_zero(spec, "type", "ClusterIP");
    for port in items(spec, "ports") {
        set_zero(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        set_zero(port, "targetPort", number);
    }
    let kind = text(spec, "type").to_owned();
    let balanced = kind == "LoadBalancer";
    let routed = matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer");
    if routed {
        set_zero(spec, "internalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (routed && !is_empty(spec, "externalIPs")) {
        set_zero(spec, "externalTrafficPolicy", "Cluster");
    }
    if balanced {
        set(spec, "allocateLoadBalancerNodePorts", true);
        let status = object.get_mut("status").and_then(|s| s.get_mut("loadBalancer"));
        if let Some(balancer) = status.and_then(Value::as_object_mut) {
            for ingress in items(balancer, "ingress") {
                if !text(ingress, "ip").is_empty() {
                    set(ingress, "ipMode", "VIP");
                }
            }
        }
    }
}

fn replication_controller(object: &mut Value) {
    workloads::with_template(object, |spec| {
        set(spec, "replicas", 1);
        let labels = spec.get("template").and_then(|t| t.pointer("/metadata/labels")).cloned();
        if let Some(labels) = labels.filter(|_| is_empty(spec, "selector")) {
            spec.insert("selector".into(), labels);
        }
    });
    workloads::labels_from_template(object);
}

fn limit_range(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    quantities::limits(spec);
    for limit in items(spec, "limits").filter(|l| text(l, "type") == "Container") {
        for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            copy_missing(limit, to, from);
        }
    }
}

fn copy_missing(limit: &mut Map<String, Value>, to: &str, from: &str) {
    let Some(source) = limit.get(from).and_then(Value::as_object).filter(|s| !s.is_empty()).cloned() else { return };
    if let Some(target) = child(limit, to) {
        for (name, quantity) in source {
            set(target, &name, quantity);
        }
    }
}
