//! StatefulSets: Pods with names, an order, and storage of their own.

mod history;
mod identity;
mod plan;
mod sync;

use std::sync::Arc;

use ::controller::{Cached, Change, Informer, ObjectKey, OwnWrites, Queue, Whole};
use k8s_openapi::{api::apps::v1::StatefulSet, apimachinery::pkg::apis::meta::v1::OwnerReference};

use crate::{
    StartError, children,
    context::{Context, Syncs},
    revisions::RevisionView,
    table::Started,
    views::PodView,
};

const CONTROLLER: &str = "statefulset-controller";

/// A whole claim.
type Claim = crate::views::ClaimView;

/// What handlers and reconciler share.
struct Shared {
    sets: Informer<Whole<StatefulSet>>,
    pods: Informer<PodView>,
    claims: Informer<Claim>,
    revisions: Informer<RevisionView>,
    own: OwnWrites<ObjectKey>,
    queue: Queue<ObjectKey>,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let shared = Arc::new(Shared {
        sets: context.informers.get(),
        pods: context.informers.get(),
        claims: context.informers.get(),
        revisions: context.informers.get(),
        own: OwnWrites::default(),
        queue: context.queue("statefulset"),
    });
    let (a, b) = (Arc::clone(&shared), Arc::clone(&shared));
    shared.sets.on_change(move |change| {
        if let Change::Deleted { old } = change {
            a.own.forget(&old.key);
        }
        a.queue.add(change.object().key.clone());
    });
    shared.pods.on_change(move |change| b.pod_changed(change));
    let reconciler = sync::Reconciler {
        shared: Arc::clone(&shared),
        recorder: context.recorder(&client, CONTROLLER),
        client,
        clock: Arc::clone(&context.clock),
    };
    let informers: [&dyn Syncs; 4] = [&shared.sets, &shared.pods, &shared.claims, &shared.revisions];
    let workers = context.options.workers.concurrent_statefulset_syncs;
    context.drive(CONTROLLER, shared.queue.clone(), workers, reconciler, &informers);
    Ok(Started::Running)
}

impl Shared {
    fn pod_changed(&self, change: &Change<PodView>) {
        match change {
            Change::Updated { old, new } => {
                let moved = old.controller() != new.controller();
                if moved {
                    self.wake(&old.key.namespace, old.controller());
                }
                match new.controller() {
                    Some(owner) => self.wake(&new.key.namespace, Some(owner)),
                    None if moved || old.labels != new.labels => self.wake_adopters(new),
                    None => {}
                }
            }
            Change::Added { new, .. } => match new.controller() {
                Some(owner) => self.wake(&new.key.namespace, Some(owner)),
                None => self.wake_adopters(new),
            },
            // A stranger may have had the name of one of ours.
            Change::Deleted { old } => match old.controller() {
                Some(owner) if owner.kind == "StatefulSet" => self.wake(&old.key.namespace, Some(owner)),
                _ => self.wake_adopters(old),
            },
        }
    }

    fn wake(&self, namespace: &str, owner: Option<&OwnerReference>) {
        let Some(owner) = owner.filter(|o| o.kind == "StatefulSet") else { return };
        let set = self.sets.get(&ObjectKey::new(namespace, owner.name.clone()));
        if let Some(set) = set.filter(|s| s.uid == owner.uid) {
            self.queue.add(set.key.clone());
        }
    }

    fn wake_adopters(&self, pod: &Cached<PodView>) {
        for set in self.sets.in_namespace(&pod.key.namespace) {
            if set.spec.as_ref().is_some_and(|s| children::selects(&s.selector, &pod.labels)) {
                self.queue.add(set.key.clone());
            }
        }
    }
}
