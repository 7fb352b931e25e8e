//! Flags of kube-proxy, and how they and the configuration file become one [`Configuration`].

use std::{path::PathBuf, time::Duration};

use clap::Args;
use runtime::{
    config_file::{self, ConfigError},
    features::{FeatureGates, Gate},
    flags::duration,
};

use super::{
    API_VERSION, ClientConnection, Configuration, Conntrack, DetectLocal, GoTime, Iptables, Ipvs, KIND, Nftables,
    settings::Settings,
};

/// Feature gates that this proxy knows.
pub const GATES: &[Gate] = &[];

/// Flags that have better successors.
pub const DEPRECATED: &[(&str, &str)] = &[
    (
        "healthz-port",
        "This flag is deprecated and will be removed in a future release. Please use --healthz-bind-address instead.",
    ),
    (
        "metrics-port",
        "This flag is deprecated and will be removed in a future release. Please use --metrics-bind-address instead.",
    ),
];

/// All flags. With --config only --hostname-override, --master, --write-config-to, --cleanup, --init-only and the log
/// flags count.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// If set, write the default configuration values to this file and exit.
    #[arg(long)]
    pub write_config_to: Option<PathBuf>,
    /// If true, cleanup iptables, ipvs and nftables rules and exit.
    #[arg(long, default_value_t = false)]
    pub cleanup: bool,
    /// If true, perform any initialization steps that must be done with full root privileges, and then exit.
    #[arg(long, default_value_t = false)]
    pub init_only: bool,
    /// If non-empty, will be used as the name of the Node that kube-proxy is running on.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// The address of the Kubernetes API server (overrides any value in kubeconfig).
    #[arg(long, default_value = "")]
    pub master: String,
    /// Path to kubeconfig file with authorization information.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Content type of requests sent to the API server.
    #[arg(long, default_value = "application/vnd.kubernetes.protobuf")]
    pub kube_api_content_type: String,
    /// QPS to use while talking with the Kubernetes API server.
    #[arg(long, default_value_t = 5.0)]
    pub kube_api_qps: f32,
    /// Burst to use while talking with the Kubernetes API server.
    #[arg(long, default_value_t = 10)]
    pub kube_api_burst: i32,
    /// A set of key=value pairs that describe feature gates for alpha/experimental features.
    #[arg(long, value_name = "mapStringBool")]
    pub feature_gates: Vec<String>,
    /// Overrides kube-proxy's idea of what its node's primary IP is.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: String,
    /// If true, failure to bind to a port is fatal.
    #[arg(long, default_value_t = false)]
    pub bind_address_hard_fail: bool,
    /// The IP address and port for the health check server to serve on.
    #[arg(long, default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: String,
    /// The IP address and port for the metrics server to serve on.
    #[arg(long, default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: String,
    /// The port to bind the health check server. Use 0 to disable.
    #[arg(long, default_value_t = 10256)]
    pub healthz_port: u16,
    /// The port to bind the metrics server. Use 0 to disable.
    #[arg(long, default_value_t = 10249)]
    pub metrics_port: u16,
    /// If true, enables profiling via web interface on /debug/pprof handler.
    #[arg(long, default_value_t = false)]
    pub profiling: bool,
    /// The previous version for which you want to show hidden metrics.
    #[arg(long, default_value = "")]
    pub show_hidden_metrics_for_version: String,
    /// Which proxy mode to use: 'iptables' (default), 'ipvs' or 'nftables'.
    #[arg(long, default_value = "")]
    pub proxy_mode: String,
    /// The CIDR range of the Pods in the cluster; traffic from elsewhere to cluster IPs is masqueraded.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// How local traffic is told: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.
    #[arg(long, default_value = "")]
    pub detect_local_mode: String,
    /// A bridge interface name; traffic that comes from it is local.
    #[arg(long, default_value = "")]
    pub pod_bridge_interface: String,
    /// An interface name prefix; traffic that comes from such an interface is local.
    #[arg(long, default_value = "")]
    pub pod_interface_name_prefix: String,
    /// CIDRs of node addresses that node ports are accepted on, or 'primary'.
    #[arg(long, value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,
    /// SNAT all traffic sent via Service cluster IPs.
    #[arg(long, default_value_t = false)]
    pub masquerade_all: bool,
    /// The bit of the fwmark space to mark packets requiring SNAT with. Must be within the range [0, 31].
    #[arg(long, default_value_t = 14)]
    pub iptables_masquerade_bit: i32,
    /// If false, node ports are not answered on localhost.
    #[arg(long, default_value_t = true)]
    pub iptables_localhost_nodeports: bool,
    /// How often iptables rules are looked after unasked.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub iptables_sync_period: Duration,
    /// The least time between two synchronizations of iptables rules.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub iptables_min_sync_period: Duration,
    /// How often ipvs rules are synchronized unasked.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub ipvs_sync_period: Duration,
    /// The least time between two synchronizations of ipvs rules.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub ipvs_min_sync_period: Duration,
    /// The ipvs scheduler type.
    #[arg(long, default_value = "")]
    pub ipvs_scheduler: String,
    /// CIDRs of virtual servers that are not touched in ipvs mode.
    #[arg(long, value_delimiter = ',')]
    pub ipvs_exclude_cidrs: Vec<String>,
    /// Enable strict ARP by setting arp_ignore to 1 and arp_announce to 2.
    #[arg(long, default_value_t = false)]
    pub ipvs_strict_arp: bool,
    /// The timeout for idle IPVS TCP connections, 0 to leave as-is.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub ipvs_tcp_timeout: Duration,
    /// The timeout for IPVS TCP connections after receiving a FIN packet, 0 to leave as-is.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub ipvs_tcpfin_timeout: Duration,
    /// The timeout for IPVS UDP packets, 0 to leave as-is.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub ipvs_udp_timeout: Duration,
    /// The oom-score-adj value for the kube-proxy process. Values must be within the range [-1000, 1000].
    #[arg(long, default_value_t = -999, allow_hyphen_values = true)]
    pub oom_score_adj: i32,
    /// Maximum number of NAT connections to track per CPU core (0 to leave the limit as-is and ignore conntrack-min).
    #[arg(long, default_value_t = 32_768)]
    pub conntrack_max_per_core: i32,
    /// Minimum number of conntrack entries to allocate, regardless of conntrack-max-per-core.
    #[arg(long, default_value_t = 131_072)]
    pub conntrack_min: i32,
    /// Idle timeout for established TCP connections (0 to leave as-is).
    #[arg(long, default_value = "24h", value_parser = duration)]
    pub conntrack_tcp_timeout_established: Duration,
    /// NAT timeout for TCP connections in the CLOSE_WAIT state.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub conntrack_tcp_timeout_close_wait: Duration,
    /// Enable liberal mode for tracking TCP packets.
    #[arg(long, default_value_t = false)]
    pub conntrack_tcp_be_liberal: bool,
    /// Idle timeout for UNREPLIED UDP connections (0 to leave as-is).
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub conntrack_udp_timeout: Duration,
    /// Idle timeout for ASSURED UDP connections (0 to leave as-is).
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub conntrack_udp_timeout_stream: Duration,
    /// How often configuration from the apiserver is refreshed. Must be greater than 0.
    #[arg(long, default_value = "15m", value_parser = duration)]
    pub config_sync_period: Duration,
}

