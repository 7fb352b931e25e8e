//! The rules of one service port.

use std::fmt::{Display, Write};

use super::{
    accounts::LOCALHOST,
    names::{self, Names},
    style::Style,
};
use crate::{
    model::{Endpoint, ServicePort},
    view::Policy,
};

/// Rules of a Service in chains that all Services share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    /// `KUBE-SERVICES` of table nat.
    pub(crate) services: String,
    /// `KUBE-NODEPORTS` of table nat.
    pub(crate) node_ports: String,
    /// `KUBE-SERVICES` of table filter.
    pub(crate) refused: String,
    /// `KUBE-EXTERNAL-SERVICES`.
    pub(crate) refused_external: String,
    /// `KUBE-PROXY-FIREWALL`.
    pub(crate) firewall: String,
    /// `KUBE-NODEPORTS` of table filter.
    pub(crate) health: String,
}

impl Shared {
    /// Adds the rules of `other`.
    pub(crate) fn append(&mut self, other: &Self) {
        self.services.push_str(&other.services);
        self.node_ports.push_str(&other.node_ports);
        self.refused.push_str(&other.refused);
        self.refused_external.push_str(&other.refused_external);
        self.firewall.push_str(&other.firewall);
        self.health.push_str(&other.health);
    }

    /// How many rules there are in table nat, and in table filter.
    pub(crate) fn count(&self) -> (usize, usize) {
        let lines = |texts: &[&str]| texts.iter().map(|text| text.lines().count()).sum();
        let filter = lines(&[&self.refused, &self.refused_external, &self.firewall, &self.health]);
        (lines(&[&self.services, &self.node_ports]), filter)
    }
}

/// A chain of its own and its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: String,
    pub(crate) rules: String,
}

impl Chain {
    fn new(name: String) -> Self {
        Self { name, rules: String::new() }
    }

    fn rule(&mut self, rule: impl Display) {
        add(&mut self.rules, &self.name, rule);
    }
}

/// Adds a line to a text. Writing to a text does not fail.
fn add(text: &mut String, chain: &str, rule: impl Display) {
    writeln!(text, "-A {chain} {rule}").unwrap_or_default();
}

/// All rules of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) shared: Shared,
    /// Chains of its own in table nat. A chain comes after those that it points to.
    pub(crate) chains: Vec<Chain>,
}

impl Rules {
    /// How many rules there are in table nat, and in table filter.
    pub(crate) fn count(&self) -> (usize, usize) {
        let (nat, filter) = self.shared.count();
        (nat + self.chains.iter().map(|chain| chain.rules.lines().count()).sum::<usize>(), filter)
    }
}

/// Whether rules have comments for people: in large clusters they cost too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comments {
    Kept,
    Dropped,
}

/// Renders the ports of one Service.
pub(crate) fn render(ports: &[ServicePort], style: &Style, comments: Comments) -> Rules {
    let mut rules = Rules { shared: render_shared(ports, style), chains: Vec::new() };
    for port in ports {
        Render { port, names: Names::of(port), style, comments, rules: &mut rules }.chains();
    }
    rules
}

/// Renders what the ports of one Service have in shared chains.
pub(crate) fn render_shared(ports: &[ServicePort], style: &Style) -> Shared {
    let mut rules = Rules::default();
    for port in ports {
        Render { port, names: Names::of(port), style, comments: Comments::Kept, rules: &mut rules }.shared();
    }
    rules.shared
}

struct Render<'a> {
    port: &'a ServicePort,
    names: Names,
    style: &'a Style,
    comments: Comments,
    rules: &'a mut Rules,
}

/// An address that traffic from outside is sent to.
struct Entry {
    matched: String,
    kind: &'static str,
    guarded: bool,
}

