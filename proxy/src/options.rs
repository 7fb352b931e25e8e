//! Flags of kube-proxy, and KubeProxyConfiguration v1alpha1.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;
use runtime::process::LoggingArgs;
use serde::Deserialize;

/// The Kubernetes network proxy, iptables mode.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-proxy", version = runtime::version::GIT_VERSION)]
pub struct Options {
    /// KubeProxyConfiguration file; what it sets wins over the flags, but for --hostname-override.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Credentials of the API.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this node, if it is not the host name.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Range of Pod addresses: traffic from elsewhere to cluster IPs is masqueraded.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// Proxy mode. Only iptables is built in.
    #[arg(long, default_value = "iptables", value_parser = ["iptables"])]
    pub proxy_mode: String,
    /// Bit of the mark of traffic to masquerade.
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u8).range(0..=31))]
    pub iptables_masquerade_bit: u8,
    /// Masquerade all traffic to cluster IPs.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub masquerade_all: bool,
    /// Whether node ports answer on loopback.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub iptables_localhost_nodeports: bool,
    /// Address of the health server.
    #[arg(long, default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: SocketAddr,
    /// Address of the metrics server.
    #[arg(long, default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: SocketAddr,
    /// Removes all rules and exits.
    #[arg(long)]
    pub cleanup: bool,
    /// Logs.
    #[command(flatten)]
    pub logging: LoggingArgs,
}

/// The part of KubeProxyConfiguration that this proxy obeys. Other settings are refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(rename = "clusterCIDR")]
    cluster_cidr: Option<String>,
    mode: Option<String>,
    hostname_override: Option<String>,
    healthz_bind_address: Option<SocketAddr>,
    metrics_bind_address: Option<SocketAddr>,
    client_connection: ClientConnection,
    iptables: IptablesConfiguration,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct ClientConnection {
    kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct IptablesConfiguration {
    masquerade_bit: Option<u8>,
    masquerade_all: Option<bool>,
    localhost_node_ports: Option<bool>,
}

/// A configuration file that is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not decode.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Options {
    /// The options with the configuration file taken in.
    pub fn complete(mut self) -> Result<Self, ConfigurationError> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let text =
            std::fs::read_to_string(&path).map_err(|source| ConfigurationError::Read { path: path.clone(), source })?;
        let bad = |reason: String| ConfigurationError::Content { path: path.clone(), reason };
        let file: Configuration = serde_yaml::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if file.api_version != "kubeproxy.config.k8s.io/v1alpha1" || file.kind != "KubeProxyConfiguration" {
            return Err(bad("not a kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration".into()));
        }
        if let Some(mode) = file.mode.filter(|m| !m.is_empty() && m != "iptables") {
            return Err(bad(format!("mode {mode:?} is not built in")));
        }
        if file.iptables.masquerade_bit.is_some_and(|bit| bit > 31) {
            return Err(bad("iptables.masqueradeBit must be between 0 and 31".into()));
        }
        self.cluster_cidr = file.cluster_cidr.unwrap_or(self.cluster_cidr);
        self.hostname_override = self.hostname_override.or(file.hostname_override.filter(|n| !n.is_empty()));
        self.healthz_bind_address = file.healthz_bind_address.unwrap_or(self.healthz_bind_address);
        self.metrics_bind_address = file.metrics_bind_address.unwrap_or(self.metrics_bind_address);
        self.kubeconfig = file.client_connection.kubeconfig.or(self.kubeconfig);
        self.iptables_masquerade_bit = file.iptables.masquerade_bit.unwrap_or(self.iptables_masquerade_bit);
        self.masquerade_all = file.iptables.masquerade_all.unwrap_or(self.masquerade_all);
        self.iptables_localhost_nodeports =
            file.iptables.localhost_node_ports.unwrap_or(self.iptables_localhost_nodeports);
        Ok(self)
    }
}
