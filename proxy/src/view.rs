//! Slim views of the watched objects: what the planner reads and nothing else.

use std::net::IpAddr;

use controller::{Cached, Index, InformerConfig};
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Service, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice},
};
use machinery::time::parse;
use time::OffsetDateTime;

use crate::family::Family;

/// Slices by the `namespace/name` of their Service.
pub const BY_SERVICE: &str = "service";
/// Indices of the informer of slices.
pub const SLICE_INDICES: &[Index<SliceView>] =
    &[Index { name: BY_SERVICE, keys: |slice| vec![format!("{}/{}", slice.key.namespace, slice.service)] }];

/// Annotation with the time of the change that led to a slice.
const TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Seconds that a client stays with an endpoint unless a Service says otherwise.
const AFFINITY: u32 = 10_800;

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// In small letters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Which endpoints a kind of traffic may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All.
    Cluster,
    /// Those of this node.
    Local,
}

impl Policy {
    fn parse(text: Option<&str>) -> Self {
        if text == Some("Local") { Self::Local } else { Self::Cluster }
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PortView {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
    /// 0 for none.
    pub node_port: u16,
}

/// A Service. Without ports if it is none to forward for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ServiceView {
    pub cluster_ips: Box<[IpAddr]>,
    pub external_ips: Box<[IpAddr]>,
    /// Addresses of the load balancer that are answered here.
    pub balancer_ips: Box<[IpAddr]>,
    pub source_ranges: Box<[IpNet]>,
    /// Seconds of client affinity, 0 for none.
    pub affinity: u32,
    pub internal: Policy,
    pub external: Policy,
    /// Whether it is of type LoadBalancer.
    pub balanced: bool,
    /// 0 for none.
    pub health_port: u16,
    pub ports: Box<[PortView]>,
}

fn addresses<'a>(texts: impl IntoIterator<Item = &'a String>) -> Box<[IpAddr]> {
    texts.into_iter().filter_map(|text| text.trim().parse().ok()).collect()
}

fn number(number: Option<i32>) -> u16 {
    number.and_then(|n| u16::try_from(n).ok()).unwrap_or(0)
}

fn affinity(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    config.and_then(|c| c.timeout_seconds).and_then(|t| u32::try_from(t).ok()).unwrap_or(AFFINITY)
}

fn ports(spec: &ServiceSpec) -> Box<[PortView]> {
    let ports = spec.ports.iter().flatten();
    ports
        .filter_map(|port| {
            Some(PortView {
                name: port.name.as_deref().unwrap_or_default().into(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: number(Some(port.port)),
                node_port: number(port.node_port),
            })
        })
        .collect()
}

impl ServiceView {
    /// Which Services are watched.
    pub fn config() -> InformerConfig {
        InformerConfig {
            fields: "spec.clusterIP!=None".to_owned(),
            labels: "!service.kubernetes.io/service-proxy-name".to_owned(),
        }
    }

    /// Takes what is of interest.
    pub fn project(service: Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let cluster_ip = spec.cluster_ip.clone().unwrap_or_default();
        let forwarded = !matches!(cluster_ip.as_str(), "" | "None") && spec.type_.as_deref() != Some("ExternalName");
        let all = match spec.cluster_ips.as_deref() {
            Some(all) if !all.is_empty() => addresses(all),
            _ => addresses([&cluster_ip]),
        };
        let ingress = service.status.and_then(|s| s.load_balancer).and_then(|b| b.ingress).unwrap_or_default();
        let handled = ingress.iter().filter(|i| i.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
        let ranges = spec.load_balancer_source_ranges.iter().flatten();
        Self {
            cluster_ips: all,
            external_ips: addresses(spec.external_ips.iter().flatten()),
            balancer_ips: addresses(handled.filter_map(|i| i.ip.as_ref())),
            source_ranges: ranges.filter_map(|range| range.trim().parse::<IpNet>().ok()).map(|r| r.trunc()).collect(),
            affinity: affinity(&spec),
            internal: Policy::parse(spec.internal_traffic_policy.as_deref()),
            external: Policy::parse(spec.external_traffic_policy.as_deref()),
            balanced: spec.type_.as_deref() == Some("LoadBalancer"),
            health_port: number(spec.health_check_node_port),
            ports: if forwarded { ports(&spec) } else { Box::default() },
        }
    }

    /// Whether it has a UDP port.
    pub fn has_udp(&self) -> bool {
        self.ports.iter().any(|port| port.protocol == Protocol::Udp)
    }
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SlicePort {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct EndpointView {
    pub ip: IpAddr,
    /// Whether it runs on this node.
    pub local: bool,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// Whether it is meant for this node; `None` without hints of nodes.
    pub for_node: Option<bool>,
    /// Zones it is meant for.
    pub zones: Box<[Box<str>]>,
}

impl EndpointView {
    fn project(endpoint: &Endpoint, node: &str) -> Option<Self> {
        let conditions = endpoint.conditions.clone().unwrap_or_default();
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|h| h.for_nodes.as_ref()).filter(|nodes| !nodes.is_empty());
        let zones = hints.and_then(|h| h.for_zones.as_ref()).into_iter().flatten();
        Some(Self {
            ip: endpoint.addresses.first()?.parse().ok()?,
            local: endpoint.node_name.as_deref() == Some(node),
            ready: conditions.ready.unwrap_or(true),
            serving: conditions.serving.unwrap_or(true),
            terminating: conditions.terminating.unwrap_or(false),
            for_node: nodes.map(|nodes| nodes.iter().any(|n| n.name == node)),
            zones: zones.map(|z| z.name.as_str().into()).collect(),
        })
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SliceView {
    /// Name of its Service.
    pub service: Box<str>,
    /// `None` for names and other kinds of addresses.
    pub family: Option<Family>,
    pub ports: Box<[SlicePort]>,
    pub endpoints: Box<[EndpointView]>,
    /// When the change that led to it happened.
    pub triggered: Option<OffsetDateTime>,
}

impl SliceView {
    /// Which slices are watched.
    pub fn config() -> InformerConfig {
        InformerConfig { labels: "!service.kubernetes.io/headless".to_owned(), ..InformerConfig::default() }
    }

    /// Takes what is of interest to the proxy on `node`.
    pub fn project(slice: EndpointSlice, node: &str) -> Self {
        let family = match slice.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        };
        let label = slice.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
        let trigger = slice.metadata.annotations.as_ref().and_then(|a| a.get(TRIGGER));
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: port.name.as_deref()?.into(),
                protocol: Protocol::parse(port.protocol.as_deref())?,
                port: Some(number(port.port)).filter(|port| *port != 0)?,
            })
        });
        let endpoints = slice.endpoints.iter().flatten().filter_map(|e| EndpointView::project(e, node));
        Self {
            service: label.map(String::as_str).unwrap_or_default().into(),
            family,
            ports: ports.collect(),
            endpoints: endpoints.filter(|e| Some(Family::of(&e.ip)) == family).collect(),
            triggered: trigger.and_then(|text| parse(text).ok()),
        }
    }
}

/// A slice with its identity.
pub type CachedSlice = Cached<SliceView>;
