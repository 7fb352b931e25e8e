//! All Pods' tasks.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::actor::Actor;
use super::inbox::{Inbox, StopRequest};
use crate::admission::Refusal;
use crate::metrics::METRICS;
use crate::pods;
use crate::resize::Trigger;
use crate::services::Services;

/// How far a Pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Being kept running.
    Syncing,
    /// Being stopped.
    Terminating,
    /// Stopped, being cleaned up.
    Terminated,
    /// Nothing left.
    Finished,
}

pub(super) struct Worker {
    /// With what it was given.
    pub(super) pod: Arc<Pod>,
    /// As its source has it.
    pub(super) wanted: Arc<Pod>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) removed: bool,
    /// Wanted once more after it was dropped: starts anew when this task is over.
    again: Option<Arc<Pod>>,
}

/// One Pod as others may see it.
#[derive(Clone, Debug)]
pub struct PodSummary {
    /// The Pod as last seen.
    pub pod: Arc<Pod>,
    /// How far it is.
    pub stage: Stage,
    /// Its source has dropped it.
    pub removed: bool,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) workers: HashMap<String, Worker>,
    /// Static Pods that wait for an older version of the same name to end, oldest first.
    queued: Vec<Arc<Pod>>,
    /// Every source has said what it wants.
    complete: bool,
}

impl Inner {
    /// Pods that take room, with what they were given.
    pub(super) fn present(&self, counts: impl Fn(&str) -> bool) -> Vec<Arc<Pod>> {
        let present = |(uid, worker): &(&String, &Worker)| counts(uid) && *worker.stage.borrow() < Stage::Finished;
        self.workers.iter().filter(present).map(|(_, worker)| Arc::clone(&worker.pod)).collect()
    }
}

/// The tasks by UID.
pub struct Workers {
    pub(super) services: Arc<Services>,
    pub(super) inner: Mutex<Inner>,
}

impl Workers {
    /// No Pods yet.
    pub fn new(services: Arc<Services>) -> Arc<Self> {
        Arc::new(Self { services, inner: Mutex::default() })
    }

    /// A new or changed Pod.
    pub fn update(&self, pod: Arc<Pod>) {
        let pod = self.services.settings.features.without_unknown(pod);
        let mut inner = self.inner.lock();
        if let Some(worker) = inner.workers.get_mut(pods::uid(&pod)) {
            if worker.removed {
                worker.again = Some(pod);
                return;
            }
            self.services.statuses.seen(&pod);
            let given = self.services.resizes.allocated(&pod);
            let matters = changes_work(&worker.pod, &given);
            self.services.starts.observed(&pod, Timestamp::now());
            if worker.wanted.spec != pod.spec || pods::is_deleting(&pod) {
                self.services.resizes.wake(Trigger::PodUpdated);
            }
            worker.wanted = Arc::clone(&pod);
            worker.pod = Arc::clone(&given);
            worker.inbox.update(given, matters);
            if *worker.stage.borrow() == Stage::Finished {
                // Its deletion may have been asked for.
                self.services.statuses.refresh(pods::uid(&pod));
            }
            return;
        }
        if pods::is_static(&pod) && is_name_taken(&inner, &pod) {
            inner.queued.retain(|queued| pods::uid(queued) != pods::uid(&pod));
            inner.queued.push(pod);
            return;
        }
        self.admit(&mut inner, pod);
    }

    /// Starts a Pod that sources want, if the node takes it.
    fn admit(&self, inner: &mut Inner, pod: Arc<Pod>) {
        self.services.starts.observed(&pod, Timestamp::now());
        METRICS.pods.containers.observe(pods::containers(&pod).len() as f64);
        let present = inner.present(|_| true);
        let given = self.services.resizes.allocated(&pod);
        match self.services.refuses(&given, &present) {
            Err(refusal) => self.start(inner, pod, Some(refusal), Vec::new()),
            Ok(victims) => {
                self.services.resizes.take(&pod, super::reject::is_taken(&pod));
                self.services.resizes.wake(Trigger::PodsAdded);
                let mut after = Vec::new();
                for victim in victims {
                    if let Some(worker) = inner.workers.get(pods::uid(&victim.pod)) {
                        worker.inbox.stop(self.services.preempt(&victim));
                        after.push(worker.stage.clone());
                    }
                }
                self.start(inner, pod, None, after);
            }
        }
    }

    /// `after`: Pods that have to be over before this one begins.
    fn start(&self, inner: &mut Inner, pod: Arc<Pod>, refusal: Option<Refusal>, after: Vec<watch::Receiver<Stage>>) {
        let inbox = Arc::new(Inbox::default());
        let (sender, stage) = watch::channel(Stage::Syncing);
        let (wanted, pod) = (Arc::clone(&pod), self.services.resizes.allocated(&pod));
        match refusal {
            Some(refusal) => self.services.reject(&pod, &refusal, &sender),
            None => {
                let actor = Actor::new(Arc::clone(&self.services), Arc::clone(&inbox), sender, Arc::clone(&pod));
                tokio::spawn(actor.run(after));
            }
        }
        let worker = Worker { pod, wanted, inbox, stage, removed: false, again: None };
        inner.workers.insert(pods::uid(&worker.pod).to_owned(), worker);
    }

    /// A Pod that only the runtime knows is stopped.
    pub fn stop_lost(&self, pod: Arc<Pod>) {
        let mut inner = self.inner.lock();
        let uid = pods::uid(&pod).to_owned();
        if !inner.workers.contains_key(&uid) {
            // It runs already: nothing is left to be decided.
            self.start(&mut inner, pod, None, Vec::new());
            if let Some(worker) = inner.workers.get_mut(&uid) {
                worker.removed = true;
                worker.inbox.stop(StopRequest { grace: Some(1), verdict: None });
            }
        }
    }

