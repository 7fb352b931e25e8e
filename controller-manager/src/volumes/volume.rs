//! One volume: Available, Bound, Released, and what becomes of it then.

use std::{path::Path, sync::Arc};

use ::controller::{EventType, ObjectKey, Outcome, Reconcile, ReconcileError};
use client::ApiErrorExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Preconditions};

use super::{BOUND_BY_CONTROLLER, PROVISIONED_BY, Shared, annotation, claim_key, is_annotated, name, steps, uid};

pub(super) struct Reconciler(pub(super) Arc<Shared>);

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(cached) = self.0.volumes.get(key) else { return Ok(Outcome::Done) };
        let volume = &cached.view.0;
        if let Some(changed) = steps::migrated(volume, PROVISIONED_BY) {
            self.0.write_volume(&changed).await?;
            return Ok(Outcome::Done);
        }
        let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
        let Some(reference) = reference.filter(|r| r.uid.as_ref().is_some_and(|uid| !uid.is_empty())) else {
            return self.phase(volume, "Available", "").await.map(|_| Outcome::Done);
        };
        let key = claim_key(reference);
        let wanted = reference.uid.as_deref().unwrap_or_default();
        let cached = self.0.claims.get(&key).map(|c| c.view.0.clone());
        let claim = match cached.filter(|c| uid(c) == wanted) {
            Some(claim) => Some(claim),
            // The cache may be old; a volume is not given up for that.
            None => self.live(&key).await?.filter(|c| uid(c) == wanted),
        };
        match claim {
            None => self.released(volume).await,
            Some(claim) => self.claimed(volume, &claim).await,
        }
    }
}

impl Reconciler {
    async fn live(&self, key: &ObjectKey) -> Result<Option<PersistentVolumeClaim>, kube::Error> {
        kube::Api::namespaced(self.0.client.clone(), &key.namespace).get_opt(&key.name).await
    }

    async fn phase(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: &str,
    ) -> Result<PersistentVolume, ReconcileError> {
        match steps::volume_phase(volume, phase, message) {
            None => Ok(volume.clone()),
            Some(changed) => Ok(self.0.write_volume_status(&changed).await?),
        }
    }

    async fn claimed(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<Outcome, ReconcileError> {
        match claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default() {
            "" => {
                if is_annotated(volume, BOUND_BY_CONTROLLER) || !is_mode_mismatch(volume, claim) {
                    self.0.claim_queue.add(ObjectKey::new(super::namespace(claim), name(claim)));
                    return Ok(Outcome::Done);
                }
                let text = format!(
                    "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
                    name(claim)
                );
                self.0.tell(volume, EventType::Warning, "VolumeMismatch", text);
            }
            named if named == name(volume) => {
                self.phase(volume, "Bound", "").await?;
            }
            _ if is_annotated(volume, PROVISIONED_BY) && reclaim_policy(volume) == "Delete" => {
                return self.released(volume).await;
            }
            _ => {
                let free = match steps::volume_unbound(volume) {
                    None => volume.clone(),
                    Some(changed) => self.0.write_volume(&changed).await?,
                };
                self.phase(&free, "Available", "").await?;
            }
        }
        Ok(Outcome::Done)
    }

    async fn released(&self, volume: &PersistentVolume) -> Result<Outcome, ReconcileError> {
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let volume = if phase == "Failed" { volume.clone() } else { self.phase(volume, "Released", "").await? };
        match reclaim_policy(&volume) {
            "Delete" => self.delete(&volume).await.map(|()| Outcome::Done),
            "Recycle" => self.0.recycle(&volume).await,
            _ => Ok(Outcome::Done),
        }
    }

    async fn failed(&self, volume: &PersistentVolume, reason: &str, text: &str) -> Result<(), ReconcileError> {
        if let Some(changed) = steps::volume_phase(volume, "Failed", text) {
            self.0.write_volume_status(&changed).await?;
            self.0.tell(volume, EventType::Warning, reason, text);
        }
        Ok(())
    }

    /// Deletes what was made here; volumes of drivers are theirs to delete.
    async fn delete(&self, volume: &PersistentVolume) -> Result<(), ReconcileError> {
        let spec = volume.spec.clone().unwrap_or_default();
        let external = annotation(volume, PROVISIONED_BY)
            .is_some_and(|driver| !driver.starts_with(super::IN_TREE) || super::successor(driver).is_some());
        if spec.csi.is_some() || external || volume.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let Some(source) = spec.host_path else {
            let text =
                format!("error getting deleter volume plugin for volume {:?}: no volume plugin matched", name(volume));
            return self.failed(volume, "VolumeFailedDelete", &text).await;
        };
        if !may_be_removed(&source.path) {
            let text = format!("host_path deleter only supports /tmp/.+ but received provided {}", source.path);
            return self.failed(volume, "VolumeFailedDelete", &text).await;
        }
        if let Err(error) = tokio::fs::remove_dir_all(&source.path).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return self.failed(volume, "VolumeFailedDelete", &error.to_string()).await;
        }
        let same = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        match self.0.volume_api().delete(name(volume), &params).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn reclaim_policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

fn is_mode_mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let of = |mode: Option<&String>| mode.map_or("Filesystem", String::as_str).to_owned();
    let offered = of(volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref()));
    offered != of(claim.spec.as_ref().and_then(|s| s.volume_mode.as_ref()))
}

/// Only directories below `/tmp` are removed, by a path without detours.
pub(super) fn may_be_removed(path: &str) -> bool {
    use std::path::Component;
    let mut parts = Path::new(path).components();
    parts.next() == Some(Component::RootDir)
        && parts.next() == Some(Component::Normal("tmp".as_ref()))
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}
