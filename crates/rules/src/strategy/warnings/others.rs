//! Kinds other than Pods and what makes them.

use machinery::meta;
use serde_json::Value;

use super::{Warnings, addresses, is_set, labels, list, pod, text, volumes};

const STATIC_NAME: &str = "metadata.name: names ending with \".static.k8s.io\" are reserved for static manifest-based \
                           configurations and cannot be managed via the API";
/// Who makes Endpoints and EndpointSlices that need no advice.
const OWN_CONTROLLERS: [&str; 3] =
    ["endpoint-controller", "endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(key))
}

/// Kinds of the core group.
pub(super) fn core(kind: &str, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    match kind {
        "Endpoints" => endpoints(object, warnings),
        "Service" => service(object, spec, warnings),
        "PersistentVolume" => volume(object, spec, warnings),
        "PersistentVolumeClaim" => {
            storage_class(object, warnings);
            let requests = spec.pointer("/resources/requests").unwrap_or(&none);
            pod::fraction(requests, "storage", "spec.resources.requests", warnings);
        }
        "Node" => {
            if is_set(spec, "configSource") {
                warnings.add("spec.configSource: the feature is removed");
            }
            if !text(spec, "externalID").is_empty() {
                warnings.add("spec.externalID: this field is deprecated, and is unused by Kubernetes");
            }
            for (at, range) in list(spec, "podCIDRs").iter().filter_map(Value::as_str).enumerate() {
                addresses::cidr(range, &format!("spec.podCIDRs[{at}]"), warnings);
            }
        }
        "ServiceAccount" => {
            let key = "kubernetes.io/enforce-mountable-secrets";
            if annotation(object, key).is_some() {
                warnings.add(format!(
                    "metadata.annotations[{key}]: deprecated in v1.32+; prefer separate namespaces to isolate access \
                     to mounted secrets"
                ));
            }
        }
        "ResourceQuota" if old.is_none() => quota(spec, warnings),
        _ => {}
    }
}

fn endpoints(object: &Value, warnings: &mut Warnings) {
    let manager = object.pointer("/metadata/labels/endpoints.kubernetes.io~1managed-by");
    if manager.and_then(Value::as_str).is_some_and(|manager| OWN_CONTROLLERS.contains(&manager)) {
        return;
    }
    for (at, subset) in list(object, "subsets").iter().enumerate() {
        for field in ["addresses", "notReadyAddresses"] {
            for (address_at, address) in list(subset, field).iter().enumerate() {
                let path = format!("subsets[{at}].{field}[{address_at}].ip");
                addresses::ip(text(address, "ip"), &path, warnings);
            }
        }
    }
}

