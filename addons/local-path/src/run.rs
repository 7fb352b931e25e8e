//! The process: flags, informers, queues, health and metrics.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use client::{Connection, connect};
use controller::{
    Driver, EventRecorder, InformerSet, ObjectKey, Queue, QueueConfig, QueueMetrics, RateLimiting, Reconcile, Retries,
};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use runtime::{Runtime, flags::ClientArgs, health::Scope};

use crate::{
    plan::Place,
    provision::{Provisioner, Remover, Shared},
};

/// Time for running requests at the end.
const GRACE: Duration = Duration::from_secs(1);

/// Flags.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Name of the Node this runs on; the variable NODE_NAME and the host's name are used if it is empty
    #[arg(long, default_value = "")]
    pub node_name: String,
    /// Directory that holds the volumes; the same path on the node and in this container
    #[arg(long, default_value = "/var/lib/timonel/local-path")]
    pub directory: PathBuf,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, default_value = "0.0.0.0:9255")]
    pub healthz_bind_address: SocketAddr,
    /// How the API server is reached.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Why the provisioner does not run.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionerError {
    /// The name of the host is unknown.
    #[error("cannot tell the name of this host: {0}")]
    Name(std::io::Error),
    /// The directory cannot be made.
    #[error("cannot make {directory}: {source}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// The Node cannot be read.
    #[error("cannot read the Node {0:?}: {1}")]
    Node(String, kube::Error),
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Runs until the order to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), ProvisionerError> {
    let node = runtime::env::node_name(&options.node_name).map_err(ProvisionerError::Name)?;
    let directory = options.directory.clone();
    let failed = |source| ProvisionerError::Directory { directory: directory.clone(), source };
    tokio::fs::create_dir_all(&options.directory).await.map_err(failed)?;
    let requests = client::ClientMetrics::new(&runtime.registry)?;
    let connection = Connection::of(runtime.component, "", &options.client, Some(requests));
    let client = connect(&options.client, &connection).await?;
    let found = Api::<Node>::all(client.clone()).get(&node).await;
    let found = found.map_err(|error| ProvisionerError::Node(node.clone(), error))?;
    let hostname = found.metadata.labels.and_then(|mut labels| labels.remove("kubernetes.io/hostname"));
    let place = Place { hostname: hostname.unwrap_or_else(|| node.clone()), node, root: options.directory.clone() };

    let informers = InformerSet::new(client.clone(), &runtime.tasks);
    let shared = Arc::new(Shared {
        recorder: EventRecorder::new(
            client.clone(),
            runtime.component,
            &place.node,
            Arc::clone(&runtime.clock),
            &runtime.tasks,
        ),
        client,
        place,
        claims: informers.get(),
        volumes: informers.get(),
    });
    serve(&options, &runtime, &shared).await?;
    let metrics = QueueMetrics::new(&runtime.registry)?;
    let queue = |name: &'static str| -> Queue<ObjectKey> {
        let (clock, metrics) = (Arc::clone(&runtime.clock), Some(metrics.clone()));
        Queue::new(QueueConfig { name, limiting: RateLimiting::DEFAULT, clock, metrics })
    };
    let (claims, volumes) = (queue("claims"), queue("volumes"));
    let (of_claims, of_volumes) = (claims.clone(), volumes.clone());
    shared.claims.on_change(move |change| of_claims.add(change.object().key.clone()));
    shared.volumes.on_change(move |change| of_volumes.add(change.object().key.clone()));
    if !(shared.claims.wait_synced(&runtime.shutdown).await && shared.volumes.wait_synced(&runtime.shutdown).await) {
        return Ok(());
    }
    tracing::info!(node = %shared.place.node, directory = %options.directory.display(), "Providing volumes");
    drive("claims", claims, Provisioner(Arc::clone(&shared)), &runtime);
    drive("volumes", volumes, Remover(shared), &runtime);
    runtime.shutdown.cancelled().await;
    Ok(())
}

fn drive<R: Reconcile>(name: &'static str, queue: Queue<R::Key>, reconciler: R, runtime: &Runtime) {
    let driver = Driver { name, queue, workers: 1, retries: Retries::Unlimited, reconciler: Arc::new(reconciler) };
    driver.start(&runtime.tasks);
}

async fn serve(options: &Options, runtime: &Runtime, shared: &Arc<Shared>) -> Result<(), ProvisionerError> {
    let read = Arc::clone(shared);
    runtime.health.add_to(Scope::READY, "informers", move || match read.claims.synced() && read.volumes.synced() {
        true => Ok(()),
        false => Err("claims and volumes are not read yet".into()),
    });
    let pages =
        axum::Router::new().merge(runtime.health.router()).merge(runtime::metrics::router(runtime.registry.clone()));
    let address = options.healthz_bind_address;
    let listener = runtime::serving::listen(address).map_err(|source| ProvisionerError::Listen { address, source })?;
    let stop = runtime.tasks.token().clone();
    runtime.tasks.spawn("pages", runtime::serving::serve_router(listener, None, pages, stop, GRACE));
    Ok(())
}
