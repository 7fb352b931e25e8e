//! What the kernel tells of files.

use std::{
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;

/// A queue of events that a task can wait for.
pub(crate) struct Listener(Inotify);

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Listener {
    /// Makes a queue, which does not block, known to the reactor.
    pub(crate) fn register(inotify: Inotify) -> std::io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the one that `Listener` owns for as long as it lives, and `AsyncFd` drops it after
        // it has ended the registration.
        #[allow(unsafe_code)]
        let registered = unsafe { AsyncFd::register(Self(inotify)) };
        registered.map_err(std::io::Error::from)
    }

    /// Takes what has happened.
    pub(crate) fn read(&self) -> nix::Result<Vec<InotifyEvent>> {
        self.0.read_events()
    }
}

/// Resolves when anybody opens a file from now on, or deletes it: another process wants the lock that it stands for.
pub fn contention(path: &Path) -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    inotify.add_watch(path, AddWatchFlags::IN_OPEN | AddWatchFlags::IN_DELETE_SELF)?;
    let heard = Listener::register(inotify)?;
    Ok(async move {
        if let Err(error) = heard.readable().await {
            tracing::error!(%error, "Watching the lock file ended");
            std::future::pending::<()>().await;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_opens_the_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = std::fs::File::create(&path).unwrap();
        let contended = tokio::spawn(contention(&path).unwrap());
        tokio::task::yield_now().await;
        assert!(!contended.is_finished());
        let _other = std::fs::File::open(&path).unwrap();
        contended.await.unwrap();
        drop(held);
    }
}
