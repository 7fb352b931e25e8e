//! Objects from the apiserver: one watch per referenced object, kept while a Pod refers to it; or, where that is
//! configured, reads that are good for a while, or reads every time.
//!
//! Invariants: a Pod never sees data older than its own registration (the first read of a watch is a fresh list);
//! immutable objects are not watched any further; a watch ends when the last Pod that refers to its object is gone.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{
    ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{ObjectError, Objects, claims};
use crate::api::{Ready, follow, follow_object};
use crate::pods;

const READ_DEADLINE: Duration = Duration::from_secs(10);
/// How long a read is good for where reads are kept.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// `(namespace, name)`
type Key = (String, String);
/// `None`: not read yet; `Some(None)`: read and absent.
type Latest<K> = Option<Option<Arc<K>>>;

/// How changes of referenced objects are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// By a watch.
    #[default]
    Watch,
    /// By reading again after a while.
    Cache,
    /// By reading every time.
    Get,
}

impl Strategy {
    /// As configurations name it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Watch" => Some(Self::Watch),
            "Cache" => Some(Self::Cache),
            "Get" => Some(Self::Get),
            _ => None,
        }
    }
}

/// What was read, and when.
struct Kept<K>(Mutex<Option<(Instant, Option<Arc<K>>)>>);

impl<K> Kept<K> {
    fn fresh(&self) -> Option<Option<Arc<K>>> {
        self.0.lock().as_ref().filter(|(at, _)| at.elapsed() < KEPT_FOR).map(|(_, object)| object.clone())
    }
}

/// Where an object is read from.
enum Source<K> {
    Watch(watch::Receiver<Latest<K>>),
    Kept(Arc<Kept<K>>),
}

impl<K> Clone for Source<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Watch(latest) => Self::Watch(latest.clone()),
            Self::Kept(kept) => Self::Kept(Arc::clone(kept)),
        }
    }
}

struct Followed<K> {
    users: BTreeSet<String>,
    source: Source<K>,
    task: Option<AbortHandle>,
}

impl<K> Drop for Followed<K> {
    fn drop(&mut self) {
        self.task.iter().for_each(AbortHandle::abort);
    }
}

struct Follower<K> {
    client: Client,
    strategy: Strategy,
    resource: &'static str,
    immutable: fn(&K) -> bool,
    objects: Mutex<HashMap<Key, Followed<K>>>,
}

