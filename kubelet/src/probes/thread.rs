//! The thread of all probes.
//!
//! A probe is a few short waits on a socket. On threads that share their work each of them would wake another thread to
//! look for more; on one of their own they cost what they do.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Runs futures until it is dropped.
#[derive(Debug)]
pub(super) struct ProbeThread {
    handle: Handle,
    _end: DropGuard,
}

impl ProbeThread {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let end = CancellationToken::new();
        let ended = end.clone();
        std::thread::Builder::new().name("probes".to_owned()).spawn(move || runtime.block_on(ended.cancelled()))?;
        Ok(Self { handle, _end: end.drop_guard() })
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.handle.spawn(work).abort_handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_on_a_thread_of_its_own() {
        let thread = ProbeThread::start().unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        thread.spawn(async move {
            tokio::task::yield_now().await;
            drop(sender.send(std::thread::current().name().map(str::to_owned)));
        });
        assert_eq!(receiver.await.unwrap().as_deref(), Some("probes"));
    }
}
