//! The finalizer that keeps VolumeAttributesClasses while claims or volumes name them.

use std::collections::BTreeSet;

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Whole};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::VolumeAttributesClass,
};
use kube::{Api, Client, api::ListParams};

use super::{
    VolumeView,
    protection::{Need, need, write},
};
use crate::{StartError, context::Context, table::Started, views::ClaimView};

const CONTROLLER: &str = "volumeattributesclass-protection-controller";
const FINALIZER: &str = "kubernetes.io/vac-protection";

/// Classes that a claim wants, has, or is on its way to.
fn of_claim(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let wanted = claim.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target = status
        .and_then(|s| s.modify_volume_status.as_ref())
        .and_then(|s| s.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

/// The class of a volume.
fn of_volume(volume: &PersistentVolume) -> BTreeSet<&str> {
    let class = volume.spec.as_ref().and_then(|s| s.volume_attributes_class_name.as_deref());
    class.into_iter().filter(|name| !name.is_empty()).collect()
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let protection = Protection {
        client,
        classes: context.informers.get(),
        claims: context.informers.get(),
        volumes: context.informers.get(),
    };
    let (classes, claims, volumes) =
        (protection.classes.clone(), protection.claims.clone(), protection.volumes.clone());
    let queue = context.queue("vacprotection");
    let to = queue.clone();
    classes.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            to.add(change.object().key.clone());
        }
    });
    let to = queue.clone();
    claims.on_change(move |change| left(change, |claim| of_claim(claim), |class| to.add(ObjectKey::cluster(class))));
    let to = queue.clone();
    volumes.on_change(move |change| {
        left(change, |volume| of_volume(&volume.0), |class| to.add(ObjectKey::cluster(class)));
    });
    context.drive(CONTROLLER, queue, 1, protection, &[&classes, &claims, &volumes]);
    Ok(Started::Running)
}

/// Calls `then` with the classes that an object names no more.
fn left<V>(change: &Change<V>, classes: impl Fn(&V) -> BTreeSet<&str>, then: impl Fn(&str)) {
    match change {
        Change::Added { .. } => {}
        Change::Updated { old, new } => {
            let still = classes(&new.view);
            classes(&old.view).into_iter().filter(|class| !still.contains(class)).for_each(then);
        }
        Change::Deleted { old } => classes(&old.view).into_iter().for_each(then),
    }
}

struct Protection {
    client: Client,
    classes: Informer<Whole<VolumeAttributesClass>>,
    claims: Informer<ClaimView>,
    volumes: Informer<VolumeView>,
}

impl Protection {
    /// Whether anything names a class: first by the caches, then, before it is given up, by the API.
    async fn is_used(&self, class: &str) -> Result<bool, kube::Error> {
        if self.claims.list().iter().any(|claim| of_claim(claim).contains(class))
            || self.volumes.list().iter().any(|volume| of_volume(&volume.view.0).contains(class))
        {
            return Ok(true);
        }
        let all = ListParams::default();
        let claims = Api::<PersistentVolumeClaim>::all(self.client.clone()).list(&all).await?;
        if claims.items.iter().any(|claim| of_claim(claim).contains(class)) {
            return Ok(true);
        }
        let volumes = Api::<PersistentVolume>::all(self.client.clone()).list(&all).await?;
        Ok(volumes.items.iter().any(|volume| of_volume(volume).contains(class)))
    }
}

impl Reconcile for Protection {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(class) = self.classes.get(key) else { return Ok(Outcome::Done) };
        let wanted = match need(&class.view.0, FINALIZER) {
            Need::Nothing => return Ok(Outcome::Done),
            Need::Review if self.is_used(&key.name).await? => return Ok(Outcome::Done),
            Need::Review => false,
            Need::Add => true,
        };
        let api: Api<VolumeAttributesClass> = Api::all(self.client.clone());
        write(&api, &class.view.0, FINALIZER, wanted).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_mention_counts() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "spec": {"volumeAttributesClassName": "wanted"},
            "status": {"currentVolumeAttributesClassName": "current",
                "modifyVolumeStatus": {"status": "InProgress", "targetVolumeAttributesClassName": "target"}},
        }))
        .unwrap();
        assert_eq!(of_claim(&claim), BTreeSet::from(["current", "target", "wanted"]));
        let none: PersistentVolumeClaim =
            serde_json::from_value(json!({"spec": {"volumeAttributesClassName": ""}})).unwrap();
        assert!(of_claim(&none).is_empty());
        let volume: PersistentVolume =
            serde_json::from_value(json!({"spec": {"volumeAttributesClassName": "v"}})).unwrap();
        assert_eq!(of_volume(&volume), BTreeSet::from(["v"]));
    }
}
