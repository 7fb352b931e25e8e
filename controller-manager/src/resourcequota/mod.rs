//! ResourceQuotas: counts what there is. Admission charges what is made; what goes away is given back here.

mod monitors;
mod plan;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ::controller::{Cached, Change, Informer, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, Whole};
use client::{ApiErrorExt, CallError};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::{Api, Client, api::PostParams};
use machinery::GroupResource;
use runtime::clock::Clock;
use serde_json::Value;
use time::OffsetDateTime;

use crate::{StartError, context::Context, table::Started};
use monitors::{Known, Monitors};
use plan::{Objects, counted};

const CONTROLLER: &str = "resourcequota-controller";
const PRIORITY: &str = "resourcequota-controller priority";
/// Time between looks at what the server serves.
const DISCOVERY: Duration = Duration::from_secs(30);
/// Shortest time between full counts.
const SHORTEST: Duration = Duration::from_secs(1);

type Quotas = Informer<Whole<ResourceQuota>>;

/// Where quotas wait: those that nothing can be charged to before they are counted do not wait for the others.
#[derive(Clone)]
struct Queues {
    usual: Queue<ObjectKey>,
    first: Queue<ObjectKey>,
}

impl Queues {
    fn add(&self, quota: &Cached<Whole<ResourceQuota>>) {
        let queue = if is_counted(quota) { &self.usual } else { &self.first };
        queue.add(quota.key.clone());
    }
}

/// Whether the status is about the limits of now.
fn is_counted(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let status = quota.status.as_ref();
    let known = status
        .and_then(|s| s.used.as_ref())
        .is_some_and(|used| hard.into_iter().flatten().all(|(name, _)| used.contains_key(name)));
    known && plan::equal(hard, status.and_then(|s| s.hard.as_ref()))
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let watching = context.watching_client().await?;
    let quotas: Quotas = context.informers.get();
    let queues =
        Queues { usual: context.queue("resourcequota_primary"), first: context.queue("resourcequota_priority") };
    let keys = queues.clone();
    quotas.on_change(move |change| match change {
        Change::Added { new, .. } => keys.add(new),
        // Of its status this controller and admission know themselves.
        Change::Updated { old, new } if old.uid != new.uid || old.spec != new.spec => keys.add(new),
        _ => {}
    });
    let (keys, all, clock) = (queues.clone(), quotas.clone(), Arc::clone(&context.clock));
    let changed = move |resource: &GroupResource, change: &Change<Value>| {
        if frees(resource, change, OffsetDateTime::from(clock.now())) {
            let quotas = all.in_namespace(&change.object().key.namespace);
            quotas.iter().filter(|q| counted_by(q).contains(resource)).for_each(|q| keys.add(q));
        }
    };
    let monitors = Arc::new(Monitors::new(watching, &context.tasks.child(CONTROLLER), Arc::new(changed)));
    let options = &context.options.workers;
    let counter = || Counter {
        client: client.clone(),
        quotas: quotas.clone(),
        monitors: Arc::clone(&monitors),
        clock: Arc::clone(&context.clock),
    };
    let workers = options.concurrent_resource_quota_syncs;
    context.drive(CONTROLLER, queues.usual.clone(), workers, counter(), &[&quotas]);
    context.drive(PRIORITY, queues.first.clone(), workers, counter(), &[&quotas]);
    let rounds = Rounds { quotas: quotas.clone(), queues, monitors, clock: Arc::clone(&context.clock) };
    let (tasks, period) = (context.tasks.clone(), options.resource_quota_sync_period);
    context.after_sync("resource quota rounds", &[&quotas], move || {
        tasks.spawn_cancellable("resource quota rounds", rounds.run(period));
    });
    Ok(Started::Running)
}

/// Whether a change may give something back, or charges what admission did not see.
fn frees(resource: &GroupResource, change: &Change<Value>, now: OffsetDateTime) -> bool {
    match change {
        Change::Added { .. } => false,
        Change::Updated { old, new } => old.uid != new.uid || plan::matters(resource, old, new, now),
        Change::Deleted { .. } => true,
    }
}

/// The resources that a quota counts.
fn counted_by(quota: &ResourceQuota) -> BTreeSet<GroupResource> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    hard.into_iter().flatten().filter_map(|(name, _)| counted(name)).collect()
}

struct Counter {
    client: Client,
    quotas: Quotas,
    monitors: Arc<Monitors>,
    clock: Arc<dyn Clock>,
}

impl Reconcile for Counter {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(quota) = self.quotas.get(key) else { return Ok(Outcome::Done) };
        let Some(spec) = &quota.spec else { return Ok(Outcome::Done) };
        let mut held = Vec::new();
        for resource in counted_by(&quota) {
            let objects = match self.monitors.known(&resource).await {
                Known::Watched(informer) => Some(informer.in_namespace(&key.namespace)),
                Known::Absent => Some(Vec::new()),
                Known::Unknown => None,
            };
            held.push((resource, objects));
        }
        let objects: Objects<'_> = held
            .iter()
            .map(|(of, all)| (of.clone(), all.as_ref().map(|all| all.iter().map(|o| &o.view).collect())))
            .collect();
        let status = plan::status_of(spec, quota.status.as_ref(), &objects, OffsetDateTime::from(self.clock.now()));
        if !plan::same(quota.status.as_ref(), &status) {
            // Over the version that was read: a charge that came first must not be forgotten.
            let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
            let changed = ResourceQuota { status: Some(status), ..quota.0.clone() };
            match api.replace_status(&key.name, &PostParams::default(), &changed).await {
                Err(error) if !error.is_not_found() => {
                    return Err(CallError::new(format!("update the status of ResourceQuota {key}"), error).into());
                }
                _ => {}
            }
        }
        let complete = objects.values().all(Option::is_some);
        Ok(if complete { Outcome::Done } else { Outcome::Backoff })
    }
}

/// What happens from time to time.
struct Rounds {
    quotas: Quotas,
    queues: Queues,
    monitors: Arc<Monitors>,
    clock: Arc<dyn Clock>,
}

impl Rounds {
    /// Counts everything anew after each `period`, and what quotas count when it begins or ceases to be served.
    async fn run(self, period: Duration) {
        let mut served = None;
        let period = period.max(SHORTEST);
        let mut counted_at = self.clock.elapsed();
        loop {
            let until_full = (counted_at + period).saturating_sub(self.clock.elapsed());
            self.clock.sleep(until_full.min(DISCOVERY)).await;
            if self.clock.elapsed().saturating_sub(counted_at) >= period {
                counted_at = self.clock.elapsed();
                self.quotas.list().iter().for_each(|quota| self.queues.add(quota));
            }
            let needed = self.quotas.list().iter().flat_map(|quota| counted_by(quota)).collect();
            let Some(now) = self.monitors.refresh(&needed).await else { continue };
            let before: &BTreeSet<GroupResource> = served.get_or_insert_with(BTreeSet::new);
            let moved: BTreeSet<&GroupResource> = before.symmetric_difference(&now).collect();
            let concerned = |quota: &Cached<Whole<ResourceQuota>>| counted_by(quota).iter().any(|r| moved.contains(r));
            self.quotas.list().iter().filter(|quota| concerned(quota)).for_each(|quota| self.queues.add(quota));
            served = Some(now);
        }
    }
}
