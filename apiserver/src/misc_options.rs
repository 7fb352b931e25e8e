//! Flags that belong to nothing else.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;
use runtime::flags::duration;

use crate::egress;

/// The gate of requests that servers of other versions answer; it is off, and cannot be turned on.
const PEERS: &str = "UnknownVersionInteroperabilityProxy";

/// Flags that belong to nothing else.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Misc flags")]
pub struct MiscOptions {
    /// Unix socket that serves profiling to whoever can open it.
    #[arg(long)]
    pub debug_socket_path: Option<PathBuf>,
    /// Whether /logs shows the log directory of this machine. Deprecated.
    #[arg(long, default_value_t = false)]
    pub enable_logs_handler: bool,
    /// File with the proxies that connections to nodes, Pods, Services and webhooks go by. etcd is reached directly only.
    #[arg(long)]
    pub egress_selector_config_file: Option<PathBuf>,
    /// File with where traces of requests are sent, and how many of them.
    #[arg(long)]
    pub tracing_config_file: Option<PathBuf>,
    /// CA of the serving certificates of other servers of the cluster. Needs a feature that is off.
    #[arg(long)]
    pub peer_ca_file: Option<PathBuf>,
    /// Address that other servers of the cluster reach this one at. Needs a feature that is off.
    #[arg(long)]
    pub peer_advertise_ip: Option<IpAddr>,
    /// Port of that address. Needs a feature that is off.
    #[arg(long)]
    pub peer_advertise_port: Option<u16>,
    /// Life of Leases whose holder this server chooses. It chooses none, because the feature is off.
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub coordinated_leadership_lease_duration: Duration,
    /// Time in which such a holder has to renew its Lease.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub coordinated_leadership_renew_deadline: Duration,
    /// Time between its attempts.
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub coordinated_leadership_retry_period: Duration,
}

impl MiscOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (flag, given) in [
            ("peer-ca-file", self.peer_ca_file.is_some()),
            ("peer-advertise-ip", self.peer_advertise_ip.is_some()),
            ("peer-advertise-port", self.peer_advertise_port.is_some()),
        ] {
            if given {
                problems.push(format!("--{flag} requires {PEERS} feature to be turned on"));
            }
        }
        let (lease, renew, retry) = (
            self.coordinated_leadership_lease_duration,
            self.coordinated_leadership_renew_deadline,
            self.coordinated_leadership_retry_period,
        );
        if lease <= renew {
            problems.push(
                "--coordinated-leadership-lease-duration must be greater than --coordinated-leadership-renew-deadline"
                    .into(),
            );
        }
        if renew <= retry {
            problems.push(
                "--coordinated-leadership-renew-deadline must be greater than --coordinated-leadership-retry-period"
                    .into(),
            );
        }
        problems.extend(self.egress_selector_config_file.iter().flat_map(|file| egress::check(file)));
        problems
    }
}
