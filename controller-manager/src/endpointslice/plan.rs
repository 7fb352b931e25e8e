//! The endpoints of a Service: pure.

use std::collections::{BTreeMap, HashMap};

use ::controller::Cached;
use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service, ServicePort},
        discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone},
    },
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};

use super::topology::{self, Shares, Unshared};
use crate::{
    slices::{Group, MANAGED_BY, SERVICE_NAME},
    views::PodView,
};

/// Value of the managed-by label.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of slices of headless Services.
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Annotations, now and formerly, by which endpoints are shared among zones by their processors.
const TOPOLOGY: [&str; 2] = ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];
const RESERVED: &[&str] = &[SERVICE_NAME, MANAGED_BY, HEADLESS];

/// Whether a Service's endpoints come from Pods; the selector.
pub(crate) fn selector_of(service: &Service) -> Option<&BTreeMap<String, String>> {
    let spec = service.spec.as_ref()?;
    spec.selector.as_ref().filter(|s| !s.is_empty() && spec.type_.as_deref() != Some("ExternalName"))
}

/// Whether all pairs of a Service's selector are among labels.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn publishes_all(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// Address types of a Service.
pub(crate) fn types(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.clone().unwrap_or_default();
    let family = |f: &str| if f == "IPv6" { "IPv6" } else { "IPv4" };
    let families: Vec<_> = spec.ip_families.iter().flatten().map(|f| family(f)).collect();
    if !families.is_empty() {
        return families;
    }
    vec![if spec.cluster_ip.is_some_and(|ip| ip.contains(':')) { "IPv6" } else { "IPv4" }]
}

/// The Pod's address of a type.
pub(crate) fn address<'a>(pod: &'a PodView, address_type: &str) -> Option<&'a str> {
    pod.ips.iter().map(String::as_str).find(|ip| ip.contains(':') == (address_type == "IPv6"))
}

/// The hostname under which a Pod is found in the Service's domain.
pub(crate) fn hostname(service: &Service, pod: &PodView) -> Option<String> {
    let named = !pod.hostname.is_empty() && Some(&pod.subdomain) == service.metadata.name.as_ref();
    named.then(|| pod.hostname.clone())
}

/// The number a Service's port has on a Pod.
pub(crate) fn target_port(port: &ServicePort, pod: &PodView) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            pod.ports.iter().find(|p| p.name == *name && p.protocol == protocol).map(|p| p.port)
        }
    }
}

pub(crate) fn target_ref(pod: &Cached<PodView>) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: Some(pod.key.namespace.clone()),
        name: Some(pod.key.name.clone()),
        uid: Some(pod.uid.clone()),
        ..ObjectReference::default()
    }
}