impl<K> Follower<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync,
    K: 'static,
{
    fn new(client: Client, strategy: Strategy, resource: &'static str, immutable: fn(&K) -> bool) -> Self {
        Self { client, strategy, resource, immutable, objects: Mutex::default() }
    }

    fn retain(&self, uid: &str, wanted: &BTreeSet<Key>) {
        if self.strategy == Strategy::Get {
            return;
        }
        let mut objects = self.objects.lock();
        for key in wanted {
            let entry = objects.entry(key.clone()).or_insert_with(|| self.follow(key));
            entry.users.insert(uid.to_owned());
            if let Source::Kept(kept) = &entry.source {
                *kept.0.lock() = None;
            }
        }
        objects.retain(|key, followed| {
            if !wanted.contains(key) {
                followed.users.remove(uid);
            }
            !followed.users.is_empty()
        });
    }

    fn follow(&self, (namespace, name): &Key) -> Followed<K> {
        if self.strategy == Strategy::Cache {
            let source = Source::Kept(Arc::new(Kept(Mutex::new(None))));
            return Followed { users: BTreeSet::new(), source, task: None };
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let (sender, latest) = watch::channel(None);
        let immutable = self.immutable;
        let name = name.clone();
        let task = tokio::spawn(async move {
            let mut stream = std::pin::pin!(follow_object(api, &name));
            while let Some(item) = stream.next().await {
                match item {
                    Ok(object) => {
                        let last = object.as_ref().is_some_and(immutable);
                        sender.send_replace(Some(object.map(Arc::new)));
                        if last {
                            break;
                        }
                    }
                    Err(error) => tracing::debug!(%error, name, "watch of a referenced object"),
                }
            }
            // The last value of an immutable object stays readable for as long as the entry lives.
            sender.closed().await;
        });
        Followed { users: BTreeSet::new(), source: Source::Watch(latest), task: Some(task.abort_handle()) }
    }

    async fn read(&self, namespace: &str, name: &str) -> Result<Option<Arc<K>>, ObjectError> {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        Ok(limited(api.get_opt(name)).await?.map(Arc::new))
    }

    async fn get(&self, namespace: &str, name: &str) -> Result<Arc<K>, ObjectError> {
        let key = (namespace.to_owned(), name.to_owned());
        let source = self.objects.lock().get(&key).map(|followed| followed.source.clone());
        let found = match source {
            Some(Source::Watch(mut latest)) => {
                let read = latest.wait_for(Option::is_some);
                match tokio::time::timeout(READ_DEADLINE, read).await {
                    Ok(Ok(value)) => (*value).clone().flatten(),
                    _ => {
                        return Err(ObjectError::Other(format!(
                            "failed to sync {} cache: timed out waiting for the condition",
                            self.resource
                        )));
                    }
                }
            }
            Some(Source::Kept(kept)) => match kept.fresh() {
                Some(found) => found,
                None => {
                    let found = self.read(namespace, name).await?;
                    *kept.0.lock() = Some((Instant::now(), found.clone()));
                    found
                }
            },
            None => self.read(namespace, name).await?,
        };
        found.ok_or_else(|| ObjectError::NotFound { resource: self.resource, name: name.to_owned() })
    }
}

/// Objects read through a client.
pub struct ApiObjects {
    client: Client,
    config_maps: Follower<ConfigMap>,
    secrets: Follower<Secret>,
    services: Store<Service>,
    services_task: AbortHandle,
    services_synced: watch::Receiver<bool>,
}

impl Drop for ApiObjects {
    fn drop(&mut self) {
        self.services_task.abort();
    }
}

impl ApiObjects {
    /// Starts the watch on Services as soon as there is somebody to ask.
    pub fn start(client: Client, mut ready: Ready, strategy: Strategy) -> Self {
        let (services, writer) = reflector::store();
        let stream = follow(Api::<Service>::all(client.clone()), watcher::Config::default())
            .modify(|service| service.metadata.managed_fields = None);
        let (sender, services_synced) = watch::channel(false);
        let task = tokio::spawn(async move {
            ready.wait().await;
            let mut stream = std::pin::pin!(reflector::reflector(writer, stream));
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::InitDone) => {
                        sender.send_replace(true);
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "watch of services"),
                }
            }
        });
        Self {
            config_maps: Follower::new(client.clone(), strategy, "configmap", |map: &ConfigMap| {
                map.immutable == Some(true)
            }),
            secrets: Follower::new(client.clone(), strategy, "secret", |secret: &Secret| {
                secret.immutable == Some(true)
            }),
            client,
            services,
            services_task: task.abort_handle(),
            services_synced,
        }
    }
}

impl ApiObjects {
    async fn patch_claim(&self, claim: &PersistentVolumeClaim, patch: &serde_json::Value) -> Result<(), ObjectError> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        limited(api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch))).await.map(drop)
    }
}

