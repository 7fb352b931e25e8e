//! The kubelet's own copy of every Pod's status, and what becomes of it on the way to the API.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::conditions::OWNED;
use crate::pods;

/// A status that waits to be written.
#[derive(Clone)]
pub struct Pending {
    /// The Pod as last seen.
    pub pod: Arc<Pod>,
    /// Its status.
    pub status: PodStatus,
    /// All work for it is over, so that it may be deleted from the API.
    pub finished: bool,
    /// Since when it is another one than was written.
    pub since: Option<Instant>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<String, Pending>,
    changed: BTreeSet<String>,
}

/// Statuses by UID.
#[derive(Default)]
pub struct StatusStore {
    inner: Mutex<Inner>,
    wake: Notify,
}

impl StatusStore {
    /// Sets a status; nothing happens if it is the same. Answers whether it was taken.
    pub fn set(&self, pod: &Arc<Pod>, status: PodStatus) -> bool {
        let uid = pods::uid(pod).to_owned();
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.entries.get_mut(&uid) {
            if !may_follow(pod, &entry.status, &status) {
                tracing::error!(
                    pod = pods::describe(pod),
                    "status update aborted: terminated containers went back to life"
                );
                return false;
            }
            entry.pod = Arc::clone(pod);
            if entry.status == status {
                return true;
            }
            entry.status = status;
            entry.since.get_or_insert_with(Instant::now);
        } else {
            let fresh = Pending { pod: Arc::clone(pod), status, finished: false, since: Some(Instant::now()) };
            inner.entries.insert(uid.clone(), fresh);
        }
        inner.changed.insert(uid);
        drop(inner);
        self.wake.notify_one();
        true
    }

    /// The status of a Pod.
    pub fn get(&self, uid: &str) -> Option<PodStatus> {
        self.inner.lock().entries.get(uid).map(|entry| entry.status.clone())
    }

    /// All work for a Pod is over.
    pub fn finish(&self, uid: &str) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.entries.get_mut(uid) {
            entry.finished = true;
            inner.changed.insert(uid.to_owned());
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// Forgets a Pod.
    pub fn remove(&self, uid: &str) {
        let mut inner = self.inner.lock();
        inner.entries.remove(uid);
        inner.changed.remove(uid);
    }

    /// Waits for changes and takes them.
    pub async fn changes(&self) -> Vec<Pending> {
        loop {
            let notified = self.wake.notified();
            let taken = self.take();
            if !taken.is_empty() {
                return taken;
            }
            notified.await;
        }
    }

    fn take(&self) -> Vec<Pending> {
        let mut inner = self.inner.lock();
        let uids = std::mem::take(&mut inner.changed);
        uids.iter().filter_map(|uid| inner.entries.get(uid).cloned()).collect()
    }

    /// The API's copy of a Pod changed.
    pub fn seen(&self, pod: &Arc<Pod>) {
        if let Some(entry) = self.inner.lock().entries.get_mut(pods::uid(pod)) {
            entry.pod = Arc::clone(pod);
        }
    }

    /// Every entry that needs a look, for the regular comparison with the API.
    pub fn all(&self, needs_look: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        self.inner.lock().entries.values().filter(|pending| needs_look(pending)).cloned().collect()
    }

    /// A status was written. Answers how long that took since it was another one; a status that changed meanwhile goes on
    /// waiting.
    pub fn written(&self, pending: &Pending) -> Option<Duration> {
        let mut inner = self.inner.lock();
        let entry = inner.entries.get_mut(pods::uid(&pending.pod))?;
        let since = entry.since.take_if(|_| entry.status == pending.status)?;
        Some(since.elapsed())
    }

    /// Has a Pod's status compared with the API's copy now.
    pub fn refresh(&self, uid: &str) {
        self.retry(uid);
        self.wake.notify_one();
    }

    /// Marks a Pod for another try.
    pub fn retry(&self, uid: &str) {
        let mut inner = self.inner.lock();
        if inner.entries.contains_key(uid) {
            inner.changed.insert(uid.to_owned());
        }
    }
}

/// A container that ended for good does not come back.
fn may_follow(pod: &Pod, old: &PodStatus, new: &PodStatus) -> bool {
    if pods::restart_policy(pod) == "Always" || crate::workers::plan::may_restart_all(pod) {
        return true;
    }
    let ended =
        |status: &ContainerStatus| status.state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code);
    old.container_statuses.iter().flatten().all(|before| {
        let Some(code) = ended(before) else { return true };
        let container = pods::containers(pod).iter().find(|container| container.name == before.name);
        let restarts = container.is_none_or(|container| crate::workers::plan::restarts_after(pod, container, code));
        let after = new.container_statuses.iter().flatten().find(|after| after.name == before.name);
        restarts || after.is_none_or(|after| ended(after).is_some())
    })
}

/// What is sent: the kubelet's status with others' parts of the API's copy kept.
pub fn merge(api: &PodStatus, own: &PodStatus, may_still_run: bool) -> PodStatus {
    let mut out = own.clone();
    out.resource_claim_statuses.clone_from(&api.resource_claim_statuses);
    out.extended_resource_claim_status.clone_from(&api.extended_resource_claim_status);
    out.nominated_node_name.clone_from(&api.nominated_node_name);
    let terminal = out.phase.as_deref().is_some_and(pods::is_terminal_phase);
    let was_terminal = api.phase.as_deref().is_some_and(pods::is_terminal_phase);
    let held_back = terminal && !was_terminal && may_still_run;
    if held_back {
        out.phase.clone_from(&api.phase);
        out.reason.clone_from(&api.reason);
        out.message.clone_from(&api.message);
    }
    let is_owned = |condition: &PodCondition| OWNED.contains(&condition.type_.as_str());
    let mut conditions: Vec<PodCondition> =
        api.conditions.iter().flatten().filter(|condition| !is_owned(condition)).cloned().collect();
    let api_has = |type_: &str| api.conditions.iter().flatten().any(|condition| condition.type_ == type_);
    for condition in own.conditions.iter().flatten().filter(|condition| is_owned(condition)) {
        if condition.type_ == "DisruptionTarget" && held_back && !api_has("DisruptionTarget") {
            continue;
        }
        conditions.push(condition.clone());
    }
    if terminal && !held_back {
        let reason = if out.phase.as_deref() == Some("Succeeded") { "PodCompleted" } else { "PodFailed" };
        for condition in &mut conditions {
            let is_readiness = matches!(condition.type_.as_str(), "Ready" | "ContainersReady");
            if is_readiness && condition.status == "True" {
                condition.status = "False".to_owned();
                condition.reason = Some(reason.to_owned());
            }
        }
    }
    out.conditions = (!conditions.is_empty()).then_some(conditions);
    out
}