fn ports(service: &Service, pod: &PodView) -> Vec<EndpointPort> {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref()).into_iter().flatten();
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target_port(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// Labels of the Service's slices.
pub(super) fn labels(service: &Service) -> BTreeMap<String, String> {
    let own = service.metadata.labels.iter().flatten().filter(|(k, _)| !RESERVED.contains(&k.as_str()));
    let mut labels: BTreeMap<String, String> = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    labels.insert(SERVICE_NAME.into(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

/// Which endpoints traffic is kept close to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Distribution {
    Anywhere,
    Zone,
    Node,
}

/// Whether endpoints are shared among zones by their processors.
pub(super) fn follows_topology(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let mode = TOPOLOGY.iter().find_map(|key| annotations?.get(*key));
    mode.is_some_and(|mode| matches!(mode.as_str(), "Auto" | "auto"))
}

/// What came of sharing the endpoints of an address type.
pub(super) type Shared = BTreeMap<String, Result<(), Unshared>>;

/// Shares the ready endpoints of each address type among zones; none gets a hint if that cannot be done well.
pub(super) fn share(groups: &mut [Group], shares: Option<&Shares>) -> Shared {
    let is_ready = |e: &Endpoint| e.conditions.as_ref().and_then(|c| c.ready) == Some(true);
    let mut by_type: BTreeMap<String, Vec<&mut Endpoint>> = BTreeMap::new();
    for group in groups {
        let ready = group.endpoints.iter_mut().filter(|e| is_ready(e));
        by_type.entry(group.address_type.clone()).or_default().extend(ready);
    }
    let share_out = |mut ready: Vec<&mut Endpoint>| {
        let zones: Vec<Option<&str>> = ready.iter().map(|e| e.zone.as_deref().filter(|z| !z.is_empty())).collect();
        let assigned = topology::assign(shares.ok_or(Unshared::Nodes)?, &zones)?;
        for (endpoint, name) in ready.iter_mut().zip(assigned) {
            endpoint.hints = Some(EndpointHints { for_zones: Some(vec![ForZone { name }]), for_nodes: None });
        }
        Ok(())
    };
    by_type.into_iter().map(|(address_type, ready)| (address_type, share_out(ready))).collect()
}

/// Whether it is good news, and what is to be told of the sharing, given what came of it before; `None` there is a
/// Service that did not share.
pub(super) fn sharing_news(before: Option<&Shared>, now: Option<&Shared>) -> Vec<(bool, String)> {
    let Some(now) = now else {
        let shared = before.into_iter().flatten().filter(|(_, outcome)| outcome.is_ok());
        let told =
            |address_type: &String| format!("Topology Aware Hints has been disabled, addressType: {address_type}");
        return shared.map(|(address_type, _)| (false, told(address_type))).collect();
    };
    let news = now
        .iter()
        .filter(|(address_type, outcome)| before.and_then(|before| before.get(*address_type)) != Some(*outcome));
    news.map(|(address_type, outcome)| match outcome {
        Ok(()) => (true, format!("Topology Aware Hints has been enabled, addressType: {address_type}")),
        Err(why) => (false, format!("{why}, addressType: {address_type}")),
    })
    .collect()
}

fn distribution(service: &Service) -> Distribution {
    if follows_topology(service) {
        return Distribution::Anywhere;
    }
    match service.spec.as_ref().and_then(|s| s.traffic_distribution.as_deref()) {
        Some("PreferClose" | "PreferSameZone") => Distribution::Zone,
        Some("PreferSameNode") => Distribution::Node,
        _ => Distribution::Anywhere,
    }
}

/// Endpoints grouped by address type and ports, and whether a Pod had to be left out because its Node is not known yet.
pub(super) fn groups(
    service: &Service,
    pods: &[impl AsRef<Cached<PodView>>],
    zones: &HashMap<String, String>,
) -> (Vec<Group>, bool) {
    let mut groups: BTreeMap<(&str, String), Group> = BTreeMap::new();
    let (types, distribution, publish) = (types(service), distribution(service), publishes_all(service));
    let mut unknown_node = false;
    for pod in pods.iter().map(AsRef::as_ref).filter(|p| !p.ips.is_empty() && !p.phase.is_terminal()) {
        let zone = zones.get(&pod.node);
        if zone.is_none() && !publish {
            unknown_node = true;
            continue;
        }
        let ports = ports(service, pod);
        let key = serde_json::to_string(&ports).unwrap_or_default();
        for address_type in &types {
            let Some(address) = address(pod, address_type) else { continue };
            let mut endpoint = Endpoint {
                addresses: vec![address.to_owned()],
                hostname: hostname(service, pod),
                ..endpoint(pod, publish)
            };
            endpoint.zone = zone.filter(|z| !z.is_empty()).cloned();
            endpoint.hints = hints(&endpoint, distribution);
            let group = groups.entry((address_type, key.clone())).or_insert_with(|| Group {
                address_type: (*address_type).to_owned(),
                ports: ports.clone(),
                endpoints: Vec::new(),
            });
            group.endpoints.push(endpoint);
        }
    }
    (groups.into_values().collect(), unknown_node)
}

fn endpoint(pod: &Cached<PodView>, publish: bool) -> Endpoint {
    let (serving, terminating) = (pod.is_ready(), pod.deletion.is_some());
    Endpoint {
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        node_name: Some(pod.node.clone()).filter(|n| !n.is_empty()),
        target_ref: Some(target_ref(pod)),
        ..Endpoint::default()
    }
}

fn hints(endpoint: &Endpoint, distribution: Distribution) -> Option<EndpointHints> {
    let ready = endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true);
    if distribution == Distribution::Anywhere || !ready {
        return None;
    }
    let zones = endpoint.zone.clone().map(|name| vec![ForZone { name }]);
    let node = endpoint.node_name.clone().filter(|_| distribution == Distribution::Node);
    let nodes = node.map(|name| vec![ForNode { name }]);
    (zones.is_some() || nodes.is_some()).then_some(EndpointHints { for_zones: zones, for_nodes: nodes })
}

/// Times of changes by Service: what the write of its endpoints was for.
#[derive(Default)]
pub(crate) struct TriggerTimes {
    service: Option<Timestamp>,
    pods: HashMap<String, Timestamp>,
}

impl TriggerTimes {
    /// The time of the earliest change since the last call.
    pub(crate) fn earliest(&mut self, service: &Service, pods: &[impl AsRef<Cached<PodView>>]) -> Option<Timestamp> {
        let mut changes = Vec::new();
        let mut known = HashMap::new();
        for pod in pods.iter().map(AsRef::as_ref) {
            let Some(at) = pod.condition("Ready").and_then(|c| c.since) else { continue };
            if self.pods.get(&pod.key.name).is_none_or(|before| at > *before) {
                changes.push(at);
            }
            known.insert(pod.key.name.clone(), at);
        }
        self.pods = known;
        let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
        if created > self.service {
            changes.extend(created);
            self.service = created;
        }
        changes.into_iter().min()
    }
}

/// Whether a Pod's change is one that endpoints show.
pub(crate) fn differs(old: &PodView, new: &PodView) -> bool {
    let facts = |p: &PodView| {
        let ready = p.condition("Ready").map(|c| c.status == "True");
        (p.deletion.is_some(), p.phase.is_terminal(), ready.unwrap_or(false))
    };
    facts(old) != facts(new)
        || old.ips != new.ips
        || old.node != new.node
        || (&old.hostname, &old.subdomain) != (&new.hostname, &new.subdomain)
}

#[cfg(test)]
mod tests;
