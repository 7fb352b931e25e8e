//! What goes on on a connection: it may be idle for a time, and the head of a request may take a time.
//!
//! hyper has one time for both, from the end of a request to the head of the next.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// No head is being read.
const NONE: u64 = u64::MAX;
/// How clients of HTTP/2 begin.
const PREFACE: &[u8] = b"PRI ";

/// Of one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<State>);

#[derive(Debug)]
struct State {
    began: Instant,
    /// Requests that are not answered in full.
    running: AtomicUsize,
    /// Milliseconds since the beginning at which the last request ended.
    idle_since: AtomicU64,
    /// Milliseconds since the beginning at which the head of a request began; [`NONE`] between heads.
    head_since: AtomicU64,
    /// Whether another protocol is spoken from here on.
    upgraded: AtomicBool,
}

impl Activity {
    /// `http1`: a head is expected, and has a deadline, from the beginning.
    pub(super) fn new(http1: bool) -> Self {
        Self(Arc::new(State {
            began: Instant::now(),
            running: AtomicUsize::new(0),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(if http1 { 0 } else { NONE }),
            upgraded: AtomicBool::new(false),
        }))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(NONE - 1)
    }

    /// The head of a request is there; the request runs until what is returned is dropped.
    pub(super) fn begin(&self) -> Running {
        self.0.head_since.store(NONE, Ordering::Relaxed);
        self.0.running.fetch_add(1, Ordering::Relaxed);
        Running(self.clone())
    }

    /// The connection carries something else now: there are no heads to come.
    pub(super) fn upgrade(&self) {
        self.0.upgraded.store(true, Ordering::Relaxed);
    }

    /// Ends when nothing has run for `longest`.
    pub(super) async fn idle_for(&self, longest: Duration) {
        loop {
            let left = match self.0.running.load(Ordering::Relaxed) {
                0 => {
                    let since = self.now().saturating_sub(self.0.idle_since.load(Ordering::Relaxed));
                    longest.saturating_sub(Duration::from_millis(since))
                }
                _ => longest,
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Bytes have come.
    fn received(&self, bytes: &[u8]) {
        if self.0.upgraded.load(Ordering::Relaxed) {
            return;
        }
        if self.0.head_since.load(Ordering::Relaxed) == 0 && bytes.starts_with(PREFACE) {
            self.0.head_since.store(NONE, Ordering::Relaxed);
        } else if self.0.running.load(Ordering::Relaxed) == 0 {
            let (order, now) = (Ordering::Relaxed, self.now().max(1));
            // A head that has begun already keeps its time.
            let _began = self.0.head_since.compare_exchange(NONE, now, order, order).is_err();
        }
    }

    /// The time that the head under way has left of `longest`.
    fn head_left(&self, longest: Duration) -> Option<Duration> {
        let since = Some(self.0.head_since.load(Ordering::Relaxed)).filter(|since| *since != NONE)?;
        Some(longest.saturating_sub(Duration::from_millis(self.now().saturating_sub(since))))
    }
}

/// A request that is not answered in full.
#[derive(Debug)]
pub(super) struct Running(Activity);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.idle_since.store(self.0.now(), Ordering::Relaxed);
        self.0.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer, with whose end the request ends.
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) running: Running,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let _ends_with_it = &self.running;
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream of HTTP/1 whose reader waits for the head of a request for a time only. HTTP/2 has no heads to wait for:
/// streams begin with them.
pub(super) struct Heads<S> {
    stream: S,
    activity: Activity,
    longest: Duration,
    http1: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Heads<S> {
    pub(super) fn new(stream: S, activity: Activity, longest: Duration, http1: bool) -> Self {
        Self { stream, activity, longest, http1, timer: None }
    }

    fn expired(&mut self, context: &mut Context<'_>) -> bool {
        let Some(left) = self.activity.head_left(self.longest) else {
            self.timer = None;
            return false;
        };
        if left.is_zero() {
            return true;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
        timer.as_mut().poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heads<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if !self.http1 {
            return read;
        }
        match read {
            Poll::Ready(Ok(())) if into.filled().len() > before => self.activity.received(&into.filled()[before..]),
            Poll::Ready(_) => return read,
            Poll::Pending => {}
        }
        if self.expired(context) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no request in time")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heads<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONGEST: Duration = Duration::from_secs(32);

    #[tokio::test(start_paused = true)]
    async fn heads_have_a_time_and_bodies_have_not() {
        let (mut far, near) = tokio::io::duplex(64);
        let activity = Activity::new(true);
        let mut near = Heads::new(near, activity.clone(), LONGEST, true);
        far.write_all(b"GET ").await.unwrap();
        let mut got = [0; 4];
        near.read_exact(&mut got).await.unwrap();
        let running = activity.begin();
        assert!(tokio::time::timeout(LONGEST * 3, near.read_u8()).await.is_err(), "a body is waited for");
        drop(running);
        assert!(tokio::time::timeout(LONGEST * 3, near.read_u8()).await.is_err(), "nothing has begun");
        far.write_all(b"G").await.unwrap();
        let began = Instant::now();
        assert_eq!(near.read_u8().await.unwrap(), b'G');
        let error = near.read_u8().await.expect_err("the rest does not come");
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, LONGEST.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn other_protocols_have_no_heads() {
        let (mut far, near) = tokio::io::duplex(64);
        let activity = Activity::new(true);
        let mut near = Heads::new(near, activity.clone(), LONGEST, true);
        let running = activity.begin();
        activity.upgrade();
        drop(running);
        far.write_all(b"x").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'x');
        assert!(tokio::time::timeout(LONGEST * 3, near.read_u8()).await.is_err(), "it is waited for");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_is_waited_for_from_the_beginning_unless_it_is_of_the_other_protocol() {
        let (far, near) = tokio::io::duplex(64);
        let mut near = Heads::new(near, Activity::new(true), LONGEST, true);
        assert_eq!(near.read_u8().await.map_err(|e| e.kind()), Err(io::ErrorKind::TimedOut));
        drop(far);
        let (mut far, near) = tokio::io::duplex(64);
        let mut near = Heads::new(near, Activity::new(true), LONGEST, true);
        far.write_all(b"PRI *").await.unwrap();
        let mut got = [0; 5];
        near.read_exact(&mut got).await.unwrap();
        assert!(tokio::time::timeout(LONGEST * 3, near.read_u8()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn idle_is_who_has_no_request() {
        let activity = Activity::new(false);
        let began = Instant::now();
        let running = activity.begin();
        assert!(tokio::time::timeout(LONGEST * 3, activity.idle_for(LONGEST)).await.is_err());
        drop(running);
        activity.idle_for(LONGEST).await;
        assert_eq!(began.elapsed().as_secs(), LONGEST.as_secs() * 4);
    }
}
