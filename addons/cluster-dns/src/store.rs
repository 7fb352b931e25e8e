//! What the zone is made of: views of Services, EndpointSlices, Namespaces and Pods.

use std::net::IpAddr;

use controller::{Cached, Index, Informer, InformerSet, ObjectKey, Viewed};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};

/// What a Service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Addresses of the Service.
    Cluster(Vec<IpAddr>),
    /// Addresses of its endpoints.
    Endpoints,
    /// Another name.
    External(String),
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// Lower case.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

fn port(name: Option<String>, protocol: Option<String>, number: i32) -> Option<Port> {
    let name = name.filter(|n| !n.is_empty())?;
    let protocol = protocol.unwrap_or_else(|| "TCP".into()).to_lowercase();
    Some(Port { name, protocol, number: u16::try_from(number).ok()? })
}

/// A Service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceView {
    pub(crate) target: Target,
    pub(crate) ports: Vec<Port>,
}

impl Viewed for ServiceView {
    type Object = Service;
    const INDICES: &'static [Index<Self>] = &[Index { name: "address", keys: cluster_addresses }];

    fn project(service: Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let mut addresses = spec.cluster_ips.unwrap_or_default();
        if addresses.is_empty() {
            addresses.extend(spec.cluster_ip);
        }
        let target = if spec.type_.as_deref() == Some("ExternalName") {
            Target::External(spec.external_name.unwrap_or_default())
        } else if addresses.iter().any(|a| a == "None") {
            Target::Endpoints
        } else {
            Target::Cluster(addresses.iter().filter_map(|a| a.parse().ok()).collect())
        };
        let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|p| port(p.name, p.protocol, p.port));
        Self { target, ports: ports.collect() }
    }
}

fn cluster_addresses(service: &Cached<ServiceView>) -> Vec<String> {
    match &service.target {
        Target::Cluster(addresses) => addresses.iter().map(ToString::to_string).collect(),
        Target::Endpoints | Target::External(_) => Vec::new(),
    }
}

/// A ready endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) hostname: Option<String>,
    pub(crate) pod: Option<String>,
}

/// An EndpointSlice without the endpoints that are not ready.
#[derive(Clone, Debug)]
pub(crate) struct SliceView {
    pub(crate) service: String,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) ports: Vec<Port>,
}

/// Label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Viewed for SliceView {
    type Object = EndpointSlice;
    const INDICES: &'static [Index<Self>] = &[
        Index { name: "service", keys: |s| vec![format!("{}/{}", s.key.namespace, s.service)] },
        Index { name: "address", keys: endpoint_addresses },
    ];

    fn project(slice: EndpointSlice) -> Self {
        let labels = slice.metadata.labels.unwrap_or_default();
        let service = labels.get(SERVICE_NAME).cloned().unwrap_or_default();
        let ready = slice.endpoints.unwrap_or_default().into_iter().filter(|e| {
            let conditions = e.conditions.as_ref();
            conditions.and_then(|c| c.ready).unwrap_or(true)
        });
        let endpoints = ready.map(|e| Endpoint {
            addresses: e.addresses.iter().filter_map(|a| a.parse().ok()).collect(),
            hostname: e.hostname.filter(|h| !h.is_empty()).map(|h| h.to_lowercase()),
            pod: e.target_ref.filter(|r| r.kind.as_deref() == Some("Pod")).and_then(|r| r.name),
        });
        let ports = slice.ports.unwrap_or_default().into_iter();
        Self {
            service,
            endpoints: endpoints.collect(),
            ports: ports.filter_map(|p| port(p.name, p.protocol, p.port?)).collect(),
        }
    }
}

fn endpoint_addresses(slice: &Cached<SliceView>) -> Vec<String> {
    slice.endpoints.iter().flat_map(|e| &e.addresses).map(ToString::to_string).collect()
}

/// A Namespace: that it exists.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceView;

impl Viewed for NamespaceView {
    type Object = Namespace;

    fn project(_: Namespace) -> Self {
        Self
    }
}

/// Addresses of a Pod with a network of its own.
#[derive(Clone, Debug)]
pub(crate) struct PodView {
    pub(crate) addresses: Vec<String>,
}

impl Viewed for PodView {
    type Object = Pod;
    const INDICES: &'static [Index<Self>] = &[Index { name: "address", keys: |p| p.addresses.clone() }];

    fn project(pod: Pod) -> Self {
        let status = pod.status.unwrap_or_default();
        let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let addresses = status.pod_ips.unwrap_or_default().into_iter().map(|p| p.ip);
        Self { addresses: if ended { Vec::new() } else { addresses.collect() } }
    }
}

/// All there is to answer from.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) services: Informer<ServiceView>,
    pub(crate) slices: Informer<SliceView>,
    pub(crate) namespaces: Informer<NamespaceView>,
    /// Only where Pods' names are verified.
    pub(crate) pods: Option<Informer<PodView>>,
}

impl Store {
    /// Starts the informers.
    pub(crate) fn start(informers: &InformerSet, with_pods: bool) -> Self {
        Self {
            services: informers.get(),
            slices: informers.get(),
            namespaces: informers.get(),
            pods: with_pods.then(|| informers.get()),
        }
    }

    /// Whether everything was listed once.
    pub(crate) fn synced(&self) -> bool {
        let pods = self.pods.as_ref().is_none_or(Informer::synced);
        self.services.synced() && self.slices.synced() && self.namespaces.synced() && pods
    }

    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.get(&ObjectKey::new("", name)).is_some()
    }
}
