//! What objects charge to ResourceQuotas, and which quotas cover them.
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/>

use std::collections::BTreeMap;

use machinery::{
    meta,
    quantity::{Format, Quantity},
    time::parse,
};
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use crate::{
    qos,
    resources::{ResourceList, pod_total, read},
};

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
/// After the name of a class of devices: how many of them claims may have.
pub const DEVICES_SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";
/// Devices that a claim gets at most, and may get if it wants all.
const MOST_DEVICES: i64 = 32;

fn one() -> Quantity {
    count(1)
}

fn count(number: usize) -> Quantity {
    Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// Name under which a resource is counted whatever its state: `count/<resource>[.<group>]`.
pub fn count_name(group: &str, resource: &str) -> String {
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// What an object charges. `now` decides whether a Pod is past its deletion grace.
pub fn usage(group: &str, resource: &str, object: &Value, now: OffsetDateTime) -> ResourceList {
    let mut usage = ResourceList::new();
    usage.insert(count_name(group, resource), one());
    match (group, resource) {
        ("", "pods") => pod(object, now, &mut usage),
        ("", "services") => service(object, &mut usage),
        ("", "persistentvolumeclaims") => claim(object, &mut usage),
        ("resource.k8s.io", "resourceclaims") => devices(object, &mut usage),
        ("", "secrets" | "configmaps" | "replicationcontrollers" | "resourcequotas") => {
            usage.insert(resource.to_owned(), one());
        }
        _ => {}
    }
    usage
}

/// Whether a Pod still holds what it asked for.
pub fn is_charged(pod: &Value, now: OffsetDateTime) -> bool {
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return false;
    }
    let deleted = parse(text(pod, "/metadata/deletionTimestamp")).ok();
    let grace = pod.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
    match (deleted, grace) {
        (Some(deleted), Some(grace)) => now <= deleted + Duration::seconds(grace),
        _ => true,
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn pod(pod: &Value, now: OffsetDateTime, usage: &mut ResourceList) {
    if !is_charged(pod, now) {
        return;
    }
    usage.insert("pods".into(), one());
    let empty = Map::new();
    let spec = pod["spec"].as_object().unwrap_or(&empty);
    compute(&pod_total(spec, "requests"), &pod_total(spec, "limits"), usage);
}

/// Requests and limits under the names that quotas have for them.
fn compute(requests: &ResourceList, limits: &ResourceList, usage: &mut ResourceList) {
    for (name, quantity) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                usage.insert(name.clone(), *quantity);
                usage.insert(format!("requests.{name}"), *quantity);
            }
            huge if huge.starts_with("hugepages-") => {
                usage.insert(name.clone(), *quantity);
                usage.insert(format!("requests.{name}"), *quantity);
            }
            extended if is_extended(extended) => {
                usage.insert(format!("requests.{name}"), *quantity);
            }
            _ => {}
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(quantity) = limits.get(name) {
            usage.insert(format!("limits.{name}"), *quantity);
        }
    }
}

/// Devices by class: those of every request, and of alternatives the most that any of them wants of a class.
fn devices(claim: &Value, usage: &mut ResourceList) {
    let wanted = |request: &Value| {
        let class = text(request, "/deviceClassName");
        let count = match text(request, "/allocationMode") {
            "All" => MOST_DEVICES,
            _ => request.get("count").and_then(Value::as_i64).unwrap_or(1),
        };
        (!class.is_empty()).then(|| (format!("{class}{DEVICES_SUFFIX}"), count))
    };
    let requests = claim.pointer("/spec/devices/requests").and_then(Value::as_array);
    for request in requests.into_iter().flatten() {
        let mut most: BTreeMap<String, i64> = BTreeMap::new();
        let alternatives = request.get("firstAvailable").and_then(Value::as_array).map(Vec::as_slice);
        let exactly = request.get("exactly").map(std::slice::from_ref);
        for (name, count) in alternatives.or(exactly).unwrap_or_default().iter().filter_map(wanted) {
            let known = most.entry(name).or_default();
            *known = count.max(*known);
        }
        for (name, count) in most {
            *usage.entry(name).or_default() += Quantity::from_units(count, Format::DecimalSi);
        }
    }
}

/// Whether quotas know a resource of Pods by `requests.` before its name: those of others, and those that classes of
/// devices stand for.
fn is_extended(name: &str) -> bool {
    let of_api = !name.contains('/') || name.contains("kubernetes.io/");
    !of_api && !name.starts_with("requests.") || name.starts_with("deviceclass.resource.kubernetes.io/")
}

fn service(service: &Value, usage: &mut ResourceList) {
    usage.insert("services".into(), one());
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let balanced = text(service, "/spec/type") == "LoadBalancer";
    let (mut node_ports, mut balancers) = (0, 0);
    if balanced || text(service, "/spec/type") == "NodePort" {
        let allocates = service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool) != Some(false);
        let explicit = ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|n| n > 0)).count();
        node_ports = if balanced && !allocates { explicit } else { ports.len() };
    }
    if balanced {
        balancers = 1;
    }
    usage.insert("services.nodeports".into(), count(node_ports));
    usage.insert("services.loadbalancers".into(), count(balancers));
}

