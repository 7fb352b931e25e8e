//! Attaches volumes of CSI drivers to the nodes of the Pods that use them, and detaches them afterwards: by
//! VolumeAttachments, which the drivers carry out. Nodes read in their status what is attached; they tell there what they
//! use, and that is not taken from them unless they are out of service or have not been ready for a while.
//!
//! Each node is looked at as a whole; nothing is remembered but since when a volume has not been wanted, and what was
//! told.

mod claims;
mod metrics;
mod options;
mod plan;
mod sync;
mod views;

use std::{collections::BTreeSet, sync::Arc};

use ::controller::{Cached, Change, Informer, ObjectKey, Queue};
use claims::Claims;
use k8s_openapi::api::core::v1::Node;
pub(crate) use options::AttachOptions;
use views::{AttachmentView, DriverView};

use crate::{
    StartError,
    context::{Context, Syncs},
    table::Started,
    views::{BY_NODE, ClaimView, NodeView, PodView},
    volumes::{VolumeView, is_bound},
};

const CONTROLLER: &str = "persistentvolume-attach-detach-controller";
/// Name under which events are recorded.
const SOURCE: &str = "attachdetach-controller";
/// How many nodes are looked at at once.
const WORKERS: usize = 10;
/// Says of a node that its volumes are attached here.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// Says of a node that the volumes of Pods that have ended stay.
const KEEPS_TERMINATED: &str = "volumes.kubernetes.io/keep-terminated-pod-volumes";

/// What the cluster looks like.
#[derive(Clone)]
struct Picture {
    pods: Informer<PodView>,
    nodes: Informer<NodeView>,
    claims: Informer<ClaimView>,
    volumes: Informer<VolumeView>,
    attachments: Informer<AttachmentView>,
    drivers: Informer<DriverView>,
    /// What is being attached.
    claims_of_nodes: Arc<Claims>,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let picture = Picture {
        pods: context.informers.get(),
        nodes: context.informers.get(),
        claims: context.informers.get(),
        volumes: context.informers.get(),
        attachments: context.informers.get(),
        drivers: context.informers.get(),
        claims_of_nodes: Arc::default(),
    };
    let queue = context.queue("attach_detach");
    watch(&picture, &queue);
    resync(context, &picture, &queue);
    let recorder = context.recorder(&client, SOURCE);
    let reconciler = sync::Reconciler::new(client, recorder, picture.clone(), context)?;
    let Picture { pods, nodes, claims, volumes, attachments, drivers, .. } = &picture;
    let informers: [&dyn Syncs; 6] = [pods, nodes, claims, volumes, attachments, drivers];
    context.drive(CONTROLLER, queue, WORKERS, reconciler, &informers);
    Ok(Started::Running)
}

fn annotated(node: &Node, key: &str) -> bool {
    node.metadata.annotations.as_ref().and_then(|all| all.get(key)).is_some_and(|value| value == "true")
}

impl Picture {
    /// Nodes of the Pods that use a claim.
    fn nodes_of_claim(&self, claim: &ObjectKey) -> BTreeSet<String> {
        let pods = self.pods.in_namespace(&claim.namespace);
        let users = pods.iter().filter(|pod| pod.claims.iter().any(|(_, name)| *name == claim.name));
        users.map(|pod| pod.node.clone()).filter(|node| !node.is_empty()).collect()
    }

    /// Nodes of the Pods that use a volume.
    fn nodes_of_volume(&self, volume: &str) -> BTreeSet<String> {
        let claim = self.volumes.get(&ObjectKey::cluster(volume)).and_then(|volume| volume.claim());
        claim.map(|claim| self.nodes_of_claim(&claim)).unwrap_or_default()
    }
}

/// Whether a Pod has a node and may want volumes there.
fn concerned(pod: &PodView) -> bool {
    !pod.claims.is_empty() && !pod.node.is_empty()
}

fn watch(picture: &Picture, queue: &Queue<String>) {
    let to = queue.clone();
    picture.pods.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && old.node == new.node
            && old.phase == new.phase
            && old.uid == new.uid
        {
            return;
        }
        let pod = change.object();
        if concerned(pod) {
            to.add(pod.node.clone());
        }
    });
    let to = queue.clone();
    picture.nodes.on_change(move |change| {
        if let Change::Updated { old, new } = change
            && sync::seen(Some(old)) == sync::seen(Some(new))
            && annotated(old, MANAGED) == annotated(new, MANAGED)
        {
            return;
        }
        to.add(change.object().key.name.clone());
    });
    let (to, all) = (queue.clone(), picture.clone());
    picture.claims.on_change(move |change| {
        let volume = |claim: &ClaimView| claim.spec.as_ref()?.volume_name.clone().filter(|_| is_bound(claim));
        let is_news = match change {
            Change::Updated { old, new } => volume(old) != volume(new),
            Change::Added { new, .. } => volume(new).is_some(),
            Change::Deleted { .. } => false,
        };
        if is_news {
            all.nodes_of_claim(&change.object().key).into_iter().for_each(|node| to.add(node));
        }
    });
    let (to, all) = (queue.clone(), picture.clone());
    picture.volumes.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            all.nodes_of_volume(&change.object().key.name).into_iter().for_each(|node| to.add(node));
        }
    });
    let (to, all) = (queue.clone(), picture.clone());
    picture.attachments.on_change(move |change| {
        let attachment = change.object();
        all.claims_of_nodes.settled(&attachment.volume, &attachment.node);
        to.add(attachment.node.clone());
        if matches!(change, Change::Deleted { .. }) {
            // Who waits for it can have it now.
            all.nodes_of_volume(&attachment.volume).into_iter().for_each(|node| to.add(node));
        }
    });
    let (to, all) = (queue.clone(), picture.clone());
    picture.drivers.on_change(move |change| {
        let changed = match change {
            Change::Updated { old, new } => old.attaches != new.attaches,
            _ => true,
        };
        if changed {
            all.pods.list().iter().filter(|pod| concerned(pod)).for_each(|pod| to.add(pod.node.clone()));
        }
    });
}

/// Looks at nodes with attachments from time to time, though nothing has happened.
fn resync(context: &Context, picture: &Picture, queue: &Queue<String>) {
    let options = &context.options.attach;
    if options.disable_attach_detach_reconcile_sync {
        return;
    }
    let (period, clock) = (options.attach_detach_reconcile_sync_period, Arc::clone(&context.clock));
    let (attachments, to) = (picture.attachments.clone(), queue.clone());
    context.tasks.spawn_cancellable("attach-detach sync", async move {
        loop {
            clock.sleep(period).await;
            let nodes: BTreeSet<String> = attachments.list().iter().map(|a| a.node.clone()).collect();
            nodes.into_iter().for_each(|node| to.add(node));
        }
    });
}

/// Pods on a node.
fn pods_on(picture: &Picture, node: &str) -> Vec<Arc<Cached<PodView>>> {
    picture.pods.by_index(BY_NODE, node)
}
