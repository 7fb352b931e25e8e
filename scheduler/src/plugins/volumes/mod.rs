//! The plugins that look at a Pod's volumes, over one picture of claims, volumes and classes.

mod bind;
mod binding;
mod limits;
mod restrictions;
mod zone;

use std::{collections::HashMap, sync::Arc};

pub(crate) use bind::{VolumeError, VolumePlan};
pub(crate) use binding::VolumeBinding;
use controller::{Cached, Informer, InformerSet, ObjectKey};
pub(crate) use limits::NodeVolumeLimits;
use parking_lot::Mutex;
pub(crate) use restrictions::VolumeRestrictions;
use tokio::sync::watch;
pub(crate) use zone::VolumeZone;

use crate::objects::{
    AttachmentView, CapacityView, ClaimView, ClassView, CsiDriverView, CsiNodeView, PodView, VolumeView,
};

/// What the plugins know of storage.
pub(crate) struct Storage {
    pub(crate) claims: Informer<ClaimView>,
    pub(crate) volumes: Informer<VolumeView>,
    pub(crate) classes: Informer<ClassView>,
    pub(crate) csi_nodes: Informer<CsiNodeView>,
    pub(crate) csi_drivers: Informer<CsiDriverView>,
    pub(crate) capacities: Informer<CapacityView>,
    pub(crate) attachments: Informer<AttachmentView>,
    /// Volumes that were chosen for a claim and do not say so yet.
    reserved: Mutex<HashMap<Box<str>, ObjectKey>>,
    /// Counts changes of claims and volumes, for those that wait for one.
    changes: watch::Sender<u64>,
}

impl Storage {
    /// Follows the cluster; `told` is called after each change.
    pub(crate) fn following(informers: &InformerSet) -> Arc<Self> {
        Arc::new(Self {
            claims: informers.get(),
            volumes: informers.get(),
            classes: informers.get(),
            csi_nodes: informers.get(),
            csi_drivers: informers.get(),
            capacities: informers.get(),
            attachments: informers.get(),
            reserved: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }

    /// A picture that tests paint.
    #[cfg(test)]
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self {
            claims: Informer::new(&[]),
            volumes: Informer::new(&[]),
            classes: Informer::new(&[]),
            csi_nodes: Informer::new(&[]),
            csi_drivers: Informer::new(&[]),
            capacities: Informer::new(&[]),
            attachments: Informer::new(<AttachmentView as controller::Viewed>::INDICES),
            reserved: Mutex::default(),
            changes: watch::Sender::new(0),
        })
    }

    /// Calls `told` after every change.
    pub(crate) fn on_change(self: &Arc<Self>, told: impl Fn() + Clone + Send + Sync + 'static) {
        let counted = {
            let storage = Arc::clone(self);
            move || {
                storage.changes.send_modify(|n| *n += 1);
                told();
            }
        };
        let f = counted.clone();
        self.claims.on_change(move |_| f());
        let f = counted.clone();
        self.volumes.on_change(move |_| f());
        let f = counted.clone();
        self.classes.on_change(move |_| f());
        let f = counted.clone();
        self.csi_nodes.on_change(move |_| f());
        let f = counted.clone();
        self.csi_drivers.on_change(move |_| f());
        let f = counted.clone();
        self.attachments.on_change(move |_| f());
        self.capacities.on_change(move |_| counted());
    }

    fn claim(&self, key: &ObjectKey) -> Option<Arc<Cached<ClaimView>>> {
        self.claims.get(key)
    }

    fn volume(&self, name: &str) -> Option<Arc<Cached<VolumeView>>> {
        self.volumes.get(&ObjectKey::cluster(name))
    }

    /// Volumes of the claims of a Pod that have one.
    fn volumes_of(&self, pod: &PodView) -> Vec<Arc<Cached<VolumeView>>> {
        let claims = claims_of(pod).into_iter().filter_map(|(key, _)| self.claim(&key));
        claims.filter(|c| !c.volume.is_empty()).filter_map(|c| self.volume(&c.volume)).collect()
    }
}

/// Claims of a Pod; those of ephemeral volumes are marked.
fn claims_of(pod: &PodView) -> Vec<(ObjectKey, bool)> {
    let template = &pod.template;
    let named = template.claims.iter().map(|c| (ObjectKey::new(pod.namespace(), &**c), false));
    let own = template.ephemeral_claims.iter();
    let own = own.map(|v| (ObjectKey::new(pod.namespace(), format!("{}-{v}", pod.name)), true));
    named.chain(own).collect()
}

/// Whether a Pod has anything to do with claims.
fn has_claims(pod: &PodView) -> bool {
    !pod.template.claims.is_empty() || !pod.template.ephemeral_claims.is_empty()
}

#[cfg(test)]
mod tests;
