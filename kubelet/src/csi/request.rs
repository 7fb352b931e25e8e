//! What drivers are told about a volume.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{CSIPersistentVolumeSource, CSIVolumeSource, PersistentVolumeSpec, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use proto::csi::VolumeCapability;
use proto::csi::volume_capability::access_mode::Mode;
use proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

use super::driver::Abilities;
use super::layout::{Lifecycle, digest};
use crate::pods;

const POD_INFO: &str = "csi.storage.k8s.io/";
/// The key of tokens in context or secrets.
pub(super) const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// A Secret by namespace and name.
pub(super) type SecretName = (String, String);

/// A volume of a driver as a Pod wants it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// The PersistentVolume's name; the volume's own, if it has none.
    pub spec_name: String,
    pub driver: String,
    pub handle: String,
    pub lifecycle: Lifecycle,
    pub block: bool,
    pub read_only: bool,
    pub(super) fs_type: String,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) access_modes: Vec<String>,
    pub(super) mount_options: Vec<String>,
    pub(super) stage_secret: Option<SecretName>,
    pub(super) publish_secret: Option<SecretName>,
    pub(super) expand_secret: Option<SecretName>,
}

impl Wanted {
    /// A PersistentVolume.
    pub(crate) fn persistent(
        name: &str,
        spec: &PersistentVolumeSpec,
        source: &CSIPersistentVolumeSource,
        read_only: bool,
    ) -> Self {
        let secret = |reference: &Option<k8s_openapi::api::core::v1::SecretReference>| {
            let reference = reference.as_ref()?;
            Some((reference.namespace.clone().unwrap_or_default(), reference.name.clone().unwrap_or_default()))
        };
        Self {
            spec_name: name.to_owned(),
            driver: source.driver.clone(),
            handle: source.volume_handle.clone(),
            lifecycle: Lifecycle::Persistent,
            block: spec.volume_mode.as_deref() == Some("Block"),
            read_only: read_only || source.read_only == Some(true),
            fs_type: source.fs_type.clone().unwrap_or_default(),
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            access_modes: spec.access_modes.clone().unwrap_or_default(),
            mount_options: spec.mount_options.clone().unwrap_or_default(),
            stage_secret: secret(&source.node_stage_secret_ref),
            publish_secret: secret(&source.node_publish_secret_ref),
            expand_secret: secret(&source.node_expand_secret_ref),
        }
    }

    /// A volume that lives in a Pod.
    pub(crate) fn inline(pod: &Pod, name: &str, source: &CSIVolumeSource) -> Self {
        let secret = source.node_publish_secret_ref.as_ref();
        Self {
            spec_name: name.to_owned(),
            driver: source.driver.clone(),
            handle: format!("csi-{}", digest(&[pods::uid(pod), name])),
            lifecycle: Lifecycle::Ephemeral,
            block: false,
            read_only: source.read_only == Some(true),
            fs_type: source.fs_type.clone().unwrap_or_default(),
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            access_modes: vec!["ReadWriteOnce".to_owned()],
            mount_options: Vec::new(),
            stage_secret: None,
            publish_secret: secret.map(|secret| (pods::namespace(pod).to_owned(), secret.name.clone())),
            expand_secret: None,
        }
    }

    /// Access type and mode; `group` for drivers that give files to a group themselves.
    pub(super) fn capability(&self, abilities: Abilities, group: Option<u32>) -> VolumeCapability {
        let access_type = if self.block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_options.clone(),
                volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
            })
        };
        let mode = access_mode(self.access_modes.first().map(String::as_str), abilities.single_node_multi_writer);
        VolumeCapability { access_type: Some(access_type), access_mode: Some(AccessMode { mode: mode as i32 }) }
    }

    /// Whether the kubelet gives the files to the Pod's group.
    pub(super) fn wants_group(&self, driver: Option<&CSIDriver>) -> bool {
        let policy = driver.and_then(|driver| driver.spec.fs_group_policy.as_deref());
        match policy {
            _ if self.read_only || self.block => false,
            Some("None") => false,
            Some("File") => true,
            _ => {
                let alone =
                    self.access_modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
                !self.fs_type.is_empty() && alone
            }
        }
    }

    /// Why the driver does not serve volumes of this life.
    pub(super) fn check_lifecycle(&self, driver: Option<&CSIDriver>) -> Result<(), String> {
        let (mode, name) = (self.lifecycle.as_str(), &self.driver);
        let Some(driver) = driver else {
            return match self.lifecycle {
                Lifecycle::Persistent => Ok(()),
                Lifecycle::Ephemeral => {
                    Err(format!("volume mode {mode:?} not supported by driver {name} (no CSIDriver object)"))
                }
            };
        };
        let default = ["Persistent".to_owned()];
        let modes = driver.spec.volume_lifecycle_modes.as_deref().filter(|modes| !modes.is_empty()).unwrap_or(&default);
        if modes.iter().any(|one| one == mode) {
            return Ok(());
        }
        let listed: Vec<String> = modes.iter().map(|mode| format!("{mode:?}")).collect();
        Err(format!("volume mode {mode:?} not supported by driver {name} (only supports [{}])", listed.join(" ")))
    }

    /// The volume's attributes, with what the driver wants to know about the Pod.
    pub(super) fn context(&self, pod: &Pod, driver: Option<&CSIDriver>) -> BTreeMap<String, String> {
        let mut context = self.attributes.clone();
        if driver.is_some_and(|driver| driver.spec.pod_info_on_mount == Some(true)) {
            let account = pods::spec(pod).service_account_name.clone().unwrap_or_default();
            let ephemeral = (self.lifecycle == Lifecycle::Ephemeral).to_string();
            context.extend(
                [
                    ("pod.name", pods::name(pod).to_owned()),
                    ("pod.namespace", pods::namespace(pod).to_owned()),
                    ("pod.uid", pods::uid(pod).to_owned()),
                    ("serviceAccount.name", account),
                    ("ephemeral", ephemeral),
                ]
                .map(|(key, value)| (format!("{POD_INFO}{key}"), value)),
            );
        }
        context
    }
}

