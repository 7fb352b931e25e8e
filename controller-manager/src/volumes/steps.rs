//! The writes of a binding, as pure changes of objects: each answers the changed object, or `None` if nothing is to do.

use ::controller::events::reference_to;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use kube::Resource;

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, MIGRATED_TO, YES, annotate, annotation, is_annotated, is_reserved_for, name,
    successor, uid,
};

/// The object says which driver has taken over from the provisioner that one of its annotations names.
pub(super) fn migrated<K: Resource + Clone>(object: &K, provisioner: &str) -> Option<K> {
    let driver = annotation(object, provisioner).and_then(successor);
    if annotation(object, MIGRATED_TO) == driver {
        return None;
    }
    let mut changed = object.clone();
    match driver {
        Some(driver) => drop(annotate(&mut changed, MIGRATED_TO, driver)),
        None => drop(changed.meta_mut().annotations.get_or_insert_default().remove(MIGRATED_TO)),
    }
    Some(changed)
}

/// The volume names the claim.
pub(super) fn volume_names_claim(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let known = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let reserved = is_reserved_for(volume, claim);
    if reserved && known.is_some_and(|r| r.uid.as_deref() == Some(uid(claim))) {
        return None;
    }
    let mut changed = volume.clone();
    if !reserved {
        annotate(&mut changed, BOUND_BY_CONTROLLER, YES);
    }
    changed.spec.get_or_insert_default().claim_ref = Some(reference_to(claim));
    Some(changed)
}

/// The volume has a phase; `message` and `reason` go with failures.
pub(super) fn volume_phase(volume: &PersistentVolume, phase: &str, message: &str) -> Option<PersistentVolume> {
    if volume.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some(phase)) {
        return None;
    }
    let mut changed = volume.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    status.message = (!message.is_empty()).then(|| message.to_owned());
    Some(changed)
}

/// The claim names the volume.
pub(super) fn claim_names_volume(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
    if named == name(volume) && is_annotated(claim, BIND_COMPLETED) {
        return None;
    }
    let mut changed = claim.clone();
    if named != name(volume) {
        annotate(&mut changed, BOUND_BY_CONTROLLER, YES);
        changed.spec.get_or_insert_default().volume_name = volume.metadata.name.clone();
    }
    annotate(&mut changed, BIND_COMPLETED, YES);
    Some(changed)
}

/// The claim is Bound. Its capacity is the volume's at that moment; later an expansion changes it.
pub(super) fn claim_bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let offer = volume.spec.as_ref()?;
    let mut changed = claim.clone();
    let status = changed.status.get_or_insert_default();
    status.access_modes.clone_from(&offer.access_modes);
    if status.phase.as_deref() != Some("Bound") {
        status.phase = Some("Bound".to_owned());
        status.capacity.clone_from(&offer.capacity);
        status.current_volume_attributes_class_name.clone_from(&offer.volume_attributes_class_name);
    }
    (changed.status != claim.status).then_some(changed)
}

/// The claim has a phase other than Bound.
pub(super) fn claim_phase(claim: &PersistentVolumeClaim, phase: &str) -> Option<PersistentVolumeClaim> {
    if claim.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some(phase)) {
        return None;
    }
    let mut changed = claim.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    status.access_modes = None;
    status.capacity = None;
    Some(changed)
}

/// The volume is free again, as far as its user did not reserve it.
pub(super) fn volume_unbound(volume: &PersistentVolume) -> Option<PersistentVolume> {
    let mut changed = volume.clone();
    if is_annotated(volume, BOUND_BY_CONTROLLER) {
        changed.spec.get_or_insert_default().claim_ref = None;
        changed.metadata.annotations.get_or_insert_default().remove(BOUND_BY_CONTROLLER);
    } else if let Some(reference) = changed.spec.as_mut().and_then(|s| s.claim_ref.as_mut()) {
        reference.uid = None;
        reference.resource_version = None;
    }
    (changed != *volume).then_some(changed)
}
