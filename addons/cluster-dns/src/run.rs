//! The process: configuration, informers, servers, reload.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use client::{Connection, connect};
use controller::InformerSet;
use runtime::{Runtime, flags::ClientArgs};

use crate::{
    corefile::{self, Config, CorefileError},
    metrics::DnsMetrics,
    pages,
    resolver::Resolver,
    server::Server,
    store::Store,
};

/// Time running answers have when the process ends.
const DRAIN: Duration = Duration::from_secs(2);

/// Flags.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Corefile to load
    #[arg(long, default_value = "/etc/coredns/Corefile")]
    pub conf: PathBuf,
    /// How the API server is reached.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The Corefile cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The Corefile is wrong.
    #[error("{path}: {source}", path = path.display())]
    Corefile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: CorefileError,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

async fn read(path: &PathBuf) -> Result<(String, Config), DnsError> {
    let text = tokio::fs::read_to_string(path).await.map_err(|source| DnsError::Read { path: path.clone(), source })?;
    let config = corefile::parse(&text).map_err(|source| DnsError::Corefile { path: path.clone(), source })?;
    Ok((text, config))
}

/// Runs until the order to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), DnsError> {
    let (text, config) = read(&options.conf).await?;
    let requests = client::ClientMetrics::new(&runtime.registry)?;
    let connection = Connection::of(runtime.component, "", &options.client, Some(requests));
    let client = connect(&options.client, &connection).await?;
    let informers = InformerSet::new(client, &runtime.tasks);
    let store = Store::start(&informers, config.needs_pods());
    let metrics = Arc::new(DnsMetrics::new(&runtime.registry, config.port)?);
    let resolver = Resolver::new(&config, store, Arc::clone(&metrics), Arc::clone(&runtime.clock));
    let server = Server::new(resolver, metrics);
    listen(&config, &server, &runtime).await?;
    let loops = Arc::clone(&server);
    runtime.tasks.spawn_cancellable("loops", async move { loops.resolver.load_full().find_loops().await });
    if config.reload.is_some() {
        let (server, runtime) = (Arc::clone(&server), runtime.clone());
        let first = config.clone();
        let tasks = runtime.tasks.clone();
        tasks.spawn_cancellable("reload", reload(options.conf, text, first, informers, server, runtime));
    }
    tracing::info!(port = config.port, "Serving DNS");
    runtime.shutdown.cancelled().await;
    if !config.lameduck.is_zero() {
        tracing::info!(seconds = config.lameduck.as_secs(), "Going on to answer while clients learn of the end");
        runtime.clock.sleep(config.lameduck).await;
    }
    let left = runtime.tasks.stop(DRAIN).await;
    tracing::debug!(unfinished = left.len(), "stopped");
    Ok(())
}

async fn listen(config: &Config, server: &Arc<Server>, runtime: &Runtime) -> Result<(), DnsError> {
    let tasks = &runtime.tasks;
    let failed = |address: String| move |source| DnsError::Listen { address, source };
    let dns = server.listen(&config.bind, config.port, tasks).await;
    dns.map_err(failed(format!("port {}", config.port)))?;
    let ready = pages::ready(server, runtime.shutdown.clone());
    let pages: [(Option<SocketAddr>, axum::Router); 3] = [
        (config.health, pages::health()),
        (config.ready, ready),
        (config.prometheus, pages::metrics(runtime.registry.clone())),
    ];
    for (address, router) in pages {
        if let Some(address) = address {
            pages::serve(address, router, tasks).await.map_err(failed(address.to_string()))?;
        }
    }
    Ok(())
}

/// Follows changes of the file. A wrong file changes nothing; addresses and the set of watched kinds stay as they were.
async fn reload(
    path: PathBuf,
    mut text: String,
    mut config: Config,
    informers: InformerSet,
    server: Arc<Server>,
    runtime: Runtime,
) {
    let mut told = String::new();
    while let Some(every) = config.reload {
        runtime.clock.sleep(every).await;
        let (new_text, new) = match read(&path).await {
            Ok(found) => found,
            Err(error) => {
                server.metrics.reload_failed.inc();
                let error = error.to_string();
                if error != told {
                    tracing::error!(error, "The changed Corefile is not used");
                    told = error;
                }
                continue;
            }
        };
        told.clear();
        if new_text == text {
            continue;
        }
        let addresses = |c: &Config| (c.port, c.bind.clone(), c.health, c.ready, c.prometheus);
        if addresses(&new) != addresses(&config) {
            tracing::warn!("Addresses in the Corefile changed; they are used after a restart");
        }
        let store = Store::start(&informers, new.needs_pods());
        let resolver = Resolver::new(&new, store, Arc::clone(&server.metrics), Arc::clone(&runtime.clock));
        let resolver = Arc::new(resolver);
        server.resolver.store(Arc::clone(&resolver));
        resolver.find_loops().await;
        tracing::info!("Reloaded the Corefile");
        (text, config) = (new_text, new);
    }
}
