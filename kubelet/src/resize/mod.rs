//! Changing the amounts of a running Pod.
//!
//! A source wants amounts, the node gives them (`decide`), and the containers get them (`workers`, which compares by
//! `changes`). What was given and what the runtime was told stand in two files, so that a kubelet that starts anew goes
//! on where the last one was. Everything else in the kubelet sees a Pod with what it was given.

mod changes;
mod decide;
mod file;
mod given;
mod state;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, ResourceRequirements};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub(crate) use changes::Changes;
pub use decide::decide;
pub(crate) use decide::{INFEASIBLE, precedence, requested};
pub use file::Ledger;
pub use given::Given;
pub(crate) use given::{RESIZABLE, with_resource};
pub(crate) use state::details;
use state::{ERROR, IN_PROGRESS, PENDING, State, condition, tells_more};

use crate::admission::Refusal;
use crate::metrics::METRICS;
use crate::pods;

/// What Pods were given, what they have, and how far their resizes are.
pub struct Resizes {
    allocated: Ledger,
    actuated: Ledger,
    states: Mutex<HashMap<String, State>>,
    /// Why there may be room now.
    trigger: Mutex<Option<Trigger>>,
    wake: Notify,
}

/// Why what had to wait is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    PeriodicRetry,
    PodResized,
    PodUpdated,
    PodsAdded,
    PodsRemoved,
}

impl Trigger {
    /// The value of the metric label `retry_trigger`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::PeriodicRetry => "periodic_retry",
            Self::PodResized => "pod_resized",
            Self::PodUpdated => "pod_updated",
            Self::PodsAdded => "pods_added",
            Self::PodsRemoved => "pods_removed",
        }
    }
}

