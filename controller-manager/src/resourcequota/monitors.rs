//! Informers of what quotas count: those that some quota needs, as long as it does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use ::controller::{Change, Informer, InformerConfig, start_informer};
use client::{DiscoveredResource, Discovery, Snapshot};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, PartialObjectMeta},
};
use machinery::GroupResource;
use parking_lot::Mutex;
use runtime::tasks::TaskGroup;
use serde_json::Value;

use super::plan::{has_content, trimmed};

/// Time a new informer has to be complete before a quota goes on without it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time a stopped informer has to end.
const STOP: Duration = Duration::from_secs(5);

type Changed = Arc<dyn Fn(&GroupResource, &Change<Value>) + Send + Sync>;

struct Monitor {
    resource: DiscoveredResource,
    tasks: TaskGroup,
    informer: Informer<Value>,
}

/// What is known of a resource.
pub(super) enum Known {
    /// Its objects, once the informer is complete.
    Watched(Informer<Value>),
    /// There is no such resource, so there are no objects.
    Absent,
    /// Its server does not answer.
    Unknown,
}

pub(super) struct Monitors {
    client: Client,
    discovery: Discovery,
    tasks: TaskGroup,
    changed: Changed,
    running: Mutex<BTreeMap<GroupResource, Monitor>>,
}

impl Monitors {
    pub(super) fn new(client: Client, tasks: &TaskGroup, changed: Changed) -> Self {
        let discovery = Discovery::new(client.clone());
        Self { client, discovery, tasks: tasks.child("monitors"), changed, running: Mutex::default() }
    }

    /// What is known of a resource; its informer is started if it has none.
    pub(super) async fn known(&self, resource: &GroupResource) -> Known {
        let running = self.running.lock().get(resource).map(|m| m.informer.clone());
        if let Some(informer) = running {
            return self.synced(informer).await;
        }
        let Ok(snapshot) = self.discovery.snapshot().await else { return Known::Unknown };
        let Some(found) = countable(&snapshot, resource) else {
            return if has_failed(&snapshot, resource) { Known::Unknown } else { Known::Absent };
        };
        let informer = {
            let mut running = self.running.lock();
            let monitor = running.entry(resource.clone()).or_insert_with(|| self.start(resource, found));
            monitor.informer.clone()
        };
        self.synced(informer).await
    }

    async fn synced(&self, informer: Informer<Value>) -> Known {
        match tokio::time::timeout(PATIENCE, informer.wait_synced(self.tasks.token())).await {
            Ok(true) => Known::Watched(informer),
            _ => Known::Unknown,
        }
    }

    /// Looks at what is served now, and stops the informers of what is not served, served otherwise, or counted by no
    /// quota. Returns what can be counted; `None` if the server does not say.
    pub(super) async fn refresh(&self, needed: &BTreeSet<GroupResource>) -> Option<BTreeSet<GroupResource>> {
        let snapshot = match self.discovery.refresh().await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                tracing::warn!(%error, "discovery failed, counted resources stay as they are");
                return None;
            }
        };
        let stays = |resource: &GroupResource, monitor: &Monitor| {
            needed.contains(resource)
                && match countable(&snapshot, resource) {
                    Some(found) => found.gvr == monitor.resource.gvr && found.kind == monitor.resource.kind,
                    None => has_failed(&snapshot, resource),
                }
        };
        let stopped: Vec<Monitor> =
            self.running.lock().extract_if(.., |resource, monitor| !stays(resource, monitor)).map(|(_, m)| m).collect();
        for monitor in stopped {
            monitor.tasks.stop(STOP).await;
        }
        let countable = needed.iter().filter(|resource| countable(&snapshot, resource).is_some());
        Some(countable.cloned().collect())
    }

    fn start(&self, resource: &GroupResource, found: &DiscoveredResource) -> Monitor {
        let tasks = self.tasks.child(&format!("{}.{}", resource.resource, resource.group));
        let informer = if has_content(resource) {
            let of = resource.clone();
            let project = move |object: DynamicObject| {
                let mut value = object.data;
                value["metadata"] = serde_json::to_value(&object.metadata).unwrap_or_default();
                trimmed(&of, &value)
            };
            start_informer(&tasks, self.api::<DynamicObject>(found), InformerConfig::default(), &[], project)
        } else {
            let api = self.api::<PartialObjectMeta<DynamicObject>>(found);
            start_informer(&tasks, api, InformerConfig::default(), &[], |_| Value::Null)
        };
        let (changed, of) = (Arc::clone(&self.changed), resource.clone());
        informer.on_change(move |change| changed(&of, change));
        Monitor { resource: found.clone(), tasks, informer }
    }

    fn api<K>(&self, found: &DiscoveredResource) -> Api<K>
    where
        K: Resource<DynamicType = kube::api::ApiResource, Scope = kube::core::DynamicResourceScope>,
    {
        client::api_for(self.client.clone(), &found.api_resource(), None)
    }
}

/// The preferred version of a resource if its objects can be counted.
fn countable<'a>(snapshot: &'a Snapshot, resource: &GroupResource) -> Option<&'a DiscoveredResource> {
    let all = snapshot.resources.iter();
    let mut named = all.filter(|r| r.gvr.group == resource.group && r.gvr.resource == resource.resource);
    named.find(|r| r.namespaced && ["create", "delete", "list", "watch"].iter().all(|verb| r.has_verb(verb)))
}

/// Whether it is not known what is served of the group.
fn has_failed(snapshot: &Snapshot, resource: &GroupResource) -> bool {
    let group_of = |version: &str| version.split_once('/').map_or(String::new(), |(group, _)| group.to_owned());
    snapshot.failed.iter().any(|version| group_of(version) == resource.group)
}
