//! Service ports as iptables rules: pure text, one `iptables-restore` input.

use std::{collections::BTreeSet, fmt::Write};

use sha2::{Digest, Sha256};

use crate::model::{Endpoint, Policy, ServicePort};

/// Endpoints beyond which per-endpoint comments are left out.
const LARGE_CLUSTER: usize = 1000;
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Prefixes of chains that belong to single Services.
pub const SERVICE_CHAINS: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-"];

/// What rules depend on besides the Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Mark of traffic to masquerade, one bit.
    pub mark: u32,
    /// Masquerade all traffic to cluster IPs.
    pub masquerade_all: bool,
    /// Range of Pod addresses; empty when unknown.
    pub cluster_cidr: String,
    /// Whether node ports answer on 127.0.0.0/8.
    pub localhost_node_ports: bool,
}

/// First 16 characters of the base32 of a SHA-256.
fn hash16(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let mut out = String::with_capacity(16);
    for group in digest[..10].chunks(5) {
        let mut bits = 0_u64;
        for byte in group {
            bits = bits << 8 | u64::from(*byte);
        }
        for shift in (0..8).rev() {
            let index = usize::try_from(bits >> (shift * 5) & 31).unwrap_or(0);
            out.push(char::from(BASE32[index]));
        }
    }
    out
}

fn service_chain(prefix: &str, port: &ServicePort) -> String {
    format!("{prefix}{}", hash16(&format!("{}{}", port.name, port.protocol)))
}

fn endpoint_chain(port: &ServicePort, endpoint: &Endpoint) -> String {
    format!("KUBE-SEP-{}", hash16(&format!("{}{}{}", port.name, port.protocol, endpoint.address())))
}

/// An `iptables-restore` input, and the chains of single Services it defines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// The input.
    pub text: String,
    /// Chains in use.
    pub chains: BTreeSet<String>,
}

#[derive(Default)]
struct Table {
    chains: Vec<String>,
    rules: String,
}

impl Table {
    fn chain(&mut self, name: &str) {
        self.chains.push(name.to_owned());
    }

    fn rule(&mut self, chain: &str, rest: &str) {
        // Writing to a String does not fail.
        let _written = writeln!(self.rules, "-A {chain} {rest}").is_ok();
    }

    fn text(&self, name: &str) -> String {
        let chains: String = self.chains.iter().map(|c| format!(":{c} - [0:0]\n")).collect();
        format!("*{name}\n{chains}{}COMMIT\n", self.rules)
    }
}

struct Writer<'a> {
    settings: &'a Settings,
    filter: Table,
    nat: Table,
    services: BTreeSet<String>,
    large: bool,
}

/// The whole rule set. `stale` are chains of earlier rule sets that shall go.
pub fn render(ports: &[ServicePort], settings: &Settings, stale: &BTreeSet<String>) -> RuleSet {
    let total: usize = ports.iter().map(|p| p.cluster_endpoints.len().max(p.local_endpoints.len())).sum();
    let mut writer = Writer {
        settings,
        filter: Table::default(),
        nat: Table::default(),
        services: BTreeSet::new(),
        large: total > LARGE_CLUSTER,
    };
    writer.static_rules();
    for port in ports {
        writer.service(port);
    }
    writer.node_ports_jump();
    for chain in stale.difference(&writer.services) {
        writer.nat.chains.push(chain.clone());
        writer.nat.rules.push_str(&format!("-X {chain}\n"));
    }
    let text = writer.filter.text("filter") + &writer.nat.text("nat");
    RuleSet { text, chains: writer.services }
}