fn access_mode(mode: Option<&str>, precise: bool) -> Mode {
    match mode {
        Some("ReadWriteOnce") if precise => Mode::SingleNodeMultiWriter,
        Some("ReadWriteOncePod") if precise => Mode::SingleNodeSingleWriter,
        Some("ReadWriteOnce" | "ReadWriteOncePod") => Mode::SingleNodeWriter,
        Some("ReadOnlyMany") => Mode::MultiNodeReaderOnly,
        Some("ReadWriteMany") => Mode::MultiNodeMultiWriter,
        _ => Mode::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wanted(spec: Value) -> Wanted {
        let spec: PersistentVolumeSpec = serde_json::from_value(spec).unwrap();
        Wanted::persistent("pv", &spec, spec.csi.as_ref().unwrap(), false)
    }

    fn driver(spec: Value) -> CSIDriver {
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap()
    }

    #[test]
    fn access_modes_depend_on_what_the_driver_tells_apart() {
        for (mode, precise, expected) in [
            ("ReadWriteOnce", false, Mode::SingleNodeWriter),
            ("ReadWriteOnce", true, Mode::SingleNodeMultiWriter),
            ("ReadWriteOncePod", false, Mode::SingleNodeWriter),
            ("ReadWriteOncePod", true, Mode::SingleNodeSingleWriter),
            ("ReadOnlyMany", true, Mode::MultiNodeReaderOnly),
            ("ReadWriteMany", false, Mode::MultiNodeMultiWriter),
        ] {
            assert_eq!(access_mode(Some(mode), precise), expected, "{mode} {precise}");
        }
    }

    #[test]
    fn groups_follow_the_policy() {
        let csi = |fs_type: &str| json!({"driver": "d", "volumeHandle": "h", "fsType": fs_type});
        let rwo = wanted(json!({"accessModes": ["ReadWriteOnce"], "csi": csi("ext4")}));
        let rwx = wanted(json!({"accessModes": ["ReadWriteMany"], "csi": csi("ext4")}));
        let plain = wanted(json!({"accessModes": ["ReadWriteOnce"], "csi": csi("")}));
        assert!(rwo.wants_group(None) && !rwx.wants_group(None) && !plain.wants_group(None));
        let file = driver(json!({"fsGroupPolicy": "File"}));
        assert!(rwx.wants_group(Some(&file)) && plain.wants_group(Some(&file)));
        assert!(!rwo.wants_group(Some(&driver(json!({"fsGroupPolicy": "None"})))));
        let read_only = Wanted { read_only: true, ..rwo };
        assert!(!read_only.wants_group(Some(&file)));
    }

    #[test]
    fn lifecycles_are_what_the_driver_lists() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}})).unwrap();
        let source = serde_json::from_value(json!({"driver": "d"})).unwrap();
        let inline = Wanted::inline(&pod, "v", &source);
        let none = "volume mode \"Ephemeral\" not supported by driver d (no CSIDriver object)";
        assert_eq!(inline.check_lifecycle(None), Err(none.to_owned()));
        let only = "volume mode \"Ephemeral\" not supported by driver d (only supports [\"Persistent\"])";
        assert_eq!(inline.check_lifecycle(Some(&driver(json!({})))), Err(only.to_owned()));
        let both = driver(json!({"volumeLifecycleModes": ["Persistent", "Ephemeral"], "podInfoOnMount": true}));
        assert_eq!(inline.check_lifecycle(Some(&both)), Ok(()));
        let context = inline.context(&pod, Some(&both));
        assert_eq!(context["csi.storage.k8s.io/ephemeral"], "true");
        assert_eq!(context["csi.storage.k8s.io/pod.uid"], "u");
        assert!(inline.context(&pod, None).is_empty());
        assert_eq!(inline.handle, format!("csi-{}", digest(&["uv"])));
    }
}