/// Settings that are not usable.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The file.
    #[error("failed to load configuration file")]
    File(#[from] ConfigError),
    /// Values.
    #[error("{0}")]
    Values(String),
}

impl Options {
    /// Reads the file if there is one, fills in defaults and checks everything.
    pub fn configuration(&self) -> Result<(Configuration, Settings, FeatureGates), OptionsError> {
        let mut config = match &self.config {
            Some(path) => config_file::decode(&config_file::read(path)?, &[API_VERSION], KIND)?,
            None => self.as_file()?,
        };
        if !self.hostname_override.is_empty() {
            config.hostname_override.clone_from(&self.hostname_override);
        }
        let config = config.complete();
        let mut problems = config.problems();
        let gate_settings: Vec<(String, String)> =
            config.feature_gates.iter().map(|(name, on)| (name.clone(), on.to_string())).collect();
        let gates = FeatureGates::new(GATES, &gate_settings);
        let gates = gates.unwrap_or_else(|more| {
            problems.extend(more);
            FeatureGates::default()
        });
        let settings = Settings::of(&config).filter(|_| problems.is_empty());
        settings.map(|settings| (config, settings, gates)).ok_or_else(|| OptionsError::Values(problems.join(", ")))
    }

    fn as_file(&self) -> Result<Configuration, OptionsError> {
        let gates = FeatureGates::parse(&self.feature_gates, false).map_err(OptionsError::Values)?;
        let mut config = Configuration {
            hostname_override: self.hostname_override.clone(),
            client_connection: ClientConnection {
                kubeconfig: self.kubeconfig.clone().unwrap_or_default(),
                content_type: self.kube_api_content_type.clone(),
                qps: self.kube_api_qps,
                burst: self.kube_api_burst,
                ..ClientConnection::default()
            },
            bind_address: self.bind_address.clone(),
            healthz_bind_address: with_port(&self.healthz_bind_address, "0.0.0.0:10256", self.healthz_port),
            metrics_bind_address: with_port(&self.metrics_bind_address, "127.0.0.1:10249", self.metrics_port),
            bind_address_hard_fail: self.bind_address_hard_fail,
            enable_profiling: self.profiling,
            show_hidden_metrics_for_version: self.show_hidden_metrics_for_version.clone(),
            mode: self.proxy_mode.clone(),
            iptables: self.iptables(),
            ipvs: self.ipvs(),
            nftables: Nftables {
                masquerade_bit: Some(self.iptables_masquerade_bit),
                masquerade_all: self.masquerade_all,
                sync_period: GoTime(self.iptables_sync_period),
                min_sync_period: GoTime(self.iptables_min_sync_period),
            },
            detect_local_mode: self.detect_local_mode.clone(),
            detect_local: DetectLocal {
                bridge_interface: self.pod_bridge_interface.clone(),
                interface_name_prefix: self.pod_interface_name_prefix.clone(),
            },
            cluster_cidr: self.cluster_cidr.clone(),
            node_port_addresses: self.nodeport_addresses.iter().filter(|a| !a.is_empty()).cloned().collect(),
            oom_score_adj: Some(self.oom_score_adj),
            conntrack: self.conntrack(),
            config_sync_period: GoTime(self.config_sync_period),
            healthz_off: self.healthz_bind_address.is_empty() || self.healthz_port == 0,
            metrics_off: self.metrics_bind_address.is_empty() || self.metrics_port == 0,
            ..Configuration::default()
        };
        for (name, value) in gates {
            let value = runtime::flags::boolean(&value)
                .map_err(|error| OptionsError::Values(format!("invalid value of {name}={value}, err: {error}")))?;
            config.feature_gates.insert(name, value);
        }
        Ok(config)
    }

