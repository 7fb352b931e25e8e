//! Flags of kube-apiserver.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use ipnet::IpNet;
use runtime::{
    ComponentInfo,
    features::{FeatureGates, Gate},
    flags::{CompatibilityArgs, MetricsArgs, ProfilingArgs, SecureServingArgs, duration},
};

use crate::{
    account_options::AccountOptions,
    admission_options::AdmissionOptions,
    aggregation::AggregationOptions,
    audit::AuditOptions,
    auth_options::{AuthenticationOptions, AuthorizationOptions},
    generic_options::GenericOptions,
    kubelet_options::KubeletOptions,
    misc_options::MiscOptions,
    runtime_config::RuntimeConfig,
    service_options::{self, ServiceOptions},
    storage_options::StorageOptions,
};

/// The component.
pub const INFO: ComponentInfo = ComponentInfo {
    name: "kube-apiserver",
    about: "The Kubernetes API server serves the API over etcd, or, when no etcd server is given, over an embedded \
            store in a directory of its own.",
    deprecated: &[
        ("apiserver-count", "apiserver-count is deprecated and will be removed in a future version."),
        (
            "admission-control",
            "Use --enable-admission-plugins or --disable-admission-plugins instead. Will be removed in a future version.",
        ),
        ("audit-webhook-batch-initial-backoff", "Deprecated, use --audit-webhook-initial-backoff instead."),
        (
            "default-watch-cache-size",
            "watch caches are sized automatically and this flag will be removed in a future version",
        ),
        ("enable-logs-handler", "This flag will be removed in v1.19"),
        ("kubelet-port", "kubelet-port is deprecated and will be removed."),
        ("kubelet-read-only-port", "kubelet-read-only-port is deprecated and will be removed."),
    ],
};

/// Default of `--secure-port`.
const PORT: u16 = 6443;
/// Default of `--cert-dir`.
const CERT_DIR: &str = "/var/run/kubernetes";

/// Gates that can be named.
const GATES: &[Gate] = &[
    Gate::locked("APIServerIdentity"),
    Gate::locked_since("APIServerTracing", 34),
    Gate::locked_since("AnonymousAuthConfigurableEndpoints", 34),
    Gate::beta("ClusterTrustBundle", false),
    Gate::locked_since("ConsistentListFromCache", 34),
    Gate::locked_since("ExternalServiceAccountTokenSigner", 36),
    Gate::locked_since("JobBackoffLimitPerIndex", 33),
    Gate::locked_since("JobPodReplacementPolicy", 34),
    Gate::locked_since("JobSuccessPolicy", 33),
    Gate::locked("MultiCIDRServiceAllocator"),
    Gate::locked("RetryGenerateName"),
    Gate::locked("ServiceAccountTokenNodeBinding"),
    Gate::locked("StatefulSetAutoDeletePVC"),
];

