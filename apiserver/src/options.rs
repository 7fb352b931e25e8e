//! Flags of kube-apiserver.

use std::{net::IpAddr, path::PathBuf};

use clap::Parser;
use ipnet::Ipv4Net;
use runtime::process::LoggingArgs;

/// The Kubernetes API server.
///
/// It serves the API over etcd, or, when no etcd server is given, over an embedded store in a directory of its own.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-apiserver", version = runtime::version::GIT_VERSION)]
pub struct Options {
    /// Address that other members of the cluster reach this server at.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port to serve HTTPS on.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Serving certificate, PEM. Without it one is made and kept in --cert-dir.
    #[arg(long)]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate, PEM.
    #[arg(long)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Directory of generated certificates and keys.
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// etcd servers, comma-separated URLs.
    #[arg(long, value_delimiter = ',')]
    pub etcd_servers: Vec<String>,
    /// CA of the etcd servers.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// Client key for etcd.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// Key prefix of everything stored.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// Directory of the embedded store, used when no etcd server is given.
    #[arg(long, default_value = "/var/lib/timonel/store")]
    pub embedded_store_dir: PathBuf,
    /// CA bundle of client certificates.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Static tokens: token,user,uid[,"group1,group2"].
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// Whether Pods may ask for privileged containers.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub allow_privileged: bool,
    /// CA of the kubelets' serving certificates; without it they are not checked.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Client certificate for kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Client key for kubelets.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Node address types by which kubelets are reached, most preferred first.
    #[arg(long, value_delimiter = ',', default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP")]
    pub kubelet_preferred_address_types: Vec<String>,
    /// Whether bootstrap tokens (Secrets in kube-system) authenticate.
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_bootstrap_token_auth: bool,
    /// Whether health and version may be read without credentials.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub anonymous_auth: bool,
    /// CA bundle of the front proxy's client certificate.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that the front proxy may have.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers of the user name.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers of the uid.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers of the groups.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    /// Header prefixes of extra attributes.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Issuers of ServiceAccount tokens; the first signs.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: Vec<String>,
    /// Keys that ServiceAccount tokens may be signed with, PEM.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Key that signs ServiceAccount tokens, PEM. Without it one is made and kept in --cert-dir.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Whether tokens of projected volumes live longer than they say.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub service_account_extend_token_expiration: bool,
    /// Audiences of the API; the issuers by default.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Authorizers in order: Node, RBAC, AlwaysAllow, AlwaysDeny.
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC")]
    pub authorization_mode: Vec<String>,
    /// Admission plugins to add.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to leave out.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// Range of cluster IPs.
    #[arg(long, default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: Ipv4Net,
    /// Range of node ports, first-last.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),
    /// Life of events.
    #[arg(long, default_value = "1h0m0s", value_parser = duration)]
    pub event_ttl: std::time::Duration,
    /// Reading requests at once.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Mutating requests at once.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Time between a signal and the end of serving.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub shutdown_delay_duration: std::time::Duration,
    /// Logs.
    #[command(flatten)]
    pub logging: LoggingArgs,
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let bad = || format!("{text:?} is not a port range (first-last)");
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first == 0 || last < first { Err(bad()) } else { Ok((first, last)) }
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let parsed = machinery::duration::parse(text).map_err(|e| e.to_string())?;
    parsed.try_into().map_err(|_| format!("{text:?} is negative"))
}
