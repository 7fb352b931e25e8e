//! What is to be done for a claim or a volume: no I/O.

use std::path::{Path, PathBuf};

use controller::events::reference_to;
use k8s_openapi::{
    api::{
        core::v1::{
            LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
            PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
        },
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;

use crate::PROVISIONER;

const STORAGE_PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const HOSTNAME: &str = "kubernetes.io/hostname";
/// Access modes that one node can give.
const MODES: [&str; 2] = ["ReadWriteOnce", "ReadWriteOncePod"];

/// The node that is provisioned on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Name of the Node.
    pub(crate) node: String,
    /// Its label `kubernetes.io/hostname`.
    pub(crate) hostname: String,
    /// Directory that holds the directories of volumes.
    pub(crate) root: PathBuf,
}

fn annotation<'a, K: Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether a claim waits for a volume of this node.
pub(crate) fn is_wanted(claim: &PersistentVolumeClaim, place: &Place) -> bool {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    named.is_empty()
        && claim.metadata.deletion_timestamp.is_none()
        && STORAGE_PROVISIONER.iter().any(|key| annotation(claim, key) == Some(PROVISIONER))
        && annotation(claim, SELECTED_NODE) == Some(place.node.as_str())
}

/// Name of a claim's volume. `None` if the UID is none: it becomes the name of a directory.
pub(crate) fn volume_name(claim: &PersistentVolumeClaim) -> Option<String> {
    let uid = claim.metadata.uid.as_deref()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!uid.is_empty() && uid.chars().all(plain)).then(|| format!("pvc-{uid}"))
}

/// The volume for a claim, or why there cannot be one.
pub(crate) fn volume_for(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    place: &Place,
) -> Result<PersistentVolume, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    let name = volume_name(claim).ok_or("the claim has no usable UID")?;
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("block volumes are not supported".into());
    }
    let modes = spec.access_modes.unwrap_or_default();
    if let Some(mode) = modes.iter().find(|mode| !MODES.contains(&mode.as_str())) {
        return Err(format!("access mode {mode} is not supported, only {} are", MODES.join(" and ")));
    }
    if spec.selector.is_some() {
        return Err("claim.Spec.Selector is not supported".into());
    }
    let request = spec.resources.and_then(|r| r.requests).and_then(|mut r| r.remove("storage"));
    let size = request.ok_or("the claim requests no storage")?;
    let path = place.root.join(&name).to_string_lossy().into_owned();
    Ok(PersistentVolume {
        metadata: ObjectMeta {
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            name: Some(name),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(modes),
            capacity: Some([("storage".to_owned(), size)].into()),
            claim_ref: Some(reference_to(claim)),
            local: Some(LocalVolumeSource { path, fs_type: None }),
            mount_options: class.mount_options.clone(),
            node_affinity: Some(affinity(&place.hostname)),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".into())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".into()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    })
}

fn affinity(hostname: &str) -> VolumeNodeAffinity {
    let here = NodeSelectorRequirement {
        key: HOSTNAME.into(),
        operator: "In".into(),
        values: Some(vec![hostname.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![here]), match_fields: None };
    VolumeNodeAffinity { required: Some(NodeSelector { node_selector_terms: vec![term] }) }
}

/// Whether a volume of this node is released and its class said to delete it.
pub(crate) fn is_expired(volume: &PersistentVolume, place: &Place) -> bool {
    let Some(spec) = &volume.spec else { return false };
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    annotation(volume, PROVISIONED_BY) == Some(PROVISIONER)
        && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete")
        && phase == Some("Released")
        && spec.node_affinity.as_ref() == Some(&affinity(&place.hostname))
        && directory_of(volume, &place.root).is_some()
}

/// The directory of a volume: only one that this program would have made is ever removed.
pub(crate) fn directory_of(volume: &PersistentVolume, root: &Path) -> Option<PathBuf> {
    let name = volume.metadata.name.as_deref()?;
    let uid = name.strip_prefix("pvc-")?;
    let plain = !uid.is_empty() && uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let own = root.join(name);
    let said = volume.spec.as_ref()?.local.as_ref()?.path.as_str();
    (plain && Path::new(said) == own).then_some(own)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn place() -> Place {
        Place { node: "n1".into(), hostname: "h1".into(), root: "/data".into() }
    }

    fn claim(annotations: Value, spec: Value) -> PersistentVolumeClaim {
        let meta = json!({"name": "c", "namespace": "ns", "uid": "12-ab", "annotations": annotations});
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    fn spec(mode: &str) -> Value {
        json!({"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}})
    }

    fn class() -> StorageClass {
        serde_json::from_value(json!({"metadata": {"name": "local-path"}, "provisioner": PROVISIONER})).unwrap()
    }

    #[test]
    fn claims_of_this_node_are_wanted() {
        let told = |provisioner: &str, node: &str| json!({STORAGE_PROVISIONER[0]: provisioner, SELECTED_NODE: node});
        assert!(is_wanted(&claim(told(PROVISIONER, "n1"), spec("ReadWriteOnce")), &place()));
        assert!(!is_wanted(&claim(told(PROVISIONER, "n2"), spec("ReadWriteOnce")), &place()));
        assert!(!is_wanted(&claim(told("other", "n1"), spec("ReadWriteOnce")), &place()));
        assert!(!is_wanted(&claim(told(PROVISIONER, "n1"), json!({"volumeName": "v"})), &place()));
    }

    #[test]
    fn a_volume_is_a_directory_of_the_node() {
        let volume = volume_for(&claim(json!({}), spec("ReadWriteOnce")), &class(), &place()).unwrap();
        assert_eq!(volume.metadata.name.as_deref(), Some("pvc-12-ab"));
        assert_eq!(directory_of(&volume, Path::new("/data")), Some(PathBuf::from("/data/pvc-12-ab")));
        let spec_of = volume.spec.as_ref().unwrap();
        assert_eq!(spec_of.persistent_volume_reclaim_policy.as_deref(), Some("Delete"));
        assert_eq!(spec_of.claim_ref.as_ref().unwrap().uid.as_deref(), Some("12-ab"));
        assert!(!is_expired(&volume, &place()), "it is not released");
        let mut released = volume;
        released.status = serde_json::from_value(json!({"phase": "Released"})).unwrap();
        assert!(is_expired(&released, &place()));
        assert!(!is_expired(&released, &Place { hostname: "h2".into(), ..place() }), "another node's");
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let why = |spec: Value| volume_for(&claim(json!({}), spec), &class(), &place()).unwrap_err();
        assert!(why(spec("ReadWriteMany")).starts_with("access mode ReadWriteMany is not supported"));
        let mut block = spec("ReadWriteOnce");
        block["volumeMode"] = json!("Block");
        assert_eq!(why(block), "block volumes are not supported");
    }

    #[test]
    fn only_own_directories_are_removed() {
        let volume = |name: &str, path: &str| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"local": {"path": path}}})).unwrap()
        };
        let root = Path::new("/data");
        assert_eq!(directory_of(&volume("pvc-1", "/etc"), root), None);
        assert_eq!(directory_of(&volume("pvc-../etc", "/data/pvc-../etc"), root), None);
        assert_eq!(directory_of(&volume("other", "/data/other"), root), None);
        assert_eq!(directory_of(&volume("pvc-", "/data/pvc-"), root), None);
    }
}
