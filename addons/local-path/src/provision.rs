//! The shells around the plans: directories and API writes.

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use client::ApiErrorExt;
use controller::{
    EventRecorder, EventType, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Whole, events::reference_to,
};
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams, Preconditions},
};

use crate::plan::{self, Place};

/// Mode of a volume's directory: any user of any Pod may write, as on a fresh file system of a driver.
const MODE: u32 = 0o777;

/// What both reconcilers work with.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) recorder: EventRecorder,
    pub(crate) place: Place,
    pub(crate) claims: Informer<Whole<PersistentVolumeClaim>>,
    pub(crate) volumes: Informer<Whole<PersistentVolume>>,
}

impl Shared {
    fn api(&self) -> Api<PersistentVolume> {
        Api::all(self.client.clone())
    }
}

/// Makes volumes.
pub(crate) struct Provisioner(pub(crate) Arc<Shared>);

impl Reconcile for Provisioner {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.0;
        let Some(cached) = shared.claims.get(key) else { return Ok(Outcome::Done) };
        let claim = &cached.view.0;
        if !plan::is_wanted(claim, &shared.place) {
            return Ok(Outcome::Done);
        }
        let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.clone()).unwrap_or_default();
        let class = Api::<StorageClass>::all(shared.client.clone()).get(&class).await?;
        let about = reference_to(claim);
        let volume = match plan::volume_for(claim, &class, &shared.place) {
            Ok(volume) => volume,
            Err(why) => {
                shared.recorder.event(&about, EventType::Warning, "ProvisioningFailed", why);
                return Ok(Outcome::Done);
            }
        };
        let Some(directory) = plan::directory_of(&volume, &shared.place.root) else { return Ok(Outcome::Done) };
        make(&directory).await?;
        match shared.api().create(&PostParams::default(), &volume).await {
            Err(error) if !error.is_already_exists() => Err(error.into()),
            Err(_) => Ok(Outcome::Done),
            Ok(_) => {
                let name = volume.metadata.name.unwrap_or_default();
                tracing::info!(claim = %key, volume = %name, "Provisioned a volume");
                let text = format!("Successfully provisioned volume {name}");
                shared.recorder.event(&about, EventType::Normal, "ProvisioningSucceeded", text);
                Ok(Outcome::Done)
            }
        }
    }
}

/// Removes volumes.
pub(crate) struct Remover(pub(crate) Arc<Shared>);

impl Reconcile for Remover {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.0;
        let Some(cached) = shared.volumes.get(key) else { return Ok(Outcome::Done) };
        let volume = &cached.view.0;
        if !plan::is_expired(volume, &shared.place) || volume.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let Some(directory) = plan::directory_of(volume, &shared.place.root) else { return Ok(Outcome::Done) };
        match tokio::fs::remove_dir_all(&directory).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let text = format!("cannot remove {}: {error}", directory.display());
                shared.recorder.event(&reference_to(volume), EventType::Warning, "VolumeFailedDelete", text);
                return Err(error.into());
            }
            _ => {}
        }
        let same = Preconditions { uid: volume.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        match shared.api().delete(&key.name, &params).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => {
                tracing::info!(volume = %key.name, "Removed a volume");
                Ok(Outcome::Done)
            }
        }
    }
}

async fn make(directory: &Path) -> io::Result<()> {
    match tokio::fs::create_dir(directory).await {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => tokio::fs::set_permissions(directory, std::fs::Permissions::from_mode(MODE)).await,
    }
}
