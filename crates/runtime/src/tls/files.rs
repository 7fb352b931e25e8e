//! Files that are read again when they change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

use super::{Authorities, ServingCertificate, TlsError, certificates, read};
use crate::{inotify::Listener, tasks::TaskGroup};

/// How often files are looked at if nothing is heard of them, and if nothing can be heard.
const PERIOD: Duration = Duration::from_secs(60);
const BLIND_PERIOD: Duration = Duration::from_secs(5);
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

/// News of files: of everything in the directories that they are in, for they may be replaced, or be links.
struct News {
    heard: Option<AsyncFd<Listener>>,
}

impl News {
    /// Listens for changes.
    fn of(files: &[&Path]) -> Self {
        let heard = listen(files).map_err(|error| tracing::warn!(%error, "files are polled")).ok();
        Self { heard }
    }

    /// Resolves when files may have changed.
    async fn next(&mut self) {
        let Some(heard) = &self.heard else { return tokio::time::sleep(BLIND_PERIOD).await };
        let news = tokio::time::timeout(PERIOD, heard.readable()).await;
        if let Ok(Ok(mut ready)) = news {
            // What happened does not matter; that it was read does.
            let _read = heard.get_ref().read().is_ok();
            ready.clear_ready();
        } else if let Ok(Err(error)) = news {
            tracing::warn!(%error, "files are polled");
            self.heard = None;
        }
    }
}

fn listen(files: &[&Path]) -> std::io::Result<AsyncFd<Listener>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let changes = AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE;
    for file in files {
        let directory = file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        inotify.add_watch(directory, changes)?;
    }
    Listener::register(inotify)
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
    let mut news = News::of(&[certificate, key]);
    tasks.spawn_cancellable(format!("certificate {name}"), async move {
        loop {
            news.next().await;
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
    let mut news = News::of(&[path]);
    tasks.spawn_cancellable(format!("CA bundle {name}"), async move {
        loop {
            news.next().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_of_files_are_heard() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.crt");
        std::fs::write(&path, "old").unwrap();
        let heard = listen(&[&path]).unwrap();
        let new = directory.path().join("new");
        std::fs::write(&new, "new").unwrap();
        std::fs::rename(&new, &path).unwrap();
        let ready = tokio::time::timeout(Duration::from_secs(60), heard.readable()).await;
        assert!(ready.is_ok_and(|ready| ready.is_ok()));
        assert!(listen(&[Path::new("/no/such/directory/file")]).is_err());
    }
}
