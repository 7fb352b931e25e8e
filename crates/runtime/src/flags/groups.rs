//! Groups of flags that several components have.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{duration, values::path};
use crate::metrics::{Allowed, AllowedLabels, Selection};

/// Log settings every component has.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logs flags")]
pub struct LoggingArgs {
    /// Sets the log format. Permitted formats: "json", "text".
    #[arg(long, default_value = "text")]
    pub logging_format: String,
    /// Maximum time between log flushes
    #[arg(long, default_value = "5s", value_parser = duration)]
    pub log_flush_frequency: Duration,
    /// number for the log level verbosity
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: i32,
    /// comma-separated list of pattern=N settings for file-filtered logging (only works for text log format)
    #[arg(long, default_value = "")]
    pub vmodule: String,
    /// [Alpha] In text format, write error messages to stderr and info messages to stdout.
    #[arg(long, default_value_t = false)]
    pub log_text_split_stream: bool,
    /// [Alpha] In text format with split output streams, the info messages can be buffered for a while.
    #[arg(long, default_value = "0")]
    pub log_text_info_buffer_size: String,
    /// [Alpha] In JSON format, write error messages to stderr and info messages to stdout.
    #[arg(long, default_value_t = false)]
    pub log_json_split_stream: bool,
    /// [Alpha] In JSON format with split output streams, the info messages can be buffered for a while.
    #[arg(long, default_value = "0")]
    pub log_json_info_buffer_size: String,
}

impl Default for LoggingArgs {
    fn default() -> Self {
        Self {
            logging_format: "text".into(),
            log_flush_frequency: Duration::from_secs(5),
            verbosity: 0,
            vmodule: String::new(),
            log_text_split_stream: false,
            log_text_info_buffer_size: "0".into(),
            log_json_split_stream: false,
            log_json_info_buffer_size: "0".into(),
        }
    }
}

/// Serving over TLS.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Secure serving flags")]
pub struct SecureServingArgs {
    /// The IP address on which to listen for the --secure-port port. 0.0.0.0 or :: means all interfaces.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS with authentication and authorization. If 0, HTTPS is not served.
    #[arg(long)]
    pub secure_port: Option<u16>,
    /// The directory where the TLS certs are located; ignored if --tls-cert-file is given.
    #[arg(long, default_value = "", value_parser = path)]
    pub cert_dir: PathBuf,
    /// File containing the default x509 certificate for HTTPS (with intermediates after the server's own).
    #[arg(long, value_parser = path)]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing the default x509 private key matching --tls-cert-file.
    #[arg(long, value_parser = path)]
    pub tls_private_key_file: Option<PathBuf>,
    /// Comma-separated list of cipher suites for the server.
    #[arg(long, value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// Minimum TLS version supported: VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13.
    #[arg(long, default_value = "")]
    pub tls_min_version: String,
    /// Comma-separated list of numeric curve ids for the server.
    #[arg(long, value_delimiter = ',')]
    pub tls_curve_preferences: Vec<u16>,
    /// A pair of certificate and key file paths, optionally suffixed with the domain patterns they serve.
    #[arg(long)]
    pub tls_sni_cert_key: Vec<String>,
    /// The limit of concurrent streams the server gives to an HTTP/2 client. Zero means 100.
    #[arg(long, default_value_t = 0)]
    pub http2_max_streams_per_connection: u32,
    /// Serve HTTP/1.1 only.
    #[arg(long, default_value_t = false)]
    pub disable_http2_serving: bool,
    /// Bind with SO_REUSEPORT.
    #[arg(long, default_value_t = false)]
    pub permit_port_sharing: bool,
    /// Bind with SO_REUSEADDR.
    #[arg(long, default_value_t = false)]
    pub permit_address_sharing: bool,
}

impl SecureServingArgs {
    /// For components that only programs on the same machine ask: the loopback interface, unless the command line says
    /// otherwise.
    pub fn local_by_default(&self, runtime: &crate::Runtime) -> Self {
        let mut args = self.clone();
        if !runtime.given("bind-address") {
            args.bind_address = IpAddr::from([127, 0, 0, 1]);
        }
        args
    }
}

/// Leader election by Lease.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Leader election flags")]
pub struct LeaderElectionArgs {
    /// Start a leader election client and gain leadership before executing the main loop.
    #[arg(long, default_value_t = true)]
    pub leader_elect: bool,
    /// Time that non-leader candidates wait after observing a renewal before they try to acquire leadership.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    /// Time the acting leader tries to renew its leadership before it gives up.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    /// Time between attempts to acquire and renew leadership.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
    /// The type of resource object used for locking. Only 'leases' is supported.
    #[arg(long, default_value = "leases")]
    pub leader_elect_resource_lock: String,
    /// Name of the lock object.
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    /// Namespace of the lock object.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

impl LeaderElectionArgs {
    /// All that is wrong with the settings.
    pub fn validate(&self) -> Vec<String> {
        if !self.leader_elect {
            return Vec::new();
        }
        let mut problems = Vec::new();
        if self.leader_elect_resource_lock != "leases" {
            problems.push(format!(
                "leaderElection.resourceLock: Invalid value: {:?}: resourceLock value must be \"leases\"",
                self.leader_elect_resource_lock
            ));
        }
        if self.leader_elect_lease_duration <= self.leader_elect_renew_deadline {
            problems.push("leaseDuration must be greater than renewDeadline".into());
        }
        if self.leader_elect_renew_deadline <= self.leader_elect_retry_period.mul_f64(1.2) {
            problems.push("renewDeadline must be greater than retryPeriod*JitterFactor".into());
        }
        problems
    }
}

/// How the component reaches the API server.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Client flags")]
pub struct ClientArgs {
    /// Path to the kubeconfig file with authorization and master location information.
    #[arg(long, value_parser = path)]
    pub kubeconfig: Option<PathBuf>,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long)]
    pub master: Option<String>,
    /// QPS to use while talking with the Kubernetes API server.
    #[arg(long, default_value_t = 50.0)]
    pub kube_api_qps: f32,
    /// Burst to use while talking with the Kubernetes API server.
    #[arg(long, default_value_t = 100)]
    pub kube_api_burst: i32,
    /// Content type of requests sent to the API server.
    #[arg(long, default_value = "application/vnd.kubernetes.protobuf")]
    pub kube_api_content_type: String,
}

