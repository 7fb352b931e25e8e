//! Directories of this machine as volumes, for trying things out on one node (`--enable-hostpath-provisioner`).

use std::{collections::BTreeMap, os::unix::fs::DirBuilderExt};

use ::controller::{EventType, ReconcileError};
use client::ApiErrorExt;
use k8s_openapi::{
    api::{
        core::v1::{
            HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::api::PostParams;

use super::{BOUND_BY_CONTROLLER, PROVISIONED_BY, Shared, YES, name, namespace, uid};

/// Name of the provisioner.
pub(super) const PROVISIONER: &str = "kubernetes.io/host-path";
/// Where the directories are.
const ROOT: &str = "/tmp/hostpath_pv";

/// The volume for a claim of a class.
fn volume_for(claim: &PersistentVolumeClaim, class: &StorageClass, path: String) -> PersistentVolume {
    let wanted = claim.spec.clone().unwrap_or_default();
    let request = wanted.resources.and_then(|r| r.requests?.remove("storage")).unwrap_or_default();
    let annotations = [
        ("kubernetes.io/createdby", "hostpath-dynamic-provisioner"),
        (BOUND_BY_CONTROLLER, YES),
        (PROVISIONED_BY, PROVISIONER),
    ];
    let text = |value: &str| Some(value.to_owned());
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(volume_name(claim)),
            annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            persistent_volume_reclaim_policy: class.reclaim_policy.clone().or_else(|| text("Delete")),
            access_modes: wanted.access_modes.filter(|m| !m.is_empty()).or_else(|| Some(vec!["ReadWriteOnce".into()])),
            capacity: Some(BTreeMap::from([("storage".to_owned(), request)])),
            host_path: Some(HostPathVolumeSource { path, type_: None }),
            storage_class_name: class.metadata.name.clone(),
            claim_ref: Some(ObjectReference {
                kind: text("PersistentVolumeClaim"),
                api_version: text("v1"),
                namespace: text(namespace(claim)),
                name: text(name(claim)),
                uid: text(uid(claim)),
                resource_version: claim.metadata.resource_version.clone(),
                ..ObjectReference::default()
            }),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

fn volume_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", uid(claim))
}

impl Shared {
    /// Makes a directory and the volume that is it.
    pub(super) async fn provision_host_path(
        &self,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
    ) -> Result<(), ReconcileError> {
        let failed = |text: String| self.tell(claim, EventType::Warning, "ProvisioningFailed", text);
        if let Some(options) = class.mount_options.as_ref().filter(|options| !options.is_empty()) {
            failed(format!(
                "Mount options are not supported by the provisioner but StorageClass {:?} has mount options [{}]",
                name(class),
                options.join(" ")
            ));
            return Ok(());
        }
        if !self.host_path_provisioner {
            failed(format!("Failed to create provisioner: provisioning in volume plugin {PROVISIONER:?} is disabled"));
            return Ok(());
        }
        if self.volume_api().get_opt(&volume_name(claim)).await?.is_some() {
            return Ok(());
        }
        // The name comes from the claim: after a failure the same directory is taken.
        let path = format!("{ROOT}/{}", uid(claim));
        let made = path.clone();
        let making =
            tokio::task::spawn_blocking(move || std::fs::DirBuilder::new().recursive(true).mode(0o750).create(made));
        if let Err(error) = making.await.map_err(std::io::Error::other).flatten() {
            failed(format!("Failed to provision volume with StorageClass {:?}: {error}", name(class)));
            return Ok(());
        }
        match self.volume_api().create(&PostParams::default(), &volume_for(claim, class, path)).await {
            Err(error) if error.is_already_exists() => return Ok(()),
            made => made?,
        };
        let text = format!("Successfully provisioned volume {} using {PROVISIONER}", volume_name(claim));
        self.tell(claim, EventType::Normal, "ProvisioningSucceeded", text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_volume_is_of_the_claim() {
        let claim = serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "u"},
            "spec": {"accessModes": [], "resources": {"requests": {"storage": "1Gi"}}},
        }));
        let class = serde_json::from_value(json!({"metadata": {"name": "k"}, "provisioner": PROVISIONER}));
        let volume = volume_for(&claim.unwrap(), &class.unwrap(), "/tmp/hostpath_pv/u".into());
        let volume = serde_json::to_value(volume).unwrap();
        assert_eq!(volume["metadata"]["name"], "pvc-u");
        let spec = &volume["spec"];
        assert_eq!((&spec["claimRef"]["uid"], &spec["accessModes"]), (&json!("u"), &json!(["ReadWriteOnce"])));
        assert_eq!((&spec["capacity"]["storage"], &spec["storageClassName"]), (&json!("1Gi"), &json!("k")));
        assert_eq!(spec["persistentVolumeReclaimPolicy"], "Delete");
    }
}
