//! A checked configuration in the form the proxy works with.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::Configuration;
use crate::family::Family;

/// How traffic is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Mode {
    Iptables,
    Ipvs,
    Nftables,
}

impl Mode {
    /// As flags call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
            Self::Nftables => "nftables",
        }
    }
}

/// How traffic of this node's (or the cluster's) Pods is told from other traffic, before the Node is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detection {
    /// By ranges of addresses.
    Ranges(Vec<IpNet>),
    /// By the ranges of the Node.
    NodeRanges,
    /// By the bridge it comes from.
    Bridge(String),
    /// By how the name of the interface begins.
    Prefix(String),
}

/// Node addresses that node ports answer on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Those in any of the ranges; all of a family without ranges of it.
    In(Vec<IpNet>),
    /// The primary ones of the Node.
    Primary,
}

/// Settings that all modes have.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Settings {
    pub mode: Mode,
    pub detection: Detection,
    pub node_port_addresses: NodePortAddresses,
    pub bind_address: IpAddr,
    /// `None` for no server.
    pub healthz: Option<SocketAddr>,
    /// `None` for no server.
    pub metrics: Option<SocketAddr>,
    /// Whether an address that cannot be listened on ends the proxy.
    pub hard_fail: bool,
    pub profiling: bool,
    /// Bit of the packet mark for what is to be masqueraded.
    pub mark: u32,
    pub masquerade_all: bool,
    pub localhost_node_ports: bool,
    pub sync_period: Duration,
    pub min_sync_period: Duration,
    pub ipvs: IpvsSettings,
}

/// Settings of ipvs mode only.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct IpvsSettings {
    pub scheduler: String,
    pub excluded: Vec<IpNet>,
    pub strict_arp: bool,
    pub tcp_timeout: Duration,
    pub tcp_fin_timeout: Duration,
    pub udp_timeout: Duration,
}

fn ranges<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<IpNet> {
    texts.into_iter().filter_map(|text| text.trim().parse::<IpNet>().ok()).map(|net| net.trunc()).collect()
}

impl Settings {
    /// From a configuration without problems.
    pub fn of(config: &Configuration) -> Option<Self> {
        let mode = match config.mode.as_str() {
            "ipvs" => Mode::Ipvs,
            "nftables" => Mode::Nftables,
            _ => Mode::Iptables,
        };
        let (period, least) = match mode {
            Mode::Iptables => (config.iptables.sync_period, config.iptables.min_sync_period),
            Mode::Ipvs => (config.ipvs.sync_period, config.ipvs.min_sync_period),
            Mode::Nftables => (config.nftables.sync_period, config.nftables.min_sync_period),
        };
        let (bit, masquerade_all) = match mode {
            Mode::Nftables => (config.nftables.masquerade_bit, config.nftables.masquerade_all),
            Mode::Iptables | Mode::Ipvs => (config.iptables.masquerade_bit, config.iptables.masquerade_all),
        };
        let detection = match config.detect_local_mode.as_str() {
            "NodeCIDR" => Detection::NodeRanges,
            "BridgeInterface" => Detection::Bridge(config.detect_local.bridge_interface.clone()),
            "InterfaceNamePrefix" => Detection::Prefix(config.detect_local.interface_name_prefix.clone()),
            _ => Detection::Ranges(ranges(config.cluster_cidr.split(','))),
        };
        let addresses = &config.node_port_addresses;
        // nftables mode has a safer default than the older modes.
        let primary = addresses.iter().any(|a| a == "primary") || (addresses.is_empty() && mode == Mode::Nftables);
        let ipvs = &config.ipvs;
        Some(Self {
            mode,
            detection,
            node_port_addresses: if primary {
                NodePortAddresses::Primary
            } else {
                NodePortAddresses::In(ranges(addresses.iter().map(String::as_str)))
            },
            bind_address: config.bind_address.parse().ok()?,
            healthz: config.healthz_bind_address.parse().ok().filter(|_| !config.healthz_off),
            metrics: config.metrics_bind_address.parse().ok().filter(|_| !config.metrics_off),
            hard_fail: config.bind_address_hard_fail,
            profiling: config.enable_profiling,
            mark: 1 << u32::try_from(bit.unwrap_or(14)).ok().filter(|bit| *bit < 32)?,
            masquerade_all,
            localhost_node_ports: config.iptables.localhost_node_ports.unwrap_or(true),
            sync_period: period.0,
            min_sync_period: least.0,
            ipvs: IpvsSettings {
                scheduler: if ipvs.scheduler.is_empty() { "rr".to_owned() } else { ipvs.scheduler.clone() },
                excluded: ranges(ipvs.exclude_cidrs.iter().map(String::as_str)),
                strict_arp: ipvs.strict_arp,
                tcp_timeout: ipvs.tcp_timeout.0,
                tcp_fin_timeout: ipvs.tcp_fin_timeout.0,
                udp_timeout: ipvs.udp_timeout.0,
            },
        })
    }
}

/// How traffic that needs no masquerading is told, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detector {
    /// Not at all.
    Absent,
    /// By source address.
    Range(IpNet),
    /// By the bridge it comes from.
    Bridge(String),
    /// By how the name of the interface begins.
    Prefix(String),
}

impl Detector {
    /// The detector of a family; `node` are the ranges of the Node.
    pub fn of(detection: &Detection, node: &[IpNet], family: Family) -> Self {
        let first = |ranges: &[IpNet]| ranges.iter().find(|net| Family::of_net(net) == family).copied();
        match detection {
            Detection::Ranges(ranges) => first(ranges).map_or(Self::Absent, Self::Range),
            Detection::NodeRanges => first(node).map_or(Self::Absent, Self::Range),
            Detection::Bridge(name) => Self::Bridge(name.clone()),
            Detection::Prefix(prefix) => Self::Prefix(prefix.clone()),
        }
    }

    /// Match of iptables for local traffic.
    pub fn if_local(&self) -> Option<String> {
        match self {
            Self::Absent => None,
            Self::Range(net) => Some(format!("-s {net}")),
            Self::Bridge(name) => Some(format!("-i {name}")),
            Self::Prefix(prefix) => Some(format!("-i {prefix}+")),
        }
    }

    /// Match of iptables for other traffic.
    pub fn if_not_local(&self) -> Option<String> {
        self.if_local().map(|matched| format!("! {matched}"))
    }
}