impl Render<'_> {
    fn shared(&mut self) {
        self.cluster_ip();
        if self.port.is_external() {
            self.outside();
        }
        if self.port.health_checked() && !self.rules.shared.health.contains(&format!(" {} ", self.port.health_port)) {
            let comment = comment(&format!("{} health check node port", self.port.name));
            let rule = format!("{comment} -m tcp -p tcp --dport {} -j ACCEPT", self.port.health_port);
            add(&mut self.rules.shared.health, "KUBE-NODEPORTS", rule);
        }
    }

    fn chains(&mut self) {
        let port = self.port;
        if !port.has_endpoints {
            return;
        }
        for endpoint in port.all_endpoints() {
            self.endpoint(&endpoint);
        }
        if port.uses_cluster() && !port.cluster_endpoints.is_empty() {
            self.balance(self.names.cluster(), &port.cluster_endpoints);
        }
        if port.uses_local() && !port.local_endpoints.is_empty() {
            self.balance(self.names.local(), &port.local_endpoints);
        }
        if port.is_external() {
            self.external_chain();
        }
        if !port.source_ranges.is_empty() && !port.balancer_ips.is_empty() {
            self.source_ranges();
        }
    }

    /// Match of the traffic to an address.
    fn to(&self, ip: impl Display) -> String {
        let protocol = self.port.protocol.name();
        format!("-m {protocol} -p {protocol} -d {ip} --dport {}", self.port.port)
    }

    /// REJECT without any endpoint, DROP when there are some elsewhere.
    fn refusal(&self, matched: &str) -> String {
        let (reason, verdict) =
            if self.port.has_endpoints { ("has no local endpoints", "DROP") } else { ("has no endpoints", "REJECT") };
        format!("{} {matched} -j {verdict}", comment(&format!("{} {reason}", self.port.name)))
    }

    fn cluster_ip(&mut self) {
        let port = self.port;
        let matched = self.to(port.cluster_ip);
        if port.endpoints(port.internal).is_empty() {
            let rule = self.refusal(&matched);
            add(&mut self.rules.shared.refused, "KUBE-SERVICES", rule);
            return;
        }
        let target = match port.internal {
            Policy::Cluster => self.names.cluster(),
            Policy::Local => self.names.local(),
        };
        let comment = comment(&format!("{} cluster IP", port.name));
        add(&mut self.rules.shared.services, "KUBE-SERVICES", format!("{comment} {matched} -j {target}"));
    }

    fn entries(&self) -> Vec<Entry> {
        let port = self.port;
        let external = port.external_ips.iter().map(|ip| (ip, "external IP", false));
        let guarded = !port.source_ranges.is_empty();
        let balanced = port.balancer_ips.iter().map(|ip| (ip, "loadbalancer IP", guarded));
        external.chain(balanced).map(|(ip, kind, guarded)| Entry { matched: self.to(ip), kind, guarded }).collect()
    }

    fn outside(&mut self) {
        let port = self.port;
        let (external, firewall) = (self.names.external(), self.names.firewall());
        let closed = port.endpoints(port.external).is_empty();
        for Entry { matched, kind, guarded } in self.entries() {
            if port.has_endpoints {
                let target = if guarded { &firewall } else { &external };
                let text = comment(&format!("{} {kind}", port.name));
                add(&mut self.rules.shared.services, "KUBE-SERVICES", format!("{text} {matched} -j {target}"));
            }
            if guarded && port.has_endpoints {
                let text = comment(&format!("{} traffic not accepted by {firewall}", port.name));
                add(&mut self.rules.shared.firewall, "KUBE-PROXY-FIREWALL", format!("{text} {matched} -j DROP"));
            }
            if closed {
                let rule = self.refusal(&matched);
                add(&mut self.rules.shared.refused_external, "KUBE-EXTERNAL-SERVICES", rule);
            }
        }
        if port.node_port != 0 {
            let protocol = port.protocol.name();
            let matched = format!("-m {protocol} -p {protocol} --dport {}", port.node_port);
            if port.has_endpoints {
                let comment = format!("-m comment --comment {}", port.name);
                if self.style.localhost_node_ports && self.style.accounts.localhost {
                    let local = format!("-m {protocol} -p {protocol} -d 127.0.0.0/8 --dport {}", port.node_port);
                    let rule = format!("{comment} {local} -m nfacct --nfacct-name {LOCALHOST} -j {external}");
                    add(&mut self.rules.shared.node_ports, "KUBE-NODEPORTS", rule);
                }
                let rule = format!("{comment} {matched} -j {external}");
                add(&mut self.rules.shared.node_ports, "KUBE-NODEPORTS", rule);
            }
            if closed {
                let rule = self.refusal(&format!("-m addrtype --dst-type LOCAL {matched}"));
                add(&mut self.rules.shared.refused_external, "KUBE-EXTERNAL-SERVICES", rule);
            }
        }
    }

    fn source_ranges(&mut self) {
        let (port, external) = (self.port, self.names.external());
        let mut chain = Chain::new(self.names.firewall());
        let text = comment(&format!("{} loadbalancer IP", port.name));
        for range in &port.source_ranges {
            chain.rule(format_args!("{text} -s {range} -j {external}"));
        }
        // A node whose traffic may pass sends it from the address of the load balancer.
        if port.source_ranges.iter().any(|range| range.contains(&self.style.node_ip)) {
            for ip in &port.balancer_ips {
                chain.rule(format_args!("{text} -s {ip} -j {external}"));
            }
        }
        let text = format!("other traffic to {} will be dropped by KUBE-PROXY-FIREWALL", port.name);
        chain.rule(comment(&text));
        self.rules.chains.push(chain);
    }

    fn external_chain(&mut self) {
        let port = self.port;
        let mut chain = Chain::new(self.names.external());
        let cluster = self.names.cluster();
        let has_cluster = !port.cluster_endpoints.is_empty();
        if port.external == Policy::Cluster {
            let text = comment(&format!("masquerade traffic for {} external destinations", port.name));
            chain.rule(format_args!("{text} -j KUBE-MARK-MASQ"));
            if has_cluster {
                chain.rule(format_args!("-j {cluster}"));
            }
            self.rules.chains.push(chain);
            return;
        }
        if has_cluster {
            if let Some(matched) = self.style.detector.if_local() {
                let text = comment(&format!("pod traffic for {} external destinations", port.name));
                chain.rule(format_args!("{text} {matched} -j {cluster}"));
            }
            let local = "-m addrtype --src-type LOCAL";
            let text = comment(&format!("masquerade LOCAL traffic for {} external destinations", port.name));
            chain.rule(format_args!("{text} {local} -j KUBE-MARK-MASQ"));
            let text = comment(&format!("route LOCAL traffic for {} external destinations", port.name));
            chain.rule(format_args!("{text} {local} -j {cluster}"));
        }
        if !port.local_endpoints.is_empty() {
            chain.rule(format_args!("-j {}", self.names.local()));
        }
        self.rules.chains.push(chain);
    }

    /// The chain that spreads traffic over endpoints.
    fn balance(&mut self, name: String, endpoints: &[Endpoint]) {
        let port = self.port;
        let mut chain = Chain::new(name);
        let head = format!("{} {}", comment(&format!("{} cluster IP", port.name)), self.to(port.cluster_ip));
        if self.style.masquerade_all {
            chain.rule(format_args!("{head} -j KUBE-MARK-MASQ"));
        } else if let Some(matched) = self.style.detector.if_not_local() {
            chain.rule(format_args!("{head} {matched} -j KUBE-MARK-MASQ"));
        }
        let targets: Vec<(String, String)> = endpoints
            .iter()
            .map(|e| (self.comment(&format!("\"{} -> {}\"", port.name, e.address)), names::endpoint(port, e)))
            .collect();
        if port.affinity > 0 {
            for (text, target) in &targets {
                let recent = format!("-m recent --name {target} --rcheck --seconds {} --reap", port.affinity);
                chain.rule(format_args!("{text}{recent} -j {target}"));
            }
        }
        for (at, (text, target)) in targets.iter().enumerate() {
            match targets.len() - at {
                1 => chain.rule(format_args!("{text}-j {target}")),
                left => {
                    #[allow(clippy::cast_precision_loss)]
                    let chance = 1.0 / left as f64;
                    let random = format!("-m statistic --mode random --probability {chance:.10}");
                    chain.rule(format_args!("{text}{random} -j {target}"));
                }
            }
        }
        self.rules.chains.push(chain);
    }

    fn endpoint(&mut self, endpoint: &Endpoint) {
        let port = self.port;
        let mut chain = Chain::new(names::endpoint(port, endpoint));
        let text = self.comment(&port.name);
        chain.rule(format_args!("{text}-s {} -j KUBE-MARK-MASQ", endpoint.address.ip()));
        let recent = if port.affinity > 0 { format!("-m recent --name {} --set ", chain.name) } else { String::new() };
        let protocol = port.protocol.name();
        let to = format!("-m {protocol} -p {protocol} -j DNAT --to-destination {}", endpoint.address);
        chain.rule(format_args!("{text}{recent}{to}"));
        self.rules.chains.push(chain);
    }

    /// A comment of an endpoint's rule: dropped in large clusters.
    fn comment(&self, quoted: &str) -> String {
        match self.comments {
            Comments::Kept => format!("-m comment --comment {quoted} "),
            Comments::Dropped => String::new(),
        }
    }
}

fn comment(text: &str) -> String {
    format!("-m comment --comment \"{text}\"")
}
