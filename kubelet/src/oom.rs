//! Processes that the kernel ends for want of memory. Those of containers are told by the runtime; of others the Node
//! tells.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use crate::events::EventType;
use crate::services::Services;

const KERNEL_LOG: &str = "/dev/kmsg";
/// One record is never longer.
const RECORD: usize = 8192;

/// A process that was ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Victim<'a> {
    group: &'a str,
    name: &'a str,
    pid: &'a str,
}

/// `6,1234,567,-;oom-kill:constraint=…,task_memcg=/a,task=sh,pid=9,uid=0`
fn victim(record: &str) -> Option<Victim<'_>> {
    let text = record.split_once(';')?.1.lines().next()?.strip_prefix("oom-kill:")?;
    let value = |key: &str| {
        let mut pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value)
    };
    Some(Victim { group: value("task_memcg")?, name: value("task")?, pid: value("pid")? })
}

/// The kernel's log, from now on.
struct KernelLog(AsyncFd<OwnedFd>);

impl KernelLog {
    fn open() -> io::Result<Self> {
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(KERNEL_LOG)?;
        let file = OwnedFd::from(file);
        lseek(&file, 0, Whence::SeekEnd)?;
        // SAFETY: an owned descriptor is the same, and open, for as long as it lives, which is as long as this does.
        #[allow(unsafe_code)]
        let file = unsafe { AsyncFd::register(file) };
        Ok(Self(file.map_err(io::Error::from)?))
    }

    async fn next<'a>(&self, buffer: &'a mut [u8]) -> io::Result<std::borrow::Cow<'a, str>> {
        loop {
            let mut guard = self.0.readable().await?;
            let read = guard.try_io(|file| nix::unistd::read(file.get_ref(), buffer).map_err(io::Error::from));
            let count = match read {
                Ok(Ok(count)) => count,
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => continue,
                // Records were overwritten before they were read.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EPIPE as i32) => continue,
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => continue,
            };
            return Ok(String::from_utf8_lossy(&buffer[..count]));
        }
    }
}

/// Tells of processes that are in no container, until stopped.
pub(crate) async fn watch(services: Arc<Services>, stop: CancellationToken) {
    let followed = async {
        let log = KernelLog::open()?;
        let mut buffer = vec![0; RECORD];
        loop {
            let record = log.next(&mut buffer).await?;
            let Some(found) = victim(&record) else { continue };
            tracing::info!(v = 1, process = found.name, pid = found.pid, group = found.group, "got sys oom event");
            if found.group == "/" {
                let text = format!("System OOM encountered, victim process: {}, pid: {}", found.name, found.pid);
                services.events.node(EventType::Warning, "SystemOOM", text);
            }
        }
    };
    let ended: io::Result<std::convert::Infallible> = tokio::select! {
        () = stop.cancelled() => return,
        ended = followed => ended,
    };
    let Err(error) = ended;
    tracing::error!(%error, "failed to watch for processes that are out of memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn victims_are_found_in_the_kernels_log() {
        let record = "6,75518,84835091524,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=stress,pid=812,uid=0\n";
        assert_eq!(victim(record), Some(Victim { group: "/", name: "stress", pid: "812" }));
        let of_container = record.replace("task_memcg=/,", "task_memcg=/kubepods/pod1/c,");
        assert_eq!(victim(&of_container).unwrap().group, "/kubepods/pod1/c");
        for other in
            ["", "6,1,2,-;eth0: up\n", "6,1,2,-;oom-kill:constraint=X\n", " oom-kill:task=a,pid=1,task_memcg=/"]
        {
            assert_eq!(victim(other), None, "{other}");
        }
    }
}
