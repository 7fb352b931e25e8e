//! Informers: watches of a whole kind, folded into a store of views.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt::Debug,
    time::Duration,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Registry};
use runtime::{
    metrics::{self, Stability},
    tasks::TaskGroup,
};
use serde::de::DeserializeOwned;

use crate::{Cached, Index, Informer, ObjectKey, reflector::Reflector};

/// A view of a built-in kind: what a component reads of its objects.
pub trait Viewed: Send + Sync + Sized + 'static {
    /// The object as it is decoded: a type of k8s-openapi, or a smaller one with only the fields of interest.
    type Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static;

    /// Indices of the store.
    const INDICES: &'static [Index<Self>] = &[];

    /// Takes from the object what is of interest.
    fn project(object: Self::Object) -> Self;

    /// Which objects, and how they are fetched.
    fn config() -> InformerConfig {
        InformerConfig::default()
    }
}

/// A whole object without its managed fields, for kinds of which there are few.
#[derive(Clone, Debug)]
pub struct Whole<K>(pub K);

impl<K> std::ops::Deref for Whole<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.0
    }
}

impl<K> Viewed for Whole<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    type Object = K;

    fn project(mut object: K) -> Self {
        object.meta_mut().managed_fields = None;
        Self(object)
    }
}

/// Selection of an informer's objects.
#[derive(Clone, Debug, Default)]
pub struct InformerConfig {
    /// Field selector; empty for none.
    pub fields: String,
    /// Label selector; empty for none.
    pub labels: String,
}

/// All informers of a process: one per view type, started on first use.
pub struct InformerSet {
    client: Client,
    tasks: TaskGroup,
    running: Mutex<HashMap<TypeId, Running>>,
    /// The shortest time after which every object is told again.
    resync: Duration,
    queued: Option<IntGaugeVec>,
    name: &'static str,
}

struct Running {
    informer: Box<dyn Any + Send + Sync>,
    kind: String,
    synced: Box<dyn Fn() -> bool + Send + Sync>,
}

impl InformerSet {
    /// No informer runs yet.
    pub fn new(client: Client, tasks: &TaskGroup) -> Self {
        let (running, tasks) = (Mutex::default(), tasks.child("informers"));
        Self { client, tasks, running, resync: Duration::ZERO, queued: None, name: "" }
    }

    /// Tells handlers every object again after `least` and up to as long again; zero is never.
    pub fn with_resync(mut self, least: Duration) -> Self {
        self.resync = least;
        self
    }

    /// Registers `informer_queued_items` for the informers of the component `name`. Changes are told as they come, so
    /// none is ever queued.
    pub fn with_metrics(mut self, name: &'static str, registry: &Registry) -> Result<Self, prometheus::Error> {
        self.queued = Some(metrics::gauge_vec(
            registry,
            Stability::Alpha,
            "informer_queued_items",
            "Number of items currently queued in the FIFO of an informer.",
            &["name", "group", "version", "resource"],
        )?);
        self.name = name;
        Ok(self)
    }

    fn tell_again<V: Viewed>(&self, informer: &Informer<V>) {
        let (informer, least) = (informer.clone(), self.resync);
        let name = format!("resync {}", V::Object::plural(&()));
        self.tasks.spawn_cancellable(name, async move {
            loop {
                tokio::time::sleep(util::jitter(least, 1.0)).await;
                informer.resync();
            }
        });
    }

    /// The informer of a view.
    pub fn get<V: Viewed>(&self) -> Informer<V> {
        let mut running = self.running.lock();
        if let Some(known) = running.get(&TypeId::of::<V>()).and_then(|r| r.informer.downcast_ref::<Informer<V>>()) {
            return known.clone();
        }
        let config = V::config();
        let api = Api::<V::Object>::all(self.client.clone());
        let informer = start_informer(&self.tasks, api, config, V::INDICES, V::project);
        let probe = informer.clone();
        let entry = Running {
            informer: Box::new(informer.clone()),
            kind: V::Object::kind(&()).into_owned(),
            synced: Box::new(move || probe.synced()),
        };
        running.insert(TypeId::of::<V>(), entry);
        if !self.resync.is_zero() {
            self.tell_again(&informer);
        }
        if let Some(queued) = &self.queued {
            let (group, version, resource) = (V::Object::group(&()), V::Object::version(&()), V::Object::plural(&()));
            queued.with_label_values(&[self.name, &group, &version, &resource]).set(0);
        }
        informer
    }

    /// Kinds whose informers are not complete yet.
    pub fn unsynced(&self) -> Vec<String> {
        let running = self.running.lock();
        let mut kinds: Vec<String> = running.values().filter(|r| !(r.synced)()).map(|r| r.kind.clone()).collect();
        kinds.sort();
        kinds
    }
}

/// Starts an informer over any API, also a dynamic one or one of a single namespace.
pub fn start_informer<K, V>(
    tasks: &TaskGroup,
    api: Api<K>,
    config: InformerConfig,
    indices: &'static [Index<V>],
    project: impl Fn(K) -> V + Send + Sync + 'static,
) -> Informer<V>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    V: Send + Sync + 'static,
{
    let informer = Informer::new(indices);
    let store = informer.clone();
    let name = format!("informer {}", api.resource_url());
    tasks.spawn_cancellable(name, async move {
        let project = move |object: K| cached(object, &project);
        Reflector::new(api, config, project, store).run().await;
    });
    informer
}

fn cached<K: Resource, V>(object: K, project: &impl Fn(K) -> V) -> Cached<V> {
    let meta = object.meta();
    Cached {
        key: key_of(meta),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        view: project(object),
    }
}

/// Key of an object by its metadata.
pub(crate) fn key_of(meta: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests;
