//! Volumes that a PersistentVolumeClaim stands for.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::local::Local;
use super::{Failure, Ready, Volumes, blocking, hostpath};
use crate::csi::Wanted;
use crate::objects::Objects;
use crate::pods::{self, selector};

const SET_UP: &str = "MountVolume.SetUp";
/// The annotation of a PersistentVolume that names the group that may use it.
const GROUP: &str = "pv.beta.kubernetes.io/gid";
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// A claim and the size of the volume behind it.
pub(super) type Claimed<'a> = (&'a PersistentVolumeClaim, Option<Quantity>);

/// The claim that a volume of a Pod uses, and whether the Pod wants it read-only.
pub(crate) fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), source.read_only.unwrap_or(false)));
    }
    volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pods::name(pod), volume.name), false))
}

/// A claim and the volume bound to it, or why the Pod has to wait.
async fn bound_volume(
    pod: &Pod,
    volume: &Volume,
    claim: &str,
    objects: &dyn Objects,
) -> Result<(PersistentVolumeClaim, PersistentVolume), String> {
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
    Ok((found, persistent))
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
    /// Makes what is behind a claim ready.
    pub(super) async fn claimed(
        &self,
        pod: &Pod,
        volume: &Volume,
        claim: &str,
        read_only: bool,
    ) -> Result<Ready, Failure> {
        let found = bound_volume(pod, volume, claim, &*self.objects).await;
        let (claim, persistent) = found.map_err(|error| {
            Failure::Processing(format!("error processing PVC {}/{claim}: {error}", pods::namespace(pod)))
        })?;
        let name = persistent.metadata.name.clone().unwrap_or_default();
        let spec = persistent.spec.unwrap_or_default();
        let block = spec.volume_mode.as_deref() == Some("Block");
        check_mode(pod, &volume.name, block)?;
        self.check_place(&name, &spec).await?;
        let annotations = persistent.metadata.annotations.as_ref();
        if let Some(group) = annotations.and_then(|all| all.get(GROUP)?.parse().ok()) {
            self.groups.lock().insert((pods::uid(pod).to_owned(), volume.name.clone()), group);
        }
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        let only_readers = !modes.is_empty() && modes.iter().all(|mode| mode == "ReadOnlyMany");
        if let Some(source) = &spec.csi {
            let wanted = Wanted::persistent(&name, &spec, source, read_only);
            let alone = modes.iter().any(|mode| mode == "ReadWriteOncePod");
            if alone && self.csi.is_used_by_other(pods::uid(pod), &wanted).await {
                let message = "volume uses the ReadWriteOncePod access mode and is already in use by another pod";
                return Err(Failure::Step { operation: SET_UP, name: Some(name), message: message.to_owned() });
            }
            let size = spec.capacity.as_ref().and_then(|capacity| capacity.get("storage")).cloned();
            return self.of_driver(pod, volume, &wanted, Some((&claim, size))).await;
        }
        let read_only = read_only || only_readers;
        let named = |message: String| Failure::Step { operation: SET_UP, name: Some(name.clone()), message };
        if let Some(source) = &spec.local {
            let wanted = Local { pod, volume: &volume.name, name: &name, source, options: &spec, read_only, block };
            return self.local(&wanted).await.map_err(named);
        }
        if block {
            return Err(Failure::Processing("no volume plugin matched: volumeMode Block is not supported".to_owned()));
        }
        if let Some(source) = spec.host_path {
            let (path, kind) = (PathBuf::from(&source.path), source.type_.unwrap_or_default());
            let checked = path.clone();
            blocking(move || Ok(hostpath::prepare(&checked, &kind))).await.flatten().map_err(named)?;
            return Ok(Ready::Path { path, read_only });
        }
        Err(Failure::Processing("no volume plugin matched".to_owned()))
    }

    /// Whether a PersistentVolume can be had from this node.
    async fn check_place(&self, name: &str, spec: &PersistentVolumeSpec) -> Result<(), Failure> {
        let Some(required) = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref()) else {
            return Ok(());
        };
        let failed = |message: String| Failure::Step {
            operation: "MountVolume.NodeAffinity check",
            name: Some(name.to_owned()),
            message,
        };
        let node = self.objects.node(self.csi.node()).await.map_err(|error| failed(error.to_string()))?;
        if selector::matches(required, &node) {
            return Ok(());
        }
        Err(failed("no matching NodeSelectorTerms".to_owned()))
    }
}

/// Directories are mounted, devices are not.
fn check_mode(pod: &Pod, volume: &str, block: bool) -> Result<(), Failure> {
    let mut containers = pods::all_containers(pod);
    let wrong = containers.any(|(container, _)| match block {
        true => container.volume_mounts.iter().flatten().any(|mount| mount.name == volume),
        false => container.volume_devices.iter().flatten().any(|device| device.name == volume),
    });
    let (mode, field) = if block { ("Block", "volumeMounts") } else { ("Filesystem", "volumeDevices") };
    match wrong {
        true => Err(Failure::Processing(format!("volume {volume} has volumeMode {mode}, but is specified in {field}"))),
        false => Ok(()),
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
