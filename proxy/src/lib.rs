//! kube-proxy: forwards Service traffic.
//!
//! Watches fold Services and EndpointSlices into [`model::State`]; [`rules::render`] turns it into a rule set;
//! [`backend::Backend`] applies it. Changes coalesce: a sync starts at most once a second.

pub mod backend;
pub mod model;
pub mod options;
pub mod rules;
mod servers;
mod sync;
mod watch;

use std::path::Path;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{Backend, BackendError, Iptables},
    options::{ConfigurationError, Options},
};

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The configuration file is unusable.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The credentials are unusable.
    #[error("kubeconfig: {0}")]
    Credentials(String),
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

async fn client(kubeconfig: Option<&Path>) -> Result<Client, ProxyError> {
    let fail = |e: &dyn std::fmt::Display| ProxyError::Credentials(e.to_string());
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|e| fail(&e))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|e| fail(&e))?
        }
        None => Config::incluster().map_err(|e| fail(&e))?,
    };
    Client::try_from(config).map_err(|e| fail(&e))
}

fn node_name(options: &Options) -> String {
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    options.hostname_override.clone().unwrap_or_else(host).trim().to_lowercase()
}

/// Runs the proxy until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), ProxyError> {
    let options = options.complete()?;
    let backend = Iptables;
    if options.cleanup {
        return Ok(backend.cleanup().await?);
    }
    let client = client(options.kubeconfig.as_deref()).await?;
    let node = node_name(&options);
    if options.iptables_localhost_nodeports
        && let Err(error) = std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
    {
        tracing::warn!(%error, "route_localnet cannot be set; node ports do not answer on loopback");
    }
    let registry = runtime::metrics::registry()?;
    let progress = sync::Progress::new(&registry)?;
    servers::start(&options, registry, &progress, &stop).await?;
    let settings = rules::Settings {
        mark: 1 << options.iptables_masquerade_bit,
        masquerade_all: options.masquerade_all,
        cluster_cidr: options.cluster_cidr.clone(),
        localhost_node_ports: options.iptables_localhost_nodeports,
    };
    let states = watch::follow(client, &node, &stop);
    sync::run(&backend, &settings, states, &progress, stop).await;
    Ok(())
}
