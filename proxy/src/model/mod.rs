//! What is to be forwarded, free of any mode: Services and EndpointSlices folded into service ports of one family.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use controller::ObjectKey;
use ipnet::IpNet;

use crate::{
    family::Family,
    view::{EndpointView, Policy, PortView, Protocol, ServiceView, SliceView},
};

/// One back end of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Whether it runs on this node.
    pub local: bool,
    /// Whether it takes new connections.
    pub ready: bool,
}

/// One port of one Service in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// `namespace/name:port`, or `namespace/name` for an unnamed port.
    pub name: Box<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Cluster IP.
    pub cluster_ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Node port, 0 for none.
    pub node_port: u16,
    /// External IPs.
    pub external_ips: Box<[IpAddr]>,
    /// Load balancer addresses that are handled here.
    pub balancer_ips: Box<[IpAddr]>,
    /// Source ranges of the load balancer; empty for all.
    pub source_ranges: Box<[IpNet]>,
    /// Seconds of client affinity, 0 for none.
    pub affinity: u32,
    /// Policy of traffic to the cluster IP.
    pub internal: Policy,
    /// Policy of traffic from outside.
    pub external: Policy,
    /// Whether the Service is of type LoadBalancer.
    pub balanced: bool,
    /// Health check node port, 0 for none.
    pub health_port: u16,
    /// Endpoints for cluster-wide traffic, ordered by the text of their addresses.
    pub cluster_endpoints: Box<[Endpoint]>,
    /// Endpoints for local-only traffic, ordered likewise.
    pub local_endpoints: Box<[Endpoint]>,
    /// All that still serve: flows to others are forgotten.
    pub serving: Box<[SocketAddr]>,
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

    /// The endpoints that a policy leaves.
    pub fn endpoints(&self, policy: Policy) -> &[Endpoint] {
        match policy {
            Policy::Cluster => &self.cluster_endpoints,
            Policy::Local => &self.local_endpoints,
        }
    }

    /// Endpoints of either list, each once.
    pub fn all_endpoints(&self) -> Vec<Endpoint> {
        let mut all = Vec::with_capacity(self.cluster_endpoints.len());
        if self.uses_cluster() {
            all.extend_from_slice(&self.cluster_endpoints);
        }
        if self.uses_local() {
            let more = self.local_endpoints.iter().filter(|e| !all.iter().any(|a| a.address == e.address));
            let more: Vec<Endpoint> = more.copied().collect();
            all.extend(more);
        }
        all
    }

    /// Whether the Service asks for a health check node port.
    pub fn health_checked(&self) -> bool {
        self.health_port != 0 && self.balanced && self.external == Policy::Local
    }

    /// How many distinct addresses of this node take new connections.
    pub fn local_ready(&self) -> impl Iterator<Item = IpAddr> {
        self.local_endpoints.iter().filter(|e| e.ready).map(|e| e.address.ip())
    }
}

/// What of the node decides which endpoints are used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Value of `topology.kubernetes.io/zone`.
    pub zone: String,
}

/// The ports of one Service.
pub type Ports = Arc<[ServicePort]>;

/// Folds one Service and its slices into the ports of a family. Empty if it has no address there.
pub fn plan(
    key: &ObjectKey,
    service: &ServiceView,
    slices: &[&SliceView],
    family: Family,
    topology: &Topology,
) -> Vec<ServicePort> {
    let of_family = |ip: &&IpAddr| Family::of(ip) == family;
    let Some(cluster_ip) = service.cluster_ips.iter().find(of_family).copied() else { return Vec::new() };
    let own = |list: &[IpAddr]| -> Box<[IpAddr]> { list.iter().filter(of_family).copied().collect() };
    let mut ranges: Vec<IpNet> =
        service.source_ranges.iter().filter(|r| Family::of_net(r) == family).copied().collect();
    if ranges.iter().any(|range| range.prefix_len() == 0) {
        ranges.clear();
    }
    let slices: Vec<&SliceView> = slices.iter().filter(|s| s.family == Some(family)).copied().collect();
    let ports = service.ports.iter().map(|port| {
        let chosen = Chosen::of(&endpoints(&slices, port), topology);
        ServicePort {
            name: if port.name.is_empty() { key.to_string() } else { format!("{key}:{}", port.name) }.into(),
            protocol: port.protocol,
            cluster_ip,
            port: port.port,
            node_port: port.node_port,
            external_ips: own(&service.external_ips),
            balancer_ips: own(&service.balancer_ips),
            source_ranges: ranges.clone().into(),
            affinity: service.affinity,
            internal: service.internal,
            external: service.external,
            balanced: service.balanced,
            health_port: service.health_port,
            cluster_endpoints: chosen.cluster,
            local_endpoints: chosen.local,
            serving: chosen.serving,
            has_endpoints: chosen.any,
        }
    });
    ports.collect()
}

