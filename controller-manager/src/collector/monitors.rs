//! Informers of the metadata of every resource that can be collected, as they come and go.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::controller::{Cached, Change, Informer, InformerConfig, start_informer};
use client::DiscoveredResource;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, PartialObjectMeta},
};
use machinery::GroupVersionResource;
use prometheus::IntCounter;
use runtime::{clock::Clock, tasks::TaskGroup};

use super::{
    Collector,
    graph::{FOREGROUND, Node, ORPHAN, Place},
};

/// Time between looks at what the server serves.
const PERIOD: Duration = Duration::from_secs(30);
/// Time a stopped informer has to end.
const STOP: Duration = Duration::from_secs(5);
/// Resources that are never collected: there are many, and they expire.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events")];

/// What the graph needs of an object.
#[derive(Clone, Debug)]
struct MetaView {
    owners: Vec<OwnerReference>,
    deleting: bool,
    foreground: bool,
    orphaning: bool,
}

fn project(object: PartialObjectMeta<DynamicObject>) -> MetaView {
    let has = |finalizer: &str| object.finalizers().iter().any(|f| f == finalizer);
    let deleting = object.metadata.deletion_timestamp.is_some();
    MetaView {
        deleting,
        foreground: deleting && has(FOREGROUND),
        orphaning: deleting && has(ORPHAN),
        owners: object.metadata.owner_references.unwrap_or_default(),
    }
}

struct Monitor {
    tasks: TaskGroup,
    informer: Informer<MetaView>,
}

pub(super) struct Monitors {
    collector: Arc<Collector>,
    client: Client,
    tasks: TaskGroup,
    running: HashMap<GroupVersionResource, Monitor>,
    errors: IntCounter,
}

impl Monitors {
    pub(super) fn new(collector: Arc<Collector>, client: Client, tasks: &TaskGroup, errors: IntCounter) -> Self {
        Self { collector, client, tasks: tasks.child("monitors"), running: HashMap::new(), errors }
    }

    /// Starts informers of what is served now and stops those of what is not.
    pub(super) async fn refresh(&mut self) {
        let snapshot = match self.collector.discovery.refresh().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.errors.inc();
                tracing::warn!(%error, "discovery failed, monitored resources stay as they are");
                return;
            }
        };
        let collectable = |r: &&DiscoveredResource| {
            ["delete", "list", "watch"].iter().all(|v| r.has_verb(v))
                && !IGNORED.contains(&(r.gvr.group.as_str(), r.gvr.resource.as_str()))
        };
        let wanted: HashMap<GroupVersionResource, &DiscoveredResource> =
            snapshot.preferred().into_iter().filter(collectable).map(|r| (r.gvr.clone(), r)).collect();
        // A group whose server does not answer has not lost its resources.
        let failed = |gvr: &GroupVersionResource| {
            let version =
                if gvr.group.is_empty() { gvr.version.clone() } else { format!("{}/{}", gvr.group, gvr.version) };
            snapshot.failed.contains(&version)
        };
        let gone: Vec<GroupVersionResource> =
            self.running.keys().filter(|gvr| !wanted.contains_key(gvr) && !failed(gvr)).cloned().collect();
        for gvr in gone {
            if let Some(monitor) = self.running.remove(&gvr) {
                monitor.tasks.stop(STOP).await;
                // The objects went with their resource.
                for object in monitor.informer.list() {
                    self.collector.gone(&object.uid);
                }
            }
        }
        for (gvr, resource) in wanted {
            if !self.running.contains_key(&gvr) {
                let monitor = self.start(resource);
                self.running.insert(gvr, monitor);
            }
        }
    }

    fn start(&self, resource: &DiscoveredResource) -> Monitor {
        let described = resource.api_resource();
        let tasks = self.tasks.child(&format!("{}.{}", resource.gvr.resource, resource.gvr.group));
        let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(self.client.clone(), &described);
        let informer = start_informer(&tasks, api, InformerConfig::default(), &[], project);
        let collector = Arc::clone(&self.collector);
        informer.on_change(move |change| {
            let node = |object: &Cached<MetaView>| Node {
                place: Place {
                    api_version: described.api_version.clone(),
                    kind: described.kind.clone(),
                    namespace: object.key.namespace.clone(),
                    name: object.key.name.clone(),
                },
                owners: object.owners.clone(),
                deleting: object.deleting,
                foreground: object.foreground,
                orphaning: object.orphaning,
            };
            let todo = match change {
                Change::Added { new, .. } => collector.graph.lock().put(&new.uid, node(new)),
                Change::Updated { old, new } => {
                    if old.uid != new.uid {
                        collector.gone(&old.uid);
                    }
                    collector.graph.lock().put(&new.uid, node(new))
                }
                Change::Deleted { old } => collector.graph.lock().remove(&old.uid),
            };
            collector.queue(todo);
        });
        Monitor { tasks, informer }
    }

    /// Waits until all informers are complete.
    pub(super) async fn wait_synced(&self) {
        let token = self.tasks.token();
        join_all(self.running.values().map(|m| m.informer.wait_synced(token))).await;
    }

    /// Follows what the server serves, for ever.
    pub(super) async fn keep(&mut self, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep(PERIOD).await;
            self.refresh().await;
        }
    }
}
