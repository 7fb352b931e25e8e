//! The Endpoints object of a Service: pure.

use std::collections::BTreeMap;

use ::controller::Cached;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};

use crate::{
    endpointslice::plan::{address, hostname, is_headless, publishes_all, target_port, target_ref, types},
    slices::TRIGGER_TIME,
    views::PodView,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Annotation of Endpoints that are locks, not endpoints.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses of an object at most.
const MOST: usize = 1000;

/// Subsets by ports: Pods with the same ports share one.
fn subsets(service: &Service, pods: &[impl AsRef<Cached<PodView>>]) -> Vec<EndpointSubset> {
    let publish = publishes_all(service);
    let family = types(service).first().copied().unwrap_or("IPv4");
    let mut by_ports: BTreeMap<String, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().map(AsRef::as_ref) {
        if pod.phase.is_terminal() || (pod.deletion.is_some() && !publish) {
            continue;
        }
        let Some(ip) = address(pod, family) else { continue };
        let ports = ports(service, pod);
        // A Service with ports of which the Pod has none does not reach the Pod.
        let wanted = service.spec.as_ref().and_then(|s| s.ports.as_ref()).is_some_and(|p| !p.is_empty());
        if ports.is_empty() && (wanted || !is_headless(service)) {
            continue;
        }
        let key = serde_json::to_string(&ports).unwrap_or_default();
        let subset = by_ports.entry(key).or_default();
        subset.ports = (!ports.is_empty()).then_some(ports);
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: hostname(service, pod),
            node_name: Some(pod.node.clone()).filter(|n| !n.is_empty()),
            target_ref: Some(target_ref(pod)),
        };
        let list = if publish || pod.is_ready() { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        list.get_or_insert_default().push(address);
    }
    let mut subsets: Vec<EndpointSubset> = by_ports.into_values().collect();
    for list in subsets.iter_mut().flat_map(|s| [&mut s.addresses, &mut s.not_ready_addresses]).flatten() {
        list.sort_by(|a, b| (&a.ip, uid(a)).cmp(&(&b.ip, uid(b))));
    }
    subsets
}

fn uid(address: &EndpointAddress) -> Option<&String> {
    address.target_ref.as_ref().and_then(|t| t.uid.as_ref())
}

fn ports(service: &Service, pod: &PodView) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
    let mut ports: Vec<EndpointPort> = ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: port.name.clone().filter(|n| !n.is_empty()),
                port: target_port(port, pod)?,
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort_by(|a, b| (&a.name, a.port, &a.protocol).cmp(&(&b.name, b.port, &b.protocol)));
    ports
}

/// Cuts subsets down to what an object holds, ready addresses first; whether anything was cut.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let ready: usize = subsets.iter().map(|s| count(&s.addresses)).sum();
    let total = ready + subsets.iter().map(|s| count(&s.not_ready_addresses)).sum::<usize>();
    if total <= MOST {
        return false;
    }
    let (mut ready_left, mut other_left) = (MOST.min(ready), MOST.saturating_sub(ready));
    for subset in subsets.iter_mut() {
        cut(&mut subset.addresses, &mut ready_left);
        cut(&mut subset.not_ready_addresses, &mut other_left);
    }
    subsets.retain(|s| s.addresses.is_some() || s.not_ready_addresses.is_some());
    true
}

fn cut(list: &mut Option<Vec<EndpointAddress>>, left: &mut usize) {
    if let Some(addresses) = list {
        addresses.truncate(*left);
        *left -= addresses.len();
        if addresses.is_empty() {
            *list = None;
        }
    }
}

/// The object as it should be, or `None` if `present` is right.
pub(super) fn wanted(
    service: &Service,
    pods: &[impl AsRef<Cached<PodView>>],
    present: Option<&Endpoints>,
    trigger: Option<String>,
) -> Option<Endpoints> {
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let mut object = present.cloned().unwrap_or_default();
    let annotations = object.metadata.annotations.get_or_insert_default();
    let was_truncated = annotations.get(OVER_CAPACITY).map(String::as_str) == Some("truncated");
    if let Some(present) = present {
        let same = present.subsets.as_deref().unwrap_or_default() == subsets.as_slice()
            && present.metadata.labels.as_ref() == Some(&labels)
            && was_truncated == truncated;
        if same {
            return None;
        }
    }
    match trigger {
        Some(time) => drop(annotations.insert(TRIGGER_TIME.into(), time)),
        None => drop(annotations.remove(TRIGGER_TIME)),
    }
    if truncated {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    } else {
        annotations.remove(OVER_CAPACITY);
    }
    if annotations.is_empty() {
        object.metadata.annotations = None;
    }
    object.metadata.name = service.metadata.name.clone();
    object.metadata.namespace = service.metadata.namespace.clone();
    object.metadata.labels = Some(labels);
    object.subsets = Some(subsets).filter(|s| !s.is_empty());
    Some(object)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::controller::{ObjectKey, Viewed};
    use serde_json::{Value, json};

    use super::*;

    fn service(publish: bool) -> Service {
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "labels": {"l": "m"}}, "spec": {
            "selector": {"a": "b"}, "publishNotReadyAddresses": publish,
            "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]}}))
        .unwrap()
    }

    fn pod(name: &str, ip: &str, ready: bool, deleting: bool) -> Arc<Cached<PodView>> {
        let mut pod = json!({"metadata": {"name": name, "namespace": "n"}, "spec": {"containers": []}, "status": {
            "phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]}});
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        }
        let view = PodView::project(serde_json::from_value(pod).unwrap());
        Arc::new(Cached { key: ObjectKey::new("n", name), uid: name.into(), resource_version: "1".into(), view })
    }

    fn ips(object: &Endpoints, ready: bool) -> Vec<Value> {
        let subsets = object.subsets.iter().flatten();
        let lists = subsets.filter_map(|s| if ready { s.addresses.as_ref() } else { s.not_ready_addresses.as_ref() });
        lists.flatten().map(|a| json!(a.ip)).collect()
    }

    #[test]
    fn ready_and_not() {
        let pods = [
            pod("b", "10.0.0.2", true, false),
            pod("a", "10.0.0.1", true, false),
            pod("c", "10.0.0.3", false, false),
            pod("d", "10.0.0.4", true, true),
        ];
        let plain = wanted(&service(false), &pods, None, None).unwrap();
        assert_eq!(
            (ips(&plain, true), ips(&plain, false)),
            (vec![json!("10.0.0.1"), json!("10.0.0.2")], vec![json!("10.0.0.3")])
        );
        assert_eq!(wanted(&service(false), &pods, Some(&plain), Some("t".into())), None);
        assert_eq!(ips(&wanted(&service(true), &pods, None, None).unwrap(), true).len(), 4);
        assert_eq!(plain.metadata.labels.unwrap().len(), 2);
    }

    #[test]
    fn ready_ones_are_kept_over_capacity() {
        let pods: Vec<_> = (0..1100)
            .map(|n| pod(&format!("p{n}"), &format!("10.0.{}.{}", n / 250, n % 250), n < 900, false))
            .collect();
        let object = wanted(&service(false), &pods, None, None).unwrap();
        assert_eq!((ips(&object, true).len(), ips(&object, false).len()), (900, 100));
        assert_eq!(object.metadata.annotations.unwrap()[OVER_CAPACITY], "truncated");
    }
}
