//! EndpointSlices of a Service: pure.

use std::collections::BTreeMap;

use machinery::meta;
use serde_json::{Value, json};

use crate::objects::{controller_reference, is_ready, text};

/// Endpoints of one slice at most.
const MAX_ENDPOINTS: usize = 100;
const SERVICE: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Value of the managed-by label of slices that are kept here.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// What to do with slices.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) create: Vec<Value>,
    pub(super) update: Vec<Value>,
    pub(super) delete: Vec<String>,
}

/// The ports of a Service on one Pod; named target ports are looked up in its containers.
fn ports(service: &Value, pod: &Value) -> Vec<Value> {
    let list = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = match &port["targetPort"] {
            Value::String(name) => named_port(pod, name, protocol)?,
            Value::Number(number) => number.as_i64()?,
            _ => port["port"].as_i64()?,
        };
        let mut out = json!({"name": port["name"].as_str().unwrap_or(""), "port": number, "protocol": protocol});
        if let Some(protocol) = port.get("appProtocol") {
            out["appProtocol"] = protocol.clone();
        }
        Some(out)
    })
    .collect()
}

fn named_port(pod: &Value, name: &str, protocol: &str) -> Option<i64> {
    let containers = ["containers", "initContainers"];
    let all = containers.iter().flat_map(|l| pod.pointer(&format!("/spec/{l}")).and_then(Value::as_array).into_iter().flatten());
    all.flat_map(|c| c["ports"].as_array().into_iter().flatten())
        .find(|p| p["name"] == name && p["protocol"].as_str().unwrap_or("TCP") == protocol)
        .and_then(|p| p["containerPort"].as_i64())
}

fn endpoint(service: &Value, pod: &Value, zones: &BTreeMap<String, String>) -> Option<Value> {
    let address = text(pod, "/status/podIP");
    if address.is_empty() || address.contains(':') || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return None;
    }
    let (serving, terminating) = (is_ready(pod), meta::is_deleting(pod));
    let published = service.pointer("/spec/publishNotReadyAddresses").and_then(Value::as_bool) == Some(true);
    let mut out = json!({
        "addresses": [address],
        "conditions": {"ready": published || (serving && !terminating), "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": meta::namespace(pod), "name": meta::name(pod), "uid": meta::uid(pod)},
    });
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        out["nodeName"] = json!(node);
        if let Some(zone) = zones.get(node) {
            out["zone"] = json!(zone);
        }
    }
    let hostname = text(pod, "/spec/hostname");
    if !hostname.is_empty() && text(pod, "/spec/subdomain") == meta::name(service) {
        out["hostname"] = json!(hostname);
    }
    Some(out)
}

fn labels(service: &Value) -> Value {
    let mut labels = service.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    labels.insert(SERVICE.into(), json!(meta::name(service)));
    labels.insert(MANAGED_BY.into(), json!(MANAGER));
    if text(service, "/spec/clusterIP") == "None" {
        labels.insert(HEADLESS.into(), json!(""));
    } else {
        labels.remove(HEADLESS);
    }
    Value::Object(labels)
}

/// Slices as they should be: endpoints grouped by their ports, up to 100 in each; one empty slice without any.
fn wanted(service: &Value, pods: &[Value], zones: &BTreeMap<String, String>) -> Vec<(Value, Vec<Value>)> {
    let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for pod in pods {
        if let Some(endpoint) = endpoint(service, pod, zones) {
            let ports = json!(ports(service, pod));
            groups.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new())).1.push(endpoint);
        }
    }
    if groups.is_empty() {
        return vec![(Value::Null, Vec::new())];
    }
    groups
        .into_values()
        .flat_map(|(ports, mut endpoints)| {
            endpoints.sort_by_key(|e| e["addresses"][0].as_str().unwrap_or("").to_owned());
            endpoints.chunks(MAX_ENDPOINTS).map(|chunk| (ports.clone(), chunk.to_vec())).collect::<Vec<_>>()
        })
        .collect()
}

/// Compares the slices that exist with those that should.
pub(super) fn plan(service: &Value, pods: &[Value], slices: &[Value], zones: &BTreeMap<String, String>) -> Plan {
    let mut plan = Plan::default();
    if meta::is_deleting(service) {
        return plan;
    }
    let labels = labels(service);
    let mut free: Vec<&Value> = slices.iter().filter(|s| !meta::is_deleting(s)).collect();
    for (ports, endpoints) in wanted(service, pods, zones) {
        // A slice that has these ports is changed rather than replaced.
        let fits = |s: &&Value| s.get("ports").filter(|p| !p.is_null()).unwrap_or(&Value::Null) == &ports;
        let reuse = free.iter().position(|s| fits(s)).or_else(|| (!free.is_empty()).then_some(0));
        let reuse = reuse.map(|at| free.remove(at));
        let mut slice = match reuse {
            Some(present) => present.clone(),
            None => json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {
                    "generateName": format!("{}-", meta::name(service)), "namespace": meta::namespace(service),
                    "ownerReferences": [controller_reference(service)],
                },
            }),
        };
        slice["metadata"]["labels"] = labels.clone();
        slice["endpoints"] = json!(endpoints);
        match ports {
            Value::Null => {
                meta::object_mut(&mut slice).remove("ports");
            }
            ports => slice["ports"] = ports,
        }
        match reuse {
            None => plan.create.push(slice),
            Some(present) if same(present, &slice) => {}
            Some(_) => plan.update.push(slice),
        }
    }
    plan.delete = free.iter().map(|s| meta::name(s).to_owned()).collect();
    plan
}

fn same(a: &Value, b: &Value) -> bool {
    let list = |v: &Value, key: &str| v.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    list(a, "endpoints") == list(b, "endpoints")
        && list(a, "ports") == list(b, "ports")
        && a.pointer("/metadata/labels") == b.pointer("/metadata/labels")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n", "uid": "u"},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"a": "b"},
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]}})
    }

    fn pod(name: &str, ip: &str, ready: bool) -> Value {
        json!({"metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {"nodeName": "n1", "containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}})
    }

    #[test]
    fn endpoints_follow_pods() {
        let plan_of = |pods: &[Value], slices: &[Value]| plan(&service(), pods, slices, &BTreeMap::new());
        let first = plan_of(&[pod("a", "10.1.0.1", true), pod("b", "10.1.0.2", false)], &[]);
        assert_eq!(first.create.len(), 1);
        let slice = &first.create[0];
        assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
        assert_eq!(slice["endpoints"][1]["conditions"]["ready"], false);
        assert_eq!(plan_of(&[pod("a", "10.1.0.1", true), pod("b", "10.1.0.2", false)], &first.create), Plan::default());
        let second = plan_of(&[pod("a", "10.1.0.1", true)], &first.create);
        assert_eq!((second.create.len(), second.update.len(), second.delete.len()), (0, 1, 0));
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let plan = plan(&service(), &[], &[], &BTreeMap::new());
        assert_eq!(plan.create.len(), 1);
        assert!(plan.create[0].get("ports").is_none());
        assert_eq!(plan.create[0]["endpoints"], json!([]));
    }

    #[test]
    fn slices_hold_at_most_a_hundred() {
        let pods: Vec<Value> = (0..150).map(|n| pod(&format!("p{n}"), &format!("10.1.0.{n}"), true)).collect();
        let plan = plan(&service(), &pods, &[], &BTreeMap::new());
        assert_eq!(plan.create.iter().map(|s| s["endpoints"].as_array().map_or(0, Vec::len)).collect::<Vec<_>>(), [100, 50]);
    }
}