/// All flags.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Misc flags")]
pub struct Options {
    /// Address that other members of the cluster reach this server at.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// A set of key=value pairs that describe feature gates for alpha/experimental features.
    #[arg(long)]
    pub feature_gates: Vec<String>,
    /// CA bundle of client certificates.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Static tokens: token,user,uid[,"group1,group2"].
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// Whether Pods may ask for privileged containers.
    #[arg(long, default_value_t = false)]
    pub allow_privileged: bool,
    /// Whether bootstrap tokens (Secrets in kube-system) authenticate.
    #[arg(long, default_value_t = false)]
    pub enable_bootstrap_token_auth: bool,
    /// Whether health and version may be read without credentials.
    #[arg(long, default_value_t = true)]
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
    /// Audiences of the API; the issuers by default.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// What of the built-in API is served: api/all, api/ga, api/beta, api/alpha, group/version or
    /// group/version/resource, each =true or =false.
    #[arg(long, value_delimiter = ',')]
    pub runtime_config: Vec<String>,
    /// Ranges of cluster IPs: one, or one of each address family. Services get addresses of the first one by default.
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: Vec<IpNet>,
    /// Life of events.
    #[arg(long, default_value = "1h0m0s", value_parser = duration)]
    pub event_ttl: Duration,
    /// Whether requests are let through by priority and fairness; the limits below then are seats of all levels.
    #[arg(long, default_value_t = true)]
    pub enable_priority_and_fairness: bool,
    /// The store.
    #[command(flatten)]
    pub storage: StorageOptions,
    /// Kubelets.
    #[command(flatten)]
    pub kubelet: KubeletOptions,
    /// Admission.
    #[command(flatten)]
    pub admission: AdmissionOptions,
    /// What else there is.
    #[command(flatten)]
    pub misc: MiscOptions,
    /// Serving.
    #[command(flatten)]
    pub serving: SecureServingArgs,
    /// Serving as such.
    #[command(flatten)]
    pub generic: GenericOptions,
    /// Metrics.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Versions.
    #[command(flatten)]
    pub compatibility: CompatibilityArgs,
    /// Profiling.
    #[command(flatten)]
    pub profiling: ProfilingArgs,
    /// The audit log.
    #[command(flatten)]
    pub audit: AuditOptions,
    /// ServiceAccount tokens.
    #[command(flatten)]
    pub accounts: AccountOptions,
    /// Authentication by others.
    #[command(flatten)]
    pub authentication: AuthenticationOptions,
    /// Authorization.
    #[command(flatten)]
    pub authorization: AuthorizationOptions,
    /// Services.
    #[command(flatten)]
    pub service: ServiceOptions,
    /// API aggregation.
    #[command(flatten)]
    pub aggregation: AggregationOptions,
}

impl Options {
    /// Where to listen.
    pub(crate) fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.serving.bind_address, self.serving.secure_port.unwrap_or(PORT))
    }

    /// Where clients outside find the server that listens on a port.
    pub(crate) fn external_address(&self, advertise: IpAddr, port: u16) -> String {
        match self.generic.external_hostname.as_str() {
            "" => SocketAddr::new(advertise, port).to_string(),
            name => format!("{name}:{port}"),
        }
    }

    /// Fills in what depends on other flags.
    pub(crate) fn complete(&mut self) {
        if self.serving.cert_dir.as_os_str().is_empty() {
            self.serving.cert_dir = CERT_DIR.into();
        }
        self.accounts.complete(self.storage.is_shared());
    }

    /// The gates as the flags set them.
    pub(crate) fn gates(&self) -> Result<FeatureGates, Vec<String>> {
        let settings = FeatureGates::parse(&self.feature_gates, true).map_err(|e| vec![e])?;
        FeatureGates::new(GATES, &settings)
    }

    /// All that is wrong, gates aside.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = self.metrics.apply();
        problems.extend(self.compatibility.apply());
        problems.extend(self.generic.validate());
        problems.extend(self.accounts.validate(self.storage.is_shared()));
        problems.extend(RuntimeConfig::parse(&self.runtime_config).err());
        problems.extend(self.storage.validate());
        problems.extend(self.kubelet.validate());
        problems.extend(self.admission.validate());
        problems.extend(self.misc.validate());
        problems.extend(self.service.validate());
        problems.extend(service_options::problems_of_ranges(&self.service_cluster_ip_range));
        problems.extend(self.aggregation.validate());
        problems.extend(self.audit.validate());
        problems.extend(self.authentication.validate());
        problems.extend(self.authorization.validate());
        if self.serving.secure_port == Some(0) {
            problems.push(
                "invalid port value 0: --secure-port 0 cannot be turned off, must be between 1 and 65535, inclusive"
                    .into(),
            );
        }
        let (reads, writes) = (self.generic.max_requests_inflight, self.generic.max_mutating_requests_inflight);
        if self.enable_priority_and_fairness && reads == 0 && writes == 0 {
            problems.push(format!(
                "invalid configuration: MaxRequestsInFlight={reads} and MaxMutatingRequestsInFlight={writes}; they must \
                 add up to something positive"
            ));
        }
        problems
    }
}
