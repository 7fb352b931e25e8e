//! KubeProxyConfiguration v1alpha1, all of it, with its defaults and its checks.

pub mod flags;
mod problems;
pub mod settings;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

/// Group and version of the file.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// Kind of the file.
pub const KIND: &str = "KubeProxyConfiguration";

const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;
const PERIOD: Duration = Duration::from_secs(30);
const LEAST_PERIOD: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// The file. Durations are Go's texts; zero and empty values mean the default.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Configuration {
    #[serde(deserialize_with = "gates")]
    pub feature_gates: BTreeMap<String, bool>,
    pub client_connection: ClientConnection,
    pub logging: Value,
    pub hostname_override: String,
    pub bind_address: String,
    pub healthz_bind_address: String,
    pub metrics_bind_address: String,
    pub bind_address_hard_fail: bool,
    pub enable_profiling: bool,
    pub show_hidden_metrics_for_version: String,
    pub mode: String,
    pub iptables: Iptables,
    pub ipvs: Ipvs,
    pub nftables: Nftables,
    pub winkernel: Value,
    pub detect_local_mode: String,
    pub detect_local: DetectLocal,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    #[serde(deserialize_with = "nullable")]
    pub node_port_addresses: Vec<String>,
    pub oom_score_adj: Option<i32>,
    pub conntrack: Conntrack,
    pub config_sync_period: GoTime,
    pub port_range: String,
    pub windows_run_as_service: bool,
    /// A flag turned the health server off; a file cannot.
    #[serde(skip)]
    pub healthz_off: bool,
    /// A flag turned the metrics server off.
    #[serde(skip)]
    pub metrics_off: bool,
}

/// A duration that is written as Go does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoTime(pub Duration);

impl<'de> Deserialize<'de> for GoTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(Self::default()) };
        runtime::flags::duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for GoTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&runtime::flags::format_duration(self.0))
    }
}

impl GoTime {
    fn or(&mut self, default: Duration) {
        if self.0.is_zero() {
            self.0 = default;
        }
    }
}

/// How the API is reached.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ClientConnection {
    pub kubeconfig: PathBuf,
    pub accept_content_types: String,
    pub content_type: String,
    pub qps: f32,
    pub burst: i32,
}

/// Settings of iptables mode.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Iptables {
    pub masquerade_bit: Option<i32>,
    pub masquerade_all: bool,
    pub localhost_node_ports: Option<bool>,
    pub sync_period: GoTime,
    pub min_sync_period: GoTime,
}

/// Settings of ipvs mode.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Ipvs {
    pub sync_period: GoTime,
    pub min_sync_period: GoTime,
    pub scheduler: String,
    #[serde(rename = "excludeCIDRs", deserialize_with = "nullable")]
    pub exclude_cidrs: Vec<String>,
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    pub tcp_timeout: GoTime,
    pub tcp_fin_timeout: GoTime,
    pub udp_timeout: GoTime,
}

/// Settings of nftables mode.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Nftables {
    pub masquerade_bit: Option<i32>,
    pub masquerade_all: bool,
    pub sync_period: GoTime,
    pub min_sync_period: GoTime,
}

/// What tells Pods' traffic apart.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DetectLocal {
    pub bridge_interface: String,
    pub interface_name_prefix: String,
}

/// Limits of connection tracking.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Conntrack {
    pub max_per_core: Option<i32>,
    pub min: Option<i32>,
    pub tcp_established_timeout: Option<GoTime>,
    pub tcp_close_wait_timeout: Option<GoTime>,
    pub tcp_be_liberal: bool,
    pub udp_timeout: GoTime,
    pub udp_stream_timeout: GoTime,
}

fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn gates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, bool>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn address(text: &mut String, default: String, port: u16) {
    if text.is_empty() {
        *text = default;
    } else if let Ok(ip) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        *text = std::net::SocketAddr::new(ip, port).to_string();
    }
}

impl Configuration {
    /// Fills in defaults.
    pub fn complete(mut self) -> Self {
        if self.bind_address.is_empty() {
            self.bind_address = "0.0.0.0".to_owned();
        }
        let v6 = self.bind_address.contains(':');
        let any = if v6 { "[::]" } else { "0.0.0.0" };
        let loopback = if v6 { "[::1]" } else { "127.0.0.1" };
        address(&mut self.healthz_bind_address, format!("{any}:{HEALTHZ_PORT}"), HEALTHZ_PORT);
        address(&mut self.metrics_bind_address, format!("{loopback}:{METRICS_PORT}"), METRICS_PORT);
        self.oom_score_adj.get_or_insert(-999);
        self.iptables.sync_period.or(PERIOD);
        self.iptables.min_sync_period.or(LEAST_PERIOD);
        self.iptables.localhost_node_ports.get_or_insert(true);
        self.iptables.masquerade_bit.get_or_insert(14);
        self.ipvs.sync_period.or(PERIOD);
        self.nftables.sync_period.or(PERIOD);
        self.nftables.min_sync_period.or(LEAST_PERIOD);
        self.nftables.masquerade_bit.get_or_insert(14);
        self.conntrack.max_per_core.get_or_insert(32_768);
        self.conntrack.min.get_or_insert(131_072);
        self.conntrack.tcp_established_timeout.get_or_insert(GoTime(DAY));
        self.conntrack.tcp_close_wait_timeout.get_or_insert(GoTime(HOUR));
        self.config_sync_period.or(Duration::from_secs(15 * 60));
        if self.client_connection.content_type.is_empty() {
            self.client_connection.content_type = "application/vnd.kubernetes.protobuf".to_owned();
        }
        if self.client_connection.qps == 0.0 {
            self.client_connection.qps = 5.0;
        }
        if self.client_connection.burst == 0 {
            self.client_connection.burst = 10;
        }
        self
    }

    /// The document that `/configz` and `--write-config-to` give.
    pub fn document(&self) -> Value {
        let mut document = serde_json::to_value(self).unwrap_or_default();
        document["apiVersion"] = json!(API_VERSION);
        document["kind"] = json!(KIND);
        document
    }
}

#[cfg(test)]
mod tests;
