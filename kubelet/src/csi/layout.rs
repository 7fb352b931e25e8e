//! Where volumes of drivers are, and the notes kept beside them by which a later kubelet finds them again.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint;
use crate::paths::Paths;

/// Name of the plugin's directories below those of Pods.
pub(crate) const PLUGIN: &str = "kubernetes.io~csi";
const DATA: &str = "vol_data.json";
const DIR_MODE: u32 = 0o750;

/// Whose life a volume shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lifecycle {
    /// A PersistentVolume.
    Persistent,
    /// Written into the Pod.
    Ephemeral,
}

impl Lifecycle {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Persistent => "Persistent",
            Self::Ephemeral => "Ephemeral",
        }
    }
}

/// The note beside a published volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VolumeData {
    #[serde(rename = "specVolID")]
    pub spec_name: String,
    pub volume_handle: String,
    pub driver_name: String,
    #[serde(default)]
    pub node_name: String,
    #[serde(default, rename = "attachmentID")]
    pub attachment: String,
    #[serde(default = "persistent", rename = "volumeLifecycleMode")]
    pub lifecycle: Lifecycle,
}

fn persistent() -> Lifecycle {
    Lifecycle::Persistent
}

/// The note beside a staged volume.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StagedData<'a> {
    volume_handle: &'a str,
    driver_name: &'a str,
}

/// A volume that was published for a Pod, as found on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub uid: String,
    pub data: VolumeData,
    /// Directory with the note.
    pub dir: PathBuf,
    pub block: bool,
}

/// Hex of a hash, as directories and attachments are named.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part.as_bytes()));
    hex::encode(hash.finalize())
}

/// The name of the VolumeAttachment of a volume on a node.
pub(crate) fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", digest(&[handle, driver, node]))
}

/// The name by which Nodes list a volume.
pub(crate) fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// Paths of drivers' volumes.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    paths: Paths,
}

impl Layout {
    pub(super) fn new(paths: Paths) -> Self {
        Self { paths }
    }

    fn root(&self) -> PathBuf {
        self.paths.root().join("plugins/kubernetes.io/csi")
    }

    fn devices(&self) -> PathBuf {
        self.root().join("volumeDevices")
    }

    /// Where a volume is staged; block volumes are staged by the name of the PersistentVolume.
    pub(super) fn staging(&self, driver: &str, handle: &str, block: Option<&str>) -> PathBuf {
        match block {
            Some(spec_name) => self.devices().join("staging").join(spec_name),
            None => self.root().join(driver).join(digest(&[handle])).join("globalmount"),
        }
    }

    /// Directory of a volume in a Pod.
    pub(super) fn pod_dir(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.paths.volume(uid, PLUGIN, spec_name)
    }

    /// Where a driver publishes a directory.
    pub(super) fn target(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.pod_dir(uid, spec_name).join("mount")
    }

    /// Directory with the note about a block volume of a Pod.
    fn device_dir(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.devices().join(spec_name).join("data").join(uid)
    }

    /// Where a driver publishes a device.
    pub(super) fn device_target(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.devices().join("publish").join(spec_name).join(uid)
    }

    /// The link to a device in a Pod's directory.
    pub(super) fn device_link(&self, uid: &str, spec_name: &str) -> PathBuf {
        self.paths.device(uid, PLUGIN, spec_name)
    }

    /// Makes the directory for staging with its note.
    pub(super) fn prepare_staging(&self, staging: &Path, data: &VolumeData, block: bool) -> io::Result<()> {
        make_dir(staging)?;
        let note = StagedData { volume_handle: &data.volume_handle, driver_name: &data.driver_name };
        match staging.parent().filter(|_| !block) {
            Some(parent) => write(parent, &serde_json::to_vec(&note)?),
            None => Ok(()),
        }
    }

    /// Makes everything around a target that the driver will make, with the note.
    pub(super) fn prepare_target(&self, uid: &str, data: &VolumeData, block: bool) -> io::Result<PathBuf> {
        let spec_name = data.spec_name.as_str();
        let (dir, target) = if block {
            (self.device_dir(uid, spec_name), self.device_target(uid, spec_name))
        } else {
            (self.pod_dir(uid, spec_name), self.target(uid, spec_name))
        };
        make_dir(&dir)?;
        if let Some(parent) = target.parent() {
            make_dir(parent)?;
        }
        write(&dir, &serde_json::to_vec(data)?)?;
        Ok(target)
    }

    /// Links a published device into the Pod's directory.
    pub(super) fn link_device(&self, uid: &str, spec_name: &str) -> io::Result<PathBuf> {
        let link = self.device_link(uid, spec_name);
        let target = self.device_target(uid, spec_name);
        if fs::read_link(&link).is_ok_and(|old| old == target) {
            return Ok(link);
        }
        if let Some(parent) = link.parent() {
            make_dir(parent)?;
        }
        gone(fs::remove_file(&link))?;
        std::os::unix::fs::symlink(&target, &link)?;
        Ok(link)
    }

