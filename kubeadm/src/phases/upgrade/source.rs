//! The cluster and this host, as they are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;

use super::{Init, Options, Upgrade};
use crate::{
    client::Cluster,
    config::{
        ApiEndpoint, Configuration, InitConfiguration, NodeRegistration, Patches, Timeouts,
        component::{self, ComponentConfig, KUBELET_API_VERSION, PROXY_API_VERSION},
        defaults, split_host_port,
        version::Version,
    },
    constants::{ADVERTISE_ANNOTATION, KUBELET_CONF, KUBELET_ENV},
    error::{Context, Error, Result},
    fetch,
    host::{Host, PathKind},
    kubeconfig, kubelet, manifests,
};

/// Where earlier versions noted the container runtime's socket.
pub(super) const CRI_SOCKET_ANNOTATION: &str = "kubeadm.alpha.kubernetes.io/cri-socket";

/// What is read with.
pub struct Given {
    /// This host.
    pub host: Arc<dyn Host>,
    /// The kubeconfig of administration; of a worker its kubelet's.
    pub kubeconfig: PathBuf,
    /// Directory of the installed programs.
    pub programs: PathBuf,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Patches of the user.
    pub patches: Option<Patches>,
    /// Timeouts.
    pub timeouts: Option<Timeouts>,
    /// When images are pulled.
    pub image_pull_policy: String,
    /// Beginning of the lines about it.
    pub prefix: &'static str,
}

/// Reads the cluster's configuration and what this host is in it.
pub async fn read(given: Given, options: Options) -> Result<Upgrade> {
    let host = &*given.host;
    let timeouts = Some(Timeouts::completed(given.timeouts));
    let api = Cluster::load(host, &given.kubeconfig, None, Timeouts::api(timeouts.as_ref())).await?;
    fetch::announce(host, given.prefix);
    let mut cluster = fetch::cluster(host, &api).await.context("[upgrade/init config] FATAL")?;
    let from = Version::parse(&cluster.kubernetes_version)
        .ok_or_else(|| Error::new(format!("could not parse version {:?}", cluster.kubernetes_version)))?;
    let name = node_name(host)?;
    let is_control_plane = is_control_plane(host);
    let mut endpoint = match is_control_plane {
        true => endpoint(&api, &name).await?,
        false => ApiEndpoint::default(),
    };
    defaults::endpoint(host, &mut endpoint);
    let node = NodeRegistration {
        cri_socket: socket(host, &api, &name).await?,
        name,
        taints: Some(Vec::new()),
        kubelet_extra_args: extra_args(host),
        image_pull_policy: given.image_pull_policy,
        ..NodeRegistration::default()
    };
    let mut kubelet = stored(&api, "kubelet-config", "kubelet", KUBELET_API_VERSION, "KubeletConfiguration").await?;
    let mut proxy = stored(&api, "kube-proxy", "config.conf", PROXY_API_VERSION, "KubeProxyConfiguration").await?;
    component::complete_kubelet(host, &mut kubelet, &cluster)?;
    component::complete_proxy(host, &mut proxy, &cluster, &endpoint);
    cluster.kubernetes_version = from.to_string();
    let init = InitConfiguration {
        dry_run: given.dry_run,
        node_registration: node,
        local_api_endpoint: endpoint,
        patches: given.patches,
        timeouts,
        ..InitConfiguration::default()
    };
    let config = Configuration { init, cluster, kubelet, proxy };
    let mut init = Init::new(given.host, config, given.programs);
    init.kubeconfig = given.kubeconfig;
    if given.dry_run {
        init.use_cluster(api.telling());
    } else if !is_control_plane {
        init.use_cluster(api);
    }
    Ok(Upgrade { init, from, options, is_control_plane })
}

/// Whether an API server is to run on this host.
fn is_control_plane(host: &dyn Host) -> bool {
    host.kind(&manifests::path("kube-apiserver")) == Some(PathKind::File)
}

/// A component's configuration: made anew where kubeadm made it, kept where the user did.
async fn stored(api: &Cluster, map: &str, key: &str, api_version: &str, kind: &str) -> Result<ComponentConfig> {
    let found = fetch::component(api, map, key).await.with_context(|| format!("cannot read ConfigMap {map:?}"))?;
    Ok(found.filter(|config| config.from_user).unwrap_or_else(|| ComponentConfig::new(None, api_version, kind)))
}

/// Name of this node: that of the kubelet's certificate.
fn node_name(host: &dyn Host) -> Result<String> {
    let path = Path::new(KUBELET_CONF);
    let facts = kubeconfig::certificate_facts(host, path).with_context(|| {
        format!("failed to get the node name from the kubelet client certificate of {KUBELET_CONF}")
    })?;
    let name = facts.subject.common_name.strip_prefix("system:node:").map(ToOwned::to_owned);
    name.ok_or_else(|| {
        Error::new(format!("invalid kubeconfig file {KUBELET_CONF:?}: x509 certificate is not of a node"))
    })
}

/// Where the API server of this node listens, as its Pod says.
async fn endpoint(api: &Cluster, node: &str) -> Result<ApiEndpoint> {
    let path = format!("/api/v1/namespaces/kube-system/pods/kube-apiserver-{node}");
    let pod = api.get(&path).await.context("failed to getAPIEndpoint")?.unwrap_or_default();
    let text = pod.pointer("/metadata/annotations").and_then(|a| a.get(ADVERTISE_ANNOTATION)).and_then(Value::as_str);
    let Some(text) = text else {
        return Err(Error::new(format!("failed to get the API endpoint of node {node:?}: its Pod does not tell it")));
    };
    let (address, port) = split_host_port(text);
    Ok(ApiEndpoint { advertise_address: address.to_owned(), bind_port: port.unwrap_or(0) })
}

/// The annotation of earlier versions.
pub(super) fn annotated_socket(node: &Value) -> Option<&str> {
    node.pointer("/metadata/annotations")?.get(CRI_SOCKET_ANNOTATION)?.as_str()
}

/// The container runtime: as annotated, as the kubelet was told, or the one that is there.
async fn socket(host: &dyn Host, api: &Cluster, node: &str) -> Result<String> {
    let object = api.get(&format!("/api/v1/nodes/{node}")).await?.unwrap_or_default();
    if let Some(socket) = annotated_socket(&object) {
        return Ok(socket.to_owned());
    }
    kubelet::told_endpoint(host).map_or_else(|| defaults::runtime_socket(host, ""), Ok)
}

/// The kubelet's arguments but the endpoint of the runtime, which has a file of its own.
fn extra_args(host: &dyn Host) -> Vec<crate::config::Arg> {
    let text = host.read_text(Path::new(KUBELET_ENV)).unwrap_or_default();
    let words = kubelet::variable_words(&text, "KUBELET_KUBEADM_ARGS");
    let pairs = words.iter().filter_map(|word| word.trim_start_matches("--").split_once('='));
    pairs
        .filter(|(name, _)| *name != "container-runtime-endpoint")
        .map(|(name, value)| crate::config::Arg { name: name.to_owned(), value: value.to_owned() })
        .collect()
}

impl Given {
    /// The kubeconfig of this host: of administration where it is a control plane, else that of the kubelet.
    pub fn kubeconfig_of(host: &dyn Host, given: Option<PathBuf>) -> PathBuf {
        match given {
            Some(path) => path,
            None if is_control_plane(host) => crate::constants::ADMIN_CONF.into(),
            None => KUBELET_CONF.into(),
        }
    }
}
