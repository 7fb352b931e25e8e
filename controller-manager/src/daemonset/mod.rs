//! DaemonSets: one Pod on every Node that fits.

mod history;
mod placement;
mod plan;
mod sync;

use std::{collections::HashMap, sync::Arc};

use ::controller::{
    Cached, Change, Informer, ObjectKey, OwnWrites, Queue, UidExpectations, Whole, claim::controller_of,
};
use k8s_openapi::{api::apps::v1::DaemonSet, apimachinery::pkg::apis::meta::v1::OwnerReference};
use parking_lot::Mutex;

use crate::{
    StartError,
    children::{self, PodControl},
    context::{Context, Syncs},
    revisions::RevisionView,
    table::Started,
    views::{NodeView, PodView},
};

const CONTROLLER: &str = "daemonset-controller";

/// What handlers and reconciler share.
struct Shared {
    sets: Informer<Whole<DaemonSet>>,
    pods: Informer<PodView>,
    node_views: Informer<NodeView>,
    revisions: Informer<RevisionView>,
    expectations: UidExpectations<ObjectKey>,
    own: OwnWrites<ObjectKey>,
    queue: Queue<ObjectKey>,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let recorder = context.recorder(&client, CONTROLLER);
    let shared = Arc::new(Shared {
        sets: context.informers.get(),
        pods: context.informers.get(),
        node_views: context.informers.get(),
        revisions: context.informers.get(),
        expectations: UidExpectations::new(Arc::clone(&context.clock)),
        own: OwnWrites::default(),
        queue: context.queue("daemonset"),
    });
    let by = || Arc::clone(&shared);
    let (a, b, c, d) = (by(), by(), by(), by());
    shared.sets.on_change(move |change| a.set_changed(change));
    shared.pods.on_change(move |change| b.pod_changed(change));
    shared.node_views.on_change(move |change| c.node_changed(change));
    shared.revisions.on_change(move |change| d.revision_changed(change));
    let reconciler = sync::Reconciler {
        shared: by(),
        control: PodControl::new(client.clone(), recorder.clone()),
        client,
        recorder,
        clock: Arc::clone(&context.clock),
        failures: Mutex::new(HashMap::new()),
    };
    let informers: [&dyn Syncs; 4] = [&shared.sets, &shared.pods, &shared.node_views, &shared.revisions];
    let workers = context.options.workers.concurrent_daemonset_syncs;
    context.drive(CONTROLLER, shared.queue.clone(), workers, reconciler, &informers);
    Ok(Started::Running)
}

impl Shared {
    fn nodes(&self) -> Vec<Arc<Cached<NodeView>>> {
        self.node_views.list()
    }

    fn set_changed(&self, change: &Change<Whole<DaemonSet>>) {
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
            Change::Added { new, .. } if new.deletion.is_some() => self.pod_deleted(new),
            Change::Added { new, .. } => match new.controller() {
                Some(owner) => {
                    if let Some(set) = self.resolve(&new.key.namespace, owner) {
                        self.expectations.creation_observed(&set.key);
                        self.queue.add(set.key.clone());
                    }
                }
                None => self.wake_adopters(&new.key.namespace, &new.labels),
            },
            Change::Updated { old, new } => {
                if old.uid != new.uid {
                    self.pod_deleted(old);
                }
                if new.deletion.is_some() {
                    return self.pod_deleted(new);
                }
                if old.controller() != new.controller() {
                    self.wake(&old.key.namespace, old.controller());
                }
                match new.controller() {
                    Some(owner) => self.wake(&new.key.namespace, Some(owner)),
                    None if old.labels != new.labels || old.controller().is_some() => {
                        self.wake_adopters(&new.key.namespace, &new.labels);
                    }
                    None => {}
                }
            }
            Change::Deleted { old } => self.pod_deleted(old),
        }
    }

    fn pod_deleted(&self, pod: &Cached<PodView>) {
        if let Some(owner) = pod.controller()
            && let Some(set) = self.resolve(&pod.key.namespace, owner)
        {
            self.expectations.deletion_observed(&set.key, &pod.uid);
            self.queue.add(set.key.clone());
        }
    }

    /// Heartbeats change nothing here; labels and taints do.
    fn node_changed(&self, change: &Change<NodeView>) {
        let facts = |n: &NodeView| (n.metadata.labels.clone(), n.spec.as_ref().and_then(|s| s.taints.clone()));
        if let Change::Updated { old, new } = change
            && facts(old) == facts(new)
        {
            return;
        }
        for set in self.sets.list() {
            self.queue.add(set.key.clone());
        }
    }

    fn revision_changed(&self, change: &Change<RevisionView>) {
        let revision = change.object();
        let owner = controller_of(revision.metadata.owner_references.as_deref());
        let namespace = &revision.key.namespace;
        match (change, owner) {
            // Our own creations are no news.
            (Change::Added { .. }, Some(_)) => {}
            (_, Some(owner)) => self.wake(namespace, Some(owner)),
            (Change::Deleted { .. }, None) => {}
            (_, None) => self.wake_adopters(namespace, &revision.metadata.labels.clone().unwrap_or_default()),
        }
    }

    fn wake(&self, namespace: &str, owner: Option<&OwnerReference>) {
        if let Some(set) = owner.and_then(|o| self.resolve(namespace, o)) {
            self.queue.add(set.key.clone());
        }
    }

    fn wake_adopters(&self, namespace: &str, labels: &std::collections::BTreeMap<String, String>) {
        for set in self.sets.in_namespace(namespace) {
            if set.spec.as_ref().is_some_and(|s| children::selects(&s.selector, labels)) {
                self.queue.add(set.key.clone());
            }
        }
    }

    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<Cached<Whole<DaemonSet>>>> {
        if owner.kind != "DaemonSet" {
            return None;
        }
        let set = self.sets.get(&ObjectKey::new(namespace, owner.name.clone()))?;
        (set.uid == owner.uid).then_some(set)
    }
}
