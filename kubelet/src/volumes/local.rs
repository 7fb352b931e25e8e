//! Local volumes: directories and devices of the node that PersistentVolumes stand for.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LocalVolumeSource, PersistentVolumeSpec, Pod};

use super::{Placed, Ready, Volumes, blocking, fs_group, ownership};
use crate::events::EventType;
use crate::paths::Paths;
use crate::platform::Platform;
use crate::pods;

/// Directory name of local volumes below a Pod's volumes.
const LOCAL: &str = "kubernetes.io~local-volume";
const DEFAULT_FS: &str = "ext4";

/// A local volume as a Pod wants it.
pub(super) struct Local<'a> {
    pub pod: &'a Pod,
    pub volume: &'a str,
    /// The PersistentVolume's name.
    pub name: &'a str,
    pub source: &'a LocalVolumeSource,
    pub options: &'a PersistentVolumeSpec,
    pub read_only: bool,
    pub block: bool,
}

impl Volumes {
    pub(super) async fn local(&self, wanted: &Local<'_>) -> Result<Ready, String> {
        if wanted.block { self.local_device(wanted).await } else { self.local_directory(wanted).await }
    }

    /// Links a device of the node into the Pod's directory.
    async fn local_device(&self, wanted: &Local<'_>) -> Result<Ready, String> {
        let source = PathBuf::from(&wanted.source.path);
        let link = self.paths.device(pods::uid(wanted.pod), LOCAL, wanted.name);
        let path = link.clone();
        blocking(move || {
            if !fs::metadata(&source)?.file_type().is_block_device() {
                return Err(io::Error::other(format!("{} is not a block device", source.display())));
            }
            if fs::read_link(&link).is_ok_and(|old| old == source) {
                return Ok(());
            }
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent)?;
            }
            if fs::symlink_metadata(&link).is_ok() {
                fs::remove_file(&link)?;
            }
            symlink(&source, &link)
        })
        .await?;
        Ok(Ready::Device { path, read_only: wanted.read_only })
    }

    /// Binds a directory of the node, or the file system of a device, into the Pod's directory.
    async fn local_directory(&self, wanted: &Local<'_>) -> Result<Ready, String> {
        let target = self.paths.volume(pods::uid(wanted.pod), LOCAL, wanted.name);
        let global = global(&self.paths).join(wanted.name);
        let fs_type = wanted.source.fs_type.clone().filter(|kind| !kind.is_empty());
        let options = wanted.options.mount_options.clone().unwrap_or_default();
        let group = fs_group(wanted.pod).filter(|_| !wanted.read_only);
        let (platform, at, source) = (Arc::clone(&self.platform), target.clone(), PathBuf::from(&wanted.source.path));
        let others = blocking(move || {
            let found = fs::metadata(&source)?;
            let root = if found.is_dir() {
                source
            } else if found.file_type().is_block_device() {
                mount_device(&*platform, &source, &global, fs_type.as_deref().unwrap_or(DEFAULT_FS), &options)?;
                global
            } else {
                return Err(io::Error::other(format!(
                    "path {:?} is neither a directory nor a block device",
                    source.display().to_string()
                )));
            };
            let fresh = !super::is_mounted(&*platform, &at)?;
            platform.bind_beneath(&root, Path::new(""), &at)?;
            let Some((group, policy)) = group else { return Ok(None) };
            let other = fs::metadata(&at)?.gid();
            let is_shared = fresh && other != 0 && other != group;
            ownership::apply(&at, group, false, policy)?;
            Ok(is_shared.then_some((group, other)))
        })
        .await?;
        if let Some((group, other)) = others {
            let text = format!(
                "The requested fsGroup is {group}, but the volume {} has GID {other}. The volume may not be shareable.",
                wanted.name
            );
            self.events.pod(wanted.pod, EventType::Warning, "AlreadyMountedVolume", text);
        }
        self.place(wanted.pod, wanted.volume, Placed { path: Some(target.clone()), driver: None });
        Ok(Ready::Path { path: target, read_only: wanted.read_only })
    }
}

/// Where the file systems of devices are mounted for all Pods.
fn global(paths: &Paths) -> PathBuf {
    paths.root().join("plugins/kubernetes.io/local-volume/mounts")
}

/// Local volumes in a Pod's directory.
pub(super) fn names(paths: &Paths, uid: &str) -> Vec<OsString> {
    let entries = fs::read_dir(paths.volumes(uid).join(LOCAL)).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

/// Unmounts file systems that no Pod has any more; the directories of the Pod that had them are unmounted already.
pub(super) fn release(platform: &dyn Platform, paths: &Paths, names: &[OsString]) -> io::Result<()> {
    for name in names {
        let target = global(paths).join(name);
        if !super::is_mounted(platform, &target)? {
            continue;
        }
        let suffix = Path::new("volumes").join(LOCAL).join(name);
        if platform.mounts_below(&paths.pods())?.iter().any(|point| point.ends_with(&suffix)) {
            continue;
        }
        platform.unmount(&target)?;
        fs::remove_dir(&target)?;
    }
    Ok(())
}

/// Mounts a device where every Pod that uses it finds it, once, with a file system made if it has none.
fn mount_device(
    platform: &dyn Platform,
    device: &Path,
    target: &Path,
    fs_type: &str,
    options: &[String],
) -> io::Result<()> {
    if super::is_mounted(platform, target)? {
        return Ok(());
    }
    fs::create_dir_all(target)?;
    platform.format_and_mount(device, target, fs_type, options)
}
