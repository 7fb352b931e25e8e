//! The Node the proxy runs on: its addresses, ranges, zone, and whether it is on its way out.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use controller::{Informer, InformerConfig, ObjectKey, start_informer};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use runtime::Runtime;

use crate::{
    ProxyError,
    config::settings::{Detection, NodePortAddresses, Settings},
    family::Family,
};

/// Time that the Node may take to have addresses.
const ADDRESSES: Duration = Duration::from_secs(30);
/// Time that the Node may take to have ranges of Pod addresses.
const RANGES: Duration = Duration::from_secs(5 * 60);
/// The autoscaler's mark of Nodes that it is about to delete.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// The interface that carries service addresses in ipvs mode.
pub(crate) const IPVS_INTERFACE: &str = "kube-ipvs0";

/// What is of interest of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ranges: Vec<IpNet>,
    pub(crate) zone: String,
    pub(crate) eligible: bool,
}

impl NodeView {
    pub(crate) fn project(node: Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let addresses = node.status.and_then(|s| s.addresses).unwrap_or_default();
        let of_type = |kind: &str| -> Vec<IpAddr> {
            addresses.iter().filter(|a| a.type_ == kind).filter_map(|a| a.address.parse().ok()).collect()
        };
        let mut all = of_type("InternalIP");
        all.extend(of_type("ExternalIP"));
        let going = spec.taints.iter().flatten().any(|taint| taint.key == TO_BE_DELETED);
        let labels = node.metadata.labels.unwrap_or_default();
        Self {
            addresses: all,
            ranges: spec.pod_cidrs.iter().flatten().filter_map(|range| range.parse().ok()).collect(),
            zone: labels.get("topology.kubernetes.io/zone").cloned().unwrap_or_default(),
            eligible: node.metadata.deletion_timestamp.is_none() && !going,
        }
    }
}

/// Follows the own Node.
pub(crate) fn follow(client: Client, runtime: &Runtime, name: &str) -> Informer<NodeView> {
    let config = InformerConfig { fields: format!("metadata.name={name}"), ..InformerConfig::default() };
    start_informer(&runtime.tasks, Api::<Node>::all(client), config, &[], NodeView::project)
}

/// What of the Node is fixed while the proxy runs.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    /// Address of each family.
    pub(crate) ips: [IpAddr; 2],
    /// The family that the Node's first address is of.
    pub(crate) primary: Family,
    /// Ranges of Pod addresses.
    pub(crate) ranges: Vec<IpNet>,
}

impl Home {
    /// From the Node's addresses and `--bind-address`.
    pub(crate) fn of(view: Option<&NodeView>, bind: IpAddr) -> Self {
        let addresses = view.map(|view| view.addresses.as_slice()).unwrap_or_default();
        let mut first = addresses.first().copied();
        let mut ips = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        for (ip, family) in ips.iter_mut().zip(Family::ALL) {
            *ip = addresses.iter().find(|a| Family::of(a) == family).copied().unwrap_or(*ip);
        }
        if !bind.is_unspecified() {
            ips[usize::from(bind.is_ipv6())] = bind;
            first = Some(bind);
        }
        let primary = first.as_ref().map_or(Family::of(&bind), Family::of);
        Self { ips, primary, ranges: view.map(|view| view.ranges.clone()).unwrap_or_default() }
    }

    /// The Node's address of a family.
    pub(crate) fn ip(&self, family: Family) -> IpAddr {
        self.ips[usize::from(family == Family::V6)]
    }
}

