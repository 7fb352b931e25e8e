//! Files that are read again when they change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{Authorities, ServingCertificate, TlsError, certificates, read};
use crate::tasks::TaskGroup;

/// How often files are looked at: one system call each.
const PERIOD: Duration = Duration::from_secs(5);
/// Looks after which contents are compared whatever the time stamps say.
const FULL_EVERY: u32 = 12;

/// A file and what it held when it was last looked at.
#[derive(Debug)]
pub struct WatchedFile {
    path: PathBuf,
    stamp: Option<(SystemTime, u64, u64)>,
    content: Vec<u8>,
    looks: u32,
}

impl WatchedFile {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<Self, TlsError> {
        let content = read(path)?;
        Ok(Self { path: path.to_owned(), stamp: stamp(path), content, looks: 0 })
    }

    /// What the file held.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Looks at the file; whether it holds something else now. A file that cannot be read has not changed.
    pub fn changed(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        let now = stamp(&self.path);
        if now == self.stamp && !self.looks.is_multiple_of(FULL_EVERY) {
            return false;
        }
        let Ok(content) = read(&self.path) else { return false };
        self.stamp = now;
        let changed = content != self.content;
        self.content = content;
        changed
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len(), meta.ino()))
}

/// Loads a certificate and its key, and serves what the files hold from then on.
pub fn watch_pair(certificate: &Path, key: &Path, tasks: &TaskGroup) -> Result<Arc<ServingCertificate>, TlsError> {
    let mut files = (WatchedFile::open(certificate)?, WatchedFile::open(key)?);
    let serving = Arc::new(ServingCertificate::new(files.0.content(), files.1.content())?);
    let shared = Arc::clone(&serving);
    let name = certificate.display().to_string();
    tasks.spawn_cancellable(format!("certificate {name}"), async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            // Both are looked at, also when the first has changed.
            if files.0.changed() | files.1.changed() {
                match shared.replace(files.0.content(), files.1.content()) {
                    Ok(()) => tracing::info!(certificate = name, "Reloaded serving certificate"),
                    // Half of a pair that is being replaced; the other half comes at the next look.
                    Err(error) => {
                        tracing::warn!(err = %error, certificate = name, "Loading serving certificate failed")
                    }
                }
            }
        }
    });
    Ok(serving)
}

/// Loads a bundle of authorities, and trusts what the file holds from then on.
pub fn watch_bundle(path: &Path, tasks: &TaskGroup) -> Result<Arc<Authorities>, TlsError> {
    let mut file = WatchedFile::open(path)?;
    let authorities = Arc::new(Authorities::new(certificates(file.content())?)?);
    let shared = Arc::clone(&authorities);
    let name = path.display().to_string();
    tasks.spawn_cancellable(format!("CA bundle {name}"), async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            if file.changed() {
                let replaced = certificates(file.content()).and_then(|list| shared.replace(list));
                match replaced {
                    Ok(()) => tracing::info!(bundle = name, "Reloaded CA bundle"),
                    Err(error) => tracing::warn!(err = %error, bundle = name, "Loading CA bundle failed"),
                }
            }
        }
    });
    Ok(authorities)
}
