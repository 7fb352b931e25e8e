//! What there must be on this node, from the Nodes: a decision without side effects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};

use ipnet::IpNet;

use crate::nodes::NodeView;

/// Octets of the outer headers: Ethernet inside, vxlan, UDP, IP.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;
/// IPv6 needs links of at least this size.
const MIN_MTU: u32 = 1280;

/// How packets get to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Direct to nodes on the same network segment, by vxlan to others.
    Auto,
    /// By vxlan always.
    Vxlan,
    /// Direct always; nodes that are not on the same segment cannot be reached.
    Direct,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "vxlan" => Ok(Self::Vxlan),
            "direct" => Ok(Self::Direct),
            other => Err(format!("{other:?} is none of auto, vxlan, direct")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Vxlan => "vxlan",
            Self::Direct => "direct",
        })
    }
}

/// Settings of the agent that matter here.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    /// Name of the vxlan device.
    pub(crate) device: String,
    pub(crate) vni: u32,
    pub(crate) port: u16,
    /// MTU of Pods; none to derive it.
    pub(crate) mtu: Option<u32>,
    /// Networks of all Pods; empty for those of the Nodes.
    pub(crate) cluster: Vec<IpNet>,
}

/// A device of the host with one of the node's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) device: String,
    pub(crate) mtu: u32,
    pub(crate) address: IpNet,
}

/// The vxlan device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vxlan {
    pub(crate) name: String,
    pub(crate) vni: u32,
    pub(crate) port: u16,
    pub(crate) local: IpAddr,
    pub(crate) uplink: String,
    pub(crate) mac: String,
    pub(crate) mtu: u32,
    /// Addresses of single hosts.
    pub(crate) addresses: BTreeSet<IpNet>,
    /// Hardware address by address inside.
    pub(crate) neighbors: BTreeMap<IpAddr, String>,
    /// Node's address by hardware address inside.
    pub(crate) forwarding: BTreeMap<String, IpAddr>,
}

/// A route to the Pods of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) via: IpAddr,
    pub(crate) device: String,
    /// The gateway counts as a neighbour without an address of its network being on the device.
    pub(crate) onlink: bool,
}

/// All there must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) vxlan: Option<Vxlan>,
    pub(crate) routes: BTreeMap<IpNet, Route>,
    /// MTU of Pods.
    pub(crate) mtu: u32,
    /// Networks of this node's Pods.
    pub(crate) own: Vec<IpNet>,
    /// Networks of all Pods.
    pub(crate) cluster: Vec<IpNet>,
    /// Nodes that cannot be reached, and why.
    pub(crate) unreachable: Vec<(String, &'static str)>,
}

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoPlan {
    #[error("the Node has no podCIDR yet")]
    NoCidr,
    #[error("no device of this host has an internal address of the Node")]
    NoUplink,
}

/// Makes the plan for a node among its peers. `uplinks` are the devices with the node's addresses.
pub(crate) fn plan(
    settings: &Settings,
    own: &NodeView,
    peers: &BTreeMap<String, NodeView>,
    uplinks: &[Uplink],
) -> Result<Plan, NoPlan> {
    if own.cidrs.is_empty() {
        return Err(NoPlan::NoCidr);
    }
    let underlay = uplinks.first().ok_or(NoPlan::NoUplink)?;
    let overhead = if underlay.address.addr().is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
    let tunnel_mtu = underlay.mtu.saturating_sub(overhead).max(MIN_MTU);
    let mut plan = Plan {
        vxlan: (settings.mode != Mode::Direct).then(|| device(settings, own, underlay, tunnel_mtu)),
        routes: BTreeMap::new(),
        mtu: settings.mtu.unwrap_or(if settings.mode == Mode::Direct { underlay.mtu } else { tunnel_mtu }),
        own: own.cidrs.clone(),
        cluster: settings.cluster.clone(),
        unreachable: Vec::new(),
    };
    for (name, peer) in peers {
        if settings.cluster.is_empty() {
            plan.cluster.extend(&peer.cidrs);
        }
        if let Err(reason) = reach(settings, &mut plan, peer, uplinks) {
            plan.unreachable.push((name.clone(), reason));
        }
    }
    if settings.mode == Mode::Auto {
        // Where all nodes are on one segment no tunnel is needed.
        plan.vxlan = plan.vxlan.filter(|v| !v.forwarding.is_empty());
    }
    if settings.cluster.is_empty() {
        plan.cluster.extend(&own.cidrs);
    }
    // A node outside the configured networks is still a node.
    let extra: Vec<IpNet> =
        own.cidrs.iter().filter(|c| !plan.cluster.iter().any(|n| n.contains(*c))).copied().collect();
    plan.cluster.extend(extra);
    plan.cluster.sort();
    plan.cluster.dedup();
    Ok(plan)
}