fn service(object: &Value, spec: &Value, warnings: &mut Warnings) {
    if annotation(object, "service.kubernetes.io/topology-aware-hints").is_some() {
        warnings.add(
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead",
        );
    }
    let kind = text(spec, "type");
    let headless = kind == "ClusterIP" && text(spec, "clusterIP") == "None";
    let external = !list(spec, "externalIPs").is_empty();
    if headless {
        if !text(spec, "loadBalancerIP").is_empty() {
            warnings.add("spec.loadBalancerIP is ignored for headless services");
        }
        if external {
            warnings.add("spec.externalIPs is ignored for headless services");
        }
        if !matches!(text(spec, "sessionAffinity"), "" | "None") {
            warnings.add("spec.SessionAffinity is ignored for headless services");
        }
    }
    if external {
        warnings.add("spec.externalIPs is deprecated and may no longer be implemented in some clusters");
    }
    for field in ["clusterIPs", "externalIPs"] {
        for (at, address) in list(spec, field).iter().filter_map(Value::as_str).enumerate() {
            addresses::ip(address, &format!("spec.{field}[{at}]"), warnings);
        }
    }
    addresses::ip(text(spec, "loadBalancerIP"), "spec.loadBalancerIP", warnings);
    for (at, range) in list(spec, "loadBalancerSourceRanges").iter().filter_map(Value::as_str).enumerate() {
        addresses::cidr(range, &format!("spec.loadBalancerSourceRanges[{at}]"), warnings);
    }
    if kind == "ExternalName" && external {
        warnings.add("spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    }
    if kind != "ExternalName" && !text(spec, "externalName").is_empty() {
        warnings.add("spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    if text(spec, "trafficDistribution") == "PreferClose" {
        warnings.add("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
    }
}

fn storage_class(object: &Value, warnings: &mut Warnings) {
    let key = "volume.beta.kubernetes.io/storage-class";
    if annotation(object, key).is_some() {
        warnings.add(format!(
            "metadata.annotations[{key}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        ));
    }
}

fn volume(object: &Value, spec: &Value, warnings: &mut Warnings) {
    storage_class(object, warnings);
    let key = "volume.beta.kubernetes.io/mount-options";
    if annotation(object, key).is_some() {
        warnings.add(format!(
            "metadata.annotations[{key}]: deprecated since v1.31; use \"mountOptions\" attribute instead"
        ));
    }
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        warnings.add(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended \
             approach is to use dynamic provisioning.",
        );
    }
    let required = spec.pointer("/nodeAffinity/required").unwrap_or(&Value::Null);
    for (at, term) in list(required, "nodeSelectorTerms").iter().enumerate() {
        let path = format!("spec.nodeAffinity.required.nodeSelectorTerms[{at}]");
        labels::term(term, false, &path, warnings);
    }
    volumes::source(spec, "spec", warnings);
}

/// Requests that may never be used up because the limits are lower.
fn quota(spec: &Value, warnings: &mut Warnings) {
    let hard = spec.get("hard").unwrap_or(&Value::Null);
    let amount = |name: &str| {
        let text = hard.get(name).and_then(Value::as_str)?;
        machinery::quantity::Quantity::parse(text).ok()
    };
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        let (request, limit) = (format!("requests.{resource}"), format!("limits.{resource}"));
        if let (Some(asked), Some(most)) = (amount(&request), amount(&limit))
            && asked > most
        {
            warnings.add(format!("ResourceQuota {request} ({asked}) should be less than {limit} ({most})"));
        }
    }
}

/// Kinds of the other groups.
pub(super) fn other(group: &str, kind: &str, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    match (group, kind) {
        ("networking.k8s.io", "Ingress")
            if old.is_none() && annotation(object, "kubernetes.io/ingress.class").is_some() =>
        {
            warnings.add(
                "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
            );
        }
        ("networking.k8s.io", "NetworkPolicy") => policy(spec, warnings),
        ("discovery.k8s.io", "EndpointSlice") => slice(object, old.is_none(), warnings),
        ("storage.k8s.io", "CSIDriver")
            if !list(spec, "tokenRequests").is_empty() && !is_set(spec, "serviceAccountTokenInSecrets") =>
        {
            warnings.add(
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                 possible logging of tokens in volume attributes",
            );
        }
        ("storage.k8s.io", "StorageClass") => {
            for (at, topology) in list(object, "allowedTopologies").iter().enumerate() {
                for (label_at, label) in list(topology, "matchLabelExpressions").iter().enumerate() {
                    let path = format!("allowedTopologies[{at}].matchLabelExpressions[{label_at}].key");
                    labels::key(text(label, "key"), &path, warnings);
                }
            }
        }
        ("storage.k8s.io", "CSIStorageCapacity") => {
            let topology = object.get("nodeTopology").unwrap_or(&none);
            labels::selector(topology, "matchLabels", "nodeTopology", warnings);
            labels::term(topology, false, "nodeTopology", warnings);
        }
        ("node.k8s.io", "RuntimeClass") => {
            labels::selector(object.get("scheduling").unwrap_or(&none), "nodeSelector", "scheduling", warnings);
        }
        ("resource.k8s.io", "ResourceSlice") => {
            let driver = text(spec, "driver");
            if driver.bytes().any(|byte| byte.is_ascii_uppercase()) {
                warnings.add(format!(
                    "spec.driver: driver names should be lowercase; \"{driver}\" contains uppercase characters"
                ));
            }
        }
        ("admissionregistration.k8s.io", _) if meta::name(object).ends_with(".static.k8s.io") => {
            warnings.add(STATIC_NAME);
        }
        _ => {}
    }
}

fn policy(spec: &Value, warnings: &mut Warnings) {
    for (direction, side) in [("ingress", "from"), ("egress", "to")] {
        for (at, rule) in list(spec, direction).iter().enumerate() {
            for (peer_at, peer) in list(rule, side).iter().enumerate() {
                let Some(block) = peer.get("ipBlock") else { continue };
                let path = format!("spec.{direction}[{at}].{side}[{peer_at}].ipBlock");
                addresses::cidr(text(block, "cidr"), &format!("{path}.cidr"), warnings);
                for (at, except) in list(block, "except").iter().filter_map(Value::as_str).enumerate() {
                    addresses::cidr(except, &format!("{path}.except[{at}]"), warnings);
                }
            }
        }
    }
}

fn slice(object: &Value, new: bool, warnings: &mut Warnings) {
    if new && text(object, "addressType") == "FQDN" {
        warnings.add("spec.addressType: FQDN endpoints are deprecated");
    }
    let manager = object.pointer("/metadata/labels/endpointslice.kubernetes.io~1managed-by");
    if manager.and_then(Value::as_str).is_some_and(|manager| OWN_CONTROLLERS.contains(&manager)) {
        return;
    }
    for (at, endpoint) in list(object, "endpoints").iter().enumerate() {
        for (address_at, address) in list(endpoint, "addresses").iter().filter_map(Value::as_str).enumerate() {
            addresses::ip(address, &format!("endpoints[{at}].addresses[{address_at}]"), warnings);
        }
    }
}

const MANY_COMPLETIONS: i64 = 100_000;
const MANY_AT_ONCE: i64 = 10_000;

/// The spec of a Job at a path.
pub(super) fn job(spec: Option<&Value>, path: &str, warnings: &mut Warnings) {
    let Some(spec) = spec.filter(|spec| text(spec, "completionMode") == "Indexed") else { return };
    let number = |field: &str| spec.get(field).and_then(Value::as_i64).unwrap_or(0);
    if number("completions") > MANY_COMPLETIONS && number("parallelism") > MANY_AT_ONCE {
        warnings.add(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
}
