//! The chains, sets and elements of one service port.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;

use super::wire::Verdict;
use crate::{
    iptables::hash,
    model::{Endpoint, ServicePort},
    view::{Policy, Protocol},
};

/// The chain that refuses packets.
pub(crate) const REJECT: &str = "reject-chain";
/// Longest name of a chain or set that is made of other names.
const LONGEST: usize = 240;

/// A set or map that all Services share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Set {
    ClusterIps,
    ServiceIps,
    NoEndpointServices,
    FirewallIps,
    ServiceNodePorts,
    NoEndpointNodePorts,
    Hairpin,
}

impl Set {
    pub(crate) const ALL: [Self; 7] = [
        Self::ClusterIps,
        Self::ServiceIps,
        Self::NoEndpointServices,
        Self::FirewallIps,
        Self::ServiceNodePorts,
        Self::NoEndpointNodePorts,
        Self::Hairpin,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ClusterIps => "cluster-ips",
            Self::ServiceIps => "service-ips",
            Self::NoEndpointServices => "no-endpoint-services",
            Self::FirewallIps => "firewall-ips",
            Self::ServiceNodePorts => "service-nodeports",
            Self::NoEndpointNodePorts => "no-endpoint-nodeports",
            Self::Hairpin => "hairpin-connections",
        }
    }
}

/// What an element of a set is about. Unused parts are zero.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) set: Set,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) port: Option<(Protocol, u16)>,
}

/// Elements and what they lead to.
pub(crate) type Elements = BTreeMap<Key, Option<Verdict>>;

/// A rule of a chain of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// To any of the endpoints.
    Spread(Protocol, Vec<SocketAddr>),
    /// To the chain of the endpoint that a client has been sent to before.
    Stick { set: String, chain: String },
    /// To the chain of any endpoint.
    SpreadTo(Vec<String>),
    /// Notes the client.
    Remember(String),
    /// To an endpoint.
    Send(Protocol, SocketAddr),
    /// To be masqueraded.
    Mark,
    /// To another chain.
    Goto(String),
    /// Traffic of Pods to another chain.
    PodsGoto(String),
    /// Traffic of this machine is to be masqueraded.
    OwnMark,
    /// Traffic of this machine to another chain.
    OwnGoto(String),
    /// From these addresses it may pass.
    Pass(IpNet),
    /// Not any further.
    Drop,
}

/// All of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) chains: BTreeMap<String, Vec<Rule>>,
    /// Sets of clients with the seconds that they stay.
    pub(crate) sets: BTreeMap<String, u32>,
    pub(crate) elements: Elements,
}

fn limited(text: String) -> String {
    if text.len() <= LONGEST {
        return text;
    }
    let end = (0..=LONGEST - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...", &text[..end])
}

/// `ns/svc/proto/portname` of a service port.
fn path(port: &ServicePort) -> String {
    let (service, name) = port.name.split_once(':').unwrap_or((&port.name, ""));
    format!("{service}/{}/{name}", port.protocol.name())
}

fn named(prefix: &str, path: &str) -> String {
    limited(format!("{prefix}-{}-{path}", hash(&[path], 8)))
}

fn endpoint_path(port: &ServicePort, endpoint: &Endpoint) -> String {
    let ip = endpoint.address.ip().to_string().replace(':', ".");
    format!("{}__{ip}/{}", path(port), endpoint.address.port())
}

/// Renders the ports of one Service.
pub(crate) fn render(ports: &[ServicePort], node_ip: IpAddr) -> Rules {
    let mut rules = Rules::default();
    for port in ports {
        Render { port, path: path(port), node_ip, rules: &mut rules }.all();
    }
    rules
}

struct Render<'a> {
    port: &'a ServicePort,
    path: String,
    node_ip: IpAddr,
    rules: &'a mut Rules,
}