fn claim(claim: &Value, usage: &mut ResourceList) {
    let class =
        match meta::text_map(claim, "annotations").find(|(k, _)| *k == "volume.beta.kubernetes.io/storage-class") {
            Some((_, class)) => class,
            None => text(claim, "/spec/storageClassName"),
        };
    let storage = read(claim.pointer("/spec/resources/requests")).get("storage").copied();
    usage.insert("persistentvolumeclaims".into(), one());
    if !class.is_empty() {
        usage.insert(format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), one());
    }
    if let Some(storage) = storage {
        usage.insert("requests.storage".into(), storage);
        if !class.is_empty() {
            usage.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), storage);
        }
    }
}

/// Whether an object is in all scopes of a quota's spec. Quotas with scopes cover Pods, and claims by their
/// attributes class, and nothing else.
pub fn in_scope(spec: &Value, group: &str, resource: &str, object: &Value) -> bool {
    let plain = spec["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut wanted: Vec<(&str, &str, Vec<&str>)> = plain.map(|scope| (scope, "Exists", Vec::new())).collect();
    for term in spec.pointer("/scopeSelector/matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let values = term["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        wanted.push((term["scopeName"].as_str().unwrap_or(""), term["operator"].as_str().unwrap_or(""), values));
    }
    if wanted.is_empty() {
        return true;
    }
    wanted.iter().all(|(scope, operator, values)| match (group, resource) {
        ("", "pods") => pod_in_scope(object, scope, operator, values),
        ("", "persistentvolumeclaims") if *scope == "VolumeAttributesClass" => {
            selected(text(object, "/spec/volumeAttributesClassName"), operator, values)
        }
        _ => false,
    })
}

fn selected(value: &str, operator: &str, values: &[&str]) -> bool {
    match operator {
        "In" => values.contains(&value),
        "NotIn" => !values.contains(&value),
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        _ => false,
    }
}

fn pod_in_scope(pod: &Value, scope: &str, operator: &str, values: &[&str]) -> bool {
    let terminating = pod.pointer("/spec/activeDeadlineSeconds").and_then(Value::as_i64).is_some_and(|s| s >= 0);
    let best_effort = || pod["spec"].as_object().is_none_or(|spec| qos::class(spec) == "BestEffort");
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => selected(text(pod, "/spec/priorityClassName"), operator, values),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    let terms = |kind: &str, when: &str| {
        pod.pointer(&format!("/spec/affinity/{kind}/{when}")).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|n| !n.is_empty()) || term["namespaceSelector"].is_object()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        terms(kind, "requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || terms(kind, "preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|t| crosses(&t["podAffinityTerm"]))
    })
}