type Found<'a> = (SocketAddr, &'a EndpointView);

/// Endpoints of one service port; the same address twice counts once, one that stays before one that goes.
fn endpoints<'a>(slices: &[&'a SliceView], port: &PortView) -> Vec<Found<'a>> {
    let mut found: HashMap<SocketAddr, &'a EndpointView> = HashMap::new();
    for slice in slices {
        let matching = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for target in matching {
            for endpoint in &slice.endpoints {
                let place = found.entry(SocketAddr::new(endpoint.ip, target.port)).or_insert(endpoint);
                if place.terminating && !endpoint.terminating {
                    *place = endpoint;
                }
            }
        }
    }
    let mut all: Vec<(String, Found<'a>)> = found.into_iter().map(|(a, e)| (a.to_string(), (a, e))).collect();
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().map(|(_, found)| found).collect()
}

/// The endpoints for each kind of traffic.
struct Chosen {
    cluster: Box<[Endpoint]>,
    local: Box<[Endpoint]>,
    serving: Box<[SocketAddr]>,
    any: bool,
}

impl Chosen {
    fn of(all: &[Found<'_>], topology: &Topology) -> Self {
        let made = |list: Vec<Found<'_>>| -> Box<[Endpoint]> {
            let one = |(address, e): Found<'_>| Endpoint { address, local: e.local, ready: e.ready };
            list.into_iter().map(one).collect()
        };
        let fading = |e: &EndpointView| e.serving && e.terminating;
        let ready: Vec<Found<'_>> = all.iter().filter(|(_, e)| e.ready).copied().collect();
        let any = !ready.is_empty() || all.iter().any(|(_, e)| fading(e));
        let mut local: Vec<Found<'_>> = ready.iter().filter(|(_, e)| e.local).copied().collect();
        if local.is_empty() {
            local = all.iter().filter(|(_, e)| e.local && fading(e)).copied().collect();
        }
        let cluster = if ready.is_empty() {
            all.iter().filter(|(_, e)| fading(e)).copied().collect()
        } else {
            hinted(ready, topology)
        };
        let serving = all.iter().filter(|(_, e)| e.serving).map(|(address, _)| *address);
        Self { cluster: made(cluster), local: made(local), serving: serving.collect(), any }
    }
}

/// Leaves the endpoints that are meant for this node, or else for its zone, if all have hints and some name it.
fn hinted<'a>(ready: Vec<Found<'a>>, topology: &Topology) -> Vec<Found<'a>> {
    let here = |e: &EndpointView| e.for_node == Some(true);
    if ready.iter().all(|(_, e)| e.for_node.is_some()) && ready.iter().any(|(_, e)| here(e)) {
        return ready.into_iter().filter(|(_, e)| here(e)).collect();
    }
    let zone = |e: &EndpointView| e.zones.iter().any(|zone| **zone == *topology.zone);
    let known = !topology.zone.is_empty();
    if known && ready.iter().all(|(_, e)| !e.zones.is_empty()) && ready.iter().any(|(_, e)| zone(e)) {
        return ready.into_iter().filter(|(_, e)| zone(e)).collect();
    }
    ready
}

/// A Service whose ports are not what they were when rules were last written.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Which.
    pub key: ObjectKey,
    /// Ports that rules exist for; `None` for a new Service.
    pub old: Option<Ports>,
    /// Ports that rules are wanted for; `None` if it is gone.
    pub new: Option<Ports>,
}

/// All service ports of a family.
#[derive(Clone, Debug, Default)]
pub struct Model {
    services: BTreeMap<ObjectKey, Ports>,
}

impl Model {
    /// Sets the ports of a Service; none removes it. `None` if nothing changes.
    pub fn set(&mut self, key: &ObjectKey, ports: Vec<ServicePort>) -> Option<Changed> {
        let old = self.services.get(key).cloned();
        if old.as_deref().unwrap_or_default() == ports {
            return None;
        }
        let new: Option<Ports> = (!ports.is_empty()).then(|| ports.into());
        match &new {
            Some(ports) => self.services.insert(key.clone(), Arc::clone(ports)),
            None => self.services.remove(key),
        };
        Some(Changed { key: key.clone(), old, new })
    }

    /// Services and their ports, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Ports)> {
        self.services.iter()
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.services.values().flat_map(|ports| ports.iter())
    }

    /// Keys of all Services.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.services.keys().cloned().collect()
    }

    /// The health check node ports that are wanted, with the number of local endpoints of each.
    pub fn health_ports(&self) -> BTreeMap<ObjectKey, (u16, usize)> {
        let checked = self.services.iter().filter_map(|(key, ports)| {
            let port = ports.iter().find(|p| p.health_checked())?.health_port;
            let local: HashSet<IpAddr> = ports.iter().flat_map(ServicePort::local_ready).collect();
            Some((key.clone(), (port, local.len())))
        });
        checked.collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
