//! What is to be forwarded, free of any back end: Services and EndpointSlices folded into service ports.

use std::collections::BTreeMap;

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};

/// One backend of a service port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address.
    pub ip: String,
    /// Port.
    pub port: u16,
    /// Whether it runs on this node.
    pub local: bool,
    /// Whether it takes new connections.
    pub ready: bool,
    /// Whether it still serves.
    pub serving: bool,
    /// Whether it is going.
    pub terminating: bool,
    /// Zones it is meant for.
    pub zones: Vec<String>,
    /// Nodes it is meant for.
    pub nodes: Vec<String>,
}

impl Endpoint {
    /// `ip:port`.
    pub fn address(&self) -> String {
        format!("{}:{}", self.ip, self.port)
    }
}

/// Which endpoints a kind of traffic may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All.
    Cluster,
    /// Those of this node.
    Local,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name:port`, or `namespace/name` for an unnamed port.
    pub name: String,
    /// Lower-case protocol.
    pub protocol: String,
    /// Cluster IP.
    pub cluster_ip: String,
    /// Port.
    pub port: u16,
    /// Node port, 0 for none.
    pub node_port: u16,
    /// External IPs.
    pub external_ips: Vec<String>,
    /// Load balancer addresses that are handled here.
    pub balancer_ips: Vec<String>,
    /// Source ranges of the load balancer; empty for all.
    pub source_ranges: Vec<String>,
    /// Seconds of client affinity, 0 for none.
    pub affinity: u32,
    /// Policy of traffic to the cluster IP.
    pub internal: Policy,
    /// Policy of traffic from outside.
    pub external: Policy,
    /// Health check node port, 0 for none.
    pub health_port: u16,
    /// Endpoints for cluster-wide traffic.
    pub cluster_endpoints: Vec<Endpoint>,
    /// Endpoints for local-only traffic.
    pub local_endpoints: Vec<Endpoint>,
    /// Whether any endpoint exists anywhere.
    pub has_endpoints: bool,
}

impl ServicePort {
    /// Whether traffic from outside the cluster reaches it.
    pub fn is_external(&self) -> bool {
        self.node_port != 0 || !self.external_ips.is_empty() || !self.balancer_ips.is_empty()
    }

    /// Whether cluster-wide endpoints are used by any traffic.
    pub fn uses_cluster(&self) -> bool {
        self.internal == Policy::Cluster || self.is_external()
    }

    /// Whether local-only endpoints are used by any traffic.
    pub fn uses_local(&self) -> bool {
        self.internal == Policy::Local || (self.external == Policy::Local && self.is_external())
    }
}

/// The node the proxy runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Name.
    pub name: String,
    /// Value of `topology.kubernetes.io/zone`.
    pub zone: String,
}

/// All watched objects, by `namespace/name`.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Services.
    pub services: BTreeMap<String, Service>,
    /// EndpointSlices.
    pub slices: BTreeMap<String, EndpointSlice>,
}

/// Folds the state into service ports, in order of their names. IPv4 only.
pub fn service_ports(state: &State, node: &Node) -> Vec<ServicePort> {
    let mut by_service: BTreeMap<String, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in state.slices.values().filter(|s| s.address_type == "IPv4") {
        let labels = slice.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|l| l.get("kubernetes.io/service-name")) else { continue };
        let namespace = slice.metadata.namespace.as_deref().unwrap_or("");
        by_service.entry(format!("{namespace}/{service}")).or_default().push(slice);
    }
    let mut ports = Vec::new();
    for (key, service) in &state.services {
        let slices = by_service.get(key).map(Vec::as_slice).unwrap_or_default();
        ports.extend(ports_of(key, service, slices, node));
    }
    ports.sort_by(|a, b| (&a.name, &a.protocol).cmp(&(&b.name, &b.protocol)));
    ports
}

fn ports_of(key: &str, service: &Service, slices: &[&EndpointSlice], node: &Node) -> Vec<ServicePort> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let cluster_ip = spec.cluster_ip.clone().unwrap_or_default();
    if matches!(cluster_ip.as_str(), "" | "None")
        || spec.type_.as_deref() == Some("ExternalName")
        || cluster_ip.contains(':')
    {
        return Vec::new();
    }
    let policy = |text: Option<&String>| match text.map(String::as_str) {
        Some("Local") => Policy::Local,
        _ => Policy::Cluster,
    };
    let affinity = match spec.session_affinity.as_deref() {
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            config.and_then(|c| c.timeout_seconds).and_then(|t| u32::try_from(t).ok()).unwrap_or(10800)
        }
        _ => 0,
    };
    let v4 = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter().flatten().map(|a| a.trim().to_owned()).filter(|a| !a.contains(':')).collect()
    };
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).and_then(|b| b.ingress.as_ref());
    let balancer_ips: Vec<String> = balancer
        .into_iter()
        .flatten()
        .filter(|i| i.ip_mode.as_deref().is_none_or(|m| m == "VIP"))
        .filter_map(|i| i.ip.clone())
        .filter(|ip| !ip.contains(':'))
        .collect();
    let mut ranges = v4(spec.load_balancer_source_ranges.as_ref());
    if ranges.iter().any(|r| r.ends_with("/0")) {
        ranges.clear();
    }
    let number = |n: Option<i32>| n.and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    let ports = spec.ports.iter().flatten();
    ports
        .map(|port| {
            let port_name = port.name.clone().unwrap_or_default();
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let endpoints = endpoints(slices, &port_name, &protocol, node);
            let (cluster_endpoints, local_endpoints, has_endpoints) = choose(&endpoints, node);
            ServicePort {
                name: if port_name.is_empty() { key.to_owned() } else { format!("{key}:{port_name}") },
                protocol: protocol.to_lowercase(),
                cluster_ip: cluster_ip.clone(),
                port: number(Some(port.port)),
                node_port: number(port.node_port),
                external_ips: v4(spec.external_ips.as_ref()),
                balancer_ips: balancer_ips.clone(),
                source_ranges: ranges.clone(),
                affinity,
                internal: policy(spec.internal_traffic_policy.as_ref()),
                external: policy(spec.external_traffic_policy.as_ref()),
                health_port: number(spec.health_check_node_port),
                cluster_endpoints,
                local_endpoints,
                has_endpoints,
            }
        })
        .collect()
}

/// Endpoints of one service port; the same address twice counts once, one that stays before one that goes.
fn endpoints(slices: &[&EndpointSlice], name: &str, protocol: &str, node: &Node) -> Vec<Endpoint> {
    let mut found: BTreeMap<String, Endpoint> = BTreeMap::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let matching = ports
            .filter(|p| p.name.as_deref().unwrap_or("") == name && p.protocol.as_deref().unwrap_or("TCP") == protocol);
        for port in matching.filter_map(|p| p.port).filter_map(|p| u16::try_from(p).ok()).filter(|p| *p != 0) {
            for one in slice.endpoints.iter().flatten() {
                let Some(ip) = one.addresses.first() else { continue };
                let conditions = one.conditions.as_ref();
                let hints = one.hints.as_ref();
                let endpoint = Endpoint {
                    ip: ip.clone(),
                    port,
                    local: one.node_name.as_deref() == Some(node.name.as_str()),
                    ready: conditions.and_then(|c| c.ready).unwrap_or(true),
                    serving: conditions.and_then(|c| c.serving).unwrap_or(true),
                    terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
                    zones: hints
                        .and_then(|h| h.for_zones.as_ref())
                        .into_iter()
                        .flatten()
                        .map(|z| z.name.clone())
                        .collect(),
                    nodes: hints
                        .and_then(|h| h.for_nodes.as_ref())
                        .into_iter()
                        .flatten()
                        .map(|n| n.name.clone())
                        .collect(),
                };
                let present = found.get(&endpoint.address());
                if present.is_none_or(|p| p.terminating && !endpoint.terminating) {
                    found.insert(endpoint.address(), endpoint);
                }
            }
        }
    }
    found.into_values().collect()
}

/// The endpoints for cluster-wide and for local-only traffic, and whether there are any.
fn choose(all: &[Endpoint], node: &Node) -> (Vec<Endpoint>, Vec<Endpoint>, bool) {
    let ready: Vec<&Endpoint> = all.iter().filter(|e| e.ready).collect();
    let fading = |e: &&Endpoint| e.serving && e.terminating;
    let own = |list: Vec<&Endpoint>| list.into_iter().cloned().collect::<Vec<_>>();
    let hinted_node = !ready.is_empty()
        && ready.iter().all(|e| !e.nodes.is_empty())
        && ready.iter().any(|e| e.nodes.contains(&node.name));
    let hinted_zone = !ready.is_empty()
        && ready.iter().all(|e| !e.zones.is_empty())
        && ready.iter().any(|e| e.zones.contains(&node.zone));
    let cluster = if ready.is_empty() {
        own(all.iter().filter(fading).collect())
    } else if hinted_node {
        own(ready.iter().filter(|e| e.nodes.contains(&node.name)).copied().collect())
    } else if hinted_zone {
        own(ready.iter().filter(|e| e.zones.contains(&node.zone)).copied().collect())
    } else {
        own(ready.clone())
    };
    let mut local = own(ready.iter().filter(|e| e.local).copied().collect());
    if local.is_empty() {
        local = own(all.iter().filter(|e| e.local).filter(fading).collect());
    }
    let any = !ready.is_empty() || all.iter().any(|e| e.serving && e.terminating);
    (cluster, local, any)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn state(policy: &str) -> State {
        let service = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {
            "clusterIP": "10.0.0.9", "type": "NodePort", "externalTrafficPolicy": policy,
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}});
        let slice = json!({"metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": ["10.1.0.1"], "nodeName": "here"},
            {"addresses": ["10.1.0.2"], "nodeName": "there"},
            {"addresses": ["10.1.0.3"], "nodeName": "there", "conditions": {"ready": false, "serving": true, "terminating": true}},
        ]});
        State {
            services: [("n/s".to_owned(), serde_json::from_value(service).expect("service"))].into(),
            slices: [("n/s-1".to_owned(), serde_json::from_value(slice).expect("slice"))].into(),
        }
    }

    #[test]
    fn endpoints_are_matched_by_port_name_and_split_by_node() {
        let node = Node { name: "here".into(), zone: String::new() };
        let ports = service_ports(&state("Local"), &node);
        assert_eq!(ports.len(), 1);
        let port = &ports[0];
        assert_eq!(port.name, "n/s:http");
        let addresses = |list: &[Endpoint]| list.iter().map(Endpoint::address).collect::<Vec<_>>();
        assert_eq!(addresses(&port.cluster_endpoints), ["10.1.0.1:8080", "10.1.0.2:8080"]);
        assert_eq!(addresses(&port.local_endpoints), ["10.1.0.1:8080"]);
        assert!(port.uses_local() && port.uses_cluster());
    }
}