    fn iptables(&self) -> Iptables {
        Iptables {
            masquerade_bit: Some(self.iptables_masquerade_bit),
            masquerade_all: self.masquerade_all,
            localhost_node_ports: Some(self.iptables_localhost_nodeports),
            sync_period: GoTime(self.iptables_sync_period),
            min_sync_period: GoTime(self.iptables_min_sync_period),
        }
    }

    fn ipvs(&self) -> Ipvs {
        Ipvs {
            sync_period: GoTime(self.ipvs_sync_period),
            min_sync_period: GoTime(self.ipvs_min_sync_period),
            scheduler: self.ipvs_scheduler.clone(),
            exclude_cidrs: self.ipvs_exclude_cidrs.iter().filter(|c| !c.is_empty()).cloned().collect(),
            strict_arp: self.ipvs_strict_arp,
            tcp_timeout: GoTime(self.ipvs_tcp_timeout),
            tcp_fin_timeout: GoTime(self.ipvs_tcpfin_timeout),
            udp_timeout: GoTime(self.ipvs_udp_timeout),
        }
    }

    fn conntrack(&self) -> Conntrack {
        Conntrack {
            max_per_core: Some(self.conntrack_max_per_core),
            min: Some(self.conntrack_min),
            tcp_established_timeout: Some(GoTime(self.conntrack_tcp_timeout_established)),
            tcp_close_wait_timeout: Some(GoTime(self.conntrack_tcp_timeout_close_wait)),
            tcp_be_liberal: self.conntrack_tcp_be_liberal,
            udp_timeout: GoTime(self.conntrack_udp_timeout),
            udp_stream_timeout: GoTime(self.conntrack_udp_timeout_stream),
        }
    }
}

/// The address of a server. The default one gives way to another family's, and takes the port of the old flag.
fn with_port(address: &str, default: &str, port: u16) -> String {
    let normal = default.rsplit(':').next().and_then(|text| text.parse().ok()) == Some(port);
    match (address == default, normal) {
        (true, true) => String::new(),
        (true, false) => default.rsplit_once(':').map_or_else(String::new, |(ip, _)| format!("{ip}:{port}")),
        (false, _) => address.to_owned(),
    }
}
