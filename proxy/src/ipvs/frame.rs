//! The rules of iptables around virtual servers. They refer to sets, so they do not depend on Services.

use super::sets::Set;
use crate::{
    config::settings::Detector,
    family::Family,
    iptables::{
        Style,
        frame::{Jump, chain_line, forwarding, masquerading, table},
    },
};

/// Chains of this mode.
pub(crate) const TABLES: [(&str, &[&str]); 2] = [
    ("nat", &["KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-MARK-MASQ"]),
    (
        "filter",
        &[
            "KUBE-FORWARD",
            "KUBE-NODE-PORT",
            "KUBE-PROXY-FIREWALL",
            "KUBE-SOURCE-RANGES-FIREWALL",
            "KUBE-IPVS-FILTER",
            "KUBE-IPVS-OUT-FILTER",
        ],
    ),
];

/// Jumps from the built-in chains.
pub(crate) fn jumps() -> Vec<Jump> {
    let firewall = "kube-proxy firewall rules";
    vec![
        Jump::new("nat", "OUTPUT", false, "kubernetes service portals", "KUBE-SERVICES"),
        Jump::new("nat", "PREROUTING", false, "kubernetes service portals", "KUBE-SERVICES"),
        Jump::new("nat", "POSTROUTING", false, "kubernetes postrouting rules", "KUBE-POSTROUTING"),
        Jump::new("filter", "FORWARD", false, "kubernetes forwarding rules", "KUBE-FORWARD"),
        Jump::new("filter", "INPUT", false, "kubernetes health check rules", "KUBE-NODE-PORT"),
        Jump::new("filter", "INPUT", false, firewall, "KUBE-PROXY-FIREWALL"),
        Jump::new("filter", "FORWARD", false, firewall, "KUBE-PROXY-FIREWALL"),
        Jump::new("filter", "INPUT", false, "kubernetes ipvs access filter", "KUBE-IPVS-FILTER"),
        Jump::new("filter", "OUTPUT", false, "kubernetes ipvs access filter", "KUBE-IPVS-OUT-FILTER"),
    ]
}

struct Rules {
    family: Family,
    text: String,
}

impl Rules {
    fn add(&mut self, chain: &str, rule: &str) {
        self.text.push_str(&format!("-A {chain} {rule}\n"));
    }

    /// A match of a set.
    fn of(&self, set: Set, sides: &str) -> String {
        format!("-m set --match-set {} {sides}", self.set(set))
    }

    fn set(&self, set: Set) -> String {
        set.name(self.family)
    }

    fn chains(&mut self, table: usize) {
        for chain in TABLES[table].1 {
            self.text.push_str(&chain_line(chain));
        }
    }
}

/// Both tables.
pub(crate) fn render(style: &Style) -> Vec<String> {
    vec![table("nat", &nat(style)), table("filter", &filter(style))]
}