impl Render<'_> {
    fn chain(&self, prefix: &str) -> String {
        named(prefix, &self.path)
    }

    fn element(&mut self, set: Set, ip: Option<IpAddr>, port: Option<u16>, verdict: Option<Verdict>) {
        let key = Key { set, ip, port: port.map(|port| (self.port.protocol, port)) };
        self.rules.elements.entry(key).or_insert(verdict);
    }

    fn all(&mut self) {
        let port = self.port;
        self.element(Set::ClusterIps, Some(port.cluster_ip), None, None);
        let internal = if port.internal == Policy::Cluster { "service" } else { "local" };
        if port.endpoints(port.internal).is_empty() {
            self.element(Set::NoEndpointServices, Some(port.cluster_ip), Some(port.port), Some(self.refusal()));
        } else {
            let verdict = Verdict::Goto(self.chain(internal).into());
            self.element(Set::ServiceIps, Some(port.cluster_ip), Some(port.port), Some(verdict));
        }
        if port.is_external() {
            self.outside();
        }
        if !port.has_endpoints {
            return;
        }
        if port.uses_cluster() && !port.cluster_endpoints.is_empty() {
            self.balance("service", &port.cluster_endpoints);
        }
        if port.uses_local() && !port.local_endpoints.is_empty() {
            self.balance("local", &port.local_endpoints);
        }
        for endpoint in port.all_endpoints() {
            self.endpoint(&endpoint);
        }
    }

    fn refusal(&self) -> Verdict {
        if self.port.has_endpoints { Verdict::Drop } else { Verdict::Goto(REJECT.into()) }
    }

    fn outside(&mut self) {
        let port = self.port;
        let closed = port.endpoints(port.external).is_empty();
        let external = Verdict::Goto(self.chain("external").into());
        for ip in port.external_ips.iter().chain(&port.balancer_ips) {
            if port.has_endpoints {
                self.element(Set::ServiceIps, Some(*ip), Some(port.port), Some(external.clone()));
            }
            if closed {
                self.element(Set::NoEndpointServices, Some(*ip), Some(port.port), Some(self.refusal()));
            }
        }
        if port.node_port != 0 {
            if port.has_endpoints {
                self.element(Set::ServiceNodePorts, None, Some(port.node_port), Some(external));
            }
            if closed {
                self.element(Set::NoEndpointNodePorts, None, Some(port.node_port), Some(self.refusal()));
            }
        }
        if !port.has_endpoints {
            return;
        }
        self.external_chain();
        if !port.source_ranges.is_empty() && !port.balancer_ips.is_empty() {
            self.firewall();
        }
    }

    fn external_chain(&mut self) {
        let port = self.port;
        let service = self.chain("service");
        let has_cluster = !port.cluster_endpoints.is_empty();
        let mut rules = Vec::new();
        match port.external {
            Policy::Cluster if has_cluster => rules.extend([Rule::Mark, Rule::Goto(service)]),
            Policy::Cluster => {}
            Policy::Local => {
                if has_cluster {
                    rules.extend([Rule::PodsGoto(service.clone()), Rule::OwnMark, Rule::OwnGoto(service)]);
                }
                if !port.local_endpoints.is_empty() {
                    rules.push(Rule::Goto(self.chain("local")));
                }
            }
        }
        let name = self.chain("external");
        self.rules.chains.insert(name, rules);
    }

    fn firewall(&mut self) {
        let port = self.port;
        let name = self.chain("firewall");
        for ip in &port.balancer_ips {
            let verdict = Verdict::Goto(name.as_str().into());
            self.element(Set::FirewallIps, Some(*ip), Some(port.port), Some(verdict));
        }
        let mut rules: Vec<Rule> = port.source_ranges.iter().map(|range| Rule::Pass(*range)).collect();
        if port.source_ranges.iter().any(|range| range.contains(&self.node_ip)) {
            rules.extend(port.balancer_ips.iter().map(|ip| Rule::Pass(IpNet::from(*ip))));
        }
        rules.push(Rule::Drop);
        self.rules.chains.insert(name, rules);
    }

    /// The chain that spreads traffic over endpoints.
    fn balance(&mut self, prefix: &str, endpoints: &[Endpoint]) {
        let port = self.port;
        let name = self.chain(prefix);
        let rules = if port.affinity == 0 {
            vec![Rule::Spread(port.protocol, endpoints.iter().map(|e| e.address).collect())]
        } else {
            let paths: Vec<String> = endpoints.iter().map(|e| endpoint_path(port, e)).collect();
            let stick = paths.iter().map(|p| Rule::Stick { set: named("affinity", p), chain: named("endpoint", p) });
            let mut rules: Vec<Rule> = stick.collect();
            rules.push(Rule::SpreadTo(paths.iter().map(|path| named("endpoint", path)).collect()));
            rules
        };
        self.rules.chains.insert(name, rules);
    }

    fn endpoint(&mut self, endpoint: &Endpoint) {
        let port = self.port;
        if endpoint.local {
            let key = Key {
                set: Set::Hairpin,
                ip: Some(endpoint.address.ip()),
                port: Some((port.protocol, endpoint.address.port())),
            };
            self.rules.elements.insert(key, None);
        }
        if port.affinity > 0 {
            let path = endpoint_path(port, endpoint);
            let set = named("affinity", &path);
            self.rules.sets.insert(set.clone(), port.affinity);
            let rules = vec![Rule::Remember(set), Rule::Send(port.protocol, endpoint.address)];
            self.rules.chains.insert(named("endpoint", &path), rules);
        }
    }
}
