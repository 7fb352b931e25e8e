//! Being told by the kernel when a group's memory crosses a mark.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;

/// Tells that memory of a group crossed a mark, in either direction.
pub struct MemoryWatch {
    event: AsyncFd<OwnedFd>,
    /// The kernel forgets the mark when this is closed.
    _usage: File,
}

impl MemoryWatch {
    /// Watches the group of a directory of version 1. Must be called in a runtime.
    pub(super) fn new(dir: &Path, mark: u64) -> io::Result<Self> {
        let usage = File::open(dir.join("memory.usage_in_bytes"))?;
        // SAFETY: the call takes no pointers; what it answers is checked before it is used.
        #[allow(unsafe_code)]
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else has it.
        #[allow(unsafe_code)]
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        let line = format!("{} {} {mark}", event.as_raw_fd(), usage.as_raw_fd());
        std::fs::write(dir.join("cgroup.event_control"), line)?;
        // SAFETY: an owned descriptor is the same, and open, for as long as it lives, which is as long as this does.
        #[allow(unsafe_code)]
        let event = unsafe { AsyncFd::register(event) }.map_err(io::Error::from)?;
        Ok(Self { event, _usage: usage })
    }

    /// Returns when the mark was crossed since the last call, or the group is gone.
    pub async fn crossed(&self) -> io::Result<()> {
        let mut count = [0_u8; 8];
        loop {
            let mut guard = self.event.readable().await?;
            match guard.try_io(|event| nix::unistd::read(event.get_ref(), &mut count).map_err(io::Error::from)) {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel itself is asked where it has groups of version 1, and groups may be made.
    #[tokio::test]
    async fn the_kernel_tells_of_marks() {
        let dir = Path::new("/sys/fs/cgroup/memory").join(format!("memory-watch-test-{}", std::process::id()));
        if !Path::new("/sys/fs/cgroup/memory/cgroup.event_control").exists() || std::fs::create_dir(&dir).is_err() {
            return;
        }
        let watch = MemoryWatch::new(&dir, 4096);
        let removed = std::fs::remove_dir(&dir);
        // A group that goes is told of like a mark that was crossed.
        let told = tokio::time::timeout(std::time::Duration::from_secs(60), watch.unwrap().crossed()).await;
        removed.unwrap();
        told.unwrap().unwrap();
    }

    #[test]
    fn what_is_no_group_cannot_be_watched() {
        let dir = tempfile::tempdir().unwrap();
        assert!(MemoryWatch::new(dir.path(), 1).is_err());
    }
}
