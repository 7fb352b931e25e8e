//! Flags of kube-proxy, and how they and the configuration file become [`Settings`].

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use runtime::{
    config_file::{self, ConfigError},
    flags::duration,
};

use crate::config::{API_VERSION, Configuration, Conntrack, KIND};

const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;
const QPS: f32 = 5.0;
const BURST: i32 = 10;
const SYNC_PERIOD: Duration = Duration::from_secs(30);
const MIN_SYNC_PERIOD: Duration = Duration::from_secs(1);
const MASQUERADE_BIT: u8 = 14;
const OOM_SCORE: i32 = -999;

/// All flags. With --config only --hostname-override, --cleanup, --init-only and the log flags count.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Path to kubeconfig file with authorization information.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// If non-empty, will be used as the name of the Node that kube-proxy is running on.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// The CIDR range of the Pods in the cluster; traffic from elsewhere to cluster IPs is masqueraded.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// Which proxy mode to use: on Linux this can be 'iptables' (default).
    #[arg(long, default_value = "")]
    pub proxy_mode: String,
    /// The bit of the fwmark space to mark packets requiring SNAT with. Must be within the range [0, 31].
    #[arg(long, default_value_t = MASQUERADE_BIT)]
    pub iptables_masquerade_bit: u8,
    /// SNAT all traffic sent via Service cluster IPs.
    #[arg(long, default_value_t = false)]
    pub masquerade_all: bool,
    /// If false, disables the legacy behaviour of allowing NodePort Services to be accessed via localhost.
    #[arg(long, default_value_t = true)]
    pub iptables_localhost_nodeports: bool,
    /// An interval of how often to synchronize rules unasked.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub iptables_sync_period: Duration,
    /// The least time between two synchronizations.
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub iptables_min_sync_period: Duration,
    /// The IP address and port for the health check server to serve on.
    #[arg(long, default_value = "")]
    pub healthz_bind_address: String,
    /// The IP address and port for the metrics server to serve on.
    #[arg(long, default_value = "")]
    pub metrics_bind_address: String,
    /// If true, failure to bind to a port is fatal.
    #[arg(long, default_value_t = false)]
    pub bind_address_hard_fail: bool,
    /// If true, cleanup iptables rules and exit.
    #[arg(long, default_value_t = false)]
    pub cleanup: bool,
    /// If true, perform any initialization steps that must be done with full root privileges, and then exit.
    #[arg(long, default_value_t = false)]
    pub init_only: bool,
}

/// What the proxy works with.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Settings {
    pub kubeconfig: Option<PathBuf>,
    /// Requests per second, and at once.
    pub qps: f32,
    pub burst: i32,
    /// Empty: the host's name.
    pub hostname_override: String,
    pub cluster_cidr: String,
    pub masquerade_bit: u8,
    pub masquerade_all: bool,
    pub localhost_node_ports: bool,
    pub sync_period: Duration,
    pub min_sync_period: Duration,
    pub healthz: SocketAddr,
    pub metrics: SocketAddr,
    pub hard_fail: bool,
    pub oom_score_adj: i32,
    pub conntrack: Conntrack,
    /// Level of the log that the file asks for, if it is more than the flag's.
    pub verbosity: i32,
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
    /// Reads the file if there is one, checks everything and fills in defaults.
    pub fn settings(&self) -> Result<Settings, OptionsError> {
        let config = match &self.config {
            Some(path) => self.file(path)?,
            None => self.as_file(),
        };
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(OptionsError::Values(problems.join(", ")));
        }
        complete(&config)
    }

    fn file(&self, path: &Path) -> Result<Configuration, OptionsError> {
        let text = config_file::read(path)?;
        let mut config: Configuration = config_file::decode(&text, &[API_VERSION], KIND)?;
        if !self.hostname_override.is_empty() {
            config.hostname_override.clone_from(&self.hostname_override);
        }
        Ok(config)
    }

    fn as_file(&self) -> Configuration {
        let mut config = Configuration {
            hostname_override: self.hostname_override.clone(),
            cluster_cidr: self.cluster_cidr.clone(),
            mode: self.proxy_mode.clone(),
            healthz_bind_address: self.healthz_bind_address.clone(),
            metrics_bind_address: self.metrics_bind_address.clone(),
            bind_address_hard_fail: self.bind_address_hard_fail,
            ..Configuration::default()
        };
        config.client_connection.kubeconfig = self.kubeconfig.clone().unwrap_or_default();
        config.iptables.masquerade_bit = Some(self.iptables_masquerade_bit);
        config.iptables.masquerade_all = self.masquerade_all;
        config.iptables.localhost_node_ports = Some(self.iptables_localhost_nodeports);
        config.iptables.sync_period = self.iptables_sync_period;
        config.iptables.min_sync_period = self.iptables_min_sync_period;
        config
    }
}

