//! What is wrong with a configuration that has its defaults.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::{Configuration, GoTime};
use crate::family::Family;

const MODES: [&str; 4] = ["", "iptables", "ipvs", "nftables"];
const DETECTORS: [&str; 5] = ["", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"];
/// Longest name of a network interface.
const INTERFACE: usize = 15;

struct Problems(Vec<String>);

impl Problems {
    fn unless(&mut self, fine: bool, field: &str, value: impl std::fmt::Debug, text: &str) {
        if !fine {
            self.0.push(format!("KubeProxyConfiguration.{field}: Invalid value: {value:?}: {text}"));
        }
    }

    fn periods(&mut self, block: &str, period: GoTime, least: GoTime) {
        let text = |time: GoTime| runtime::flags::format_duration(time.0);
        let longer = format!("must be greater than or equal to KubeProxyConfiguration.{block}.MinSyncPeriod");
        self.unless(period.0 > Duration::ZERO, &format!("{block}.SyncPeriod"), text(period), "must be greater than 0");
        self.unless(least <= period, &format!("{block}.SyncPeriod"), text(least), &longer);
    }

    fn bit(&mut self, field: &str, bit: Option<i32>) {
        self.unless(bit.is_none_or(|bit| (0..=31).contains(&bit)), field, bit, "must be within the range [0, 31]");
    }

    fn ranges(&mut self, field: &str, ranges: &[&str], most_of_a_family: usize) {
        for (at, range) in ranges.iter().enumerate() {
            let field = format!("{field}[{at}]");
            self.unless(
                range.parse::<IpNet>().is_ok(),
                &field,
                range,
                "must be a valid CIDR block, e.g. 10.100.0.0/16",
            );
        }
        let parsed: Vec<IpNet> = ranges.iter().filter_map(|range| range.parse().ok()).collect();
        for family in Family::ALL {
            let count = parsed.iter().filter(|net| Family::of_net(net) == family).count();
            self.unless(count <= most_of_a_family, field, ranges, "only one CIDR allowed or a valid DualStack CIDR");
        }
    }
}

fn interface(name: &str) -> bool {
    !name.is_empty() && name.len() <= INTERFACE && !name.contains(|c: char| c == '/' || c.is_whitespace() || c == '"')
}

impl Configuration {
    /// All that is wrong.
    pub fn problems(&self) -> Vec<String> {
        let mut all = Problems(Vec::new());
        all.unless(MODES.contains(&&*self.mode), "Mode", &self.mode, "must be iptables,ipvs,nftables or blank");
        let known = DETECTORS.contains(&&*self.detect_local_mode);
        let text = "must be ClusterCIDR,NodeCIDR,BridgeInterface,InterfaceNamePrefix or blank";
        all.unless(known, "DetectLocalMode", &self.detect_local_mode, text);
        self.detection(&mut all);
        all.unless(
            self.bind_address.parse::<IpAddr>().is_ok(),
            "BindAddress",
            &self.bind_address,
            "not a valid textual representation of an IP address",
        );
        for (field, text) in
            [("HealthzBindAddress", &self.healthz_bind_address), ("MetricsBindAddress", &self.metrics_bind_address)]
        {
            all.unless(text.parse::<SocketAddr>().is_ok(), field, text, "must be IP:port");
        }
        all.bit("IPTables.MasqueradeBit", self.iptables.masquerade_bit);
        all.bit("NFTables.MasqueradeBit", self.nftables.masquerade_bit);
        all.periods("IPTables", self.iptables.sync_period, self.iptables.min_sync_period);
        all.periods("IPVS", self.ipvs.sync_period, self.ipvs.min_sync_period);
        all.periods("NFTables", self.nftables.sync_period, self.nftables.min_sync_period);
        let excluded: Vec<&str> = self.ipvs.exclude_cidrs.iter().map(String::as_str).collect();
        all.ranges("IPVS.ExcludeCIDRs", &excluded, usize::MAX);
        let scheduler = &self.ipvs.scheduler;
        let fine =
            scheduler.len() < 16 && scheduler.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        all.unless(fine, "IPVS.Scheduler", scheduler, "must be the name of a scheduler of the kernel");
        let addresses: Vec<&str> = self.node_port_addresses.iter().map(String::as_str).collect();
        if addresses.contains(&"primary") {
            all.unless(addresses.len() == 1, "NodePortAddresses", &addresses, "can't use both 'primary' and CIDRs");
        } else {
            all.ranges("NodePortAddresses", &addresses, usize::MAX);
        }
        let score = self.oom_score_adj.is_none_or(|score| (-1000..=1000).contains(&score));
        all.unless(score, "OOMScoreAdj", self.oom_score_adj, "must be within the range [-1000, 1000]");
        all.unless(self.config_sync_period.0 > Duration::ZERO, "ConfigSyncPeriod", "0s", "must be greater than 0");
        all.unless(
            self.client_connection.burst >= 0,
            "ClientConnection.Burst",
            self.client_connection.burst,
            "must be non-negative",
        );
        for (field, value) in [("MaxPerCore", self.conntrack.max_per_core), ("Min", self.conntrack.min)] {
            let field = format!("KubeConntrackConfiguration.{field}");
            all.unless(value.is_none_or(|value| value >= 0), &field, value, "must be greater than or equal to 0");
        }
        all.unless(!self.windows_run_as_service, "WindowsRunAsService", true, "needs Windows");
        let hidden = self.show_hidden_metrics_for_version.as_str();
        all.unless(
            matches!(hidden, "" | "1.35"),
            "ShowHiddenMetricsForVersion",
            hidden,
            "must be omitted or have the value '1.35'",
        );
        all.0
    }

    fn detection(&self, all: &mut Problems) {
        let ranges: Vec<&str> = self.cluster_cidr.split(',').map(str::trim).filter(|range| !range.is_empty()).collect();
        all.ranges("ClusterCIDR", &ranges, 1);
        let local = &self.detect_local;
        match self.detect_local_mode.as_str() {
            "BridgeInterface" => {
                let name = &local.bridge_interface;
                all.unless(interface(name), "DetectLocal.BridgeInterface", name, "must be the name of an interface");
            }
            "InterfaceNamePrefix" => {
                let prefix = &local.interface_name_prefix;
                let fine = interface(prefix) && !prefix.contains('+');
                all.unless(
                    fine,
                    "DetectLocal.InterfaceNamePrefix",
                    prefix,
                    "must be the beginning of names of interfaces",
                );
            }
            _ => {}
        }
    }
}
