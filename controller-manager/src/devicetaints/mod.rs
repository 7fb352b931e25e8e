//! Taints of devices: Pods whose claims hold a device with a `NoExecute` taint that they do not tolerate are deleted, at
//! once or after the time that they tolerate.

mod plan;

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::controller::{
    Cached, Change, EventRecorder, EventType, Index, Informer, ObjectKey, Outcome, Queue, Reconcile, ReconcileError,
    Viewed,
};
use k8s_openapi::{
    api::resource::v1::{DeviceTaint, ResourceSlice},
    jiff::Timestamp,
};
use kube::Client;
use parking_lot::Mutex;
use runtime::clock::Clock;

use crate::{
    StartError,
    context::{Context, now},
    metrics::{EvictionMetrics, seconds},
    nodelifecycle::eviction::{Disruption, evict, reference},
    resourceclaim::{BY_DEVICE, DeviceClaimView, plan as claims},
    table::Started,
    views::PodView,
};

const CONTROLLER: &str = "device-taint-eviction-controller";
const EVENT: &str = "DeviceTaintManagerEviction";

/// The devices of a slice from which Pods are driven, by full name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct TaintedSlice(HashMap<String, Vec<DeviceTaint>>);

impl Viewed for TaintedSlice {
    type Object = ResourceSlice;

    const INDICES: &'static [Index<Self>] =
        &[Index { name: BY_DEVICE, keys: |slice: &Cached<Self>| slice.0.keys().cloned().collect() }];

    fn project(slice: ResourceSlice) -> Self {
        let (driver, pool) = (slice.spec.driver, slice.spec.pool.name);
        let tainted = slice.spec.devices.into_iter().flatten().filter_map(|device| {
            let mut taints = device.taints?;
            taints.retain(|taint| taint.effect == "NoExecute");
            (!taints.is_empty()).then(|| (claims::device_name(&driver, &pool, &device.name), taints))
        });
        Self(tainted.collect())
    }
}

struct Evictor {
    client: Client,
    recorder: EventRecorder,
    pods: Informer<PodView>,
    claims: Informer<DeviceClaimView>,
    slices: Informer<TaintedSlice>,
    clock: Arc<dyn Clock>,
    /// UIDs of Pods whose eviction was announced, by claim.
    announced: Mutex<HashMap<ObjectKey, Vec<(ObjectKey, String)>>>,
    metrics: EvictionMetrics,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let queue = context.queue("device_taint_eviction");
    let evictor = Evictor {
        recorder: context.recorder(&client, CONTROLLER),
        client,
        pods: context.informers.get(),
        claims: context.informers.get(),
        slices: context.informers.get(),
        clock: Arc::clone(&context.clock),
        announced: Mutex::default(),
        metrics: context.metrics.device_taint_evictions.clone(),
    };
    let (pods, claims, slices) = (evictor.pods.clone(), evictor.claims.clone(), evictor.slices.clone());
    watch(&pods, &claims, &slices, &queue);
    let workers = context.options.workers.concurrent_device_taint_eviction_syncs;
    context.drive(CONTROLLER, queue, workers, evictor, &[&pods, &claims, &slices]);
    Ok(Started::Running)
}

fn watch(
    pods: &Informer<PodView>,
    claims: &Informer<DeviceClaimView>,
    slices: &Informer<TaintedSlice>,
    queue: &Queue<ObjectKey>,
) {
    let to = queue.clone();
    claims.on_change(move |change| to.add(change.object().key.clone()));
    let to = queue.clone();
    pods.on_change(move |change| {
        let pod = change.object();
        let came = match change {
            Change::Updated { old, new } => old.node != new.node,
            Change::Added { .. } => true,
            Change::Deleted { .. } => false,
        };
        if came && !pod.node.is_empty() {
            let names = pod.devices.iter().flat_map(|devices| devices.names());
            names.for_each(|name| to.add(ObjectKey::new(&pod.key.namespace, name)));
        }
    });
    let (to, claims) = (queue.clone(), claims.clone());
    slices.on_change(move |change| {
        let states: Vec<&TaintedSlice> = match change {
            Change::Added { new, .. } => vec![&new.view],
            Change::Updated { old, new } if old.view == new.view => return,
            Change::Updated { old, new } => vec![&old.view, &new.view],
            Change::Deleted { old } => vec![&old.view],
        };
        for device in states.iter().flat_map(|slice| slice.0.keys()) {
            claims.by_index(BY_DEVICE, device).iter().for_each(|claim| to.add(claim.key.clone()));
        }
    });
}

impl Evictor {
    /// Taints of a device.
    fn taints(&self, device: &str) -> Vec<DeviceTaint> {
        let slices = self.slices.by_index(BY_DEVICE, device);
        slices.iter().filter_map(|slice| slice.0.get(device)).flatten().cloned().collect()
    }

    /// Pods on nodes that use a claim.
    fn users(&self, claim: &Cached<DeviceClaimView>) -> Vec<Arc<Cached<PodView>>> {
        let named = claims::consumers(claim).iter().filter(|consumer| claims::is_pod(consumer));
        named
            .filter_map(|consumer| {
                let pod = self.pods.get(&ObjectKey::new(&claim.key.namespace, &consumer.name))?;
                let is_here = pod.uid == consumer.uid && !pod.node.is_empty();
                (is_here && pod.deletion.is_none() && !claims::is_done(&pod)).then_some(pod)
            })
            .collect()
    }

    /// Evictions that were announced and are not to be.
    fn cancel(&self, claim: &ObjectKey) {
        for (pod, uid) in self.announced.lock().remove(claim).unwrap_or_default() {
            if self.pods.get(&pod).is_some_and(|known| known.uid == uid && known.deletion.is_none()) {
                self.recorder.event(&reference(&pod, &uid), EventType::Normal, EVENT, "Cancelling deletion");
            }
        }
    }
}

impl Reconcile for Evictor {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(claim) = self.claims.get(key) else {
            self.announced.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let at = now(&*self.clock);
        let Some(due) = plan::due(&claim, |device| self.taints(device), at.0) else {
            self.cancel(key);
            return Ok(Outcome::Done);
        };
        let users = self.users(&claim);
        if let Some(left) = left(due, at.0) {
            let announced = users.iter().map(|pod| (pod.key.clone(), pod.uid.clone())).collect();
            self.announced.lock().insert(key.clone(), announced);
            return Ok(Outcome::After(left));
        }
        for pod in users {
            let about = reference(&pod.key, &pod.uid);
            self.recorder.event(&about, EventType::Normal, EVENT, "Marking for deletion");
            let why = Disruption {
                reason: "DeletionByDeviceTaintManager",
                message: "Device Taint manager: deleting due to NoExecute taint",
                now: at.clone(),
            };
            evict(&self.client, &pod.key, &pod.uid, &why).await?;
            self.metrics.deletions.inc();
            self.metrics.durations.observe(seconds(due, now(&*self.clock).0));
        }
        self.announced.lock().remove(key);
        Ok(Outcome::Done)
    }
}

/// Time until a moment; `None` if it has come.
fn left(due: Timestamp, now: Timestamp) -> Option<Duration> {
    let seconds = u64::try_from(due.as_second() - now.as_second()).ok()?;
    Some(Duration::from_secs(seconds)).filter(|left| !left.is_zero())
}