/// Authentication and authorization of requests by asking the API server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Authentication flags")]
pub struct DelegatedAuthArgs {
    /// kubeconfig file of a server with enough rights to create tokenreviews.authentication.k8s.io.
    #[arg(long, value_parser = path)]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Do not look up missing authentication configuration in the cluster.
    #[arg(long, default_value_t = false)]
    pub authentication_skip_lookup: bool,
    /// Failures to look up missing authentication configuration in the cluster are not fatal.
    #[arg(long, default_value_t = true)]
    pub authentication_tolerate_lookup_failure: bool,
    /// The duration to cache responses from the token authenticator.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// A client certificate signed by one of the authorities in this file is authenticated by its CommonName.
    #[arg(long, value_parser = path)]
    pub client_ca_file: Option<PathBuf>,
    /// Root certificate bundle that verifies client certificates of authenticating proxies.
    #[arg(long, value_parser = path)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of client certificates that may name users in headers; empty means any.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers to inspect for usernames.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers to inspect for uids.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers to inspect for groups.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    pub requestheader_group_headers: Vec<String>,
    /// Header prefixes to inspect for extra information.
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// kubeconfig file of a server with enough rights to create subjectaccessreviews.authorization.k8s.io.
    #[arg(long, value_parser = path)]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// The duration to cache 'authorized' responses.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// The duration to cache 'unauthorized' responses.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
    /// HTTP paths to skip during authorization.
    #[arg(long, value_delimiter = ',', default_values = ["/healthz", "/readyz", "/livez"])]
    pub authorization_always_allow_paths: Vec<String>,
}

/// Which metrics are shown.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Metrics flags")]
pub struct MetricsArgs {
    /// The previous version for which you want to show hidden metrics.
    #[arg(long, default_value = "")]
    pub show_hidden_metrics_for_version: String,
    /// Metric names to disable.
    #[arg(long, value_delimiter = ',')]
    pub disabled_metrics: Vec<String>,
    /// Values of a label of a metric that are shown: metric,label='v1,v2'; all others become "unexpected".
    #[arg(long)]
    pub allow_metric_labels: Vec<AllowedLabels>,
    /// The path to the manifest file with the allow-list mapping.
    #[arg(long, value_parser = path)]
    pub allow_metric_labels_manifest: Option<PathBuf>,
}

impl MetricsArgs {
    /// All that is wrong with the settings.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !matches!(self.show_hidden_metrics_for_version.as_str(), "" | "1.35") {
            problems.push(format!(
                "--show-hidden-metrics-for-version must be omitted or have the value '1.35'. Only the previous minor \
                 version is allowed, got {}",
                self.show_hidden_metrics_for_version
            ));
        }
        problems.extend(self.selection().err());
        problems
    }

    /// Makes the settings those of the process; all that is wrong otherwise.
    pub fn apply(&self) -> Vec<String> {
        let problems = self.validate();
        if problems.is_empty()
            && let Ok(selection) = self.selection()
        {
            selection.install();
        }
        problems
    }

    /// What is shown; the manifest is read here.
    pub fn selection(&self) -> Result<Selection, String> {
        let mut allowed: Vec<Allowed> =
            self.allow_metric_labels.iter().flat_map(|AllowedLabels(list)| list.iter().cloned()).collect();
        if let Some(file) = &self.allow_metric_labels_manifest {
            let text = std::fs::read_to_string(file).map_err(|e| format!("allow list is not read: {e}"))?;
            let map: BTreeMap<String, String> =
                serde_yaml::from_str(&text).map_err(|e| format!("allow list is not a map of texts: {e}"))?;
            for (key, values) in map {
                allowed.push(Allowed::parse(&key, &values)?);
            }
        }
        Ok(Selection::new(&self.disabled_metrics, allowed))
    }
}

/// Profiling endpoints.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Debugging flags")]
pub struct ProfilingArgs {
    /// Enable profiling via web interface host:port/debug/pprof/.
    #[arg(long, default_value_t = true)]
    pub profiling: bool,
    /// Enable block profiling, if profiling is enabled.
    #[arg(long, default_value_t = false)]
    pub contention_profiling: bool,
}
