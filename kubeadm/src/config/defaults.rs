//! What is not given.

use std::net::IpAddr;

use super::{
    ApiEndpoint, BootstrapToken, ClusterConfiguration, Configuration, ImageSource, InitConfiguration,
    JoinConfiguration, LocalEtcd, NodeRegistration, Period, Taint, Timeouts,
    component::{self, ComponentConfig, KUBELET_API_VERSION, PROXY_API_VERSION},
    documents::{Documents, Strictness},
    validate, version,
};
use crate::{
    constants::{
        BOOTSTRAPPERS, CONTROL_PLANE_LABEL, DEFAULT_CRI_SOCKET, DEFAULT_REPOSITORY, ETCD_DIR, KNOWN_CRI_SOCKETS,
        PKI_DIR,
    },
    error::{Context, Result, fail},
    host::{Host, PathKind},
    token,
};

/// Port of the API server.
const BIND_PORT: i32 = 6443;

/// How much is found out about this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detect {
    /// Everything: name, address, runtime, version.
    Host,
    /// Nothing: placeholders stand for the host.
    Placeholders,
}

/// What the user said for `init`, by a file or by flags.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GivenInit {
    /// This host.
    pub init: InitConfiguration,
    /// The cluster.
    pub cluster: ClusterConfiguration,
    /// The kubelets.
    pub kubelet: Option<serde_json::Value>,
    /// The proxies.
    pub proxy: Option<serde_json::Value>,
}

impl GivenInit {
    /// Reads a file.
    pub fn read(host: &dyn Host, text: &str, strictness: Strictness) -> Result<Self> {
        let mut documents = Documents::read(host, text, strictness)?;
        let init = documents.decode(host, "InitConfiguration", strictness)?;
        let cluster = documents.decode(host, "ClusterConfiguration", strictness)?;
        if init.is_none() && cluster.is_none() {
            return fail!("no InitConfiguration or ClusterConfiguration kind was found in the configuration file");
        }
        let (kubelet, proxy) = (documents.take("KubeletConfiguration"), documents.take("KubeProxyConfiguration"));
        documents.report_unused(host);
        Ok(Self { init: init.unwrap_or_default(), cluster: cluster.unwrap_or_default(), kubelet, proxy })
    }
}

/// Completes what was read from a file or built from flags.
pub async fn complete(host: &dyn Host, given: GivenInit, detect: Detect) -> Result<Configuration> {
    let GivenInit { mut init, mut cluster, kubelet, proxy } = given;
    cluster_static(&mut cluster);
    init_static(host, &mut init, detect);
    if detect == Detect::Host {
        endpoint(host, &mut init.local_api_endpoint);
        init.node_registration.cri_socket = runtime_socket(host, &init.node_registration.cri_socket)?;
        let lookup = match cluster.image_source() {
            ImageSource::Programs => version::Lookup::Own,
            ImageSource::Registry => version::Lookup::Network,
        };
        cluster.kubernetes_version = version::resolve(host, &cluster.kubernetes_version, lookup).await?;
    }
    node(host, &mut init.node_registration, Role::ControlPlane, detect)?;
    validate::cluster(host, &cluster)?;
    validate::init(&init)?;
    let mut kubelet = ComponentConfig::new(kubelet, KUBELET_API_VERSION, "KubeletConfiguration");
    let mut proxy = ComponentConfig::new(proxy, PROXY_API_VERSION, "KubeProxyConfiguration");
    component::complete_kubelet(host, &mut kubelet, &cluster)?;
    component::complete_proxy(host, &mut proxy, &cluster, &init.local_api_endpoint);
    Ok(Configuration { init, cluster, kubelet, proxy })
}

/// Reads the file of `join`.
pub fn join_from_text(host: &dyn Host, text: &str, strictness: Strictness) -> Result<JoinConfiguration> {
    let mut documents = Documents::read(host, text, strictness)?;
    let Some(join) = documents.decode(host, "JoinConfiguration", strictness)? else {
        return fail!("no JoinConfiguration found in the supplied config");
    };
    documents.report_unused(host);
    Ok(join)
}

/// What of the cluster needs no look at the host.
pub fn cluster_static(cluster: &mut ClusterConfiguration) {
    let text = |field: &mut String, default: &str| {
        if field.is_empty() {
            default.clone_into(field);
        }
    };
    text(&mut cluster.kubernetes_version, "stable-1");
    text(&mut cluster.networking.service_subnet, "10.96.0.0/12");
    text(&mut cluster.networking.dns_domain, "cluster.local");
    text(&mut cluster.certificates_dir, PKI_DIR);
    text(&mut cluster.image_repository, DEFAULT_REPOSITORY);
    text(&mut cluster.cluster_name, "kubernetes");
    text(&mut cluster.encryption_algorithm, "RSA-2048");
    cluster.certificate_validity_period.get_or_insert(Period::seconds(365 * 24 * 3600));
    cluster.ca_certificate_validity_period.get_or_insert(Period::seconds(3650 * 24 * 3600));
    match &mut cluster.etcd.external {
        None => {
            let local = cluster.etcd.local.get_or_insert_with(LocalEtcd::default);
            text(&mut local.data_dir, ETCD_DIR);
        }
        Some(external) if external.http_endpoints.is_empty() => {
            external.http_endpoints.clone_from(&external.endpoints);
        }
        Some(_) => {}
    }
    for san in &mut cluster.api_server.cert_sans {
        *san = san.to_lowercase();
    }
}