impl Writer<'_> {
    fn static_rules(&mut self) {
        let mark = format!("0x{:08x}", self.settings.mark);
        for chain in [
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FORWARD",
            "KUBE-NODEPORTS",
            "KUBE-PROXY-FIREWALL",
            "KUBE-FIREWALL",
        ] {
            self.filter.chain(chain);
        }
        for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"] {
            self.nat.chain(chain);
        }
        let nat = &mut self.nat;
        nat.rule("KUBE-POSTROUTING", &format!("-m mark ! --mark {mark}/{mark} -j RETURN"));
        nat.rule("KUBE-POSTROUTING", &format!("-j MARK --xor-mark {mark}"));
        let comment = "-m comment --comment \"kubernetes service traffic requiring SNAT\"";
        nat.rule("KUBE-POSTROUTING", &format!("{comment} -j MASQUERADE --random-fully"));
        nat.rule("KUBE-MARK-MASQ", &format!("-j MARK --or-mark {mark}"));
        let filter = &mut self.filter;
        filter.rule("KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP");
        let comment = "-m comment --comment \"kubernetes forwarding rules\"";
        filter.rule("KUBE-FORWARD", &format!("{comment} -m mark --mark {mark}/{mark} -j ACCEPT"));
        let comment = "-m comment --comment \"kubernetes forwarding conntrack rule\"";
        filter.rule("KUBE-FORWARD", &format!("{comment} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
        if self.settings.localhost_node_ports {
            let comment = "-m comment --comment \"block incoming localnet connections\"";
            let martian = "-d 127.0.0.0/8 ! -s 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT";
            filter.rule("KUBE-FIREWALL", &format!("{comment} {martian} -j DROP"));
        }
    }

    fn node_ports_jump(&mut self) {
        let comment = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
        let local = if self.settings.localhost_node_ports { "" } else { " ! -d 127.0.0.0/8" };
        let rule = format!("-m comment --comment \"{comment}\" -m addrtype --dst-type LOCAL{local} -j KUBE-NODEPORTS");
        self.nat.rule("KUBE-SERVICES", &rule);
    }

    fn service(&mut self, port: &ServicePort) {
        let (name, protocol) = (&port.name, &port.protocol);
        let svc = service_chain("KUBE-SVC-", port);
        let svl = service_chain("KUBE-SVL-", port);
        let ext = service_chain("KUBE-EXT-", port);
        let firewall = service_chain("KUBE-FW-", port);
        let has_local = !port.local_endpoints.is_empty();
        let internal_ready = match port.internal {
            Policy::Cluster => !port.cluster_endpoints.is_empty(),
            Policy::Local => has_local,
        };
        let matched = |ip: &str| format!("-m {protocol} -p {protocol} -d {ip} --dport {}", port.port);
        let internal = if port.internal == Policy::Cluster { &svc } else { &svl };
        let (cluster_text, cluster_ip) = (format!("{name} cluster IP"), &port.cluster_ip);
        if internal_ready {
            let rule = format!("-m comment --comment \"{cluster_text}\" {} -j {internal}", matched(cluster_ip));
            self.nat.rule("KUBE-SERVICES", &rule);
        } else {
            self.refuse("KUBE-SERVICES", port, &matched(cluster_ip));
        }
        if port.is_external() {
            self.external(port, &ext, &firewall);
        }
        if !port.has_endpoints {
            return;
        }
        if port.uses_cluster() {
            self.balance(port, &svc, &port.cluster_endpoints);
        }
        if port.uses_local() && has_local {
            self.balance(port, &svl, &port.local_endpoints);
        }
        if port.is_external() {
            self.external_chain(port, &ext, &svc, has_local.then_some(svl.as_str()));
        }
        let mut endpoints: BTreeSet<&Endpoint> = port.cluster_endpoints.iter().collect();
        endpoints.extend(port.local_endpoints.iter());
        for endpoint in endpoints {
            self.endpoint(port, endpoint);
        }
    }

    /// REJECT without any endpoint, DROP when there are some elsewhere.
    fn refuse(&mut self, chain: &str, port: &ServicePort, matched: &str) {
        let (reason, verdict) =
            if port.has_endpoints { ("has no local endpoints", "DROP") } else { ("has no endpoints", "REJECT") };
        let rule = format!("-m comment --comment \"{} {reason}\" {matched} -j {verdict}", port.name);
        self.filter.rule(chain, &rule);
    }

    fn external(&mut self, port: &ServicePort, ext: &str, firewall: &str) {
        let (name, protocol) = (&port.name, &port.protocol);
        let open = match port.external {
            Policy::Cluster => !port.cluster_endpoints.is_empty(),
            Policy::Local => !port.local_endpoints.is_empty(),
        };
        let addresses = port.external_ips.iter().map(|ip| (ip, "external IP"));
        let addresses = addresses.chain(port.balancer_ips.iter().map(|ip| (ip, "loadbalancer IP")));
        for (ip, kind) in addresses {
            let matched = format!("-m {protocol} -p {protocol} -d {ip} --dport {}", port.port);
            let guarded = kind == "loadbalancer IP" && !port.source_ranges.is_empty();
            if port.has_endpoints {
                let target = if guarded { firewall } else { ext };
                let rule = format!("-m comment --comment \"{name} {kind}\" {matched} -j {target}");
                self.nat.rule("KUBE-SERVICES", &rule);
            }
            if guarded && port.has_endpoints {
                let comment = format!("-m comment --comment \"{name} traffic not accepted by {firewall}\"");
                self.filter.rule("KUBE-PROXY-FIREWALL", &format!("{comment} {matched} -j DROP"));
            }
            if !open {
                self.refuse("KUBE-EXTERNAL-SERVICES", port, &matched);
            }
        }
        if !port.source_ranges.is_empty() && !port.balancer_ips.is_empty() && port.has_endpoints {
            self.source_ranges(port, ext, firewall);
        }
        if port.node_port != 0 {
            let matched = format!("-m {protocol} -p {protocol} --dport {}", port.node_port);
            if port.has_endpoints {
                let comment = format!("-m comment --comment {name}");
                self.nat.rule("KUBE-NODEPORTS", &format!("{comment} {matched} -j {ext}"));
            }
            if !open {
                self.refuse("KUBE-EXTERNAL-SERVICES", port, &format!("-m addrtype --dst-type LOCAL {matched}"));
            }
        }
        if port.health_port != 0 {
            let comment = format!("-m comment --comment \"{name} health check node port\"");
            let rule = format!("{comment} -m tcp -p tcp --dport {} -j ACCEPT", port.health_port);
            self.filter.rule("KUBE-NODEPORTS", &rule);
        }
    }

    fn source_ranges(&mut self, port: &ServicePort, ext: &str, firewall: &str) {
        self.nat.chain(firewall);
        self.services.insert(firewall.to_owned());
        for range in &port.source_ranges {
            let comment = format!("-m comment --comment \"{} loadbalancer IP\"", port.name);
            self.nat.rule(firewall, &format!("{comment} -s {range} -j {ext}"));
        }
        let comment = format!("other traffic to {} will be dropped by KUBE-PROXY-FIREWALL", port.name);
        self.nat.rule(firewall, &format!("-m comment --comment \"{comment}\""));
    }

    fn external_chain(&mut self, port: &ServicePort, ext: &str, svc: &str, svl: Option<&str>) {
        let name = &port.name;
        self.nat.chain(ext);
        self.services.insert(ext.to_owned());
        if port.external == Policy::Cluster {
            let comment = format!("-m comment --comment \"masquerade traffic for {name} external destinations\"");
            self.nat.rule(ext, &format!("{comment} -j KUBE-MARK-MASQ"));
            self.nat.rule(ext, &format!("-j {svc}"));
            return;
        }
        if !self.settings.cluster_cidr.is_empty() {
            let comment = format!("-m comment --comment \"pod traffic for {name} external destinations\"");
            self.nat.rule(ext, &format!("{comment} -s {} -j {svc}", self.settings.cluster_cidr));
        }
        let local = "-m addrtype --src-type LOCAL";
        let comment = format!("-m comment --comment \"masquerade LOCAL traffic for {name} external destinations\"");
        self.nat.rule(ext, &format!("{comment} {local} -j KUBE-MARK-MASQ"));
        let comment = format!("-m comment --comment \"route LOCAL traffic for {name} external destinations\"");
        self.nat.rule(ext, &format!("{comment} {local} -j {svc}"));
        if let Some(svl) = svl {
            self.nat.rule(ext, &format!("-j {svl}"));
        }
    }

    /// The chain that spreads traffic over endpoints.
    fn balance(&mut self, port: &ServicePort, chain: &str, endpoints: &[Endpoint]) {
        self.nat.chain(chain);
        self.services.insert(chain.to_owned());
        let (name, protocol) = (&port.name, &port.protocol);
        let matched = format!("-m {protocol} -p {protocol} -d {} --dport {}", port.cluster_ip, port.port);
        let comment = format!("-m comment --comment \"{name} cluster IP\"");
        if self.settings.masquerade_all {
            self.nat.rule(chain, &format!("{comment} {matched} -j KUBE-MARK-MASQ"));
        } else if !self.settings.cluster_cidr.is_empty() {
            self.nat.rule(chain, &format!("{comment} {matched} ! -s {} -j KUBE-MARK-MASQ", self.settings.cluster_cidr));
        }
        let mut sorted: Vec<&Endpoint> = endpoints.iter().collect();
        sorted.sort_by_key(|e| e.address());
        if port.affinity > 0 {
            for endpoint in &sorted {
                let sep = endpoint_chain(port, endpoint);
                let comment = self.endpoint_comment(&format!("{name} -> {}", endpoint.address()));
                let recent = format!("-m recent --name {sep} --rcheck --seconds {} --reap", port.affinity);
                self.nat.rule(chain, &format!("{comment}{recent} -j {sep}"));
            }
        }
        for (at, endpoint) in sorted.iter().enumerate() {
            let comment = self.endpoint_comment(&format!("{name} -> {}", endpoint.address()));
            let left = sorted.len() - at;
            #[allow(clippy::cast_precision_loss)]
            let chance = match left {
                1 => String::new(),
                left => format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64),
            };
            self.nat.rule(chain, &format!("{comment}{chance}-j {}", endpoint_chain(port, endpoint)));
        }
    }

    fn endpoint_comment(&self, text: &str) -> String {
        if self.large { String::new() } else { format!("-m comment --comment \"{text}\" ") }
    }

    fn endpoint(&mut self, port: &ServicePort, endpoint: &Endpoint) {
        let chain = endpoint_chain(port, endpoint);
        self.nat.chain(&chain);
        let comment = if self.large { String::new() } else { format!("-m comment --comment {} ", port.name) };
        self.nat.rule(&chain, &format!("{comment}-s {} -j KUBE-MARK-MASQ", endpoint.ip));
        let recent = if port.affinity > 0 { format!("-m recent --name {chain} --set ") } else { String::new() };
        let protocol = &port.protocol;
        let target = format!("-m {protocol} -p {protocol} -j DNAT --to-destination {}", endpoint.address());
        self.nat.rule(&chain, &format!("{comment}{recent}{target}"));
        self.services.insert(chain);
    }
}

