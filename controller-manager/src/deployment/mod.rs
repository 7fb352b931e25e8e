//! Deployments: rollouts over ReplicaSets.

mod plan;
mod revision;
mod rollback;
mod rollout;
mod status;
mod sync;

use std::sync::Arc;

use ::controller::{Cached, Change, Informer, ObjectKey, OwnWrites, Queue, Retries, Whole};
use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};

use crate::{StartError, children, context::Context, replicaset::SetView, table::Started, views::PodView};

const CONTROLLER: &str = "deployment-controller";
/// Failures in a row after which a key is dropped until something changes.
const RETRIES: u32 = 15;

type Sets = Informer<SetView<ReplicaSet>>;

/// What handlers and reconciler share.
struct Shared {
    deployments: Informer<Whole<Deployment>>,
    sets: Sets,
    pods: Informer<PodView>,
    own: OwnWrites<ObjectKey>,
    queue: Queue<ObjectKey>,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let recorder = context.recorder(&client, CONTROLLER);
    let shared = Arc::new(Shared {
        deployments: context.informers.get(),
        sets: context.informers.get(),
        pods: context.informers.get(),
        own: OwnWrites::default(),
        queue: context.queue("deployment"),
    });
    let (a, b, c) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
    shared.deployments.on_change(move |change| a.deployment_changed(change));
    shared.sets.on_change(move |change| b.set_changed(change));
    shared.pods.on_change(move |change| {
        if let Change::Deleted { old } = change {
            c.pod_deleted(old);
        }
    });
    let reconciler =
        sync::Reconciler { shared: Arc::clone(&shared), client, recorder, clock: Arc::clone(&context.clock) };
    let (queue, workers) = (shared.queue.clone(), context.options.workers.concurrent_deployment_syncs);
    let informers: [&dyn crate::context::Syncs; 3] = [&shared.deployments, &shared.sets, &shared.pods];
    context.drive_with("deployment", queue, workers, Retries::Limited(RETRIES), reconciler, &informers);
    Ok(Started::Running)
}

impl Shared {
    fn deployment_changed(&self, change: &Change<Whole<Deployment>>) {
        if let Change::Deleted { old } = change {
            self.own.forget(&old.key);
        }
        self.queue.add(change.object().key.clone());
    }

    fn set_changed(&self, change: &Change<SetView<ReplicaSet>>) {
        match change {
            Change::Added { new, .. } if new.metadata.deletion_timestamp.is_some() => self.wake_owner(new),
            Change::Added { new, .. } => self.wake(new),
            Change::Updated { old, new } => {
                let (before, after) = (controller(old), controller(new));
                if before != after {
                    self.wake_owner(old);
                }
                if after.is_some() {
                    self.wake_owner(new);
                } else if before.is_some() || old.metadata.labels != new.metadata.labels {
                    self.wake_adopters(new);
                }
            }
            Change::Deleted { old } => self.wake_owner(old),
        }
    }

    fn wake(&self, set: &Cached<SetView<ReplicaSet>>) {
        if controller(set).is_some() { self.wake_owner(set) } else { self.wake_adopters(set) }
    }

    fn wake_owner(&self, set: &Cached<SetView<ReplicaSet>>) {
        let Some(owner) = controller(set) else { return };
        if let Some(deployment) = self.resolve(&set.key.namespace, owner) {
            self.queue.add(deployment.key.clone());
        }
    }

    fn wake_adopters(&self, set: &Cached<SetView<ReplicaSet>>) {
        let labels = set.metadata.labels.clone().unwrap_or_default();
        for deployment in self.deployments.in_namespace(&set.key.namespace) {
            if deployment.spec.as_ref().is_some_and(|s| children::selects(&s.selector, &labels)) {
                self.queue.add(deployment.key.clone());
            }
        }
    }

    /// The last Pod of a Deployment that recreates lets it go on.
    fn pod_deleted(&self, pod: &Cached<PodView>) {
        let namespace = &pod.key.namespace;
        let set = pod.controller().filter(|o| o.kind == "ReplicaSet").and_then(|o| {
            let set = self.sets.get(&ObjectKey::new(namespace.clone(), o.name.clone()))?;
            (set.uid == o.uid).then_some(set)
        });
        let deployment = set.and_then(|s| self.resolve(namespace, controller(&s)?));
        if let Some(deployment) = deployment.filter(|d| plan::is_recreate(d)) {
            self.queue.add(deployment.key.clone());
        }
    }

    fn resolve(&self, namespace: &str, owner: &OwnerReference) -> Option<Arc<Cached<Whole<Deployment>>>> {
        if owner.kind != "Deployment" {
            return None;
        }
        let deployment = self.deployments.get(&ObjectKey::new(namespace, owner.name.clone()))?;
        (deployment.uid == owner.uid).then_some(deployment)
    }
}

fn controller(set: &Cached<SetView<ReplicaSet>>) -> Option<&OwnerReference> {
    ::controller::claim::controller_of(set.metadata.owner_references.as_deref())
}
