//! kube-controller-manager: the built-in control loops.
//!
//! Each controller is a directory: a pure `plan` over what is observed, and a thin shell in `mod.rs` that reads from
//! shared informers and carries the plan out. Nothing polls: watches put keys in work queues, workers reconcile them.
//!
//! # Adding a controller
//! 1. `src/<name>/mod.rs` with `pub(crate) fn start(context: &Context) -> Result<Started, StartError>`. It takes
//!    informers from `context.informers`, registers handlers that add keys to `context.queue(..)`, and hands a
//!    [`::controller::Reconcile`] to `context.drive(..)`, which waits for the informers first. A controller that has
//!    nothing to do under the given flags returns [`table::Started::Skipped`].
//! 2. A row in [`table::CONTROLLERS`]: the name that `--controllers` knows, older names, whether it is on by default.
//! 3. Its flags in [`options::Options`], with validation in `Options::validate`.

mod aggregation;
mod attachdetach;
mod bootstrap;
mod certificates;
mod children;
mod collector;
mod context;
mod credentials;
mod cronjob;
mod daemonset;
mod deployment;
mod devicetaints;
mod disruption;
mod endpoints;
mod endpointslice;
mod job;
mod loggers;
mod metrics;
mod migration;
mod mirroring;
mod namespace;
mod nodeipam;
mod nodelifecycle;
pub mod options;
mod podautoscaler;
mod podgc;
mod policystatus;
mod replicaset;
mod resourceclaim;
mod resourcequota;
mod revisions;
mod rootca;
mod serve;
mod serviceaccount;
mod servicecidr;
mod slices;
mod statefulset;
mod table;
mod template;
mod tokens;
mod ttl;
mod ttlafterfinished;
mod views;
mod volumes;

use std::sync::Arc;

use ::controller::{
    ElectionMetrics, EventRecorder, InformerSet, LeaderConfig, LeaderElector, LeaderError, QueueMetrics,
};
use client::{ClientMetrics, Connection};
use runtime::{Runtime, features::FeatureGates, health::Scope};
use tokio_util::sync::CancellationToken;

use crate::{context::Context, credentials::Clients, options::Options};

/// Name of the component and of its Lease.
const COMPONENT: &str = "kube-controller-manager";

/// Why the process does not run, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Flags are wrong.
    #[error("{0}")]
    Flags(String),
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// A file cannot be used.
    #[error("error reading {path}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server cannot be set up.
    #[error(transparent)]
    Serving(#[from] runtime::serving::ServingError),
    /// Requests cannot be authenticated or authorized.
    #[error(transparent)]
    Auth(#[from] client::DelegatedError),
    /// A metric name is taken.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
    /// The host has no name.
    #[error("cannot find out the host name")]
    Host(#[source] std::io::Error),
    /// Another process leads.
    #[error(transparent)]
    Leader(#[from] LeaderError),
}

/// Runs the component until it is told to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), StartError> {
    runtime::logging::name_loggers(loggers::LOGGERS);
    let gates = FeatureGates::unless(options.validate(), options.gates()).map_err(StartError::Flags)?;
    runtime::metrics::feature_gates(&runtime.registry, &gates)?;
    let migration = options.migration.load()?.filter(|_| options.leader_election.leader_elect);
    let options = Arc::new(options);
    let metrics = ClientMetrics::new(&runtime.registry)?;
    let clients = Clients::new(Arc::clone(&options), metrics.clone());
    serve::start(&options, &runtime).await?;
    let queue_metrics = QueueMetrics::new(&runtime.registry)?;
    let controller_metrics = metrics::Metrics::new(&runtime.registry)?;
    let running = table::Running::new(&runtime.registry)?;
    let health = runtime.health.clone();
    let elections = ElectionMetrics::new(&runtime.registry)?;
    let counted = elections.clone();
    let lead = |stop: CancellationToken| {
        let runtime = runtime.clone();
        let options = Arc::clone(&options);
        async move {
            let tasks = runtime.tasks.child("controllers");
            let client = clients.plain("shared-informers").await?;
            let informers = InformerSet::new(client, &tasks)
                .with_resync(options.generic.min_resync_period)
                .with_metrics(COMPONENT, &runtime.registry)?;
            let context = Context {
                informers: Arc::new(informers),
                clients: Arc::new(clients),
                clock: Arc::clone(&runtime.clock),
                queue_metrics,
                metrics: controller_metrics,
                registry: runtime.registry.clone(),
                tasks,
                options,
            };
            table::start_all(&context, &running, &health, &stop, &table::under_main(migration.as_ref())).await?;
            match &migration {
                Some(migration) => migrate(&context, migration, &running, &runtime, counted, &stop).await?,
                None => stop.cancelled().await,
            }
            let unfinished = context.tasks.stop(context.options.controller_shutdown_timeout).await;
            if !unfinished.is_empty() {
                tracing::info!(tasks = %unfinished.join(" "), "Controller shutdown timeout reached");
            }
            Ok::<(), StartError>(())
        }
    };
    if !options.leader_election.leader_elect {
        return lead(runtime.shutdown.clone()).await;
    }
    let connection = Connection::of(COMPONENT, "leader-election", &options.client, Some(metrics));
    let client = client::connect(&options.client, &connection).await?;
    let recorder = EventRecorder::new(client.clone(), COMPONENT, "", Arc::clone(&runtime.clock), &runtime.tasks);
    let identity = runtime::env::identity().map_err(StartError::Host)?;
    let config = LeaderConfig::of(&options.leader_election, COMPONENT, identity, false);
    let elector = LeaderElector::counted(client, config, Arc::clone(&runtime.clock), recorder, Some(elections));
    elector.add_health_check(&runtime.health, Scope::HEALTHZ);
    let mut outcome = Ok(());
    elector.run(&runtime.shutdown, |stop| async { outcome = lead(stop).await }).await?;
    outcome
}

/// Waits for the Lease of the migration and runs what moved under it, until `stop`.
async fn migrate(
    context: &Context,
    migration: &migration::Migration,
    running: &table::Running,
    runtime: &Runtime,
    metrics: ElectionMetrics,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    let client = context.clients.plain("leader-migration").await?;
    let recorder = context.recorder(&client, COMPONENT);
    let identity = runtime::env::identity().map_err(StartError::Host)?;
    let config = LeaderConfig {
        name: migration.leader_name.clone(),
        ..LeaderConfig::of(&context.options.leader_election, COMPONENT, identity, false)
    };
    let elector = LeaderElector::counted(client, config, Arc::clone(&context.clock), recorder, Some(metrics));
    let moved = table::under_migration(migration);
    let mut outcome = Ok(());
    let lead = async |stop: CancellationToken| {
        table::start_all(context, running, &runtime.health, &stop, &moved).await?;
        stop.cancelled().await;
        Ok(())
    };
    elector.run(stop, |stop| async { outcome = lead(stop).await }).await?;
    outcome
}
