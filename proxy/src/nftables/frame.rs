//! The table, its base chains and shared sets: what does not depend on Services.

use ipnet::IpNet;

use super::{
    expr::{Is, Side},
    rules::{REJECT, Set},
    style::Style,
    wire::{Batch, Hook, Kind, SetSpec, Target, Verdict},
};
use crate::{config::settings::Detector, family::Family, node::local_addresses};

/// The set of addresses that node ports answer on.
const NODE_PORT_IPS: &str = "nodeport-ips";
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;

/// Base chains with the place where the kernel calls them.
const BASE: [(&str, Hook); 8] = [
    ("filter-prerouting-pre-dnat", Hook { number: 0, priority: DSTNAT - 10, kind: "filter" }),
    ("filter-output-pre-dnat", Hook { number: 3, priority: DSTNAT - 10, kind: "filter" }),
    ("filter-input", Hook { number: 1, priority: 0, kind: "filter" }),
    ("filter-forward", Hook { number: 2, priority: 0, kind: "filter" }),
    ("filter-output", Hook { number: 3, priority: 0, kind: "filter" }),
    ("nat-prerouting", Hook { number: 0, priority: DSTNAT, kind: "nat" }),
    ("nat-output", Hook { number: 3, priority: DSTNAT, kind: "nat" }),
    ("nat-postrouting", Hook { number: 4, priority: SRCNAT, kind: "nat" }),
];

/// The chain that all Service traffic passes.
pub(crate) const SERVICES: &str = "services";
const MASQUERADING: &str = "masquerading";
const FIREWALL_CHECK: &str = "firewall-check";
const CLUSTER_IPS_CHECK: &str = "cluster-ips-check";
const SERVICE_CHECK: &str = "service-endpoints-check";
const NODE_PORT_CHECK: &str = "nodeport-endpoints-check";
const CHAINS: [&str; 7] =
    [SERVICES, MASQUERADING, FIREWALL_CHECK, CLUSTER_IPS_CHECK, SERVICE_CHECK, NODE_PORT_CHECK, REJECT];

/// Which chain is entered from which, and whether only by packets that open a connection.
const JUMPS: [(&str, bool, &str); 11] = [
    ("filter-prerouting-pre-dnat", true, FIREWALL_CHECK),
    ("filter-output-pre-dnat", true, FIREWALL_CHECK),
    ("filter-input", true, NODE_PORT_CHECK),
    ("filter-input", true, SERVICE_CHECK),
    ("filter-forward", true, SERVICE_CHECK),
    ("filter-forward", true, CLUSTER_IPS_CHECK),
    ("filter-output", true, SERVICE_CHECK),
    ("filter-output", true, CLUSTER_IPS_CHECK),
    ("nat-prerouting", false, SERVICES),
    ("nat-output", false, SERVICES),
    ("nat-postrouting", false, MASQUERADING),
];

fn spec(set: Set, family: Family) -> (&'static str, Vec<Kind>, bool) {
    let address = Kind::Address(family);
    let (key, map) = match set {
        Set::ClusterIps => (vec![address], false),
        Set::ServiceIps | Set::NoEndpointServices | Set::FirewallIps => {
            (vec![address, Kind::Protocol, Kind::Port], true)
        }
        Set::ServiceNodePorts | Set::NoEndpointNodePorts => (vec![Kind::Protocol, Kind::Port], true),
        Set::Hairpin => (vec![address, address, Kind::Protocol, Kind::Port], false),
    };
    (set.name(), key, map)
}

/// Makes the table anew, whatever it held.
pub(crate) fn write(batch: &mut Batch, style: &Style, ranges: &[IpNet]) {
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    for set in Set::ALL {
        let (name, key, map) = spec(set, style.family);
        let target = if map { Target::Verdict } else { Target::None };
        batch.add_set(&SetSpec { name, key: &key, target, timeout: None, anonymous: None });
    }
    if !style.node_ports.all() {
        let key = [Kind::Address(style.family)];
        batch.add_set(&SetSpec {
            name: NODE_PORT_IPS,
            key: &key,
            target: Target::None,
            timeout: None,
            anonymous: None,
        });
        let addresses = style.node_ports.addresses(&local_addresses(""));
        let addresses = addresses.iter().filter(|ip| !ip.is_loopback());
        let elements = addresses.map(|ip| (super::expr::address_key(ip), super::wire::Data::None));
        batch.add_elements((NODE_PORT_IPS, None), elements);
    }
    for (name, hook) in BASE {
        batch.add_chain(name, Some(hook));
    }
    for name in CHAINS {
        batch.add_chain(name, None);
    }
    for (from, new, to) in JUMPS {
        batch.add_rule(from, |rule| {
            if new {
                rule.new_connection();
            }
            rule.verdict(&Verdict::Jump(to.into()));
        });
    }
    let family = style.family;
    batch.add_rule(FIREWALL_CHECK, |rule| rule.verdict_of_address(family, Set::FirewallIps.name()));
    batch.add_rule(SERVICE_CHECK, |rule| rule.verdict_of_address(family, Set::NoEndpointServices.name()));
    batch.add_rule(NODE_PORT_CHECK, |rule| {
        node_port_addresses(rule, style);
        rule.verdict_of_port(Set::NoEndpointNodePorts.name());
    });
    batch.add_rule(REJECT, |rule| rule.reject(family));
    services(batch, style);
    masquerading(batch, style);
    cluster_ips(batch, style, ranges);
}

fn node_port_addresses(rule: &mut super::expr::Expressions<'_>, style: &Style) {
    if style.node_ports.all() {
        rule.local(Side::Destination);
        rule.in_range(style.family, Side::Destination, Is::Other, &style.loopback());
    } else {
        rule.in_set(style.family, Side::Destination, NODE_PORT_IPS);
    }
}

fn services(batch: &mut Batch, style: &Style) {
    let family = style.family;
    if style.masquerade_all || style.detector != Detector::Absent {
        batch.add_rule(SERVICES, |rule| {
            rule.in_set(family, Side::Destination, Set::ClusterIps.name());
            if !style.masquerade_all {
                style.pods(rule, Is::Other);
            }
            rule.mark(style.mark);
        });
    }
    batch.add_rule(SERVICES, |rule| rule.verdict_of_address(family, Set::ServiceIps.name()));
    batch.add_rule(SERVICES, |rule| {
        node_port_addresses(rule, style);
        rule.verdict_of_port(Set::ServiceNodePorts.name());
    });
}

fn masquerading(batch: &mut Batch, style: &Style) {
    batch.add_rule(MASQUERADING, |rule| {
        rule.unmark(style.mark);
        rule.masquerade();
    });
    batch.add_rule(MASQUERADING, |rule| {
        rule.translated();
        rule.connection_in_set(style.family, Set::Hairpin.name());
        rule.masquerade();
    });
}

/// Refuses traffic to ports that Services do not have, and to cluster IPs that no Service has.
pub(crate) fn cluster_ips(batch: &mut Batch, style: &Style, ranges: &[IpNet]) {
    let family = style.family;
    batch.flush_chain(CLUSTER_IPS_CHECK);
    batch.add_rule(CLUSTER_IPS_CHECK, |rule| {
        rule.in_set(family, Side::Destination, Set::ClusterIps.name());
        rule.reject(family);
    });
    for range in ranges.iter().filter(|range| Family::of_net(range) == family) {
        batch.add_rule(CLUSTER_IPS_CHECK, |rule| {
            rule.in_range(family, Side::Destination, Is::Equal, range);
            rule.verdict(&Verdict::Drop);
        });
    }
}
