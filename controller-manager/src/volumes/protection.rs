//! Finalizers that keep claims and volumes while they are used.

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError};
use client::modify;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{Api, Client, Resource, api::ListParams};

use super::{VolumeView, name};
use crate::{
    StartError,
    context::Context,
    table::Started,
    views::{ClaimView, PodView},
};

const CLAIMS: &str = "persistentvolumeclaim-protection-controller";
const VOLUMES: &str = "persistentvolume-protection-controller";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// What an object needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    Nothing,
    /// It is to be protected from now on.
    Add,
    /// It is being deleted and protected.
    Review,
}

pub(super) fn need<K: Resource>(object: &K, finalizer: &str) -> Need {
    let meta = object.meta();
    let has = meta.finalizers.iter().flatten().any(|f| f == finalizer);
    match (meta.deletion_timestamp.is_some(), has) {
        (true, true) => Need::Review,
        (false, false) => Need::Add,
        _ => Need::Nothing,
    }
}

fn set<K: Resource>(object: &mut K, finalizer: &str, wanted: bool) -> bool {
    let finalizers = object.meta_mut().finalizers.get_or_insert_default();
    let before = finalizers.len();
    if !wanted {
        finalizers.retain(|f| f != finalizer);
    } else if !finalizers.iter().any(|f| f == finalizer) {
        finalizers.push(finalizer.to_owned());
    }
    finalizers.len() != before
}

/// Starts the protection of claims.
pub(crate) async fn start_claims(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CLAIMS).await?;
    let (claims, pods): (Informer<ClaimView>, Informer<PodView>) = (context.informers.get(), context.informers.get());
    let queue = context.queue("pvcprotection");
    let (of_claims, of_pods) = (queue.clone(), queue.clone());
    claims.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            of_claims.add(change.object().key.clone());
        }
    });
    pods.on_change(move |change| {
        // A Pod that goes, or one that another of the name replaces, may have been the last user.
        let left = match change {
            Change::Deleted { old } => Some(old),
            Change::Updated { old, new } if old.uid != new.uid || new.deletion.is_some() => Some(old),
            _ => None,
        };
        let Some(pod) = left else { return };
        for (_, claim) in &pod.claims {
            of_pods.add(ObjectKey::new(&pod.key.namespace, claim));
        }
    });
    let reconciler = ClaimProtection { client, claims: claims.clone(), pods: pods.clone() };
    context.drive(CLAIMS, queue, 1, reconciler, &[&claims, &pods]);
    Ok(Started::Running)
}

struct ClaimProtection {
    client: Client,
    claims: Informer<ClaimView>,
    pods: Informer<PodView>,
}

impl ClaimProtection {
    /// Whether a Pod that has a node uses the claim: first by the cache, then, before it is given up, by the API.
    async fn is_used(&self, key: &ObjectKey) -> Result<bool, kube::Error> {
        let cached = self.pods.in_namespace(&key.namespace);
        if cached.iter().any(|pod| !pod.node.is_empty() && pod.claims.iter().any(|(_, used)| *used == key.name)) {
            return Ok(true);
        }
        let pods = Api::<Pod>::namespaced(self.client.clone(), &key.namespace).list(&ListParams::default()).await?;
        Ok(pods
            .items
            .into_iter()
            .map(<PodView as ::controller::Viewed>::project)
            .any(|pod| !pod.node.is_empty() && pod.claims.iter().any(|(_, used)| *used == key.name)))
    }
}

impl Reconcile for ClaimProtection {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(claim) = self.claims.get(key) else { return Ok(Outcome::Done) };
        let wanted = match need(&claim.view.0, CLAIM_FINALIZER) {
            Need::Nothing => return Ok(Outcome::Done),
            Need::Review if self.is_used(key).await? => return Ok(Outcome::Done),
            Need::Review => false,
            Need::Add => true,
        };
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), &key.namespace);
        write(&api, &claim.view.0, CLAIM_FINALIZER, wanted).await
    }
}

/// Starts the protection of volumes.
pub(crate) async fn start_volumes(context: &Context) -> Result<Started, StartError> {
    let client = context.client(VOLUMES).await?;
    let volumes: Informer<VolumeView> = context.informers.get();
    let queue = context.queue("pvprotection");
    let of_volumes = queue.clone();
    volumes.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            of_volumes.add(change.object().key.clone());
        }
    });
    let reconciler = VolumeProtection { client, volumes: volumes.clone() };
    context.drive(VOLUMES, queue, 1, reconciler, &[&volumes]);
    Ok(Started::Running)
}

struct VolumeProtection {
    client: Client,
    volumes: Informer<VolumeView>,
}

impl Reconcile for VolumeProtection {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Outcome::Done) };
        let wanted = match need(&volume.view.0, VOLUME_FINALIZER) {
            Need::Nothing => return Ok(Outcome::Done),
            Need::Review if volume.is_bound() => return Ok(Outcome::Done),
            Need::Review => false,
            Need::Add => true,
        };
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        write(&api, &volume.view.0, VOLUME_FINALIZER, wanted).await
    }
}

/// Adds or takes away a finalizer, of this very object.
pub(super) async fn write<K>(api: &Api<K>, object: &K, finalizer: &str, wanted: bool) -> Result<Outcome, ReconcileError>
where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Send
        + Sync
        + 'static,
{
    use client::ApiErrorExt;
    let same = object.meta().uid.clone();
    let change = |fresh: &mut K| {
        let going = fresh.meta().deletion_timestamp.is_some();
        fresh.meta().uid == same && going != wanted && set(fresh, finalizer, wanted)
    };
    match modify(api, name(object), change).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(Outcome::Done),
    }
}
