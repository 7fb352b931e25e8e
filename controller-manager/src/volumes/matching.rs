//! Which volume fits a claim.

use std::cmp::Ordering;

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use machinery::quantity::Quantity;

use super::{class_of_claim, class_of_volume, is_reserved_for, name};
use crate::children;

const FILESYSTEM: &str = "Filesystem";

fn storage(text: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> i64 {
    text.and_then(|q| Quantity::parse(&q.0).ok()).map_or(0, |q| q.value())
}

fn capacity(volume: &PersistentVolumeSpec) -> i64 {
    storage(volume.capacity.as_ref().and_then(|c| c.get("storage")))
}

fn request(claim: &PersistentVolumeClaimSpec) -> i64 {
    storage(claim.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")))
}

fn mode(mode: Option<&String>) -> &str {
    mode.map_or(FILESYSTEM, String::as_str)
}

fn attributes(class: Option<&String>) -> &str {
    class.map_or("", String::as_str)
}

fn offers_modes(volume: &PersistentVolumeSpec, claim: &PersistentVolumeClaimSpec) -> bool {
    let offered = volume.access_modes.as_deref().unwrap_or_default();
    claim.access_modes.iter().flatten().all(|wanted| offered.contains(wanted))
}

/// Why a claim cannot have the volume that it names; `None` if it can. Labels do not matter here.
pub(super) fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let (offer, wish) = (volume.spec.as_ref()?, claim.spec.as_ref()?);
    if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!("the volume is marked for deletion {:?}", name(volume)));
    }
    let why = if request(wish) > capacity(offer) {
        "requested PV is too small"
    } else if class_of_volume(volume) != class_of_claim(claim) {
        "storageClassName does not match"
    } else if attributes(offer.volume_attributes_class_name.as_ref())
        != attributes(wish.volume_attributes_class_name.as_ref())
    {
        "volumeAttributesClassName does not match"
    } else if mode(offer.volume_mode.as_ref()) != mode(wish.volume_mode.as_ref()) {
        "incompatible volumeMode"
    } else if !offers_modes(offer, wish) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// Whether size and mode fit: all that is asked of a volume that is reserved for the claim.
fn fits_reserved(offer: &PersistentVolumeSpec, wish: &PersistentVolumeClaimSpec) -> bool {
    mode(offer.volume_mode.as_ref()) == mode(wish.volume_mode.as_ref())
        && attributes(offer.volume_attributes_class_name.as_ref())
            == attributes(wish.volume_attributes_class_name.as_ref())
        && capacity(offer) >= request(wish)
        && offers_modes(offer, wish)
}

fn fits(volume: &PersistentVolume, offer: &PersistentVolumeSpec, claim: &PersistentVolumeClaim) -> bool {
    let Some(wish) = claim.spec.as_ref() else { return false };
    let available = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Available");
    let selected = wish.selector.as_ref().is_none_or(|selector| {
        let labels = volume.metadata.labels.clone().unwrap_or_default();
        children::selector_of(selector).is_ok_and(|selector| children::matches(&selector, &labels))
    });
    available
        && selected
        && offer.claim_ref.is_none()
        && volume.metadata.deletion_timestamp.is_none()
        && class_of_volume(volume) == class_of_claim(claim)
        && fits_reserved(offer, wish)
}

/// Fewer access modes first, then the smaller volume, then by name.
fn order(a: &PersistentVolume, b: &PersistentVolume) -> Ordering {
    let key = |volume: &PersistentVolume| {
        let spec = volume.spec.as_ref();
        let modes = spec.and_then(|s| s.access_modes.as_ref()).map_or(0, Vec::len);
        (modes, spec.map_or(0, capacity))
    };
    key(a).cmp(&key(b)).then_with(|| name(a).cmp(name(b)))
}

/// The volume for a claim that names none: one that is reserved for it, else the smallest that fits. With
/// `reserved_only` no other is looked at: the scheduler chooses when the first Pod comes.
pub(super) fn best<'a>(
    volumes: impl Iterator<Item = &'a PersistentVolume> + Clone,
    claim: &PersistentVolumeClaim,
    reserved_only: bool,
) -> Option<&'a PersistentVolume> {
    let wish = claim.spec.as_ref()?;
    let reserved = volumes
        .clone()
        .filter(|v| is_reserved_for(v, claim) && v.spec.as_ref().is_some_and(|offer| fits_reserved(offer, wish)))
        .min_by(|a, b| order(a, b));
    if reserved.is_some() || reserved_only {
        return reserved;
    }
    volumes.filter(|v| v.spec.as_ref().is_some_and(|offer| fits(v, offer, claim))).min_by(|a, b| order(a, b))
}
