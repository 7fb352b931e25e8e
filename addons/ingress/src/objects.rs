//! Views of what the table is made of.

use std::{net::IpAddr, sync::Arc};

use controller::{Index, InformerConfig, Viewed};
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Secret, Service},
        discovery::v1::EndpointSlice,
    },
};
use runtime::tls::ServingCertificate;

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) number: u16,
}

/// A Service.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceView {
    /// The name it stands for, if it does.
    pub(crate) external: Option<String>,
    /// TCP ports.
    pub(crate) ports: Vec<ServicePort>,
    /// Addresses of a load balancer or external ones: where the controller itself is reached.
    pub(crate) addresses: Vec<Address>,
}

/// An address of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Address {
    Ip(IpAddr),
    Name(String),
}

impl Address {
    pub(crate) fn of(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Ip)
    }
}

impl Viewed for ServiceView {
    type Object = Service;

    fn project(service: Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let external = spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName"));
        let ports = spec.ports.unwrap_or_default().into_iter();
        let ports = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP").filter_map(|port| {
            Some(ServicePort { name: port.name.unwrap_or_default(), number: u16::try_from(port.port).ok()? })
        });
        let balancers = service.status.and_then(|s| s.load_balancer).and_then(|b| b.ingress).unwrap_or_default();
        let addresses = balancers.into_iter().filter_map(|entry| entry.ip.or(entry.hostname));
        let addresses = addresses.chain(spec.external_ips.unwrap_or_default());
        Self { external, ports: ports.collect(), addresses: addresses.map(|a| Address::of(&a)).collect() }
    }
}

/// Addresses of a Service's endpoints.
#[derive(Clone, Debug, Default)]
pub(crate) struct SliceView {
    pub(crate) service: String,
    /// Of those that are ready.
    pub(crate) ready: Vec<IpAddr>,
    /// Of those that are about to end, but still serve.
    pub(crate) leaving: Vec<IpAddr>,
    /// Name of the Service's port and number at the endpoint.
    pub(crate) ports: Vec<ServicePort>,
}

/// Label of a slice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

impl Viewed for SliceView {
    type Object = EndpointSlice;
    const INDICES: &'static [Index<Self>] =
        &[Index { name: "service", keys: |slice| vec![format!("{}/{}", slice.key.namespace, slice.service)] }];

    fn project(slice: EndpointSlice) -> Self {
        let service = slice.metadata.labels.unwrap_or_default().remove(SERVICE_NAME).unwrap_or_default();
        let mut view = Self { service, ..Self::default() };
        for endpoint in slice.endpoints.unwrap_or_default() {
            let conditions = endpoint.conditions.unwrap_or_default();
            let Some(address) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else { continue };
            if conditions.ready.unwrap_or(true) {
                view.ready.push(address);
            } else if conditions.serving.unwrap_or(false) && conditions.terminating.unwrap_or(false) {
                view.leaving.push(address);
            }
        }
        let ports = slice.ports.unwrap_or_default().into_iter();
        let ports = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP").filter_map(|port| {
            Some(ServicePort { name: port.name.unwrap_or_default(), number: u16::try_from(port.port?).ok()? })
        });
        view.ports = ports.collect();
        view
    }
}

/// The certificate of a Secret, or why there is none.
pub(crate) struct TlsView(pub(crate) Result<Arc<Certificate>, String>);

/// A certificate with its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) serving: ServingCertificate,
    /// Names it is for, lower case.
    pub(crate) names: Vec<String>,
    /// Seconds since the epoch.
    pub(crate) not_after: i64,
}

impl Viewed for TlsView {
    type Object = Secret;

    fn project(secret: Secret) -> Self {
        let data = secret.data.unwrap_or_default();
        let read = |name: &str| data.get(name).ok_or_else(|| format!("there is no {name}"));
        let certificate = |certificate: &ByteString, key: &ByteString| {
            Certificate::new(&certificate.0, &key.0).map_err(|error| error.to_string())
        };
        let made = read("tls.crt").and_then(|crt| read("tls.key").and_then(|key| certificate(crt, key)));
        Self(made.map(Arc::new))
    }

    fn config() -> InformerConfig {
        // No other Secrets are any of our business.
        InformerConfig { fields: "type=kubernetes.io/tls".into(), labels: String::new() }
    }
}

impl Certificate {
    /// From PEM texts.
    pub(crate) fn new(certificate: &[u8], key: &[u8]) -> Result<Self, runtime::tls::TlsError> {
        let serving = ServingCertificate::new(certificate, key)?;
        let leaf = runtime::tls::certificates(certificate)?;
        let (names, not_after) = leaf.first().and_then(|leaf| facts(leaf)).unwrap_or_default();
        Ok(Self { serving, names, not_after })
    }

    /// Whether it is for a host; `host` may be a wildcard.
    pub(crate) fn fits(&self, host: &str) -> bool {
        let wild = host.find('.').map(|dot| format!("*{}", &host[dot..]));
        self.names.iter().any(|name| name == host || Some(name) == wild.as_ref())
    }
}

fn facts(leaf: &[u8]) -> Option<(Vec<String>, i64)> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(str::to_lowercase));
    let mut names: Vec<String> = common.collect();
    if let Ok(Some(alternatives)) = leaf.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_lowercase()),
            _ => None,
        }));
    }
    Some((names, leaf.validity().not_after.timestamp()))
}
