//! Resource claims: made for Pods from templates, given up when the Pods that they are reserved for are done, and reserved
//! for Pods that came to a node without the scheduler.

pub(crate) mod plan;
mod pods;

use std::{collections::HashMap, sync::Arc};

use ::controller::{
    Cached, Change, EventRecorder, Index, Informer, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, Viewed, Whole,
};
use client::ApiErrorExt;
use k8s_openapi::api::{
    core::v1::Pod,
    resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use parking_lot::Mutex;
use prometheus::IntCounterVec;

use crate::{
    StartError,
    context::Context,
    table::Started,
    views::{PodClaimSource, PodView},
};

const CONTROLLER: &str = "resourceclaim-controller";
/// Name under which events are recorded.
const SOURCE: &str = "resource_claim";

/// A claim, found by the Pod it was made for.
#[derive(Debug)]
pub(crate) struct DeviceClaimView(pub(crate) ResourceClaim);

impl std::ops::Deref for DeviceClaimView {
    type Target = ResourceClaim;

    fn deref(&self) -> &ResourceClaim {
        &self.0
    }
}

/// Index of claims by the UID of the Pod they were made for.
const BY_OWNER: &str = "owner";

fn by_owner(claim: &Cached<DeviceClaimView>) -> Vec<String> {
    plan::owner(claim).map(|owner| owner.uid.clone()).into_iter().collect()
}

/// Index by device, as `driver/pool/device`.
pub(crate) const BY_DEVICE: &str = "device";

fn by_device(claim: &Cached<DeviceClaimView>) -> Vec<String> {
    plan::devices(claim).map(|(name, _)| name).collect()
}

impl Viewed for DeviceClaimView {
    type Object = ResourceClaim;

    const INDICES: &'static [Index<Self>] =
        &[Index { name: BY_OWNER, keys: by_owner }, Index { name: BY_DEVICE, keys: by_device }];

    fn project(mut claim: ResourceClaim) -> Self {
        claim.metadata.managed_fields = None;
        Self(claim)
    }
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    Pod(ObjectKey),
    Claim(ObjectKey),
}

/// Names of claims by the UID of the Pod they were made for and its own name.
type Made = Mutex<HashMap<(String, String), String>>;

struct Reconciler {
    client: Client,
    recorder: EventRecorder,
    pods: Informer<PodView>,
    claims: Informer<DeviceClaimView>,
    templates: Informer<Whole<ResourceClaimTemplate>>,
    /// Claims that were made and are not in the cache yet.
    made: Arc<Made>,
    /// Creations, by status and whether administrators asked.
    created: IntCounterVec,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let queue = context.queue::<Key>("resource_claim");
    let reconciler = Reconciler {
        recorder: context.recorder(&client, SOURCE),
        client,
        pods: context.informers.get(),
        claims: context.informers.get(),
        templates: context.informers.get(),
        made: Arc::default(),
        created: context.metrics.created_claims.clone(),
    };
    let (pods, claims, templates) = (reconciler.pods.clone(), reconciler.claims.clone(), reconciler.templates.clone());
    let made = Arc::clone(&reconciler.made);
    claims.on_change(move |change| {
        let claim = change.object();
        if let Some(owner) = plan::owner(claim)
            && let Some(name) = plan::made_for(claim, &owner.uid)
        {
            made.lock().remove(&(owner.uid.clone(), name.to_owned()));
        }
    });
    watch(&pods, &claims, &templates, &queue);
    let workers = context.options.workers.concurrent_resourceclaim_syncs;
    context.drive(CONTROLLER, queue, workers, reconciler, &[&pods, &claims, &templates]);
    Ok(Started::Running)
}

fn watch(
    pods: &Informer<PodView>,
    claims: &Informer<DeviceClaimView>,
    templates: &Informer<Whole<ResourceClaimTemplate>>,
    queue: &Queue<Key>,
) {
    let (to, owned) = (queue.clone(), claims.clone());
    pods.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && old.uid != new.uid
        {
            pod_ended(old, &owned, &to);
        }
        let pod = change.object();
        if matches!(change, Change::Deleted { .. }) || plan::is_done(pod) {
            pod_ended(pod, &owned, &to);
        } else if pod.devices.is_some() {
            to.add(Key::Pod(pod.key.clone()));
        }
    });
    let (to, users) = (queue.clone(), pods.clone());
    claims.on_change(move |change| {
        let claim = change.object();
        to.add(Key::Claim(claim.key.clone()));
        if let Some(owner) = plan::owner(claim) {
            to.add(Key::Pod(ObjectKey::new(&claim.key.namespace, &owner.name)));
        }
        let users = users.by_index(crate::views::BY_DEVICE_CLAIM, &claim.key.to_string());
        users.iter().filter(|pod| !pod.node.is_empty()).for_each(|pod| to.add(Key::Pod(pod.key.clone())));
    });
    let (to, waiting) = (queue.clone(), pods.clone());
    templates.on_change(move |change| {
        let Change::Added { new, initial: false } = change else { return };
        let wants = |pod: &PodView| {
            let mut claims = pod.devices.iter().flat_map(|devices| &devices.claims);
            claims.any(|(_, source)| *source == PodClaimSource::Template(new.key.name.clone()))
        };
        for pod in waiting.in_namespace(&new.key.namespace).iter().filter(|pod| wants(pod)) {
            to.add(Key::Pod(pod.key.clone()));
        }
    });
}