impl Resizes {
    /// Reads what an earlier kubelet left.
    pub fn open(root: &Path) -> Result<Self, String> {
        let open = |name: &str| {
            Ledger::open(root.join(name)).map_err(|error| {
                format!(
                    "could not restore state from checkpoint: {error}, please drain this node and delete pod \
                     allocation checkpoint file {name:?} before restarting Kubelet"
                )
            })
        };
        Ok(Self {
            allocated: open("allocated_pods_state")?,
            actuated: open("actuated_pods_state")?,
            states: Mutex::default(),
            trigger: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// The Pod with what it was given.
    pub fn allocated(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.allocated.get(pods::uid(pod)).map_or_else(|| Arc::clone(pod), |given| given.in_pod(pod))
    }

    /// What the runtime was told of a Pod.
    pub fn actuated(&self, uid: &str) -> Given {
        self.actuated.get(uid).unwrap_or_default()
    }

    /// A Pod is taken with what it asks for, or found again with what it has.
    pub(crate) fn take(&self, pod: &Arc<Pod>, is_found: bool) {
        let uid = pods::uid(pod);
        if self.allocated.get(uid).is_none() {
            let given = Given::of(pod);
            if is_found {
                // Taken by a kubelet that wrote nothing down, and so changed nothing either.
                self.actuated.change(uid, |actual| *actual = given.clone());
            }
            self.allocated.change(uid, |entry| *entry = given);
        }
        if is_found {
            self.states.lock().entry(uid.to_owned()).or_insert_with(|| State::of(pod));
            self.count();
        }
    }

    /// A Pod gets what it wants, from now on. Answers whether it had to wait for it.
    pub(crate) fn give(&self, wanted: &Pod, now: Timestamp) -> bool {
        let uid = pods::uid(wanted);
        self.allocated.change(uid, |given| *given = Given::of(wanted));
        let mut states = self.states.lock();
        let state = states.entry(uid.to_owned()).or_default();
        let waited = state.pending.take().is_some_and(|pending| pending.reason.as_deref() == Some("Deferred"));
        state.since = None;
        state.in_progress = Some(condition(IN_PROGRESS, None, ("", ""), wanted.metadata.generation, now));
        drop(states);
        self.count();
        waited
    }

    /// A Pod does not get what it wants. Answers whether that is news.
    pub(crate) fn refuse(&self, wanted: &Pod, refusal: &Refusal, now: Timestamp) -> bool {
        let reason = if refusal.reason == INFEASIBLE { INFEASIBLE } else { "Deferred" };
        let mut states = self.states.lock();
        let state = states.entry(pods::uid(wanted).to_owned()).or_default();
        let told = (reason, refusal.message.as_str());
        let pending = condition(PENDING, state.pending.as_ref(), told, wanted.metadata.generation, now);
        let is_news = tells_more(state.pending.as_ref(), &pending);
        let differs = state.pending.as_ref().is_none_or(|before| before.message != pending.message);
        if is_news || differs {
            state.pending = Some(pending);
        }
        drop(states);
        self.count();
        if is_news && reason == INFEASIBLE {
            METRICS.infeasible_resizes.with_label_values(&[infeasible_detail(&refusal.message)]).inc();
        }
        is_news
    }

    /// A Pod wants what it has. Answers whether it wanted something else before.
    pub(crate) fn content(&self, uid: &str) -> bool {
        let mut states = self.states.lock();
        let Some(state) = states.get_mut(uid) else { return false };
        state.since = None;
        let was_pending = state.pending.take().is_some();
        drop(states);
        self.count();
        was_pending
    }

    /// Since when a Pod wants something else than it has.
    pub(crate) fn waiting_since(&self, uid: &str, now: Timestamp) -> Timestamp {
        *self.states.lock().entry(uid.to_owned()).or_default().since.get_or_insert(now)
    }

    /// Whether containers do not have yet what they were given.
    pub(crate) fn is_in_progress(&self, uid: &str) -> bool {
        self.states.lock().get(uid).is_some_and(|state| state.in_progress.is_some())
    }

    /// Containers could not get what they were given. Answers whether that is news.
    pub(crate) fn failed(&self, pod: &Pod, message: &str, now: Timestamp) -> bool {
        let mut states = self.states.lock();
        let state = states.entry(pods::uid(pod).to_owned()).or_default();
        let generation = state.in_progress.as_ref().map_or(pod.metadata.generation, |known| known.observed_generation);
        let failed = condition(IN_PROGRESS, state.in_progress.as_ref(), (ERROR, message), generation, now);
        let is_news = tells_more(state.in_progress.as_ref(), &failed)
            || state.in_progress.as_ref().is_none_or(|before| before.message != failed.message);
        if is_news {
            state.in_progress = Some(failed);
        }
        is_news
    }

    /// Containers have what they were given. Answers whether they did not before.
    pub(crate) fn completed(&self, uid: &str) -> bool {
        let completed = self.states.lock().get_mut(uid).and_then(|state| state.in_progress.take()).is_some();
        if completed {
            self.count();
            self.wake(Trigger::PodResized);
        }
        completed
    }

    /// What the runtime was told of one container.
    pub(crate) fn told(&self, uid: &str, container: &str, resources: ResourceRequirements) {
        self.actuated.change(uid, |given| drop(given.containers.insert(container.to_owned(), resources)));
    }

    /// What the Pod's own group was limited to.
    pub(crate) fn told_pod(&self, uid: &str, resources: Option<ResourceRequirements>) {
        self.actuated.change(uid, |given| given.pod = resources);
    }

    /// Conditions of a Pod.
    pub fn conditions(&self, uid: &str) -> Vec<PodCondition> {
        let states = self.states.lock();
        let Some(state) = states.get(uid) else { return Vec::new() };
        [&state.pending, &state.in_progress].into_iter().flatten().cloned().collect()
    }

    /// Forgets Pods that are not known any more.
    pub(crate) fn retain(&self, is_known: impl Fn(&str) -> bool) {
        self.allocated.retain(&is_known);
        self.actuated.retain(&is_known);
        self.states.lock().retain(|uid, _| is_known(uid));
        self.count();
    }

    /// Writes both files, as far as they changed. What cannot be written is told and tried again with the next change.
    pub(crate) async fn flush(&self) {
        let written: Result<(), io::Error> = async {
            self.allocated.flush().await?;
            self.actuated.flush().await
        }
        .await;
        if let Err(error) = written {
            tracing::error!(%error, "what pods were given is not written down");
        }
    }

    /// There may be room now.
    pub(crate) fn wake(&self, trigger: Trigger) {
        self.trigger.lock().get_or_insert(trigger);
        self.wake.notify_one();
    }

    /// Waits until there may be room.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// The first reason there was since this was asked last.
    pub(crate) fn trigger(&self) -> Trigger {
        self.trigger.lock().take().unwrap_or(Trigger::PeriodicRetry)
    }

    fn count(&self) {
        let states = self.states.lock();
        let pending = |reason: &str| {
            let of = |state: &&State| state.pending.as_ref().is_some_and(|one| one.reason.as_deref() == Some(reason));
            i64::try_from(states.values().filter(of).count()).unwrap_or(i64::MAX)
        };
        METRICS.pending_resizes.with_label_values(&["deferred"]).set(pending("Deferred"));
        METRICS.pending_resizes.with_label_values(&["infeasible"]).set(pending(INFEASIBLE));
        let running = states.values().filter(|state| state.in_progress.is_some()).count();
        METRICS.in_progress_resizes.set(i64::try_from(running).unwrap_or(i64::MAX));
    }
}

/// What a metric calls it.
fn infeasible_detail(message: &str) -> &'static str {
    if message.contains("CPU Manager") {
        "guaranteed_pod_cpu_manager_static_policy"
    } else if message.contains("Memory Manager") {
        "guaranteed_pod_memory_manager_static_policy"
    } else {
        "container_with_swap"
    }
}
