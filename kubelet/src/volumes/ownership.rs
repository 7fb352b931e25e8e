//! fsGroup: group ownership of a volume's files.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::events::{EventType, Events};
use crate::pods;

const SETGID: u32 = 0o2000;

/// Whether the whole tree is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangePolicy {
    /// Every time.
    Always,
    /// Only when the root differs.
    OnRootMismatch,
}

/// Gives a tree to a group.
pub(super) fn apply(root: &Path, group: u32, read_only: bool, policy: ChangePolicy) -> io::Result<()> {
    if policy == ChangePolicy::OnRootMismatch {
        let meta = fs::symlink_metadata(root)?;
        let wanted = mask(true, read_only);
        if meta.gid() == group && meta.mode() & wanted == wanted {
            return Ok(());
        }
    }
    for entry in walkdir::WalkDir::new(root).follow_links(false) {
        let entry = entry.map_err(io::Error::other)?;
        let meta = entry.metadata().map_err(io::Error::other)?;
        if meta.file_type().is_symlink() {
            std::os::unix::fs::lchown(entry.path(), None, Some(group))?;
            continue;
        }
        chown(entry.path(), None, Some(group))?;
        let mode = meta.mode() & 0o7777 | mask(meta.is_dir(), read_only);
        fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Time after which the user is told why the Pod has not started.
const NOTICE: Duration = Duration::from_secs(30);

/// [`apply`] for a volume of a Pod; an event tells if it takes long.
pub(crate) async fn give(
    events: &Events,
    pod: &Pod,
    volume: &str,
    root: &Path,
    (group, policy): (u32, ChangePolicy),
) -> Result<(), String> {
    let dir = root.to_owned();
    let mut work = tokio::task::spawn_blocking(move || apply(&dir, group, false, policy));
    let result = match tokio::time::timeout(NOTICE, &mut work).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!(
                "Setting volume ownership for {}/volumes/{volume} is taking longer than expected, consider using OnRootMismatch - https://kubernetes.io/docs/tasks/configure-pod-container/security-context/#configure-volume-permission-and-ownership-change-policy-for-pods",
                pods::uid(pod)
            );
            events.pod(pod, EventType::Warning, "VolumePermissionChangeInProgress", text);
            work.await
        }
    };
    match result {
        Ok(done) => done.map_err(|error| format!("applyFSGroup failed for vol {volume}: {error}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Gives only the top directory to a group; what is below has been handled.
pub(super) fn apply_root(root: &Path, group: u32) -> io::Result<()> {
    let mode = fs::metadata(root)?.mode() & 0o7777;
    chown(root, None, Some(group))?;
    fs::set_permissions(root, fs::Permissions::from_mode(mode | mask(true, true)))
}

fn mask(is_dir: bool, read_only: bool) -> u32 {
    let base = if read_only { 0o440 } else { 0o660 };
    if is_dir { base | 0o110 | SETGID } else { base }
}
