//! What controllers work with.

use std::{sync::Arc, time::Duration};

use ::controller::{
    Driver, EventRecorder, Informer, InformerSet, Outcome, Queue, QueueConfig, QueueMetrics, RateLimiting, Reconcile,
    Retries,
};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::Client;
use prometheus::Registry;
use runtime::{clock::Clock, tasks::TaskGroup};
use tokio_util::sync::CancellationToken;

use crate::{StartError, credentials::Clients, metrics::Metrics, options::Options};

/// What a reconciler answers while its caches do not show its own writes: come again shortly. That is no failure, so it
/// does not count against the limits of failures.
pub(crate) const LAG: Outcome = Outcome::After(Duration::from_millis(50));

/// Shared by all controllers of the process while it leads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    /// Flags.
    pub(crate) options: Arc<Options>,
    /// One informer per view.
    pub(crate) informers: Arc<InformerSet>,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Ends when leading ends.
    pub(crate) tasks: TaskGroup,
    pub(crate) clients: Arc<Clients>,
    pub(crate) queue_metrics: QueueMetrics,
    /// What single controllers count.
    pub(crate) metrics: Metrics,
    /// Where controllers register metrics of their own.
    pub(crate) registry: Registry,
}

impl Context {
    /// The client of a controller, with its own rate limit.
    pub(crate) async fn client(&self, controller: &str) -> Result<Client, StartError> {
        self.clients.of(controller, &self.tasks, &self.clock).await
    }

    /// A client for informers of parts of a kind. It has the credentials of the process, which may watch everything.
    pub(crate) async fn watching_client(&self) -> Result<Client, StartError> {
        Ok(self.clients.plain("shared-informers").await?)
    }

    /// Records events as `component`, such as `deployment-controller`.
    pub(crate) fn recorder(&self, client: &Client, component: &str) -> EventRecorder {
        EventRecorder::new(client.clone(), component, "", Arc::clone(&self.clock), &self.tasks)
    }

    /// A work queue with the usual limits; `name` labels its metrics.
    pub(crate) fn queue<K: Clone + Eq + std::hash::Hash + Ord + std::fmt::Debug + Send + Sync + 'static>(
        &self,
        name: &'static str,
    ) -> Queue<K> {
        self.queue_with(name, RateLimiting::DEFAULT)
    }

    /// A work queue with other limits.
    pub(crate) fn queue_with<K: Clone + Eq + std::hash::Hash + Ord + std::fmt::Debug + Send + Sync + 'static>(
        &self,
        name: &'static str,
        limiting: RateLimiting,
    ) -> Queue<K> {
        let metrics = Some(self.queue_metrics.clone());
        Queue::new(QueueConfig { name, limiting, clock: Arc::clone(&self.clock), metrics })
    }

    /// Runs a reconciler with `workers` once all of `informers` are complete.
    pub(crate) fn drive<R: Reconcile>(
        &self,
        name: &'static str,
        queue: Queue<R::Key>,
        workers: usize,
        reconciler: R,
        informers: &[&dyn Syncs],
    ) {
        self.drive_with(name, queue, workers, Retries::Unlimited, reconciler, informers);
    }

    /// [`Context::drive`] with a bound on retries.
    pub(crate) fn drive_with<R: Reconcile>(
        &self,
        name: &'static str,
        queue: Queue<R::Key>,
        workers: usize,
        retries: Retries,
        reconciler: R,
        informers: &[&dyn Syncs],
    ) {
        let driver = Driver { name, queue, workers, retries, reconciler: Arc::new(reconciler) };
        let tasks = self.tasks.child(name);
        self.after_sync(name, informers, move || driver.start(&tasks));
    }

    /// Calls `then` once all of `informers` are complete, unless the process stops first.
    pub(crate) fn after_sync(&self, name: &str, informers: &[&dyn Syncs], then: impl FnOnce() + Send + 'static) {
        let stop = self.tasks.token().clone();
        let waits: Vec<_> = informers.iter().map(|i| i.sync(stop.clone())).collect();
        self.tasks.spawn(format!("{name} start"), async move {
            if join_all(waits).await.into_iter().all(|synced| synced) {
                then();
            }
        });
    }
}

/// The time as the API has it, without fractions of a second.
pub(crate) fn now(clock: &dyn Clock) -> Time {
    let at = Timestamp::try_from(clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Something that is complete after a while.
pub(crate) trait Syncs {
    /// `false` if `stop` came first.
    fn sync(&self, stop: CancellationToken) -> BoxFuture<'static, bool>;
}

impl<V: Send + Sync + 'static> Syncs for Informer<V> {
    fn sync(&self, stop: CancellationToken) -> BoxFuture<'static, bool> {
        let informer = self.clone();
        async move { informer.wait_synced(&stop).await }.boxed()
    }
}
