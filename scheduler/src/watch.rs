//! From changes that informers tell to the state: nodes, Pods, namespaces.

use std::sync::Arc;

use controller::{Change, Informer, InformerSet};
use parking_lot::MutexGuard;

use crate::{
    devices::DeviceChange,
    events::{ClusterEvent, NodeChange},
    memo::Memos,
    objects::{NamespaceView, NodeView, PodView, SharedPod},
    scheduler::{Shared, State},
};

/// The informers that feed the state.
pub(crate) struct Watched {
    pub(crate) pods: Informer<SharedPod>,
    pub(crate) nodes: Informer<NodeView>,
    pub(crate) namespaces: Informer<NamespaceView>,
}

impl Watched {
    /// Starts the informers.
    pub(crate) fn start(informers: &InformerSet) -> Self {
        Self { nodes: informers.get(), namespaces: informers.get(), pods: informers.get() }
    }

    /// Lets them feed the state.
    pub(crate) fn feed(&self, shared: &Arc<Shared>) {
        let to = Arc::clone(shared);
        self.nodes.on_change(move |change| timed(&to, "Node", change, node_changed));
        let to = Arc::clone(shared);
        self.namespaces.on_change(move |change| timed(&to, "Namespace", change, namespace_changed));
        let to = Arc::clone(shared);
        self.pods.on_change(move |change| timed(&to, "Pod", change, pod_changed));
    }
}

/// Takes a change over and notes how long that took.
fn timed<V>(shared: &Shared, kind: &str, change: &Change<V>, take: impl Fn(&Shared, &Change<V>)) {
    let began = shared.now();
    take(shared, change);
    let what = match change {
        Change::Added { .. } => "Add",
        Change::Updated { .. } => "Update",
        Change::Deleted { .. } => "Delete",
    };
    shared.metrics.handled(&format!("{kind}{what}"), shared.now().saturating_sub(began));
}

fn node_changed(shared: &Shared, change: &Change<NodeView>) {
    let mut state = shared.state.lock();
    let now = shared.now();
    let profiles = &shared.profiles;
    match change {
        Change::Added { new, .. } => {
            state.cluster.set_node(&new.view);
            state.queue.happened(&ClusterEvent::NodeAdded(&new.view), profiles, now);
        }
        Change::Updated { old, new } => {
            if old.view == new.view {
                return;
            }
            state.cluster.set_node(&new.view);
            let change = NodeChange::between(&old.view, &new.view);
            if change.any() {
                state.queue.happened(&ClusterEvent::NodeChanged { new: &new.view, change }, profiles, now);
            }
        }
        Change::Deleted { old } => {
            state.cluster.remove_node(&old.view.name);
            state.queue.happened(&ClusterEvent::NodeDeleted, profiles, now);
        }
    }
    drop(state);
    shared.wake.notify_one();
}

fn namespace_changed(shared: &Shared, change: &Change<NamespaceView>) {
    let name = &change.object().key.name;
    let mut state = shared.state.lock();
    let labels = match change {
        Change::Added { new, .. } | Change::Updated { new, .. } => Some(new.labels.clone()),
        Change::Deleted { .. } => None,
    };
    if state.cluster.namespaces().get(name.as_str()) == labels.as_ref() {
        return;
    }
    state.cluster.set_namespace(name, labels);
    let now = shared.now();
    state.queue.happened(&ClusterEvent::NamespaceChanged, &shared.profiles, now);
    drop(state);
    shared.wake.notify_one();
}

/// A claim, a volume or a class changed.
pub(crate) fn storage_changed(shared: &Shared) {
    happened(shared, &ClusterEvent::StorageChanged);
}

/// A claim of devices changed, or what is offered.
pub(crate) fn devices_changed(shared: &Shared, change: &DeviceChange) {
    if *change == DeviceChange::Class {
        // Whether a node has enough of an extended resource depends on whether devices stand for it.
        shared.state.lock().memos = Memos::default();
    }
    happened(shared, &ClusterEvent::DevicesChanged(change));
}

fn happened(shared: &Shared, event: &ClusterEvent<'_>) {
    let now = shared.now();
    shared.state.lock().queue.happened(event, &shared.profiles, now);
    shared.wake.notify_one();
}

fn pod_changed(shared: &Shared, change: &Change<SharedPod>) {
    let mut state = shared.state.lock();
    match change {
        Change::Added { new, .. } => pod_is(shared, &mut state, None, &new.view.0),
        Change::Updated { old, new } if old.uid != new.uid => {
            pod_gone(shared, &mut state, &old.view.0);
            pod_is(shared, &mut state, None, &new.view.0);
        }
        Change::Updated { old, new } => pod_is(shared, &mut state, Some(&old.view.0), &new.view.0),
        Change::Deleted { old } => pod_gone(shared, &mut state, &old.view.0),
    }
    drop(state);
    shared.wake.notify_one();
}

/// A Pod exists, in this state.
fn pod_is(shared: &Shared, state: &mut MutexGuard<'_, State>, old: Option<&PodView>, new: &Arc<PodView>) {
    if new.finished {
        pod_gone(shared, state, new);
        return;
    }
    if new.node_name.is_empty() {
        pod_waits(shared, state, old, new);
        return;
    }
    let now = shared.now();
    let was_assigned = old.is_some_and(|o| !o.node_name.is_empty());
    state.cluster.set_pod(new);
    match old {
        Some(old) if was_assigned => {
            if old.template != new.template || old.terminating != new.terminating {
                state.queue.happened(&ClusterEvent::PodChanged { old, new }, &shared.profiles, now);
            }
        }
        _ => {
            state.queue.remove(&new.uid);
            state.nominations.remove(&new.uid);
            state.queue.happened(&ClusterEvent::PodAssigned(new), &shared.profiles, now);
        }
    }
}

/// A Pod has no node.
fn pod_waits(shared: &Shared, state: &mut MutexGuard<'_, State>, old: Option<&PodView>, new: &Arc<PodView>) {
    if shared.profiles.of(new).is_none() {
        return;
    }
    let known = state.queue.get(&new.uid).is_some();
    if !known && (state.cluster.is_assumed(&new.uid) || new.terminating && old.is_some()) {
        return;
    }
    let on_its_way = state.cluster.is_assumed(&new.uid);
    if !on_its_way {
        let was_nominated = state.nominations.node_of(&new.uid).is_some();
        state.nominations.update(old, new);
        if was_nominated && state.nominations.node_of(&new.uid).is_none() {
            // Room that was kept for it is free.
            let now = shared.now();
            state.queue.happened(&ClusterEvent::PodDeleted(new), &shared.profiles, now);
        }
    }
    let now = shared.now();
    state.queue.set(new, &shared.profiles, now);
}

fn pod_gone(shared: &Shared, state: &mut MutexGuard<'_, State>, old: &PodView) {
    let placed = state.cluster.remove_pod(&old.uid);
    state.doomed.remove(&old.uid);
    state.queue.remove(&old.uid);
    let nominated = state.nominations.node_of(&old.uid).is_some();
    state.nominations.remove(&old.uid);
    if placed.is_some() || nominated {
        let now = shared.now();
        state.queue.happened(&ClusterEvent::PodDeleted(old), &shared.profiles, now);
    }
}
