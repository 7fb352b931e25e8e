//! PersistentVolumes and their claims: binding, release and reclaim; finalizers that protect what is in use; claims of
//! generic ephemeral volumes.
//!
//! Binding is a list of idempotent steps ([`steps`]): the volume names the claim, the volume is Bound, the claim names
//! the volume, the claim is Bound. Each sync takes the next one from what the caches show, with the resource version
//! that was seen; what was interrupted goes on from where it stopped, and of two writers one fails and looks again.

mod attributes;
mod claim;
mod ephemeral;
mod expand;
mod hostpath;
mod matching;
mod metrics;
pub(crate) mod options;
mod protection;
mod recycle;
mod steps;
mod volume;

use std::sync::Arc;

use ::controller::{
    Cached, Change, EventRecorder, EventType, Index, Informer, ObjectKey, Queue, Viewed, Whole, events::reference_to,
};
use k8s_openapi::api::{
    core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec},
    storage::v1::StorageClass,
};
use kube::{Client, Resource, api::PostParams};

pub(crate) use attributes::start as start_attributes_protection;
pub(crate) use ephemeral::start as start_ephemeral;
pub(crate) use expand::start as start_expander;
pub(crate) use protection::{start_claims as start_claim_protection, start_volumes as start_volume_protection};

use crate::{
    StartError,
    context::{Context, Syncs},
    table::Started,
    views::{ClaimView, PodView},
};

const CONTROLLER: &str = "persistentvolume-binder-controller";
/// Name under which events are recorded.
const SOURCE: &str = "persistentvolume-controller";
/// The claim's binding is complete (on claims).
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// This controller chose the other side (on claims and volumes).
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The driver that made a volume (on volumes).
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The node that the scheduler chose (on claims).
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The driver that is to make a volume (on claims), now and formerly.
const STORAGE_PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
/// The class, as it was said before `storageClassName`.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Provisioners of this prefix were part of Kubernetes; none is left.
const IN_TREE: &str = "kubernetes.io/";
/// The driver that has taken over from the provisioner that made, or is to make, a volume (on claims and volumes).
const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// Provisioners that were part of Kubernetes, and the drivers that have taken over.
const MIGRATED: &[(&str, &str)] = &[
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
];
const YES: &str = "yes";

/// Index of volumes by the claim they name, `namespace/name`.
const BY_CLAIM: &str = "claim";

/// A PersistentVolume.
pub(crate) struct VolumeView(PersistentVolume);

impl Viewed for VolumeView {
    type Object = PersistentVolume;

    const INDICES: &'static [Index<Self>] = &[Index { name: BY_CLAIM, keys: named_claim }];

    fn project(mut volume: PersistentVolume) -> Self {
        volume.metadata.managed_fields = None;
        Self(volume)
    }
}

impl VolumeView {
    /// What it is made of.
    pub(crate) fn spec(&self) -> Option<&PersistentVolumeSpec> {
        self.0.spec.as_ref()
    }

    fn is_bound(&self) -> bool {
        self.0.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
    }

    /// The claim that it names.
    pub(crate) fn claim(&self) -> Option<ObjectKey> {
        self.spec()?.claim_ref.as_ref().map(claim_key)
    }
}

fn named_claim(volume: &Cached<VolumeView>) -> Vec<String> {
    volume.claim().map(|claim| claim.to_string()).into_iter().collect()
}

/// The class of a claim whose binding is not complete.
pub(crate) fn unbound_class(claim: &PersistentVolumeClaim) -> Vec<String> {
    if is_annotated(claim, BIND_COMPLETED) { Vec::new() } else { vec![class_of_claim(claim).to_owned()] }
}

fn claim_key(reference: &ObjectReference) -> ObjectKey {
    ObjectKey::new(reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default())
}

fn annotation<'a, K: Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(key).map(String::as_str)
}

/// The driver that has taken over from a provisioner.
fn successor(provisioner: &str) -> Option<&'static str> {
    MIGRATED.iter().find(|(old, _)| *old == provisioner).map(|(_, driver)| *driver)
}

fn is_annotated<K: Resource>(object: &K, key: &str) -> bool {
    annotation(object, key).is_some()
}

fn annotate<K: Resource>(object: &mut K, key: &str, value: &str) -> bool {
    let annotations = object.meta_mut().annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned()).as_deref() != Some(value)
}

/// Whether a claim has its volume.
pub(crate) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let field = || claim.spec.as_ref()?.storage_class_name.as_deref();
    annotation(claim, BETA_CLASS).or_else(field).unwrap_or_default()
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(volume, BETA_CLASS).or_else(field).unwrap_or_default()
}

fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

fn name<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

fn namespace<K: Resource>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

/// Whether a volume is reserved for a claim: named by it, with its UID or none.
fn is_reserved_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    reference.is_some_and(|r| {
        let same_uid = r.uid.as_deref().is_none_or(|u| u.is_empty() || u == uid(claim));
        same_uid && claim_key(r) == ObjectKey::new(namespace(claim), name(claim))
    })
}

