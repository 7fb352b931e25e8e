//! ReplicaSets and ReplicationControllers: as many Pods of a template as asked for.

mod kind;
mod plan;
mod sync;

use std::sync::Arc;

use ::controller::{Cached, Change, Index, Informer, ObjectKey, OwnWrites, Queue, UidExpectations, Viewed};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;

pub(crate) use kind::ReplicaKind;

use crate::{
    StartError,
    children::{self, PodControl},
    context::Context,
    table::Started,
    views::{self, PodView},
};

/// A whole ReplicaSet or ReplicationController.
#[derive(Clone, Debug)]
pub(crate) struct SetView<K>(pub(crate) K);

impl<K> std::ops::Deref for SetView<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.0
    }
}

fn by_controller<K: ReplicaKind>(set: &Cached<SetView<K>>) -> Vec<String> {
    views::meta_by_controller(set.meta())
}

impl<K: ReplicaKind> Viewed for SetView<K> {
    type Object = K;

    const INDICES: &'static [Index<Self>] = &[Index { name: views::BY_CONTROLLER, keys: by_controller::<K> }];

    fn project(mut object: K) -> Self {
        object.meta_mut().managed_fields = None;
        Self(object)
    }
}

/// What handlers and reconciler share.
struct Shared<K: ReplicaKind> {
    sets: Informer<SetView<K>>,
    pods: Informer<PodView>,
    expectations: UidExpectations<ObjectKey>,
    own: OwnWrites<ObjectKey>,
    queue: Queue<ObjectKey>,
}

/// Starts the controller of a kind.
pub(crate) async fn start<K: ReplicaKind>(context: &Context) -> Result<Started, StartError> {
    let client = context.client(K::CONTROLLER).await?;
    let recorder = context.recorder(&client, K::COMPONENT);
    let shared = Arc::new(Shared::<K> {
        sets: context.informers.get(),
        pods: context.informers.get(),
        expectations: UidExpectations::new(Arc::clone(&context.clock)),
        own: OwnWrites::default(),
        queue: context.queue(K::QUEUE),
    });
    let (of_sets, of_pods) = (Arc::clone(&shared), Arc::clone(&shared));
    shared.sets.on_change(move |change| of_sets.set_changed(change));
    shared.pods.on_change(move |change| of_pods.pod_changed(change));
    let reconciler = sync::Reconciler {
        shared: Arc::clone(&shared),
        control: PodControl::new(client.clone(), recorder),
        client,
        clock: Arc::clone(&context.clock),
    };
    let (queue, workers) = (shared.queue.clone(), K::workers(&context.options));
    context.drive(K::QUEUE, queue, workers, reconciler, &[&shared.sets, &shared.pods]);
    Ok(Started::Running)
}

impl<K: ReplicaKind> Shared<K> {
    fn set_changed(&self, change: &Change<SetView<K>>) {
        match change {
            Change::Updated { old, new } if old.uid != new.uid => self.expectations.forget(&old.key),
            Change::Deleted { old } => {
                self.expectations.forget(&old.key);
                self.own.forget(&old.key);
            }
            _ => {}
        }
        self.queue.add(change.object().key.clone());
    }

    fn pod_changed(&self, change: &Change<PodView>) {
        match change {
            Change::Added { new, .. } => self.pod_added(new),
            Change::Updated { old, new } if old.uid != new.uid => {
                self.pod_deleted(old);
                self.pod_added(new);
            }
            Change::Updated { old, new } => self.pod_updated(old, new),
            Change::Deleted { old } => self.pod_deleted(old),
        }
    }

    fn pod_added(&self, pod: &Cached<PodView>) {
        if pod.deletion.is_some() {
            return self.pod_deleted(pod);
        }
        match pod.controller() {
            Some(owner) => {
                if let Some(set) = self.resolve(&pod.key.namespace, owner) {
                    self.expectations.creation_observed(&set.key);
                    self.queue.add(set.key.clone());
                }
            }
            None => self.wake_adopters(pod),
        }
    }

    fn pod_updated(&self, old: &Cached<PodView>, new: &Cached<PodView>) {
        if new.deletion.is_some() {
            self.pod_deleted(new);
            if new.labels != old.labels {
                self.pod_deleted(old);
            }
            return;
        }
        let moved = old.controller() != new.controller();
        if moved
            && let Some(owner) = old.controller()
            && let Some(set) = self.resolve(&old.key.namespace, owner)
        {
            self.queue.add(set.key.clone());
        }
        match new.controller() {
            Some(owner) => {
                if let Some(set) = self.resolve(&new.key.namespace, owner) {
                    self.queue.add(set.key.clone());
                }
            }
            None if moved || old.labels != new.labels => self.wake_adopters(new),
            None => {}
        }
    }

    /// A deletion is seen twice: when it begins and when it is done.
    fn pod_deleted(&self, pod: &Cached<PodView>) {
        if let Some(owner) = pod.controller()
            && let Some(set) = self.resolve(&pod.key.namespace, owner)
        {
            self.expectations.deletion_observed(&set.key, &pod.uid);
            self.queue.add(set.key.clone());
        }
    }

    /// The set an owner reference means, if it still is that one.
    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<Cached<SetView<K>>>> {
        if owner.kind != K::kind(&()) {
            return None;
        }
        let set = self.sets.get(&ObjectKey::new(namespace, owner.name.clone()))?;
        (set.uid == owner.uid).then_some(set)
    }

    /// Sets that may want an orphan.
    fn wake_adopters(&self, pod: &Cached<PodView>) {
        for set in self.sets.in_namespace(&pod.key.namespace) {
            let wants = set.selector().is_ok_and(|s| !s.is_everything() && children::matches(&s, &pod.labels));
            if wants && set.meta().deletion_timestamp.is_none() {
                self.queue.add(ObjectKey::new(pod.key.namespace.clone(), set.name_any()));
            }
        }
    }
}
