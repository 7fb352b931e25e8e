//! Parts of volumes mounted on their own.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::Volumes;

/// Where one container mount's part of a volume is bound.
pub struct SubPath<'a> {
    /// Pod UID.
    pub uid: &'a str,
    /// Volume name.
    pub volume: &'a str,
    /// Container name.
    pub container: &'a str,
    /// Index of the mount in the container.
    pub index: usize,
    /// The volume's directory.
    pub root: &'a Path,
    /// Relative path inside it.
    pub path: &'a str,
}

/// At which step a part failed; the cause is only logged, since it may name host files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubPathStep {
    /// Creating missing directories.
    Create,
    /// Binding.
    Prepare,
}

impl Volumes {
    /// Binds a part of a volume to a place of its own and returns it.
    pub async fn bind_subpath(&self, wanted: SubPath<'_>) -> Result<PathBuf, SubPathStep> {
        let target =
            self.paths.subpaths(wanted.uid).join(wanted.volume).join(wanted.container).join(wanted.index.to_string());
        let (root, path) = (wanted.root.to_owned(), PathBuf::from(wanted.path));
        if !is_inside(&path) {
            return Err(SubPathStep::Prepare);
        }
        let (platform, bound) = (Arc::clone(&self.platform), target.clone());
        let done = tokio::task::spawn_blocking(move || {
            platform.make_beneath(&root, &path).map_err(|error| (SubPathStep::Create, error))?;
            platform.bind_beneath(&root, &path, &bound).map_err(|error| (SubPathStep::Prepare, error))
        });
        match done.await {
            Ok(Ok(())) => Ok(target),
            Ok(Err((step, error))) => {
                log(&wanted, &error);
                Err(step)
            }
            Err(error) => {
                log(&wanted, &io::Error::other(error));
                Err(SubPathStep::Prepare)
            }
        }
    }
}

fn log(wanted: &SubPath<'_>, error: &io::Error) {
    tracing::error!(volume = wanted.volume, container = wanted.container, %error, "sub path");
}

fn is_inside(path: &Path) -> bool {
    path.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}
