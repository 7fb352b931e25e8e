//! A connection that carries so many bytes a second and no more, each way.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use streaming::Connection;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// The share of a second's bytes that may go at once.
const BURSTS_PER_SECOND: u64 = 10;

/// Bytes that may go now. More come as time passes, up to a burst.
struct Allowance {
    rate: u64,
    burst: u64,
    left: u64,
    filled: Instant,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Allowance {
    fn new(rate: u64) -> Self {
        let burst = (rate / BURSTS_PER_SECOND).max(1);
        Self { rate, burst, left: burst, filled: Instant::now(), wait: None }
    }

    /// How many bytes may go; waits until it is one at least.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
                self.wait = None;
            }
            self.fill(Instant::now());
            if self.left > 0 {
                return Poll::Ready(usize::try_from(self.left).unwrap_or(usize::MAX));
            }
            let nanos = 1_000_000_000_u128 * u128::from(self.burst) / u128::from(self.rate);
            let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.wait = Some(Box::pin(tokio::time::sleep_until(self.filled + pause)));
        }
    }

    fn fill(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.filled).as_nanos();
        let more = u64::try_from(nanos * u128::from(self.rate) / 1_000_000_000).unwrap_or(u64::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(self.burst);
            self.filled = now;
        }
    }

    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

/// The connection.
pub(crate) struct Throttled {
    inner: Connection,
    reads: Allowance,
    writes: Allowance,
}

impl Throttled {
    /// `inner`, with `rate` bytes a second each way.
    pub(crate) fn new(inner: Connection, rate: u64) -> Self {
        Self { inner, reads: Allowance::new(rate), writes: Allowance::new(rate) }
    }
}

impl AsyncRead for Throttled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let allowed = ready!(self.reads.poll(context)).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(allowed));
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        self.reads.spend(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Throttled {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let allowed = ready!(self.writes.poll(context)).min(bytes.len());
        let part = bytes.get(..allowed).unwrap_or(bytes);
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, part))?;
        self.writes.spend(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn bytes_come_with_time() {
        let mut allowance = Allowance::new(1000);
        let start = allowance.filled;
        assert_eq!(allowance.left, 100);
        allowance.spend(100);
        allowance.fill(start + Duration::from_millis(50));
        assert_eq!(allowance.left, 50);
        // Time that brought nothing is not lost.
        allowance.fill(start + Duration::from_micros(50_900));
        allowance.fill(start + Duration::from_micros(51_100));
        assert_eq!(allowance.left, 51);
        allowance.fill(start + Duration::from_secs(60));
        assert_eq!(allowance.left, 100);
        allowance.spend(1000);
        assert_eq!(allowance.left, 0);
    }

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut near = Throttled::new(Box::new(near), 1 << 30);
        near.write_all(&[1; 1100]).await.unwrap();
        let mut got = [0; 1100];
        far.read_exact(&mut got).await.unwrap();
        far.write_all(&[2; 600]).await.unwrap();
        near.read_exact(&mut got[..600]).await.unwrap();
        assert_eq!(got[..600], [2; 600]);
    }
}