    /// Removes what the kubelet made around a target that is unpublished.
    pub(super) fn remove_target(&self, found: &Found) -> io::Result<()> {
        let (uid, spec_name) = (found.uid.as_str(), found.data.spec_name.as_str());
        if found.block {
            gone(fs::remove_file(self.device_link(uid, spec_name)))?;
            gone(fs::remove_file(self.device_target(uid, spec_name)))?;
        } else {
            gone(fs::remove_dir(self.target(uid, spec_name)))?;
        }
        gone(fs::remove_file(found.dir.join(DATA)))?;
        gone(fs::remove_dir(&found.dir))?;
        if found.block {
            // Shared with other Pods: who is last finds them empty.
            for dir in [self.devices().join("publish").join(spec_name), self.devices().join(spec_name).join("data")] {
                drop(fs::remove_dir(dir));
            }
            drop(fs::remove_dir(self.devices().join(spec_name)));
        }
        Ok(())
    }

    /// Removes the directory of a volume that is unstaged.
    pub(super) fn remove_staging(&self, staging: &Path, block: bool) -> io::Result<()> {
        gone(fs::remove_dir(staging))?;
        match staging.parent().filter(|_| !block) {
            Some(parent) => {
                gone(fs::remove_file(parent.join(DATA)))?;
                gone(fs::remove_dir(parent))
            }
            None => Ok(()),
        }
    }

    /// What was published for a Pod.
    pub(super) fn of_pod(&self, uid: &str) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for dir in children(&self.paths.volumes(uid).join(PLUGIN))? {
            found.extend(read(uid, dir, false)?);
        }
        for volume in children(&self.devices())? {
            found.extend(read(uid, volume.join("data").join(uid), true)?);
        }
        Ok(found)
    }

    /// What was published for anybody.
    pub(super) fn all(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for pod in children(&self.paths.pods())? {
            let uid = name(&pod);
            for dir in children(&pod.join("volumes").join(PLUGIN))? {
                found.extend(read(&uid, dir, false)?);
            }
        }
        for volume in children(&self.devices())? {
            for dir in children(&volume.join("data"))? {
                found.extend(read(&name(&dir), dir, true)?);
            }
        }
        Ok(found)
    }
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A directory without a note holds nothing that a driver knows.
fn read(uid: &str, dir: PathBuf, block: bool) -> io::Result<Option<Found>> {
    match fs::read(dir.join(DATA)) {
        Ok(bytes) => {
            let data = serde_json::from_slice(&bytes)?;
            Ok(Some(Found { uid: uid.to_owned(), data, dir, block }))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    if !dir.is_dir() {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE))?;
    }
    Ok(())
}

/// Whole or not at all: a torn note would keep a volume from being unpublished.
fn write(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let path = dir.join(DATA);
    if fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    checkpoint::write(&path, bytes)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(lifecycle: Lifecycle) -> VolumeData {
        VolumeData {
            spec_name: "pv".into(),
            volume_handle: "h".into(),
            driver_name: "d.example".into(),
            node_name: "n".into(),
            attachment: attachment_name("h", "d.example", "n"),
            lifecycle,
        }
    }

    #[test]
    fn what_was_made_is_found_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(Paths::new(root.path(), root.path().join("logs"), root.path().join("links")));
        let target = layout.prepare_target("u1", &data(Lifecycle::Persistent), false).unwrap();
        assert_eq!(target, root.path().join("pods/u1/volumes/kubernetes.io~csi/pv/mount"));
        assert!(!target.exists(), "the driver makes it");
        fs::create_dir(&target).unwrap();
        let device = layout.prepare_target("u2", &data(Lifecycle::Persistent), true).unwrap();
        fs::write(&device, "").unwrap();
        let link = layout.link_device("u2", "pv").unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), device);
        assert_eq!(layout.all().unwrap().len(), 2);
        let text = fs::read_to_string(target.with_file_name(DATA)).unwrap();
        assert!(text.contains(r#""specVolID":"pv""#) && text.contains(r#""volumeLifecycleMode":"Persistent""#));
        for uid in ["u1", "u2"] {
            let [found] = <[Found; 1]>::try_from(layout.of_pod(uid).unwrap()).unwrap();
            layout.remove_target(&found).unwrap();
            assert!(layout.of_pod(uid).unwrap().is_empty());
        }
        assert!(!target.parent().unwrap().exists() && !link.exists());
    }

    #[test]
    fn names_are_those_that_the_attach_side_uses() {
        let name = attachment_name("vol", "drv", "node");
        assert_eq!(name, format!("csi-{}", digest(&["voldrvnode"])));
        assert_eq!(name.len(), 4 + 64);
        assert_eq!(unique_name("drv", "vol"), "kubernetes.io/csi/drv^vol");
    }
}
