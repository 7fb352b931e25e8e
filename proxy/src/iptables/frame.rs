//! The rules that do not depend on Services: jumps from the built-in chains, and the chains they lead to.

use std::collections::BTreeSet;

use super::{accounts::INVALID, rules::Shared, style::Style};
use crate::{family::Family, node::local_addresses};

/// Chains of the proxy in table nat.
pub(crate) const NAT: [&str; 4] = ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"];
/// Chains of the proxy in table filter.
pub(crate) const FILTER: [&str; 5] =
    ["KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL"];
/// A chain that the kubelet uses too.
pub(crate) const FIREWALL: &str = "KUBE-FIREWALL";
/// A chain whose absence tells that somebody removed rules.
pub(crate) const CANARY: &str = "KUBE-PROXY-CANARY";
/// Chains of the kernel that have jumps of ours.
pub(crate) const BUILT_IN: [&str; 5] = ["INPUT", "FORWARD", "OUTPUT", "PREROUTING", "POSTROUTING"];

/// A jump from a built-in chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Jump {
    pub(crate) table: &'static str,
    pub(crate) from: &'static str,
    /// Only for packets that open a connection.
    new: bool,
    comment: &'static str,
    pub(crate) to: &'static str,
}

impl Jump {
    /// `new`: only for packets that open a connection.
    pub(crate) const fn new(
        table: &'static str,
        from: &'static str,
        new: bool,
        comment: &'static str,
        to: &'static str,
    ) -> Self {
        Self { table, from, new, comment, to }
    }

    /// Arguments of iptables.
    pub(crate) fn rule(&self) -> Vec<&'static str> {
        let mut rule = Vec::new();
        if self.new {
            rule.extend(["-m", "conntrack", "--ctstate", "NEW"]);
        }
        if !self.comment.is_empty() {
            rule.extend(["-m", "comment", "--comment", self.comment]);
        }
        rule.extend(["-j", self.to]);
        rule
    }

    /// The rule as it is listed, without `-A`.
    pub(crate) fn listed(&self) -> String {
        let quoted = |word: &str| if word.contains(' ') { format!("\"{word}\"") } else { word.to_owned() };
        let words: Vec<String> = self.rule().into_iter().map(quoted).collect();
        format!("{} {}", self.from, words.join(" "))
    }
}

/// All jumps.
pub(crate) fn jumps() -> Vec<Jump> {
    let jump = Jump::new;
    let external = "kubernetes externally-visible service portals";
    let portals = "kubernetes service portals";
    let balancer = "kubernetes load balancer firewall";
    vec![
        jump("filter", "INPUT", true, external, "KUBE-EXTERNAL-SERVICES"),
        jump("filter", "FORWARD", true, external, "KUBE-EXTERNAL-SERVICES"),
        jump("filter", "INPUT", false, "kubernetes health check service ports", "KUBE-NODEPORTS"),
        jump("filter", "FORWARD", true, portals, "KUBE-SERVICES"),
        jump("filter", "OUTPUT", true, portals, "KUBE-SERVICES"),
        jump("filter", "FORWARD", false, "kubernetes forwarding rules", "KUBE-FORWARD"),
        jump("filter", "INPUT", true, balancer, "KUBE-PROXY-FIREWALL"),
        jump("filter", "OUTPUT", true, balancer, "KUBE-PROXY-FIREWALL"),
        jump("filter", "FORWARD", true, balancer, "KUBE-PROXY-FIREWALL"),
        jump("filter", "INPUT", false, "", FIREWALL),
        jump("filter", "OUTPUT", false, "", FIREWALL),
        jump("nat", "OUTPUT", false, portals, "KUBE-SERVICES"),
        jump("nat", "PREROUTING", false, portals, "KUBE-SERVICES"),
        jump("nat", "POSTROUTING", false, "kubernetes postrouting rules", "KUBE-POSTROUTING"),
    ]
}

/// One table of an input of iptables-restore.
pub(crate) fn table(name: &str, content: &str) -> String {
    format!("*{name}\n{content}COMMIT\n")
}

/// The line that makes a chain, or empties it.
pub(crate) fn chain_line(name: &str) -> String {
    format!(":{name} - [0:0]\n")
}

/// Makes the chains of a table that do not exist, so that rules can point to them.
pub(crate) fn missing(chains: &[&str], present: &BTreeSet<String>) -> String {
    chains.iter().filter(|chain| !present.contains(**chain)).map(|chain| chain_line(chain)).collect()
}

/// `KUBE-MARK-MASQ` and `KUBE-POSTROUTING`: masquerading of what is marked.
pub(crate) fn masquerading(style: &Style) -> String {
    let mark = style.mark();
    let fully = if style.features.random_fully { " --random-fully" } else { "" };
    format!(
        "-A KUBE-POSTROUTING -m mark ! --mark {mark}/{mark} -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark {mark}\n\
         -A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE{fully}\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark {mark}\n"
    )
}

/// Content of table nat: the static chains with the rules of all Services.
pub(crate) fn nat(style: &Style, shared: &Shared) -> String {
    let mut text: String = NAT.iter().map(|chain| chain_line(chain)).collect();
    text.push_str(&masquerading(style));
    text.push_str(&shared.services);
    for matched in node_port_matches(style) {
        let comment = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
        text.push_str(&format!("-A KUBE-SERVICES -m comment --comment \"{comment}\" {matched} -j KUBE-NODEPORTS\n"));
    }
    text.push_str(&shared.node_ports);
    text
}

fn node_port_matches(style: &Style) -> Vec<String> {
    if !style.node_ports.all() {
        let addresses = style.node_ports.addresses(&local_addresses(""));
        let wanted = addresses.iter().filter(|ip| style.localhost_node_ports || !ip.is_loopback());
        return wanted.map(|ip| format!("-d {ip}")).collect();
    }
    let not_loopback = match (style.family, style.localhost_node_ports) {
        (Family::V4, true) => "",
        (Family::V4, false) => " ! -d 127.0.0.0/8",
        (Family::V6, _) => " ! -d ::1/128",
    };
    vec![format!("-m addrtype --dst-type LOCAL{not_loopback}")]
}

/// Content of table filter.
pub(crate) fn filter(style: &Style, shared: &Shared) -> String {
    let mut text: String = FILTER.iter().map(|chain| chain_line(chain)).collect();
    text.push_str(&shared.refused);
    text.push_str(&shared.refused_external);
    text.push_str(&shared.firewall);
    text.push_str(&shared.health);
    let mark = style.mark();
    if !style.liberal {
        let counted =
            if style.accounts.invalid { format!(" -m nfacct --nfacct-name {INVALID}") } else { String::new() };
        text.push_str(&format!("-A KUBE-FORWARD -m conntrack --ctstate INVALID{counted} -j DROP\n"));
    }
    text.push_str(&forwarding(&mark));
    text
}

/// Rules of `KUBE-FORWARD`.
pub(crate) fn forwarding(mark: &str) -> String {
    format!(
        "-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark {mark}/{mark} -j ACCEPT\n\
         -A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" \
         -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
    )
}

/// The rule that keeps the loopback addresses of this machine from the network.
pub(crate) const LOCALNET: [&str; 15] = [
    "-m",
    "comment",
    "--comment",
    "block incoming localnet connections",
    "-d",
    "127.0.0.0/8",
    "!",
    "-s",
    "127.0.0.0/8",
    "-m",
    "conntrack",
    "!",
    "--ctstate",
    "RELATED,ESTABLISHED,DNAT",
    "-j",
];