/// Jumps from the built-in chains: table, chain, arguments.
pub fn jumps() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let new = ["-m", "conntrack", "--ctstate", "NEW"];
    let with = |state: bool, comment: &'static str, target: &'static str| -> Vec<&'static str> {
        let mut arguments = if state { new.to_vec() } else { Vec::new() };
        if !comment.is_empty() {
            arguments.extend(["-m", "comment", "--comment", comment]);
        }
        arguments.extend(["-j", target]);
        arguments
    };
    let mut all = Vec::new();
    let portals = "kubernetes service portals";
    let external = "kubernetes externally-visible service portals";
    let firewall = "kubernetes load balancer firewall";
    for chain in ["INPUT", "FORWARD"] {
        all.push(("filter", chain, with(true, external, "KUBE-EXTERNAL-SERVICES")));
    }
    all.push(("filter", "INPUT", with(false, "kubernetes health check service ports", "KUBE-NODEPORTS")));
    for chain in ["FORWARD", "OUTPUT"] {
        all.push(("filter", chain, with(true, portals, "KUBE-SERVICES")));
    }
    all.push(("filter", "FORWARD", with(false, "kubernetes forwarding rules", "KUBE-FORWARD")));
    for chain in ["INPUT", "OUTPUT", "FORWARD"] {
        all.push(("filter", chain, with(true, firewall, "KUBE-PROXY-FIREWALL")));
    }
    for chain in ["INPUT", "OUTPUT"] {
        all.push(("filter", chain, with(false, "", "KUBE-FIREWALL")));
    }
    for chain in ["OUTPUT", "PREROUTING"] {
        all.push(("nat", chain, with(false, portals, "KUBE-SERVICES")));
    }
    all.push(("nat", "POSTROUTING", with(false, "kubernetes postrouting rules", "KUBE-POSTROUTING")));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: &str) -> Endpoint {
        Endpoint {
            ip: ip.into(),
            port: 8080,
            local: false,
            ready: true,
            serving: true,
            terminating: false,
            zones: vec![],
            nodes: vec![],
        }
    }

    fn port(endpoints: &[&str]) -> ServicePort {
        ServicePort {
            name: "default/web:http".into(),
            protocol: "tcp".into(),
            cluster_ip: "10.96.0.9".into(),
            port: 80,
            node_port: 30080,
            external_ips: vec![],
            balancer_ips: vec![],
            source_ranges: vec![],
            affinity: 0,
            internal: Policy::Cluster,
            external: Policy::Cluster,
            health_port: 0,
            cluster_endpoints: endpoints.iter().map(|e| endpoint(e)).collect(),
            local_endpoints: vec![],
            has_endpoints: !endpoints.is_empty(),
        }
    }

    fn settings() -> Settings {
        Settings {
            mark: 1 << 14,
            masquerade_all: false,
            cluster_cidr: "10.244.0.0/16".into(),
            localhost_node_ports: true,
        }
    }

    #[test]
    fn names_are_upstreams() {
        // The chain that every cluster has for its own API.
        assert_eq!(format!("KUBE-SVC-{}", hash16("default/kubernetes:httpstcp")), "KUBE-SVC-NPX46M4PTMTKRN6Y");
    }

    #[test]
    fn traffic_is_spread_evenly() {
        let rules = render(&[port(&["10.244.0.1", "10.244.0.2", "10.244.0.3"])], &settings(), &BTreeSet::new());
        let chances: Vec<&str> =
            rules.text.split("--probability ").skip(1).filter_map(|t| t.split(' ').next()).collect();
        assert_eq!(chances, ["0.3333333333", "0.5000000000"]);
        assert_eq!(rules.text.matches("-j DNAT --to-destination").count(), 3);
        assert!(rules.text.contains(
            "-A KUBE-NODEPORTS -m comment --comment default/web:http -m tcp -p tcp --dport 30080 -j KUBE-EXT-"
        ));
        assert!(rules.text.trim_end().ends_with("COMMIT"));
    }

    #[test]
    fn services_without_endpoints_are_rejected() {
        let rules = render(&[port(&[])], &settings(), &BTreeSet::new());
        assert!(rules.text.contains("-A KUBE-SERVICES -m comment --comment \"default/web:http has no endpoints\" -m tcp -p tcp -d 10.96.0.9 --dport 80 -j REJECT"));
        assert!(rules.chains.is_empty());
    }

    #[test]
    fn affinity_remembers_clients() {
        let rules = render(&[ServicePort { affinity: 600, ..port(&["10.244.0.1"]) }], &settings(), &BTreeSet::new());
        assert!(rules.text.contains("--rcheck --seconds 600 --reap"));
        assert!(rules.text.contains("--set -m tcp -p tcp -j DNAT"));
    }

    #[test]
    fn stale_chains_go() {
        let stale = BTreeSet::from(["KUBE-SVC-OLD".to_owned()]);
        let rules = render(&[], &settings(), &stale);
        assert!(rules.text.contains(":KUBE-SVC-OLD - [0:0]\n") && rules.text.contains("-X KUBE-SVC-OLD\n"));
    }
}
