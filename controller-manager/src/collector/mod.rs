//! The garbage collector: deletes what has lost all its owners, and carries out foreground and orphaning deletion.
//!
//! Informers of the metadata of every resource feed a graph; two queues hold the UIDs of objects to decide about. The
//! graph only says where to look: that an owner is absent is asked of the server.

mod graph;
mod monitors;
mod work;

use std::{sync::Arc, time::Duration};

use ::controller::{EventRecorder, EventType, Outcome, Queue, Reconcile, ReconcileError};
use client::Discovery;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::Client;
use parking_lot::Mutex;

use self::graph::{Graph, Place, Todo};
use crate::{StartError, context::Context, table::Started};

const CONTROLLER: &str = "garbage-collector-controller";
/// Time that informers have to be complete before collection starts without the slow ones.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the parts share.
struct Collector {
    client: Client,
    discovery: Discovery,
    graph: Mutex<Graph>,
    delete: Queue<String>,
    orphan: Queue<String>,
    recorder: EventRecorder,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let options = &context.options.collection;
    if !options.enable_garbage_collector {
        return Ok(Started::Skipped);
    }
    let client = context.client("generic-garbage-collector").await?;
    let collector = Arc::new(Collector {
        discovery: Discovery::new(client.clone()),
        graph: Mutex::default(),
        delete: context.queue("garbage_collector_attempt_to_delete"),
        orphan: context.queue("garbage_collector_attempt_to_orphan"),
        recorder: context.recorder(&client, CONTROLLER),
        client,
    });
    let watching = context.watching_client().await?;
    let tasks = context.tasks.child(CONTROLLER);
    let monitors =
        monitors::Monitors::new(Arc::clone(&collector), watching, &tasks, context.metrics.resource_sync_errors.clone());
    let (all, workers) = (context.clone(), options.concurrent_gc_syncs);
    let clock = Arc::clone(&context.clock);
    context.tasks.spawn_cancellable("garbage collector", async move {
        let mut monitors = monitors;
        monitors.refresh().await;
        let ready = monitors.wait_synced();
        tokio::select! {
            () = ready => {}
            () = clock.sleep(PATIENCE) => {
                tracing::warn!("garbage collection starts without the caches of some resources");
            }
        }
        let (delete, orphan) = (collector.delete.clone(), collector.orphan.clone());
        all.drive("garbage collector", delete, workers, Deleter(Arc::clone(&collector)), &[]);
        all.drive("garbage collector orphaning", orphan, workers, Orphaner(collector), &[]);
        monitors.keep(clock).await;
    });
    Ok(Started::Running)
}

impl Collector {
    fn queue(&self, todo: Todo) {
        todo.delete.into_iter().for_each(|uid| self.delete.add(uid));
        todo.orphan.into_iter().for_each(|uid| self.orphan.add(uid));
        for (uid, reference) in todo.invalid {
            self.complain(&uid, &reference);
        }
    }

    fn complain(&self, uid: &str, reference: &OwnerReference) {
        let Some(place) = self.graph.lock().get(uid).map(|n| n.place.clone()) else { return };
        let text = format!(
            "ownerRef [{}/{}, namespace: {}, name: {}, uid: {}] does not exist in namespace {:?}",
            reference.api_version, reference.kind, place.namespace, reference.name, reference.uid, place.namespace
        );
        let about = reference_to(&place, uid);
        self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", text);
    }

    /// The server says that an object is gone, whatever the informers have seen.
    fn gone(&self, uid: &str) {
        let todo = self.graph.lock().remove(uid);
        self.queue(todo);
    }
}

fn reference_to(place: &Place, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(place.api_version.clone()),
        kind: Some(place.kind.clone()),
        namespace: Some(place.namespace.clone()).filter(|n| !n.is_empty()),
        name: Some(place.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

struct Deleter(Arc<Collector>);

impl Reconcile for Deleter {
    type Key = String;

    async fn reconcile(&self, uid: &String) -> Result<Outcome, ReconcileError> {
        self.0.attempt_to_delete(uid).await?;
        Ok(Outcome::Done)
    }
}

struct Orphaner(Arc<Collector>);

impl Reconcile for Orphaner {
    type Key = String;

    async fn reconcile(&self, uid: &String) -> Result<Outcome, ReconcileError> {
        self.0.attempt_to_orphan(uid).await?;
        Ok(Outcome::Done)
    }
}
