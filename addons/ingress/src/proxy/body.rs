//! Bodies on their way through: counted, bounded, and given up on when nothing moves.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

use super::{Incoming, pool::Lease};
use crate::{
    metrics::{Finished, IngressMetrics},
    table::Route,
};

/// Time a client may be silent in the middle of its body.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request body is longer than allowed")]
    TooLarge,
    #[error("the client sent nothing for {CLIENT_TIMEOUT:?}")]
    SlowClient,
    #[error("the upstream sent nothing for {0:?}")]
    SlowUpstream(Duration),
    #[error(transparent)]
    Client(#[from] axum::Error),
    #[error(transparent)]
    Upstream(#[from] hyper::Error),
}

/// How far a request body is.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    bytes: AtomicU64,
    /// Milliseconds after `start` when the last piece came, or the end.
    last: AtomicU64,
    too_large: AtomicBool,
    slow: AtomicBool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            bytes: AtomicU64::new(0),
            last: AtomicU64::new(0),
            too_large: AtomicBool::new(false),
            slow: AtomicBool::new(false),
        }
    }

    pub(super) fn touch(&self, bytes: usize) {
        self.bytes.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.last.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When something moved last.
    pub(super) fn last(&self) -> Instant {
        self.start + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The status, if it is the client's fault that the request could not be sent.
    pub(super) fn blamed(&self) -> Option<StatusCode> {
        if self.too_large.load(Ordering::Relaxed) {
            return Some(StatusCode::PAYLOAD_TOO_LARGE);
        }
        self.slow.load(Ordering::Relaxed).then_some(StatusCode::REQUEST_TIMEOUT)
    }
}

/// A timer that runs while nothing comes.
#[derive(Default)]
struct Silence(Option<Pin<Box<Sleep>>>);

impl Silence {
    fn is_over(&mut self, limit: Duration, context: &mut Context<'_>) -> bool {
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        timer.as_mut().poll(context).is_ready()
    }

    fn end(&mut self) {
        self.0 = None;
    }
}

/// A request body.
pub(super) struct ClientBody {
    inner: Body,
    progress: Arc<Progress>,
    limit: Option<u64>,
    silence: Silence,
}

impl ClientBody {
    pub(super) fn wrap(inner: Body, progress: &Arc<Progress>, limit: Option<u64>) -> Body {
        if inner.is_end_stream() {
            return Body::empty();
        }
        Body::new(Self { inner, progress: Arc::clone(progress), limit, silence: Silence::default() })
    }
}

impl http_body::Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.inner).poll_frame(context) {
            Poll::Pending if this.silence.is_over(CLIENT_TIMEOUT, context) => {
                this.progress.slow.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(BodyError::SlowClient)));
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        this.silence.end();
        let Some(frame) = frame.transpose()? else {
            this.progress.touch(0);
            return Poll::Ready(None);
        };
        this.progress.touch(frame.data_ref().map_or(0, Bytes::len));
        if this.limit.is_some_and(|limit| this.progress.bytes() > limit) {
            this.progress.too_large.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What is told of a request when it is over.
pub(super) struct Observed {
    route: Arc<Route>,
    method: Method,
    status: StatusCode,
    since: Instant,
    progress: Arc<Progress>,
    sent: u64,
    metrics: Arc<IngressMetrics>,
}

impl Observed {
    pub(super) fn new(
        incoming: &Incoming,
        route: &Arc<Route>,
        status: StatusCode,
        metrics: Arc<IngressMetrics>,
        progress: Arc<Progress>,
    ) -> Self {
        let (route, method) = (Arc::clone(route), incoming.method.clone());
        Self { route, method, status, since: incoming.since, progress, sent: 0, metrics }
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.metrics.done(&Finished {
            host: &self.route.host,
            route: Some(&self.route),
            method: &self.method,
            status: self.status,
            since: self.since,
            received: self.progress.bytes(),
            sent: self.sent,
        });
    }
}

/// The body of an answer; gives its connection back at the end.
pub(super) struct UpstreamBody {
    inner: hyper::body::Incoming,
    lease: Option<Lease>,
    timeout: Duration,
    silence: Silence,
    observed: Option<Observed>,
}

impl UpstreamBody {
    pub(super) fn new(inner: hyper::body::Incoming, lease: Option<Lease>, timeout: Duration) -> Self {
        let mut body = Self { inner, lease, timeout, silence: Silence::default(), observed: None };
        body.note_end();
        body
    }

    /// The body for the client.
    pub(super) fn observed(mut self, observed: Observed) -> Body {
        self.observed = Some(observed);
        Body::new(self)
    }

    fn note_end(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.inner).poll_frame(context);
        if polled.is_pending()
            && let Some(lease) = &mut this.lease
        {
            lease.drive(context);
            polled = Pin::new(&mut this.inner).poll_frame(context);
        }
        let frame = match polled {
            Poll::Pending if this.silence.is_over(this.timeout, context) => {
                this.lease = None;
                return Poll::Ready(Some(Err(BodyError::SlowUpstream(this.timeout))));
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        this.silence.end();
        match frame {
            Some(Ok(frame)) => {
                if let (Some(observed), Some(data)) = (&mut this.observed, frame.data_ref()) {
                    observed.sent += u64::try_from(data.len()).unwrap_or(u64::MAX);
                }
                this.note_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