#[async_trait]
impl Objects for ApiObjects {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        self.config_maps.get(namespace, name).await
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        self.secrets.get(namespace, name).await
    }

    fn services(&self) -> Result<Vec<Arc<Service>>, ObjectError> {
        if !*self.services_synced.borrow() {
            return Err(ObjectError::ServicesNotSynced);
        }
        Ok(self.services.state())
    }

    async fn token(
        &self,
        namespace: &str,
        account: &str,
        spec: TokenRequestSpec,
    ) -> Result<TokenRequestStatus, ObjectError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest { spec: Some(spec), ..Default::default() };
        let answer = limited(api.create_token_request(account, &PostParams::default(), &request)).await?;
        answer.status.ok_or_else(|| ObjectError::Other("the token request was answered without a token".to_owned()))
    }

    async fn runtime_handler(&self, class: &str) -> Result<String, ObjectError> {
        let api: Api<RuntimeClass> = Api::all(self.client.clone());
        let resource = "runtimeclasses.node.k8s.io";
        let found = limited(api.get_opt(class)).await?;
        let missing = || ObjectError::NotFound { resource, name: class.to_owned() };
        found.map(|class| class.handler).ok_or_else(missing)
    }

    async fn claim(&self, namespace: &str, name: &str) -> Result<PersistentVolumeClaim, ObjectError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let missing = || ObjectError::NotFound { resource: "persistentvolumeclaims", name: name.to_owned() };
        limited(api.get_opt(name)).await?.ok_or_else(missing)
    }

    async fn volume(&self, name: &str) -> Result<PersistentVolume, ObjectError> {
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let missing = || ObjectError::NotFound { resource: "persistentvolumes", name: name.to_owned() };
        limited(api.get_opt(name)).await?.ok_or_else(missing)
    }

    async fn node(&self, name: &str) -> Result<Node, ObjectError> {
        let api: Api<Node> = Api::all(self.client.clone());
        let missing = || ObjectError::NotFound { resource: "nodes", name: name.to_owned() };
        limited(api.get_opt(name)).await?.ok_or_else(missing)
    }

    async fn resource_claim(&self, namespace: &str, name: &str) -> Result<ResourceClaim, ObjectError> {
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), namespace);
        let missing = || ObjectError::NotFound { resource: "resourceclaims.resource.k8s.io", name: name.to_owned() };
        limited(api.get_opt(name)).await?.ok_or_else(missing)
    }

    async fn csi_driver(&self, name: &str) -> Result<Option<CSIDriver>, ObjectError> {
        limited(Api::<CSIDriver>::all(self.client.clone()).get_opt(name)).await
    }

    async fn attachment(&self, name: &str) -> Result<Option<VolumeAttachment>, ObjectError> {
        limited(Api::<VolumeAttachment>::all(self.client.clone()).get_opt(name)).await
    }

    async fn claim_resized(&self, claim: &PersistentVolumeClaim, size: &Quantity) -> Result<(), ObjectError> {
        self.patch_claim(claim, &claims::resized(claim, size)).await
    }

    async fn claim_not_resized(&self, claim: &PersistentVolumeClaim, final_answer: bool) -> Result<(), ObjectError> {
        self.patch_claim(claim, &claims::not_resized(final_answer)).await
    }

    fn register(&self, pod: &Pod) {
        if pods::is_static(pod) {
            return;
        }
        let references = references(pod);
        self.config_maps.retain(pods::uid(pod), &references.config_maps);
        self.secrets.retain(pods::uid(pod), &references.secrets);
    }

    fn unregister(&self, uid: &str) {
        self.config_maps.retain(uid, &BTreeSet::new());
        self.secrets.retain(uid, &BTreeSet::new());
    }
}

async fn limited<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, ObjectError> {
    match tokio::time::timeout(READ_DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(ObjectError::Other(status.message.clone())),
        Ok(Err(error)) => Err(ObjectError::Other(error.to_string())),
        Err(_) => Err(ObjectError::Other("context deadline exceeded".to_owned())),
    }
}

#[derive(Debug, Default)]
struct References {
    namespace: String,
    config_maps: BTreeSet<Key>,
    secrets: BTreeSet<Key>,
}

impl References {
    fn config_map(&mut self, name: &str) {
        Self::add(&mut self.config_maps, &self.namespace, name);
    }

    fn secret(&mut self, name: &str) {
        Self::add(&mut self.secrets, &self.namespace, name);
    }

    fn add(set: &mut BTreeSet<Key>, namespace: &str, name: &str) {
        if !name.is_empty() {
            set.insert((namespace.to_owned(), name.to_owned()));
        }
    }
}

/// Everything a Pod names in environment, volumes and pull secrets.
fn references(pod: &Pod) -> References {
    let mut found = References { namespace: pods::namespace(pod).to_owned(), ..References::default() };
    for (container, _) in pods::all_containers(pod) {
        for from in container.env_from.iter().flatten() {
            from.config_map_ref.iter().for_each(|reference| found.config_map(&reference.name));
            from.secret_ref.iter().for_each(|reference| found.secret(&reference.name));
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            source.config_map_key_ref.iter().for_each(|reference| found.config_map(&reference.name));
            source.secret_key_ref.iter().for_each(|reference| found.secret(&reference.name));
        }
    }
    for volume in pods::spec(pod).volumes.iter().flatten() {
        volume.config_map.iter().for_each(|source| found.config_map(&source.name));
        volume.secret.iter().for_each(|source| found.secret(source.secret_name.as_deref().unwrap_or_default()));
        let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
        for source in projected {
            source.config_map.iter().for_each(|source| found.config_map(&source.name));
            source.secret.iter().for_each(|source| found.secret(&source.name));
        }
    }
    for secret in pods::spec(pod).image_pull_secrets.iter().flatten() {
        found.secret(&secret.name);
    }
    found
}
