//! kube-controller-manager: Deployments, ReplicaSets, EndpointSlices, namespaces, garbage collection.
//!
//! Each controller is a level-triggered reconciler: a pure `plan` over what the server says now, and a thin shell that
//! carries it out. Watches only say when to look.

mod collector;
mod deployment;
mod endpointslice;
mod namespace;
mod objects;
pub mod options;
mod replicaset;
mod rest;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
    runtime::controller::Action,
};
use runtime::health::HealthChecks;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{options::Options, rest::{Rest, RestError}};

/// Pause before a failed reconciliation is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Grace for running requests.
const GRACE: Duration = Duration::from_secs(1);

/// Why the process does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The credentials are unusable.
    #[error("kubeconfig: {0}")]
    Credentials(String),
    /// A file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The address cannot be listened on.
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

/// What happens after a failed reconciliation.
fn retry<K, C>(_object: Arc<K>, error: &RestError, _context: Arc<C>) -> Action {
    if !error.is_conflict() {
        tracing::warn!(%error, "reconciliation failed, trying again");
    }
    Action::requeue(RETRY)
}

async fn client(options: &Options) -> Result<Client, StartError> {
    let fail = |e: &dyn std::fmt::Display| StartError::Credentials(e.to_string());
    let config = match &options.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|e| fail(&e))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|e| fail(&e))?
        }
        None => Config::incluster().map_err(|e| fail(&e))?,
    };
    Client::try_from(config).map_err(|e| fail(&e))
}

async fn serve(options: &Options, stop: &CancellationToken) -> Result<(), StartError> {
    let address = options.healthz_bind_address;
    let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
    let router: Router =
        HealthChecks::new().router().merge(runtime::metrics::router(runtime::metrics::registry()?));
    let handler = move |request| {
        let router = router.clone();
        async move {
            match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        }
    };
    tokio::spawn(runtime::serving::serve(listener, None, handler, stop.clone(), GRACE));
    Ok(())
}

/// Runs all controllers until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), StartError> {
    let root_ca = match &options.root_ca_file {
        Some(path) => {
            let read = std::fs::read_to_string(path);
            Some(read.map_err(|source| StartError::File { path: path.clone(), source })?)
        }
        None => None,
    };
    let rest = Rest(client(&options).await?);
    serve(&options, &stop).await?;
    tokio::join!(
        deployment::run(rest.clone(), stop.clone()),
        replicaset::run(rest.clone(), stop.clone()),
        endpointslice::run(rest.clone(), stop.clone()),
        namespace::run(rest.clone(), root_ca, stop.clone()),
        collector::run(rest, stop),
    );
    Ok(())
}
