//! kube-proxy: forwards Service traffic.
//!
//! Watches fold Services and EndpointSlices into [`model::State`]; [`rules::render`] turns it into a rule set;
//! [`backend::Backend`] applies it. Changes coalesce: a sync starts at most once a second.

pub mod backend;
pub mod config;
mod conntrack;
pub mod model;
pub mod options;
pub mod rules;
mod servers;
mod sync;
mod watch;

use std::{path::Path, time::Duration};

use client::{ClientMetrics, Connection};
use runtime::{Runtime, tls::WatchedFile};

use crate::{
    backend::{Backend, BackendError, Iptables},
    options::{Options, OptionsError, Settings},
};

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The flags or the configuration file are unusable.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// The host has no name.
    #[error("cannot find out the host name")]
    Host(#[source] std::io::Error),
    /// So that a new start reads it.
    #[error("content of the proxy server's configuration file was updated")]
    ConfigurationChanged,
    /// Rules cannot be written.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A server address cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A metric name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

fn node_name(settings: &Settings) -> Result<String, ProxyError> {
    let name = match settings.hostname_override.as_str() {
        "" => runtime::env::hostname().map_err(ProxyError::Host)?,
        name => name.to_owned(),
    };
    Ok(name.trim().to_lowercase())
}

/// What needs full root privileges: kernel settings.
fn set_up(settings: &Settings) {
    conntrack::apply(Path::new("/"), &settings.conntrack);
    if settings.localhost_node_ports
        && let Err(error) = std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
    {
        tracing::warn!(%error, "route_localnet cannot be set; node ports do not answer on loopback");
    }
}

/// Runs the proxy until it is told to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), ProxyError> {
    let backend = Iptables;
    if options.cleanup {
        return Ok(backend.cleanup().await?);
    }
    let settings = options.settings()?;
    if settings.verbosity > runtime::logging::verbosity() {
        runtime::logging::set_verbosity(settings.verbosity);
    }
    set_up(&settings);
    if options.init_only {
        return Ok(());
    }
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", settings.oom_score_adj.to_string()) {
        tracing::info!(v = 2, %error, "Failed to set oom_score_adj");
    }
    let node = node_name(&settings)?;
    let connection = Connection {
        user_agent: runtime::version::user_agent("kube-proxy"),
        qps: settings.qps,
        burst: settings.burst,
        metrics: Some(ClientMetrics::new(&runtime.registry)?),
    };
    let client = client::connect_to(settings.kubeconfig.as_deref(), None, &connection).await?;
    let stop = runtime.shutdown.clone();
    let progress = sync::Progress::new(&runtime.registry, settings.sync_period)?;
    servers::start(&settings, &runtime, &progress).await?;
    let rules = rules::Settings {
        mark: 1 << settings.masquerade_bit,
        masquerade_all: settings.masquerade_all,
        cluster_cidr: settings.cluster_cidr.clone(),
        localhost_node_ports: settings.localhost_node_ports,
    };
    let periods = sync::Periods { full: settings.sync_period, least: settings.min_sync_period };
    let states = watch::follow(client, &node, &stop);
    let syncing = sync::run(&backend, &rules, periods, states, &progress, stop.clone());
    tokio::select! {
        () = syncing => Ok(()),
        () = changed(options.config.as_deref()) => Err(ProxyError::ConfigurationChanged),
    }
}

/// Ends when the configuration file has changed.
async fn changed(path: Option<&Path>) {
    const PERIOD: Duration = Duration::from_secs(5);
    let mut file = match path.map(WatchedFile::open) {
        Some(Ok(file)) => file,
        _ => return std::future::pending().await,
    };
    loop {
        tokio::time::sleep(PERIOD).await;
        if file.changed() {
            return;
        }
    }
}