/// What the reconcilers share.
struct Shared {
    client: Client,
    recorder: EventRecorder,
    claims: Informer<ClaimView>,
    volumes: Informer<VolumeView>,
    classes: Informer<Whole<StorageClass>>,
    pods: Informer<PodView>,
    claim_queue: Queue<ObjectKey>,
    volume_queue: Queue<ObjectKey>,
    recyclers: recycle::Recyclers,
    dynamic_provisioning: bool,
    host_path_provisioner: bool,
}

/// Starts the binder.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let options = &context.options.volumes;
    let shared = Arc::new(Shared {
        recyclers: recycle::Recyclers {
            nfs: options.nfs_recycler().map_err(StartError::Flags)?,
            host_path: options.host_path_recycler().map_err(StartError::Flags)?,
        },
        dynamic_provisioning: options.enable_dynamic_provisioning,
        host_path_provisioner: options.enable_hostpath_provisioner,
        recorder: context.recorder(&client, SOURCE),
        client,
        claims: context.informers.get(),
        volumes: context.informers.get(),
        classes: context.informers.get(),
        pods: context.informers.get(),
        claim_queue: context.queue("claims"),
        volume_queue: context.queue("volumes"),
    });
    metrics::register(&context.registry, shared.volumes.clone(), shared.claims.clone())?;
    let (a, b, c) = (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
    shared.claims.on_change(move |change| a.claim_changed(change));
    shared.volumes.on_change(move |change| b.volume_changed(change));
    shared.classes.on_change(move |change| c.class_changed(change));
    let informers: [&dyn Syncs; 4] = [&shared.claims, &shared.volumes, &shared.classes, &shared.pods];
    // One worker each: two claims at a time would want the same volume.
    let claims = claim::Reconciler(Arc::clone(&shared));
    context.drive(CONTROLLER, shared.claim_queue.clone(), 1, claims, &informers);
    let volumes = volume::Reconciler(Arc::clone(&shared));
    context.drive(CONTROLLER, shared.volume_queue.clone(), 1, volumes, &informers);
    let (clock, period) = (Arc::clone(&context.clock), options.pvclaimbinder_sync_period);
    context.tasks.spawn_cancellable("volumes resync", async move {
        loop {
            clock.sleep(period).await;
            shared.look_again();
        }
    });
    Ok(Started::Running)
}

impl Shared {
    /// Looks at every claim and every volume: what failed is tried again.
    fn look_again(&self) {
        self.volumes.list().iter().for_each(|volume| self.volume_queue.add(volume.key.clone()));
        self.claims.list().iter().for_each(|claim| self.claim_queue.add(claim.key.clone()));
    }

    fn claim_changed(&self, change: &Change<ClaimView>) {
        let claim = change.object();
        if matches!(change, Change::Deleted { .. }) {
            let volume = claim.view.0.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
            if !volume.is_empty() {
                self.volume_queue.add(ObjectKey::new("", volume));
            }
            let key = claim.key.to_string();
            self.volumes.by_index(BY_CLAIM, &key).iter().for_each(|v| self.volume_queue.add(v.key.clone()));
            return;
        }
        self.claim_queue.add(claim.key.clone());
    }

    fn volume_changed(&self, change: &Change<VolumeView>) {
        let volume = change.object();
        match volume.view.0.spec.as_ref().and_then(|s| s.claim_ref.as_ref()) {
            Some(reference) => self.claim_queue.add(claim_key(reference)),
            None => self.wake_class(class_of_volume(&volume.view.0)),
        }
        if !matches!(change, Change::Deleted { .. }) {
            self.volume_queue.add(volume.key.clone());
        }
    }

    fn class_changed(&self, change: &Change<Whole<StorageClass>>) {
        self.wake_class(&change.object().key.name);
        // Claims of no class may get this one as their default.
        self.wake_class("");
    }

    fn wake_class(&self, class: &str) {
        self.claims
            .by_index(ClaimView::UNBOUND_OF_CLASS, class)
            .iter()
            .for_each(|c| self.claim_queue.add(c.key.clone()));
    }

    fn tell<K: Resource<DynamicType = ()>>(
        &self,
        about: &K,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.recorder.event(&reference_to(about), kind, reason, message);
    }

    fn volume_api(&self) -> kube::Api<PersistentVolume> {
        kube::Api::all(self.client.clone())
    }

    fn claim_api(&self, claim: &PersistentVolumeClaim) -> kube::Api<PersistentVolumeClaim> {
        kube::Api::namespaced(self.client.clone(), namespace(claim))
    }

    /// Writes a volume as it was seen and changed.
    async fn write_volume(&self, volume: &PersistentVolume) -> Result<PersistentVolume, kube::Error> {
        self.volume_api().replace(name(volume), &PostParams::default(), volume).await
    }

    async fn write_volume_status(&self, volume: &PersistentVolume) -> Result<PersistentVolume, kube::Error> {
        self.volume_api().replace_status(name(volume), &PostParams::default(), volume).await
    }

    async fn write_claim(&self, claim: &PersistentVolumeClaim) -> Result<PersistentVolumeClaim, kube::Error> {
        self.claim_api(claim).replace(name(claim), &PostParams::default(), claim).await
    }

    async fn write_claim_status(&self, claim: &PersistentVolumeClaim) -> Result<PersistentVolumeClaim, kube::Error> {
        self.claim_api(claim).replace_status(name(claim), &PostParams::default(), claim).await
    }
}

#[cfg(test)]
mod tests;
