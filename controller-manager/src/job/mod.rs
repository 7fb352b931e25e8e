//! Jobs: Pods that run to their end, a number of times.

mod account;
mod indexes;
mod plan;
mod pods;
mod policy;
mod sync;

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::controller::{
    Cached, Change, Informer, ObjectKey, Outcome, OwnWrites, Queue, RateLimiting, Reconcile, ReconcileError,
    UidExpectations,
};
use client::{ApiErrorExt, CallError};
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;

pub(crate) use plan::is_finished;

use self::plan::Streak;
use crate::{
    StartError, children,
    children::PodControl,
    context::{Context, Syncs},
    table::Started,
    views::{JobView, PodView},
};

const CONTROLLER: &str = "job-controller";
const LIMITING: RateLimiting = RateLimiting::per_key(Duration::from_secs(1), Duration::from_secs(60));
/// Time in which changes of Pods are gathered.
const BATCH: Duration = Duration::from_secs(1);

/// What handlers and reconcilers share.
struct Shared {
    client: Client,
    jobs: Informer<JobView>,
    pods: Informer<PodView>,
    expectations: UidExpectations<ObjectKey>,
    own: OwnWrites<ObjectKey>,
    streaks: Mutex<HashMap<ObjectKey, Streak>>,
    queue: Queue<ObjectKey>,
    orphans: Queue<ObjectKey>,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let recorder = context.recorder(&client, CONTROLLER);
    let shared = Arc::new(Shared {
        client: client.clone(),
        jobs: context.informers.get(),
        pods: context.informers.get(),
        expectations: UidExpectations::new(Arc::clone(&context.clock)),
        own: OwnWrites::default(),
        streaks: Mutex::default(),
        queue: context.queue_with("job", LIMITING),
        orphans: context.queue_with("job_orphan_pod", LIMITING),
    });
    let by = || Arc::clone(&shared);
    let (a, b) = (by(), by());
    shared.jobs.on_change(move |change| a.job_changed(change));
    shared.pods.on_change(move |change| b.pod_changed(change));
    let reconciler = sync::Reconciler {
        shared: by(),
        control: PodControl::new(client, recorder.clone()),
        recorder,
        clock: Arc::clone(&context.clock),
        metrics: context.metrics.jobs.clone(),
    };
    let informers: [&dyn Syncs; 2] = [&shared.jobs, &shared.pods];
    let workers = context.options.workers.concurrent_job_syncs;
    context.drive(CONTROLLER, shared.queue.clone(), workers, reconciler, &informers);
    context.drive("job orphans", shared.orphans.clone(), 1, Orphans(by()), &informers);
    Ok(Started::Running)
}

/// Whether somebody else looks after a Job.
fn is_foreign(job: &Job) -> bool {
    let by = job.spec.as_ref().and_then(|s| s.managed_by.as_deref());
    by.is_some_and(|by| by != "kubernetes.io/job-controller")
}

impl Shared {
    fn job_changed(&self, change: &Change<JobView>) {
        let job = change.object();
        match change {
            Change::Updated { old, new } if old.uid != new.uid => self.forget(&old.key),
            Change::Deleted { old } => {
                self.forget(&old.key);
                self.wake_orphans(&old.uid);
            }
            Change::Updated { new, .. } | Change::Added { new, .. } if is_finished(new) => self.wake_orphans(&new.uid),
            _ => {}
        }
        if !is_foreign(job) {
            self.queue.add(job.key.clone());
        }
    }

    fn forget(&self, key: &ObjectKey) {
        self.expectations.forget(key);
        self.own.forget(key);
        self.streaks.lock().remove(key);
    }

    /// Pods of a Job that is gone or finished.
    fn wake_orphans(&self, uid: &str) {
        for pod in self.pods.by_index(crate::views::BY_CONTROLLER, uid) {
            if pods::is_tracked(&pod) {
                self.orphans.add(pod.key.clone());
            }
        }
    }

    fn pod_changed(&self, change: &Change<PodView>) {
        match change {
            Change::Added { new, .. } if new.deletion.is_some() => self.pod_deleted(new),
            Change::Added { new, .. } => match new.controller() {
                Some(owner) => match self.resolve(&new.key.namespace, owner) {
                    Some(job) => {
                        self.expectations.creation_observed(&job.key);
                        self.queue.add_after(job.key.clone(), BATCH);
                    }
                    None => self.maybe_orphan(new),
                },
                None => self.without_owner(new),
            },
            Change::Updated { old, new } => {
                if old.uid != new.uid {
                    self.pod_deleted(old);
                }
                if new.deletion.is_some() {
                    return self.pod_deleted(new);
                }
                if old.controller() != new.controller()
                    && let Some(job) = old.controller().and_then(|o| self.resolve(&old.key.namespace, o))
                {
                    self.queue.add_after(job.key.clone(), BATCH);
                }
                match new.controller() {
                    Some(owner) => match self.resolve(&new.key.namespace, owner) {
                        Some(job) => self.queue.add_after(job.key.clone(), BATCH),
                        None => self.maybe_orphan(new),
                    },
                    None => self.without_owner(new),
                }
            }
            Change::Deleted { old } => self.pod_deleted(old),
        }
    }

    fn pod_deleted(&self, pod: &Cached<PodView>) {
        match pod.controller() {
            Some(owner) => match self.resolve(&pod.key.namespace, owner) {
                Some(job) => {
                    self.expectations.deletion_observed(&job.key, &pod.uid);
                    self.queue.add_after(job.key.clone(), BATCH);
                }
                None => self.maybe_orphan(pod),
            },
            None => self.maybe_orphan(pod),
        }
    }

    fn maybe_orphan(&self, pod: &Cached<PodView>) {
        if pods::is_tracked(pod) {
            self.orphans.add(pod.key.clone());
        }
    }

    fn without_owner(&self, pod: &Cached<PodView>) {
        for job in self.jobs.in_namespace(&pod.key.namespace) {
            let selector = job.spec.as_ref().and_then(|s| s.selector.as_ref());
            if !is_finished(&job) && selector.is_some_and(|s| children::selects(s, &pod.labels)) {
                self.queue.add_after(job.key.clone(), BATCH);
            }
        }
        self.maybe_orphan(pod);
    }

    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<Cached<JobView>>> {
        if owner.kind != "Job" {
            return None;
        }
        let job = self.jobs.get(&ObjectKey::new(namespace, owner.name.clone()))?;
        (job.uid == owner.uid).then_some(job)
    }

    /// Takes the tracking finalizer off a Pod. A Pod that is gone has none.
    async fn untrack(&self, pod: &Cached<PodView>) -> Result<Option<Pod>, CallError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
        let patch = json!({"metadata": {"uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [pods::TRACKING]}});
        match client::strategic_patch(&api, &pod.key.name, client::Scope::Object, &patch).await {
            Ok(pod) => Ok(Some(pod)),
            Err(error) if error.is_not_found() || error.is_invalid() || error.is_conflict() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Pods that nobody counts lose their finalizer.
struct Orphans(Arc<Shared>);

impl Reconcile for Orphans {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.0;
        let Some(pod) = shared.pods.get(key).filter(|p| pods::is_tracked(p)) else { return Ok(Outcome::Done) };
        if let Some(owner) = pod.controller() {
            if owner.kind != "Job" {
                return Ok(Outcome::Done);
            }
            match shared.resolve(&key.namespace, owner) {
                Some(job) if is_foreign(&job) || !is_finished(&job) => return Ok(Outcome::Done),
                _ => {}
            }
        }
        shared.untrack(&pod).await?;
        Ok(Outcome::Done)
    }
}