/// Containers of a Pod that do not say how much they need of what a quota limits, by resource name.
pub fn unspecified(pod: &Value, limited: &[&str]) -> BTreeMap<String, Vec<String>> {
    const COMPUTE: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if pod.pointer("/spec/resources").and_then(Value::as_object).is_some_and(|r| !r.is_empty()) {
        return missing;
    }
    let containers = ["containers", "initContainers"].iter().flat_map(|list| pod["spec"][*list].as_array()).flatten();
    for container in containers {
        let mut said = ResourceList::new();
        let of = |kind: &str| read(container.pointer(&format!("/resources/{kind}")));
        compute(&of("requests"), &of("limits"), &mut said);
        for name in limited.iter().filter(|name| COMPUTE.contains(name) && !said.contains_key(**name)) {
            missing.entry((*name).to_owned()).or_default().push(container["name"].as_str().unwrap_or("").to_owned());
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(list: &ResourceList) -> Vec<String> {
        list.iter().map(|(name, quantity)| format!("{name}={quantity}")).collect()
    }

    fn charged(resource: &str, object: &Value) -> Vec<String> {
        shown(&usage("", resource, object, OffsetDateTime::UNIX_EPOCH))
    }

    #[test]
    fn pods_charge_until_they_are_over() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "resources":
            {"requests": {"cpu": "100m", "example.com/gpu": "1"}, "limits": {"cpu": "1"}}}]}});
        let wanted =
            ["count/pods=1", "cpu=100m", "limits.cpu=1", "pods=1", "requests.cpu=100m", "requests.example.com/gpu=1"];
        assert_eq!(charged("pods", &pod), wanted);
        let of_class = "deviceclass.resource.kubernetes.io/gpu";
        let mut amounts = json!({of_class: "2", "x.kubernetes.io/y": "1", "requests.example.com/z": "1"});
        std::mem::swap(&mut pod["spec"]["containers"][0]["resources"]["requests"], &mut amounts);
        let requested = format!("requests.{of_class}=2");
        assert_eq!(charged("pods", &pod), ["count/pods=1", "limits.cpu=1", "pods=1", &requested]);
        pod["status"] = json!({"phase": "Failed"});
        assert_eq!(charged("pods", &pod), ["count/pods=1"]);
        let gone = json!({"metadata": {"deletionTimestamp": "1969-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30}});
        assert_eq!(charged("pods", &gone), ["count/pods=1"]);
    }

    #[test]
    fn claims_charge_devices_by_class() {
        let exactly = |class: &str, more: Value| {
            let mut request = json!({"deviceClassName": class});
            request.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            request
        };
        let claim = json!({"spec": {"devices": {"requests": [
            {"name": "a", "exactly": exactly("gpu", json!({"allocationMode": "ExactCount", "count": 2}))},
            {"name": "b", "exactly": exactly("gpu", json!({}))},
            {"name": "c", "exactly": exactly("nic", json!({"allocationMode": "All"}))},
            {"name": "d", "firstAvailable": [
                exactly("gpu", json!({"count": 1})), exactly("gpu", json!({"count": 4})), exactly("tpu", json!({}))]},
        ]}}});
        let charged = shown(&usage("resource.k8s.io", "resourceclaims", &claim, OffsetDateTime::UNIX_EPOCH));
        let of = |class: &str, count: i64| format!("{class}.deviceclass.resource.k8s.io/devices={count}");
        let wanted = ["count/resourceclaims.resource.k8s.io=1".to_owned(), of("gpu", 7), of("nic", 32), of("tpu", 1)];
        assert_eq!(charged, wanted);
    }

    #[test]
    fn services_and_claims() {
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2, "nodePort": 30001}]}});
        let wanted = ["count/services=1", "services=1", "services.loadbalancers=1", "services.nodeports=2"];
        assert_eq!(charged("services", &service), wanted);
        let claim = json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        let wanted = [
            "count/persistentvolumeclaims=1",
            "fast.storageclass.storage.k8s.io/persistentvolumeclaims=1",
            "fast.storageclass.storage.k8s.io/requests.storage=1Gi",
            "persistentvolumeclaims=1",
            "requests.storage=1Gi",
        ];
        assert_eq!(charged("persistentvolumeclaims", &claim), wanted);
        let grouped = usage("apps", "deployments", &json!({}), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(shown(&grouped), ["count/deployments.apps=1"]);
    }

    #[test]
    fn scopes() {
        let pod = json!({"spec": {"priorityClassName": "high", "containers": [{"name": "a"}]}});
        let covers = |spec: Value| in_scope(&spec, "", "pods", &pod);
        assert!(covers(json!({})));
        assert!(covers(json!({"scopes": ["BestEffort", "NotTerminating"]})));
        assert!(!covers(json!({"scopes": ["BestEffort", "Terminating"]})));
        let class = |operator: &str, values: &[&str]| {
            json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
        };
        assert!(covers(class("In", &["high"])));
        assert!(!covers(class("NotIn", &["high"])));
        assert!(!in_scope(&json!({"scopes": ["BestEffort"]}), "", "services", &json!({})));
    }

    #[test]
    fn containers_must_say_what_is_limited() {
        let pod = json!({"spec": {"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b"}]}});
        let missing = unspecified(&pod, &["cpu", "limits.memory", "pods"]);
        assert_eq!(missing["cpu"], ["b"]);
        assert_eq!(missing["limits.memory"], ["a", "b"]);
        assert_eq!(missing.len(), 2);
        let whole = json!({"spec": {"resources": {"limits": {"cpu": "1"}}, "containers": [{"name": "a"}]}});
        assert!(unspecified(&whole, &["cpu"]).is_empty());
    }
}
