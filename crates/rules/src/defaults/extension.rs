//! Defaults of the groups beyond core, apps, batch and autoscaling.

use serde_json::{Map, Value, json};

use super::{child, is_empty, items, set, set_zero, spec, text};

pub(super) fn apply(group: &str, kind: &str, object: &mut Value) {
    let Some(map) = object.as_object_mut() else { return };
    match (group, kind) {
        ("networking.k8s.io", "NetworkPolicy") => network_policy(object),
        ("networking.k8s.io", "IngressClass") => {
            let parameters = spec(object).and_then(|s| s.get_mut("parameters")).and_then(Value::as_object_mut);
            if let Some(parameters) = parameters {
                set_zero(parameters, "scope", "Cluster");
            }
        }
        ("discovery.k8s.io", "EndpointSlice") => {
            for port in items(map, "ports") {
                set(port, "name", "");
                set(port, "protocol", "TCP");
            }
        }
        ("storage.k8s.io", "StorageClass") => {
            set_zero(map, "reclaimPolicy", "Delete");
            set_zero(map, "volumeBindingMode", "Immediate");
        }
        ("storage.k8s.io", "CSIDriver") => csi_driver(object),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => binding(map),
        ("scheduling.k8s.io", "PriorityClass") => set_zero(map, "preemptionPolicy", "PreemptLowerPriority"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            for webhook in items(map, "webhooks") {
                self::webhook(webhook, kind == "MutatingWebhookConfiguration");
            }
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") => {
            let Some(spec) = spec(object) else { return };
            set_zero(spec, "failurePolicy", "Fail");
            match_resources(spec, "matchConstraints");
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            if let Some(spec) = spec(object) {
                match_resources(spec, "matchResources");
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => custom_resource_definition(object),
        ("apiregistration.k8s.io", "APIService") => {
            let service = spec(object).and_then(|s| s.get_mut("service")).and_then(Value::as_object_mut);
            if let Some(service) = service {
                set_zero(service, "port", 443);
            }
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => {
            if let Some(spec) = spec(object) {
                set_zero(spec, "matchingPrecedence", 1000);
            }
        }
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => priority_level(object),
        ("resource.k8s.io", "ResourceClaim") => {
            if let Some(spec) = spec(object) {
                device_requests(spec);
            }
        }
        ("resource.k8s.io", "ResourceClaimTemplate") => {
            if let Some(inner) = spec(object).and_then(|s| child(s, "spec")) {
                device_requests(inner);
            }
        }
        _ => {}
    }
}

fn network_policy(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    if is_empty(spec, "policyTypes") {
        let mut types = vec!["Ingress"];
        if !is_empty(spec, "egress") {
            types.push("Egress");
        }
        spec.insert("policyTypes".into(), json!(types));
    }
    for direction in ["ingress", "egress"] {
        for rule in items(spec, direction) {
            for port in items(rule, "ports") {
                set(port, "protocol", "TCP");
            }
        }
    }
}

fn csi_driver(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    set(spec, "attachRequired", true);
    set(spec, "podInfoOnMount", false);
    set(spec, "storageCapacity", false);
    set(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if is_empty(spec, "volumeLifecycleModes") {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
    set(spec, "requiresRepublish", false);
    set(spec, "seLinuxMount", false);
}

const RBAC: &str = "rbac.authorization.k8s.io";

fn binding(map: &mut Map<String, Value>) {
    if let Some(role) = map.get_mut("roleRef").and_then(Value::as_object_mut) {
        set_zero(role, "apiGroup", RBAC);
    }
    for subject in items(map, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            set_zero(subject, "apiGroup", RBAC);
        }
    }
}

fn webhook(webhook: &mut Map<String, Value>, mutating: bool) {
    set(webhook, "failurePolicy", "Fail");
    set(webhook, "matchPolicy", "Equivalent");
    set(webhook, "namespaceSelector", json!({}));
    set(webhook, "objectSelector", json!({}));
    set(webhook, "timeoutSeconds", 10);
    if mutating {
        set(webhook, "reinvocationPolicy", "Never");
    }
    for rule in items(webhook, "rules") {
        set(rule, "scope", "*");
    }
    let service = webhook.get_mut("clientConfig").and_then(|c| c.get_mut("service")).and_then(Value::as_object_mut);
    if let Some(service) = service {
        set(service, "port", 443);
    }
}

fn match_resources(spec: &mut Map<String, Value>, key: &str) {
    let Some(constraints) = spec.get_mut(key).and_then(Value::as_object_mut) else { return };
    set(constraints, "matchPolicy", "Equivalent");
    set(constraints, "namespaceSelector", json!({}));
    set(constraints, "objectSelector", json!({}));
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in items(constraints, list) {
            set(rule, "scope", "*");
        }
    }
}

fn custom_resource_definition(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    if let Some(names) = child(spec, "names") {
        let kind = text(names, "kind").to_owned();
        set_zero(names, "singular", kind.to_lowercase());
        set_zero(names, "listKind", format!("{kind}List"));
    }
    if spec.get("preserveUnknownFields") == Some(&json!(false)) {
        spec.remove("preserveUnknownFields");
    }
    set(spec, "conversion", json!({}));
    if let Some(conversion) = child(spec, "conversion") {
        set_zero(conversion, "strategy", "None");
        let service = conversion.get_mut("webhook").and_then(|w| w.pointer_mut("/clientConfig/service"));
        if let Some(service) = service.and_then(Value::as_object_mut) {
            set(service, "port", 443);
        }
    }
    let stored: Vec<String> = items(spec, "versions")
        .filter(|v| v.get("storage").and_then(Value::as_bool).unwrap_or(false))
        .map(|v| text(v, "name").to_owned())
        .collect();
    if let Some(status) = object.as_object_mut().and_then(|o| child(o, "status"))
        && is_empty(status, "storedVersions")
    {
        status.insert("storedVersions".into(), json!(stored));
    }
}

fn priority_level(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    if text(spec, "type") == "Exempt" {
        if let Some(exempt) = child(spec, "exempt") {
            set(exempt, "nominalConcurrencyShares", 0);
            set(exempt, "lendablePercent", 0);
        }
        return;
    }
    let Some(limited) = spec.get_mut("limited").and_then(Value::as_object_mut) else { return };
    set(limited, "nominalConcurrencyShares", 30);
    set(limited, "lendablePercent", 0);
    let queuing = limited.get_mut("limitResponse").and_then(|r| r.get_mut("queuing")).and_then(Value::as_object_mut);
    if let Some(queuing) = queuing {
        set_zero(queuing, "queues", 64);
        set_zero(queuing, "handSize", 8);
        set_zero(queuing, "queueLengthLimit", 50);
    }
}

fn device_requests(spec: &mut Map<String, Value>) {
    let Some(devices) = spec.get_mut("devices").and_then(Value::as_object_mut) else { return };
    for request in items(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").and_then(Value::as_object_mut) {
            device_request(exactly);
        }
        for alternative in items(request, "firstAvailable") {
            device_request(alternative);
        }
    }
}

fn device_request(request: &mut Map<String, Value>) {
    set_zero(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        set_zero(request, "count", 1);
    }
    for toleration in items(request, "tolerations") {
        set_zero(toleration, "operator", "Equal");
    }
}