fn device(settings: &Settings, own: &NodeView, underlay: &Uplink, mtu: u32) -> Vxlan {
    Vxlan {
        name: settings.device.clone(),
        vni: settings.vni,
        port: settings.port,
        local: underlay.address.addr(),
        uplink: underlay.device.clone(),
        mac: own.cidrs.first().map(hardware_address).unwrap_or_default(),
        mtu,
        addresses: own.cidrs.iter().map(|c| IpNet::from(c.network())).collect(),
        neighbors: BTreeMap::new(),
        forwarding: BTreeMap::new(),
    }
}

/// Adds the way to the Pods of a peer.
fn reach(settings: &Settings, plan: &mut Plan, peer: &NodeView, uplinks: &[Uplink]) -> Result<(), &'static str> {
    let Some(first) = peer.cidrs.first() else { return Err("it has no podCIDR yet") };
    for cidr in &peer.cidrs {
        // Two Nodes with one network: the first in order keeps it.
        if plan.routes.contains_key(cidr) || plan.own.iter().any(|o| o.contains(cidr) || cidr.contains(o)) {
            return Err("its podCIDR belongs to another Node");
        }
    }
    for cidr in &peer.cidrs {
        let direct = neighbor(peer, cidr, uplinks).filter(|_| settings.mode != Mode::Vxlan);
        if let Some(route) = direct {
            plan.routes.insert(*cidr, route);
            continue;
        }
        let Some(vxlan) = plan.vxlan.as_mut() else { return Err("it is not on the same network segment") };
        let same_family = |a: &&IpAddr| a.is_ipv4() == vxlan.local.is_ipv4();
        let Some(outer) = peer.addresses.iter().find(same_family) else {
            return Err("it has no internal address of the family that tunnels use");
        };
        let (inner, mac) = (cidr.network(), hardware_address(first));
        let route = Route { via: inner, device: vxlan.name.clone(), onlink: true };
        vxlan.neighbors.insert(inner, mac.clone());
        vxlan.forwarding.insert(mac, *outer);
        plan.routes.insert(*cidr, route);
    }
    Ok(())
}

/// A direct route, if the peer has an address of the network's family on a segment of this node.
fn neighbor(peer: &NodeView, cidr: &IpNet, uplinks: &[Uplink]) -> Option<Route> {
    let of_family = peer.addresses.iter().filter(|a| a.is_ipv4() == cidr.addr().is_ipv4());
    of_family.copied().find_map(|address| {
        let on_segment = |u: &&Uplink| u.address.trunc().contains(&address) && u.address.addr() != address;
        let uplink = uplinks.iter().find(on_segment)?;
        Some(Route { via: address, device: uplink.device.clone(), onlink: false })
    })
}

/// Hardware address of a node's vxlan device: every agent derives it from the network of the node's Pods.
pub(crate) fn hardware_address(cidr: &IpNet) -> String {
    let (kind, bytes) = match cidr.network() {
        IpAddr::V4(address) => (0x10, address.octets()),
        IpAddr::V6(address) => (0x60, util::fnv32a(&address.octets()).to_be_bytes()),
    };
    let [a, b, c, d] = bytes;
    // The second lowest bit marks addresses that no vendor gave.
    format!("0e:{kind:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

#[cfg(test)]
mod tests;
