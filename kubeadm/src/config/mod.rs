//! Configuration: read from files ([`documents`]) or flags, completed ([`defaults`]) and checked ([`validate`]).

pub mod component;
pub mod convert;
pub mod defaults;
pub mod documents;
#[cfg(test)]
mod tests;
pub mod types;
pub mod validate;
pub mod version;

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
pub use types::*;

use crate::{
    constants::DEFAULT_REPOSITORY,
    error::{Context, Result, fail},
    pki::Algorithm,
};

/// Argument of the API server that makes it keep its data itself.
pub const EMBEDDED_STORE_ARG: &str = "embedded-store-dir";
/// Addresses of Pods when nothing is said and the pod network is ours.
pub const DEFAULT_POD_SUBNET: &str = "10.244.0.0/16";

/// Everything `init` works from: complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// This host.
    pub init: InitConfiguration,
    /// The cluster.
    pub cluster: ClusterConfiguration,
    /// The kubelets.
    pub kubelet: component::ComponentConfig,
    /// The proxies.
    pub proxy: component::ComponentConfig,
}

/// Where the images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// Built from the installed programs.
    Programs,
    /// Pulled from a registry.
    Registry,
}

impl ClusterConfiguration {
    /// Where the images come from: a repository other than the default one is a real registry.
    pub fn image_source(&self) -> ImageSource {
        if self.image_repository == DEFAULT_REPOSITORY { ImageSource::Programs } else { ImageSource::Registry }
    }

    /// The directory the API server keeps its data in when there is no etcd at all.
    pub fn embedded_store(&self) -> Option<&str> {
        self.api_server.extra_args.iter().rfind(|a| a.name == EMBEDDED_STORE_ARG).map(|a| a.value.as_str())
    }

    /// Whether this host runs an etcd member.
    pub fn has_local_etcd(&self) -> bool {
        self.embedded_store().is_none() && self.etcd.external.is_none()
    }

    /// The member's configuration.
    pub fn local_etcd(&self) -> LocalEtcd {
        self.etcd.local.clone().unwrap_or_default()
    }

    /// Kind of new keys.
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::named(&self.encryption_algorithm).unwrap_or_default()
    }

    /// The first service network.
    pub fn service_network(&self) -> Result<IpNet> {
        let first = self.networking.service_subnet.split(',').next().unwrap_or_default();
        first.parse().with_context(|| format!("unable to parse service subnet {first:?}"))
    }

    /// The `index`th address of the first service network.
    pub fn service_address(&self, index: u32) -> Result<IpAddr> {
        let network = self.service_network()?;
        let address = match network.network() {
            IpAddr::V4(first) => u32::from(first).checked_add(index).map(|a| IpAddr::V4(a.into())),
            IpAddr::V6(first) => u128::from(first).checked_add(index.into()).map(|a| IpAddr::V6(a.into())),
        };
        match address.filter(|a| network.contains(a)) {
            Some(address) => Ok(address),
            None => fail!("can't generate IP with index {index} from subnet. subnet too small. subnet: {network:?}"),
        }
    }

    /// Address of the cluster's DNS.
    pub fn dns_address(&self) -> Result<IpAddr> {
        self.service_address(10)
    }

    /// URL under which clients reach the control plane.
    pub fn endpoint(&self, local: &ApiEndpoint) -> String {
        if self.control_plane_endpoint.is_empty() {
            return local.url();
        }
        let (host, port) = split_host_port(&self.control_plane_endpoint);
        format!("https://{}", join_host_port(host, port.unwrap_or(local.bind_port)))
    }
}

impl ApiEndpoint {
    /// `host:port`.
    pub fn authority(&self) -> String {
        join_host_port(&self.advertise_address, self.bind_port)
    }

    /// URL of the API server of this host.
    pub fn url(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// Whether it is an IPv6 address.
    pub fn is_v6(&self) -> bool {
        self.advertise_address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6())
    }
}

impl Timeouts {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        control_plane_component_health_check: Some(Period::seconds(240)),
        kubelet_health_check: Some(Period::seconds(240)),
        kubernetes_api_call: Some(Period::seconds(60)),
        etcd_api_call: Some(Period::seconds(120)),
        tls_bootstrap: Some(Period::seconds(300)),
        discovery: Some(Period::seconds(300)),
        upgrade_manifests: Some(Period::seconds(300)),
    };

    fn effective(given: Option<&Self>, pick: impl Fn(&Self) -> Option<Period>) -> Duration {
        given.and_then(&pick).or_else(|| pick(&Self::DEFAULT)).map_or(Duration::ZERO, |p| p.0)
    }

    /// Until a component is healthy.
    pub fn component(given: Option<&Self>) -> Duration {
        Self::effective(given, |t| t.control_plane_component_health_check)
    }

    /// Until the kubelet is healthy.
    pub fn kubelet(given: Option<&Self>) -> Duration {
        Self::effective(given, |t| t.kubelet_health_check)
    }

    /// One call of the API with its repetitions.
    pub fn api(given: Option<&Self>) -> Duration {
        Self::effective(given, |t| t.kubernetes_api_call)
    }

    /// Until the kubelet has its certificate.
    pub fn bootstrap(given: Option<&Self>) -> Duration {
        Self::effective(given, |t| t.tls_bootstrap)
    }

    /// Until the cluster is discovered.
    pub fn discovery(given: Option<&Self>) -> Duration {
        Self::effective(given, |t| t.discovery)
    }

    /// Until upgraded manifests run.
    pub fn manifests(given: Option<&Self>) -> Duration {
        Self::effective(given, |t| t.upgrade_manifests)
    }

    /// With defaults where nothing is given.
    #[must_use]
    pub fn completed(given: Option<Self>) -> Self {
        let (given, default) = (given.unwrap_or_default(), Self::DEFAULT);
        Self {
            control_plane_component_health_check: given
                .control_plane_component_health_check
                .or(default.control_plane_component_health_check),
            kubelet_health_check: given.kubelet_health_check.or(default.kubelet_health_check),
            kubernetes_api_call: given.kubernetes_api_call.or(default.kubernetes_api_call),
            etcd_api_call: given.etcd_api_call.or(default.etcd_api_call),
            tls_bootstrap: given.tls_bootstrap.or(default.tls_bootstrap),
            discovery: given.discovery.or(default.discovery),
            upgrade_manifests: given.upgrade_manifests.or(default.upgrade_manifests),
        }
    }
}

/// `host:port` with brackets around IPv6 addresses.
pub fn join_host_port(host: &str, port: impl std::fmt::Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Host and port of `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
pub fn split_host_port(text: &str) -> (&str, Option<i32>) {
    if let Some(rest) = text.strip_prefix('[')
        && let Some((host, tail)) = rest.split_once(']')
    {
        return (host, tail.strip_prefix(':').and_then(|p| p.parse().ok()));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => (host, port.parse().ok()),
        _ => (text, None),
    }
}

/// Last value of an argument.
pub fn argument<'a>(args: &'a [Arg], name: &str) -> Option<&'a str> {
    args.iter().rfind(|a| a.name == name).map(|a| a.value.as_str())
}