fn complete(config: &Configuration) -> Result<Settings, OptionsError> {
    let client = &config.client_connection;
    let or = |time: Duration, default: Duration| if time.is_zero() { default } else { time };
    Ok(Settings {
        kubeconfig: Some(client.kubeconfig.clone()).filter(|path| !path.as_os_str().is_empty()),
        qps: if client.qps == 0.0 { QPS } else { client.qps },
        burst: if client.burst == 0 { BURST } else { client.burst },
        hostname_override: config.hostname_override.clone(),
        cluster_cidr: config.cluster_cidr.split(',').find(|cidr| !cidr.contains(':')).unwrap_or("").to_owned(),
        masquerade_bit: config.iptables.masquerade_bit.unwrap_or(MASQUERADE_BIT),
        masquerade_all: config.iptables.masquerade_all,
        localhost_node_ports: config.iptables.localhost_node_ports.unwrap_or(true),
        sync_period: or(config.iptables.sync_period, SYNC_PERIOD),
        min_sync_period: or(config.iptables.min_sync_period, MIN_SYNC_PERIOD),
        healthz: address(&config.healthz_bind_address, [0, 0, 0, 0], HEALTHZ_PORT)?,
        metrics: address(&config.metrics_bind_address, [127, 0, 0, 1], METRICS_PORT)?,
        hard_fail: config.bind_address_hard_fail,
        oom_score_adj: config.oom_score_adj.unwrap_or(OOM_SCORE),
        conntrack: config.conntrack.clone(),
        verbosity: config.logging.verbosity,
    })
}

/// `address[:port]` with the default port, or the default for an empty text.
fn address(text: &str, default: [u8; 4], port: u16) -> Result<SocketAddr, OptionsError> {
    if text.is_empty() {
        return Ok(SocketAddr::new(default.into(), port));
    }
    let alone = || text.trim_matches(['[', ']']).parse().map(|ip| SocketAddr::new(ip, port));
    text.parse().or_else(|_| alone()).map_err(|_| OptionsError::Values(format!("{text:?} is not an IP:port")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Flags::parse_from([&["test"], arguments].concat()).options
    }

    #[test]
    fn flags_alone() {
        let settings = options(&["--cluster-cidr", "fd00::/64,10.0.0.0/8"]).settings().unwrap();
        assert_eq!((settings.cluster_cidr.as_str(), settings.masquerade_bit), ("10.0.0.0/8", 14));
        assert_eq!(settings.healthz.to_string(), "0.0.0.0:10256");
        assert!(options(&["--proxy-mode", "userspace"]).settings().is_err());
    }

    #[test]
    fn the_file_wins_but_for_the_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "apiVersion: {API_VERSION}\nkind: {KIND}\nclusterCIDR: 10.1.0.0/16\nhostnameOverride: x\n\
             metricsBindAddress: 0.0.0.0\nclientConnection: {{kubeconfig: /k}}\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let settings = options(&["--config", path, "--cluster-cidr", "10.9.0.0/16", "--hostname-override", "n"]);
        let settings = settings.settings().unwrap();
        assert_eq!((settings.cluster_cidr.as_str(), settings.hostname_override.as_str()), ("10.1.0.0/16", "n"));
        assert_eq!(settings.metrics.to_string(), "0.0.0.0:10249");
    }
}