fn nat(style: &Style) -> String {
    let mut rules = Rules { family: style.family, text: String::new() };
    rules.chains(0);
    let loopback = if style.family == Family::V4 { "127.0.0.0/8" } else { "::1/128" };
    rules.add("KUBE-SERVICES", &format!("-s {loopback} -j RETURN"));
    let balancer = rules.of(Set::LoadBalancer, "dst,dst");
    let comment = "-m comment --comment \"Kubernetes service lb portal\"";
    rules.add("KUBE-SERVICES", &format!("{comment} {balancer} -j KUBE-LOAD-BALANCER"));
    let comment = "-m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\"";
    let cluster = rules.of(Set::ClusterIp, "dst,dst");
    let masquerade = match (style.masquerade_all, style.detector.if_not_local()) {
        (true, _) => cluster.clone(),
        (false, Some(matched)) => format!("{cluster} {matched}"),
        (false, None) => rules.of(Set::ClusterIp, "src,dst"),
    };
    debug_assert!(style.masquerade_all || style.detector != Detector::Absent || masquerade.contains("src,dst"));
    rules.add("KUBE-SERVICES", &format!("{comment} {masquerade} -j KUBE-MARK-MASQ"));
    let comment = "-m comment --comment \"Kubernetes service external ip + port for masquerade and filter purpose\"";
    let external = rules.of(Set::ExternalIp, "dst,dst");
    rules.add("KUBE-SERVICES", &format!("{comment} {external} -j KUBE-MARK-MASQ"));
    for set in [Set::ExternalIp, Set::ExternalIpLocal] {
        let matched = rules.of(set, "dst,dst");
        let outside = "-m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL";
        rules.add("KUBE-SERVICES", &format!("{matched} {outside} -j ACCEPT"));
        rules.add("KUBE-SERVICES", &format!("{matched} -m addrtype --dst-type LOCAL -j ACCEPT"));
    }
    rules.add("KUBE-SERVICES", "-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT");
    rules.add("KUBE-SERVICES", &format!("{cluster} -j ACCEPT"));
    rules.add("KUBE-SERVICES", &format!("{balancer} -j ACCEPT"));
    let local = rules.of(Set::LoadBalancerLocal, "dst,dst");
    rules.add("KUBE-LOAD-BALANCER", &format!("{local} -j RETURN"));
    rules.add("KUBE-LOAD-BALANCER", "-j KUBE-MARK-MASQ");
    for (protocol, local, all, sides) in [
        ("tcp", Set::NodePortLocalTcp, Set::NodePortTcp, "dst"),
        ("udp", Set::NodePortLocalUdp, Set::NodePortUdp, "dst"),
        ("sctp", Set::NodePortLocalSctp, Set::NodePortSctp, "dst,dst"),
    ] {
        let (local, all) = (rules.of(local, sides), rules.of(all, sides));
        rules.add("KUBE-NODE-PORT", &format!("-p {protocol} {local} -j RETURN"));
        rules.add("KUBE-NODE-PORT", &format!("-p {protocol} {all} -j KUBE-MARK-MASQ"));
    }
    let comment = "-m comment --comment \"Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose\"";
    let hairpin = rules.of(Set::LoopBack, "dst,dst,src");
    rules.add("KUBE-POSTROUTING", &format!("{comment} {hairpin} -j MASQUERADE"));
    rules.text.push_str(&masquerading(style));
    rules.text
}

fn filter(style: &Style) -> String {
    let mut rules = Rules { family: style.family, text: String::new() };
    rules.chains(1);
    rules.text.push_str(&forwarding(&style.mark()));
    let health = rules.of(Set::HealthCheck, "dst");
    let comment = "-m comment --comment \"Kubernetes health check node port\"";
    rules.add("KUBE-NODE-PORT", &format!("-p tcp {comment} {health} -j ACCEPT"));
    let guarded = rules.of(Set::LoadBalancerFirewall, "dst,dst");
    rules.add("KUBE-PROXY-FIREWALL", &format!("{guarded} -j KUBE-SOURCE-RANGES-FIREWALL"));
    rules.add("KUBE-IPVS-OUT-FILTER", &format!("{guarded} -j KUBE-SOURCE-RANGES-FIREWALL"));
    for set in [Set::LoadBalancerSourceCidr, Set::LoadBalancerSourceIp] {
        let allowed = rules.of(set, "dst,dst,src");
        rules.add("KUBE-SOURCE-RANGES-FIREWALL", &format!("{allowed} -j RETURN"));
    }
    rules.add("KUBE-SOURCE-RANGES-FIREWALL", "-j DROP");
    for set in [Set::LoadBalancer, Set::ClusterIp, Set::ExternalIp, Set::ExternalIpLocal] {
        let matched = rules.of(set, "dst,dst");
        rules.add("KUBE-IPVS-FILTER", &format!("{matched} -j RETURN"));
    }
    rules.add("KUBE-IPVS-FILTER", &format!("-p tcp {health} -j RETURN"));
    let all = rules.of(Set::IpvsIps, "dst");
    rules.add("KUBE-IPVS-FILTER", &format!("-m conntrack --ctstate NEW {all} -j REJECT"));
    rules.text
}