/// Waits for the Node to have what is needed of it.
pub(crate) async fn wait(
    nodes: &Informer<NodeView>,
    name: &str,
    settings: &Settings,
    runtime: &Runtime,
) -> Result<Home, ProxyError> {
    let key = ObjectKey::cluster(name);
    let (changed, mut changes) = tokio::sync::watch::channel(());
    nodes.on_change(move |_| changed.send_replace(()));
    let mut until = async |deadline: Duration, enough: &dyn Fn(&NodeView) -> bool| {
        let wait = async {
            loop {
                if let Some(node) = nodes.get(&key).filter(|node| enough(&node.view)) {
                    return Some(node);
                }
                if changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        let limited = tokio::time::timeout(deadline, wait);
        runtime.shutdown.run_until_cancelled(limited).await.and_then(Result::ok).flatten()
    };
    let known = until(ADDRESSES, &|node| !node.addresses.is_empty()).await;
    if known.is_none() {
        tracing::warn!(node = name, "the Node has no addresses; going on with those of loopback");
    }
    if settings.detection == Detection::NodeRanges && until(RANGES, &|node| !node.ranges.is_empty()).await.is_none() {
        return Err(ProxyError::NodeRanges { node: name.to_owned(), exists: nodes.get(&key).is_some() });
    }
    let node = nodes.get(&key);
    Ok(Home::of(node.as_deref().map(|node| &node.view), settings.bind_address))
}

/// Which addresses of this machine node ports answer on, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodePorts {
    /// Ranges of addresses; empty for all.
    ranges: Vec<IpNet>,
    family: Family,
}

impl NodePorts {
    pub(crate) fn of(addresses: &NodePortAddresses, home: &Home, family: Family) -> Self {
        let ranges = match addresses {
            NodePortAddresses::Primary => {
                let ip = home.ip(family);
                // A family that the Node has no address of gets a range that nothing is in.
                if ip.is_loopback() { vec![IpNet::from(unspecified(family))] } else { vec![IpNet::from(ip)] }
            }
            NodePortAddresses::In(ranges) => ranges.iter().filter(|r| Family::of_net(r) == family).copied().collect(),
        };
        let all = ranges.iter().any(|range| range.prefix_len() == 0);
        Self { ranges: if all { Vec::new() } else { ranges }, family }
    }

    /// Whether node ports answer on all addresses.
    pub(crate) fn all(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether they answer on loopback.
    pub(crate) fn has_loopback(&self) -> bool {
        let v4 = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0));
        self.all() || self.ranges.iter().any(|range| range.addr().is_loopback() || range.contains(&v4))
    }

    /// The addresses of this machine that they answer on.
    pub(crate) fn addresses(&self, local: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        let of_family = local.iter().filter(|ip| Family::of(ip) == self.family);
        of_family.filter(|ip| self.all() || self.ranges.iter().any(|range| range.contains(*ip))).copied().collect()
    }

    /// What health check node ports listen on.
    pub(crate) fn listening(&self, local: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
        if self.all() { vec![unspecified(self.family)] } else { self.addresses(local) }
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Addresses of this machine's interfaces, but for those of the interface `except`.
pub(crate) fn local_addresses(except: &str) -> BTreeSet<IpAddr> {
    let all = match nix::ifaddrs::getifaddrs() {
        Ok(all) => all,
        Err(error) => {
            tracing::warn!(%error, "the addresses of this machine cannot be read");
            return BTreeSet::new();
        }
    };
    let of = all.filter(|interface| interface.interface_name != except).filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    of.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(value: serde_json::Value) -> NodeView {
        NodeView::project(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_node_is_seen() {
        let node = view(json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z"}},
            "spec": {"podCIDRs": ["10.1.0.0/24"], "taints": [{"key": TO_BE_DELETED, "effect": "NoSchedule"}]},
            "status": {"addresses": [{"type": "Hostname", "address": "h"}, {"type": "ExternalIP", "address": "1.2.3.4"},
                {"type": "InternalIP", "address": "fd00::1"}, {"type": "InternalIP", "address": "10.0.0.1"}]}}));
        assert!(!node.eligible && node.zone == "z" && node.ranges.len() == 1);
        let home = Home::of(Some(&node), "0.0.0.0".parse().unwrap());
        assert_eq!((home.primary, home.ip(Family::V4).to_string()), (Family::V6, "10.0.0.1".to_owned()));
        let bound = Home::of(Some(&node), "10.9.9.9".parse().unwrap());
        assert_eq!((bound.primary, bound.ip(Family::V4).to_string()), (Family::V4, "10.9.9.9".to_owned()));
        assert_eq!(Home::of(None, "::".parse().unwrap()).primary, Family::V6);
    }

    #[test]
    fn node_ports_answer_on_chosen_addresses() {
        let home = Home::of(
            Some(&NodeView { addresses: vec!["10.0.0.1".parse().unwrap()], ..NodeView::default() }),
            "0.0.0.0".parse().unwrap(),
        );
        let local: BTreeSet<IpAddr> =
            ["127.0.0.1", "10.0.0.1", "10.0.0.2", "::1"].iter().map(|a| a.parse().unwrap()).collect();
        let on = |addresses: &NodePortAddresses, family| NodePorts::of(addresses, &home, family);
        let none = NodePortAddresses::In(Vec::new());
        assert!(on(&none, Family::V4).all() && on(&none, Family::V4).has_loopback());
        assert_eq!(on(&none, Family::V4).listening(&local), ["0.0.0.0".parse::<IpAddr>().unwrap()]);
        let ten = NodePortAddresses::In(vec!["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(on(&ten, Family::V4).addresses(&local).len(), 2);
        assert!(on(&ten, Family::V6).all() && !on(&ten, Family::V4).has_loopback());
        assert_eq!(
            on(&NodePortAddresses::Primary, Family::V4).addresses(&local),
            ["10.0.0.1".parse::<IpAddr>().unwrap()]
        );
        assert!(on(&NodePortAddresses::Primary, Family::V6).addresses(&local).is_empty());
    }
}
