//! What ipvs mode wants of the kernel, from the model alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use super::sets::Set;
use crate::{
    model::{Endpoint, Model, ServicePort},
    view::{Policy, Protocol},
};

/// A virtual server of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Server {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
}

/// What a virtual server does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    /// Seconds that a client stays with its endpoint, 0 for not at all.
    pub(crate) timeout: u32,
    pub(crate) endpoints: BTreeSet<SocketAddr>,
}

/// All that is wanted in one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) servers: BTreeMap<Server, Service>,
    /// Addresses that the dummy interface carries.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// Entries of sets, as `ipset` lists them, but with numbers of protocols.
    pub(crate) sets: BTreeMap<Set, BTreeSet<String>>,
}

/// What of the node decides.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Addresses of the node's own interfaces.
    pub(crate) local: BTreeSet<IpAddr>,
    /// Those that node ports answer on.
    pub(crate) node_ports: Vec<IpAddr>,
    pub(crate) node_ip: IpAddr,
}

/// Plans for all Services.
pub(crate) fn plan(model: &Model, place: &Place) -> Plan {
    let mut plan = Plan::default();
    for port in model.ports() {
        Planner { port, place, plan: &mut plan }.all();
    }
    let carried: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
    plan.sets.entry(Set::IpvsIps).or_default().extend(carried);
    plan
}

struct Planner<'a> {
    port: &'a ServicePort,
    place: &'a Place,
    plan: &'a mut Plan,
}

impl Planner<'_> {
    fn entry(&mut self, set: Set, entry: String) {
        self.plan.sets.entry(set).or_default().insert(entry);
    }

    /// Address and port, as sets have them. Names of protocols are not known on every machine.
    fn pair(&self, ip: &IpAddr, port: u16) -> String {
        format!("{ip},{}:{port}", self.port.protocol.number())
    }

    fn server(&mut self, ip: IpAddr, port: u16, policy: Policy) {
        let local = self.port.endpoints(Policy::Local);
        // Unlike in the other modes, traffic that has no endpoint here goes elsewhere.
        let endpoints = match policy {
            Policy::Local if !local.is_empty() => local,
            _ => self.port.endpoints(Policy::Cluster),
        };
        let endpoints = endpoints.iter().map(|e: &Endpoint| e.address).collect();
        let server = Server { protocol: self.port.protocol, address: SocketAddr::new(ip, port) };
        self.plan.servers.entry(server).or_insert(Service { timeout: self.port.affinity, endpoints });
    }

    fn carry(&mut self, ip: IpAddr) {
        if !self.place.local.contains(&ip) {
            self.plan.addresses.insert(ip);
        }
    }

    fn all(&mut self) {
        let port = self.port;
        self.carry(port.cluster_ip);
        self.server(port.cluster_ip, port.port, port.internal);
        self.entry(Set::ClusterIp, self.pair(&port.cluster_ip, port.port));
        for endpoint in port.all_endpoints().iter().filter(|e| e.local) {
            let ip = endpoint.address.ip();
            let pair = self.pair(&ip, endpoint.address.port());
            self.entry(Set::LoopBack, format!("{pair},{ip}"));
        }
        let local = port.external == Policy::Local;
        for ip in &port.external_ips {
            self.carry(*ip);
            self.server(*ip, port.port, port.external);
            let set = if local { Set::ExternalIpLocal } else { Set::ExternalIp };
            self.entry(set, self.pair(ip, port.port));
        }
        for ip in &port.balancer_ips {
            self.carry(*ip);
            self.server(*ip, port.port, port.external);
            let pair = self.pair(ip, port.port);
            if local {
                self.entry(Set::LoadBalancerLocal, pair.clone());
            }
            if !port.source_ranges.is_empty() {
                self.guard(ip, &pair);
            }
            self.entry(Set::LoadBalancer, pair);
        }
        if port.node_port != 0 {
            self.node_port(local);
        }
        if port.health_checked() {
            self.entry(Set::HealthCheck, port.health_port.to_string());
        }
    }

    fn guard(&mut self, ip: &IpAddr, pair: &str) {
        self.entry(Set::LoadBalancerFirewall, pair.to_owned());
        for range in &self.port.source_ranges {
            let whole = range.prefix_len() == range.max_prefix_len();
            let range = if whole { range.addr().to_string() } else { range.to_string() };
            self.entry(Set::LoadBalancerSourceCidr, format!("{pair},{range}"));
        }
        if self.port.source_ranges.iter().any(|range| range.contains(&self.place.node_ip)) {
            self.entry(Set::LoadBalancerSourceIp, format!("{pair},{ip}"));
        }
    }

    fn node_port(&mut self, local: bool) {
        let (port, addresses) = (self.port, self.place.node_ports.clone());
        let sets = match port.protocol {
            Protocol::Tcp => [Set::NodePortTcp, Set::NodePortLocalTcp],
            Protocol::Udp => [Set::NodePortUdp, Set::NodePortLocalUdp],
            Protocol::Sctp => [Set::NodePortSctp, Set::NodePortLocalSctp],
        };
        let wanted: &[Set] = if local { &sets } else { &sets[..1] };
        for set in wanted {
            if port.protocol == Protocol::Sctp {
                for ip in &addresses {
                    self.entry(*set, self.pair(ip, port.node_port));
                }
            } else {
                self.entry(*set, port.node_port.to_string());
            }
        }
        for ip in addresses {
            self.server(ip, port.node_port, port.external);
        }
    }
}
