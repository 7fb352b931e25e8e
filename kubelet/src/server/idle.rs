//! A connection that ends when nothing was carried for a while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The connection; every byte in either direction begins the time anew.
pub(super) struct Idle<S> {
    inner: S,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Idle<S> {
    /// A limit of zero is none.
    pub(super) fn new(inner: S, limit: Duration) -> Self {
        let timer = (!limit.is_zero()).then(|| Box::pin(tokio::time::sleep(limit)));
        Self { inner, limit, timer }
    }

    fn used(&mut self) {
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + self.limit);
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.timer {
            None => Poll::Pending,
            Some(timer) => {
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the stream was idle for too long"))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Idle<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Pending => self.poll_idle(cx).map(Err),
            done => {
                self.used();
                done
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Idle<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Pending => self.poll_idle(cx).map(Err),
            done => {
                self.used();
                done
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_bytes_keep_it() {
        let (mut far, near) = duplex(64);
        let mut near = Idle::new(near, Duration::from_secs(10));
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_secs(9)).await;
            far.write_all(b"x").await.unwrap();
            near.read_u8().await.unwrap();
        }
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn zero_is_no_limit() {
        let (_far, near) = duplex(64);
        let mut near = Idle::new(near, Duration::ZERO);
        assert!(tokio::time::timeout(Duration::from_secs(100_000), near.read_u8()).await.is_err());
    }
}
