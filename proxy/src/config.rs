//! KubeProxyConfiguration v1alpha1, all of it. What this proxy does not do is refused, never ignored:
//! [`Configuration::problems`].

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Group and version of the file.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// Kind of the file.
pub const KIND: &str = "KubeProxyConfiguration";

/// The file. Durations are Go's texts; zero and empty values mean the default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Configuration {
    pub feature_gates: Map<String, Value>,
    pub client_connection: ClientConnection,
    pub logging: Logging,
    pub hostname_override: String,
    pub bind_address: String,
    pub healthz_bind_address: String,
    pub metrics_bind_address: String,
    pub bind_address_hard_fail: bool,
    pub enable_profiling: bool,
    pub show_hidden_metrics_for_version: String,
    pub mode: String,
    pub iptables: Iptables,
    pub ipvs: Value,
    pub nftables: Value,
    pub winkernel: Value,
    pub detect_local_mode: String,
    pub detect_local: Value,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: String,
    #[serde(deserialize_with = "nullable")]
    pub node_port_addresses: Vec<String>,
    pub oom_score_adj: Option<i32>,
    pub conntrack: Conntrack,
    #[serde(deserialize_with = "go_duration")]
    pub config_sync_period: Duration,
    pub port_range: String,
    pub windows_run_as_service: bool,
}

/// How the API is reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ClientConnection {
    pub kubeconfig: PathBuf,
    pub accept_content_types: String,
    pub content_type: String,
    pub qps: f32,
    pub burst: i32,
}

/// Logs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Logging {
    pub format: String,
    pub flush_frequency: Value,
    pub verbosity: i32,
    pub vmodule: Value,
    pub options: Value,
}

/// Settings of iptables mode.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Iptables {
    pub masquerade_bit: Option<u8>,
    pub masquerade_all: bool,
    pub localhost_node_ports: Option<bool>,
    #[serde(deserialize_with = "go_duration")]
    pub sync_period: Duration,
    #[serde(deserialize_with = "go_duration")]
    pub min_sync_period: Duration,
}

/// Limits of connection tracking.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Conntrack {
    pub max_per_core: Option<u64>,
    pub min: Option<u64>,
    #[serde(deserialize_with = "optional_duration")]
    pub tcp_established_timeout: Option<Duration>,
    #[serde(deserialize_with = "optional_duration")]
    pub tcp_close_wait_timeout: Option<Duration>,
    pub tcp_be_liberal: bool,
    #[serde(deserialize_with = "go_duration")]
    pub udp_timeout: Duration,
    #[serde(deserialize_with = "go_duration")]
    pub udp_stream_timeout: Duration,
}

fn nullable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    runtime::flags::duration(&text).map(Some).map_err(serde::de::Error::custom)
}

fn go_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Ok(optional_duration(deserializer)?.unwrap_or_default())
}

impl Configuration {
    /// Everything that is wrong or that this proxy does not do.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut unless = |fine: bool, text: String| {
            if !fine {
                problems.push(text);
            }
        };
        unless(matches!(self.mode.as_str(), "" | "iptables"), format!("mode {:?} is not built in", self.mode));
        unless(
            matches!(self.detect_local_mode.as_str(), "" | "ClusterCIDR"),
            format!("detectLocalMode {:?} is not built in", self.detect_local_mode),
        );
        unless(self.node_port_addresses.is_empty(), "nodePortAddresses is not built in".into());
        unless(!self.enable_profiling, "enableProfiling is not built in".into());
        unless(self.show_hidden_metrics_for_version.is_empty(), "showHiddenMetricsForVersion is not built in".into());
        unless(!self.windows_run_as_service, "windowsRunAsService needs Windows".into());
        unless(
            self.feature_gates.is_empty(),
            format!("unrecognized feature gate: {}", self.feature_gates.keys().next().map_or("", String::as_str)),
        );
        let address: Option<IpAddr> = self.bind_address.parse().ok();
        let v4 = self.bind_address.is_empty() || address.is_some_and(|a| a.is_ipv4() || a.is_unspecified());
        unless(v4, format!("bindAddress {:?}: only IPv4 is built in", self.bind_address));
        unless(
            self.iptables.masquerade_bit.is_none_or(|bit| bit <= 31),
            "iptables.masqueradeBit: must be within the range [0, 31]".into(),
        );
        unless(
            self.iptables.min_sync_period <= self.iptables.sync_period || self.iptables.sync_period.is_zero(),
            "iptables.syncPeriod: must be greater than or equal to minSyncPeriod".into(),
        );
        unless(
            self.oom_score_adj.is_none_or(|score| (-1000..=1000).contains(&score)),
            "oomScoreAdj: must be within the range [-1000, 1000]".into(),
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Configuration {
        let whole = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}");
        runtime::config_file::decode(&whole, &[API_VERSION], KIND).unwrap()
    }

    #[test]
    fn a_file_with_every_field_is_read() {
        let config = read(
            "bindAddress: 0.0.0.0\nbindAddressHardFail: false\nclientConnection: {acceptContentTypes: '', burst: 0, \
             contentType: '', kubeconfig: /k, qps: 0}\nclusterCIDR: 10.244.0.0/16\nconfigSyncPeriod: 0s\n\
             conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, \
             tcpEstablishedTimeout: null, udpStreamTimeout: 0s, udpTimeout: 0s}\n\
             detectLocal: {bridgeInterface: '', interfaceNamePrefix: ''}\ndetectLocalMode: ''\nenableProfiling: false\n\
             healthzBindAddress: ''\nhostnameOverride: ''\n\
             iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}\n\
             ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: '', strictARP: false}\n\
             logging: {flushFrequency: 0, options: {json: {infoBufferSize: '0'}}, verbosity: 0}\nmetricsBindAddress: ''\n\
             mode: ''\nnftables: {masqueradeAll: false}\nnodePortAddresses: null\noomScoreAdj: null\nportRange: ''\n\
             showHiddenMetricsForVersion: ''\nwinkernel: {enableDSR: false}\n",
        );
        assert_eq!(config.problems(), Vec::<String>::new());
        assert_eq!(config.cluster_cidr, "10.244.0.0/16");
    }

    #[test]
    fn what_is_not_done_is_refused() {
        let config = read("mode: ipvs\nnodePortAddresses: [10.0.0.0/8]\nbindAddress: fd00::1\n");
        assert_eq!(config.problems().len(), 3);
        let times = read("iptables: {syncPeriod: 1s, minSyncPeriod: 2s}\nconntrack: {udpTimeout: 1m}\n");
        assert_eq!(times.problems().len(), 1);
        assert_eq!(times.conntrack.udp_timeout, Duration::from_secs(60));
    }
}