    /// The source has dropped the Pod.
    pub fn remove(&self, uid: &str) {
        let mut inner = self.inner.lock();
        inner.queued.retain(|queued| pods::uid(queued) != uid);
        if let Some(worker) = inner.workers.get_mut(uid) {
            worker.removed = true;
            worker.again = None;
            worker.inbox.remove();
            self.services.resizes.wake(Trigger::PodsRemoved);
        }
    }

    /// Ends a Pod.
    pub fn stop(&self, uid: &str, request: StopRequest) {
        if let Some(worker) = self.inner.lock().workers.get(uid) {
            worker.inbox.stop(request);
        }
    }

    /// How far a Pod is, now and later.
    pub fn stage(&self, uid: &str) -> Option<watch::Receiver<Stage>> {
        self.inner.lock().workers.get(uid).map(|worker| worker.stage.clone())
    }

    /// Every source has said what it wants.
    pub fn complete(&self) {
        self.inner.lock().complete = true;
    }

    /// Whether what is unknown here is wanted by nobody.
    pub fn is_complete(&self) -> bool {
        self.inner.lock().complete
    }

    /// Whether nobody wants a Pod any more and nothing is left to be done for it.
    pub fn is_gone(&self, uid: &str) -> bool {
        let inner = self.inner.lock();
        inner.complete && !inner.workers.contains_key(uid) && inner.queued.iter().all(|queued| pods::uid(queued) != uid)
    }

    /// Whether nothing of a Pod needs to be kept: it is gone, or it was evicted.
    pub fn is_removed(&self, uid: &str) -> bool {
        let finished = |worker: &Worker| *worker.stage.borrow() == Stage::Finished;
        let over = self.inner.lock().workers.get(uid).is_some_and(finished);
        let evicted =
            || self.services.statuses.get(uid).is_some_and(|status| status.reason.as_deref() == Some("Evicted"));
        self.is_gone(uid) || (over && evicted())
    }

    /// Something about the Pod changed in the runtime or its probes.
    pub fn nudge(&self, uid: &str) {
        if let Some(worker) = self.inner.lock().workers.get(uid) {
            worker.inbox.nudge();
        }
    }

    /// Forgets Pods that are over and dropped, and starts those that waited for them. Answers the forgotten UIDs.
    pub fn prune(&self) -> Vec<String> {
        let mut inner = self.inner.lock();
        let over = |worker: &Worker| worker.removed && *worker.stage.borrow() == Stage::Finished;
        let forgotten: Vec<String> =
            inner.workers.iter().filter(|(_, worker)| over(worker)).map(|(uid, _)| uid.clone()).collect();
        for uid in &forgotten {
            let over = inner.workers.remove(uid);
            self.services.statuses.remove(uid);
            if let Some(pod) = over.and_then(|worker| worker.again) {
                let is_static = if pods::is_static(&pod) { "true" } else { "" };
                METRICS.restarted_pods.with_label_values(&[is_static]).inc();
                self.admit(&mut inner, pod);
            }
        }
        let mut index = 0;
        while index < inner.queued.len() {
            let pod = Arc::clone(&inner.queued[index]);
            if is_name_taken(&inner, &pod) {
                index += 1;
            } else {
                inner.queued.remove(index);
                self.admit(&mut inner, pod);
            }
        }
        forgotten
    }

    /// Every Pod with a task.
    pub fn all(&self) -> Vec<PodSummary> {
        let inner = self.inner.lock();
        inner.workers.values().map(summary).collect()
    }

    /// One Pod.
    pub fn get(&self, uid: &str) -> Option<PodSummary> {
        self.inner.lock().workers.get(uid).map(summary)
    }

    /// A Pod by namespace and name, those that still run first.
    pub fn find(&self, namespace: &str, name: &str) -> Option<PodSummary> {
        let mut found: Vec<PodSummary> = self.all();
        found.retain(|summary| pods::namespace(&summary.pod) == namespace && pods::name(&summary.pod) == name);
        found.into_iter().min_by_key(|summary| (summary.removed, summary.stage))
    }
}

/// Whether a new version of a Pod gives its task anything to do: mostly it is the kubelet's own status that comes back.
fn changes_work(old: &Pod, new: &Pod) -> bool {
    let meta = |pod: &Pod| {
        let mut meta = pod.metadata.clone();
        (meta.resource_version, meta.managed_fields) = (None, None);
        meta
    };
    let foreign = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let conditions = status.conditions.into_iter().flatten();
        let foreign: Vec<_> = conditions
            .filter(|condition| !crate::status::is_owned(&condition.type_))
            .map(|c| (c.type_, c.status))
            .collect();
        let is_over = status.phase.as_deref().is_some_and(pods::is_terminal_phase);
        (foreign, status.resource_claim_statuses, status.extended_resource_claim_status, is_over)
    };
    old.spec != new.spec || meta(old) != meta(new) || foreign(old) != foreign(new)
}

fn summary(worker: &Worker) -> PodSummary {
    PodSummary { pod: Arc::clone(&worker.pod), stage: *worker.stage.borrow(), removed: worker.removed }
}

/// Whether another version of a static Pod is not over yet.
fn is_name_taken(inner: &Inner, pod: &Pod) -> bool {
    let name = pods::full_name(pod);
    inner.workers.values().any(|worker| {
        pods::full_name(&worker.pod) == name
            && pods::uid(&worker.pod) != pods::uid(pod)
            && *worker.stage.borrow() != Stage::Finished
    })
}