fn init_static(host: &dyn Host, init: &mut InitConfiguration, detect: Detect) {
    if init.bootstrap_tokens.is_empty() {
        let token = match detect {
            Detect::Host => String::new(),
            Detect::Placeholders => token::PLACEHOLDER.to_owned(),
        };
        init.bootstrap_tokens.push(BootstrapToken { token, ..BootstrapToken::default() });
    }
    for entry in &mut init.bootstrap_tokens {
        if entry.token.is_empty() {
            entry.token = token::generate(host);
        }
        complete_token(entry);
    }
    init.timeouts = Some(Timeouts::completed(init.timeouts.take()));
    if init.local_api_endpoint.bind_port == 0 {
        init.local_api_endpoint.bind_port = BIND_PORT;
    }
    if detect == Detect::Placeholders && init.local_api_endpoint.advertise_address.is_empty() {
        init.local_api_endpoint.advertise_address = "1.2.3.4".into();
    }
}

/// Usages, groups and life of a token.
pub fn complete_token(token: &mut BootstrapToken) {
    if token.usages.is_empty() {
        token.usages = vec!["signing".into(), "authentication".into()];
    }
    if token.groups.is_empty() {
        token.groups = vec![BOOTSTRAPPERS.into()];
    }
    if token.ttl.is_none() && token.expires.is_none() {
        token.ttl = Some(Period::seconds(24 * 3600));
    }
}

/// What a node becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It runs a control plane.
    ControlPlane,
    /// It only runs Pods.
    Worker,
}

/// Completes the registration of a node.
pub fn node(host: &dyn Host, node: &mut NodeRegistration, role: Role, detect: Detect) -> Result<()> {
    match detect {
        Detect::Host => {
            let given = node.name.trim().to_lowercase();
            node.name = if given.is_empty() { host.hostname().context("could not get the host name")? } else { given };
            if node.taints.is_none() && role == Role::ControlPlane {
                node.taints = Some(vec![Taint {
                    key: CONTROL_PLANE_LABEL.into(),
                    effect: "NoSchedule".into(),
                    ..Taint::default()
                }]);
            }
        }
        Detect::Placeholders => {
            if node.name.is_empty() {
                node.name = "node".into();
            }
            if node.cri_socket.is_empty() {
                node.cri_socket = DEFAULT_CRI_SOCKET.into();
            }
        }
    }
    if node.image_pull_policy.is_empty() {
        node.image_pull_policy = "IfNotPresent".into();
    }
    node.image_pull_serial.get_or_insert(true);
    Ok(())
}

/// The endpoint of the container runtime: the given one, else the one that is there.
pub fn runtime_socket(host: &dyn Host, given: &str) -> Result<String> {
    if !given.is_empty() {
        if given.contains("://") {
            return Ok(given.to_owned());
        }
        let full = format!("unix://{given}");
        host.warn(&format!(
            "Usage of CRI endpoints without URL scheme is deprecated and can cause kubelet errors in the future. \
             Automatically prepending scheme \"unix\" to the \"criSocket\" with value {given:?}. Please update your \
             configuration!\n"
        ));
        return Ok(full);
    }
    let there = |endpoint: &&str| {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
        host.kind(std::path::Path::new(path)) == Some(PathKind::Socket)
    };
    let found: Vec<&str> = KNOWN_CRI_SOCKETS.iter().copied().filter(there).collect();
    match found.as_slice() {
        [] => Ok(DEFAULT_CRI_SOCKET.to_owned()),
        [one] => Ok((*one).to_owned()),
        several => fail!(
            "found multiple CRI endpoints on the host. Please define which one do you wish to use by setting the \
             'criSocket' field in the kubeadm configuration file: {}",
            several.join(", ")
        ),
    }
}

/// Completes the endpoint of the API server of this host.
pub fn endpoint(host: &dyn Host, endpoint: &mut ApiEndpoint) {
    if endpoint.bind_port == 0 {
        endpoint.bind_port = BIND_PORT;
    }
    let given: Option<IpAddr> = endpoint.advertise_address.parse().ok();
    let found = match given {
        None if !endpoint.advertise_address.is_empty() => return,
        Some(address) if !address.is_unspecified() => return,
        _ => host.default_address(),
    };
    endpoint.advertise_address = match found {
        Some(address) => address.to_string(),
        None => {
            let unspecified = endpoint.advertise_address.clone();
            let chosen = if unspecified.is_empty() { "0.0.0.0".to_owned() } else { unspecified };
            host.warn(&format!(
                "WARNING: could not obtain a bind address for the API Server: no default routes found; using: {chosen}\n"
            ));
            chosen
        }
    };
}

/// Completes a JoinConfiguration.
pub fn join(host: &dyn Host, join: &mut JoinConfiguration, detect: Detect) -> Result<()> {
    if join.ca_cert_path.is_empty() {
        join.ca_cert_path = format!("{PKI_DIR}/ca.crt");
    }
    let token = join.discovery.bootstrap_token.as_ref().map(|d| d.token.clone()).unwrap_or_default();
    if join.discovery.tls_bootstrap_token.is_empty() {
        join.discovery.tls_bootstrap_token = token;
    }
    if let Some(file) = &mut join.discovery.file
        && let Some(path) = file.kube_config_path.strip_prefix("file://")
    {
        file.kube_config_path = path.to_owned();
    }
    join.timeouts = Some(Timeouts::completed(join.timeouts.take()));
    let role = if join.control_plane.is_some() { Role::ControlPlane } else { Role::Worker };
    if detect == Detect::Host {
        if let Some(plane) = &mut join.control_plane {
            endpoint(host, &mut plane.local_api_endpoint);
        }
        join.node_registration.cri_socket = runtime_socket(host, &join.node_registration.cri_socket)?;
    }
    node(host, &mut join.node_registration, role, detect)
}
