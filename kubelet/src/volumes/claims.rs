//! Volumes that a PersistentVolumeClaim stands for: directories of the node (hostPath, local).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};

use super::{Ready, Volumes, blocking, fs_group, hostpath, ownership};
use crate::objects::Objects;
use crate::pods;

/// Directory name of local volumes below a Pod's volumes.
const LOCAL: &str = "kubernetes.io~local-volume";
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// The claim that a volume of a Pod uses, and whether the Pod wants it read-only.
pub(super) fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), source.read_only.unwrap_or(false)));
    }
    volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pods::name(pod), volume.name), false))
}

/// The bound volume of a claim, or why the Pod has to wait.
async fn bound_volume(
    pod: &Pod,
    volume: &Volume,
    claim: &str,
    objects: &dyn Objects,
) -> Result<PersistentVolume, String> {
    let namespace = pods::namespace(pod);
    let found = objects
        .claim(namespace, claim)
        .await
        .map_err(|error| format!("failed to fetch PVC from API server: {error}"))?;
    check_claim(pod, volume, &found)?;
    let name = found.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    let persistent = objects.volume(&name).await.map_err(|error| format!("failed to fetch PV {name:?}: {error}"))?;
    let reference = persistent.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.and_then(|reference| reference.uid.as_ref()) != found.metadata.uid.as_ref() {
        let bound_to = reference.and_then(|r| r.uid.clone()).unwrap_or_default();
        return Err(format!("found PV object {name:?} with an incorrect PVC.UID, it is bound to {bound_to:?}"));
    }
    Ok(persistent)
}

fn check_claim(pod: &Pod, volume: &Volume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let meta = &claim.metadata;
    let protected = meta.finalizers.iter().flatten().any(|finalizer| finalizer == PROTECTION);
    if meta.deletion_timestamp.is_some() && !protected {
        return Err("PVC is being deleted".to_owned());
    }
    if volume.ephemeral.is_some() {
        let mut owners = meta.owner_references.iter().flatten();
        if !owners.any(|owner| owner.uid == pods::uid(pod) && owner.controller == Some(true)) {
            let place = |namespace: &str, name: &str| format!("{namespace}/{name}");
            return Err(format!(
                "PVC {} was not created for pod {} (pod is not owner)",
                place(pods::namespace(pod), meta.name.as_deref().unwrap_or_default()),
                place(pods::namespace(pod), pods::name(pod)),
            ));
        }
    }
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).is_some_and(|name| !name.is_empty());
    if bound && named { Ok(()) } else { Err("PVC is not bound".to_owned()) }
}

impl Volumes {
    /// Makes the directory behind a claim ready.
    pub(super) async fn claimed(
        &self,
        pod: &Pod,
        volume: &Volume,
        claim: &str,
        read_only: bool,
    ) -> Result<Ready, String> {
        let persistent = bound_volume(pod, volume, claim, &*self.objects).await?;
        let name = persistent.metadata.name.clone().unwrap_or_default();
        let spec = persistent.spec.unwrap_or_default();
        if spec.volume_mode.as_deref() == Some("Block") {
            return Err("no volume plugin matched: volumeMode Block is not supported".to_owned());
        }
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        let read_only = read_only || (!modes.is_empty() && modes.iter().all(|mode| mode == "ReadOnlyMany"));
        if let Some(source) = spec.host_path {
            let (path, kind) = (PathBuf::from(&source.path), source.type_.unwrap_or_default());
            let checked = path.clone();
            blocking(move || Ok(hostpath::prepare(&checked, &kind))).await??;
            return Ok(Ready::Path { path, read_only });
        }
        if let Some(source) = spec.local {
            let path = self.local(pod, &name, PathBuf::from(source.path), read_only).await?;
            return Ok(Ready::Path { path, read_only });
        }
        if let Some(source) = spec.csi {
            return Err(format!("driver name {} not found in the list of registered CSI drivers", source.driver));
        }
        Err("no volume plugin matched".to_owned())
    }

    /// Binds a directory of the node into the Pod's directory.
    async fn local(&self, pod: &Pod, name: &str, source: PathBuf, read_only: bool) -> Result<PathBuf, String> {
        let target = self.paths.volume(pods::uid(pod), LOCAL, name);
        let group = fs_group(pod);
        let (platform, at) = (Arc::clone(&self.platform), target.clone());
        blocking(move || {
            if !fs::metadata(&source)?.is_dir() {
                return Err(std::io::Error::other(format!("{} is not a directory", source.display())));
            }
            platform.bind_beneath(&source, Path::new(""), &at)?;
            match group {
                Some((group, policy)) if !read_only => ownership::apply(&at, group, false, policy),
                _ => Ok(()),
            }
        })
        .await?;
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(volume: Value, claim: Value) -> Result<(), String> {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}})).unwrap();
        check_claim(&pod, &serde_json::from_value(volume).unwrap(), &serde_json::from_value(claim).unwrap())
    }

    #[test]
    fn only_bound_claims_are_mounted() {
        let used = json!({"name": "v", "persistentVolumeClaim": {"claimName": "c"}});
        let bound = json!({"metadata": {"name": "c"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
        assert_eq!(check(used.clone(), bound.clone()), Ok(()));
        let pending = json!({"metadata": {"name": "c"}, "status": {"phase": "Pending"}});
        assert_eq!(check(used.clone(), pending), Err("PVC is not bound".to_owned()));
        let mut going = bound.clone();
        going["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        assert_eq!(check(used.clone(), going.clone()), Err("PVC is being deleted".to_owned()));
        going["metadata"]["finalizers"] = json!([PROTECTION]);
        assert_eq!(check(used, going), Ok(()));
        let ephemeral = json!({"name": "v", "ephemeral": {}});
        let foreign = "PVC ns/c was not created for pod ns/p (pod is not owner)";
        assert_eq!(check(ephemeral.clone(), bound.clone()), Err(foreign.to_owned()));
        let mut owned = bound;
        owned["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
        assert_eq!(check(ephemeral, owned), Ok(()));
    }
}