/// A Pod needs its claims no more.
fn pod_ended(pod: &Cached<PodView>, claims: &Informer<DeviceClaimView>, queue: &Queue<Key>) {
    let used = pod.devices.iter().flat_map(|devices| devices.names());
    used.for_each(|name| queue.add(Key::Claim(ObjectKey::new(&pod.key.namespace, name))));
    claims.by_index(BY_OWNER, &pod.uid).iter().for_each(|claim| queue.add(Key::Claim(claim.key.clone())));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, ReconcileError> {
        match key {
            Key::Pod(key) => self.reconcile_pod(key).await,
            Key::Claim(key) => self.reconcile_claim(key).await,
        }
    }
}

impl Reconciler {
    fn claim_api(&self, namespace: &str) -> Api<ResourceClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Takes away what is reserved for Pods that are gone, and what was made for a Pod that is done.
    async fn reconcile_claim(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(claim) = self.claims.get(key) else { return Ok(Outcome::Done) };
        let mut gone = Vec::new();
        for consumer in plan::consumers(&claim) {
            if !plan::is_pod(consumer) {
                tracing::error!(claim = %key, resource = consumer.resource, "A claim has a consumer of unknown kind");
            } else if self.is_gone(&key.namespace, consumer).await? {
                gone.push(consumer.uid.clone());
            }
        }
        let unused = plan::consumers(&claim).len() == gone.len();
        let going = claim.metadata.deletion_timestamp.is_some();
        if !gone.is_empty() || unused && going && (plan::is_allocated(&claim) || plan::is_kept(&claim)) {
            self.give_up(key, &claim.uid, &gone).await?;
        }
        if unused && !going && self.is_for_nobody(&claim) {
            let preconditions = Preconditions { uid: Some(claim.uid.clone()), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match self.claim_api(&key.namespace).delete(&key.name, &params).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error.into()),
                _ => {}
            }
        }
        Ok(Outcome::Done)
    }

    /// Whether a claim was made for a Pod that is done. Those of Pods that are deleted are garbage.
    fn is_for_nobody(&self, claim: &Cached<DeviceClaimView>) -> bool {
        let Some(owner) = plan::owner(claim) else { return false };
        let pod = self.pods.get(&ObjectKey::new(&claim.key.namespace, &owner.name));
        pod.is_some_and(|pod| pod.uid == owner.uid && plan::is_done(&pod))
    }

    /// Whether a Pod does not exist any more, or is done. What the cache does not know is asked of the API.
    async fn is_gone(&self, namespace: &str, consumer: &ResourceClaimConsumerReference) -> Result<bool, kube::Error> {
        if let Some(pod) = self.pods.get(&ObjectKey::new(namespace, &consumer.name))
            && pod.uid == consumer.uid
        {
            return Ok(plan::is_done(&pod));
        }
        let live = Api::<Pod>::namespaced(self.client.clone(), namespace).get_opt(&consumer.name).await?;
        Ok(live.is_none_or(|pod| {
            pod.metadata.uid.as_deref() != Some(consumer.uid.as_str())
                || plan::is_done(&<PodView as Viewed>::project(pod))
        }))
    }

    /// Removes consumers, the allocation with the last of them, then the finalizer.
    async fn give_up(&self, key: &ObjectKey, uid: &str, gone: &[String]) -> Result<(), ReconcileError> {
        let api = self.claim_api(&key.namespace);
        let same = |claim: &ResourceClaim| claim.metadata.uid.as_deref() == Some(uid);
        let released = client::modify_status(&api, &key.name, |claim| same(claim) && plan::release(claim, gone)).await;
        let released = match released {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        if !plan::is_kept(&released) || plan::is_allocated(&released) {
            return Ok(());
        }
        match client::modify(&api, &key.name, |claim| same(claim) && plan::let_go(claim)).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
