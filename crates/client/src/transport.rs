//! The layer around every request: rate limit, deadline, metrics.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use kube::client::Body;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};
use util::TokenBucket;

use crate::{journal, metrics::ClientMetrics};

/// Time the server has to begin its answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// Waiting that is worth a log line.
const SLOW_LIMITER: Duration = Duration::from_secs(1);

/// A token bucket: `qps` tokens a second, `burst` at most. `qps` of zero or less means no limit.
#[derive(Debug)]
pub struct RateLimit {
    start: Instant,
    bucket: Option<Mutex<TokenBucket>>,
}

impl RateLimit {
    /// A full bucket.
    pub fn new(qps: f32, burst: i32) -> Arc<Self> {
        let bucket = || TokenBucket::full(f64::from(qps), f64::from(burst.max(1)), Duration::ZERO);
        Arc::new(Self { start: Instant::now(), bucket: (qps > 0.0).then(|| Mutex::new(bucket())) })
    }

    /// Takes a token now and says how long to wait before using it.
    fn reserve(&self) -> Duration {
        let Some(bucket) = &self.bucket else { return Duration::ZERO };
        bucket.lock().reserve(self.start.elapsed())
    }
}

/// Waiting for a server that fails, as `KUBE_CLIENT_BACKOFF_BASE` and `KUBE_CLIENT_BACKOFF_DURATION` (seconds) want it;
/// without them there is none.
#[derive(Debug)]
pub struct ServerBackoff {
    base: Duration,
    longest: Duration,
    /// The wait, and when it was decided.
    state: Mutex<(Duration, Instant)>,
}

impl ServerBackoff {
    /// What the environment wants.
    pub fn from_environment() -> Option<Arc<Self>> {
        let seconds = |name: &str| runtime::env::non_empty(name).and_then(|text| text.parse::<u64>().ok());
        let (base, longest) = (seconds("KUBE_CLIENT_BACKOFF_BASE")?, seconds("KUBE_CLIENT_BACKOFF_DURATION")?);
        (base > 0).then(|| Self::new(Duration::from_secs(base), Duration::from_secs(longest)))
    }

    fn new(base: Duration, longest: Duration) -> Arc<Self> {
        Arc::new(Self { base, longest, state: Mutex::new((Duration::ZERO, Instant::now())) })
    }

    fn wait(&self) -> Duration {
        let state = self.state.lock();
        if state.1.elapsed() > self.longest.saturating_mul(2) { Duration::ZERO } else { state.0 }
    }

    /// Takes note of an answer; `None` where there was none.
    fn note(&self, code: Option<http::StatusCode>) {
        let failed = code.is_some_and(|c| c.is_server_error() || c == http::StatusCode::TOO_MANY_REQUESTS);
        let before = self.wait();
        let next = match failed {
            false => Duration::ZERO,
            true if before.is_zero() => self.base,
            true => before.saturating_mul(2).min(self.longest),
        };
        *self.state.lock() = (next, Instant::now());
    }
}

/// Adds [`Transport`] to a client.
#[derive(Clone)]
pub struct TransportLayer {
    /// Limit shared by clones of the client.
    pub limit: Arc<RateLimit>,
    /// Waiting for a server that fails.
    pub backoff: Option<Arc<ServerBackoff>>,
    /// Where requests are counted.
    pub metrics: Option<ClientMetrics>,
    /// `host:port` of the server, for metrics.
    pub host: Arc<str>,
}

impl<S> Layer<S> for TransportLayer {
    type Service = Transport<S>;

    fn layer(&self, inner: S) -> Transport<S> {
        Transport { inner, layer: self.clone() }
    }
}

/// The service that [`TransportLayer`] makes.
pub struct Transport<S> {
    inner: S,
    layer: TransportLayer,
}

/// The server did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {}s", DEADLINE.as_secs())]
struct DeadlineExceeded;

impl<S, B> Service<Request<Body>> for Transport<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = request.method().as_str().to_owned();
        let long = is_long_running(&request);
        let sent = request.body().size_hint().exact();
        let entry = journal::Entry::of(&request, &self.layer.host);
        let layer = self.layer.clone();
        // The inner service does nothing before its future is polled.
        let answer = self.inner.call(request);
        Box::pin(async move {
            let wait = layer.limit.reserve();
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            if let Some(metrics) = &layer.metrics {
                metrics.waited(&verb, &layer.host, wait);
            }
            if wait >= SLOW_LIMITER {
                tracing::info!(v = 3, verb, delay = ?wait, "Waited before sending request");
            }
            if let Some(backoff) = &layer.backoff {
                tokio::time::sleep(backoff.wait()).await;
            }
            let start = Instant::now();
            if let Some(entry) = &entry {
                entry.sent();
            }
            let outcome = match tokio::time::timeout(DEADLINE, answer).await {
                Ok(outcome) => outcome,
                Err(_) => Err(DeadlineExceeded.into()),
            };
            if let Some(backoff) = &layer.backoff {
                backoff.note(outcome.as_ref().ok().map(Response::status));
            }
            if let Some(metrics) = &layer.metrics {
                let code = outcome.as_ref().map_or("<error>".to_owned(), |r| r.status().as_u16().to_string());
                metrics.finished(&verb, &layer.host, &code, start.elapsed());
                let received = outcome.as_ref().ok().and_then(|r| r.body().size_hint().exact());
                metrics.sizes(&verb, &layer.host, sent, received.filter(|_| !long));
            }
            if let Some(entry) = &entry {
                entry.answered(&outcome, start.elapsed());
            }
            Ok(outcome?.map(|body| journal::Entry::told(entry, bounded(body, long))))
        })
    }
}

/// A body that has to arrive as a whole before the deadline, unless it is of a watch or an upgrade.
fn bounded<B>(body: B, long: bool) -> http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, BoxError>
where
    B: http_body::Body<Data = bytes::Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let body = body.map_err(Into::into);
    if long {
        return body.boxed_unsync();
    }
    let end = Instant::now() + DEADLINE;
    let stream = futures::stream::try_unfold(body, move |mut body| async move {
        match tokio::time::timeout_at(end, body.frame()).await {
            Err(_) => Err(BoxError::from(DeadlineExceeded)),
            Ok(None) => Ok(None),
            Ok(Some(frame)) => Ok(Some((frame?, body))),
        }
    });
    http_body_util::StreamBody::new(stream).boxed_unsync()
}

/// Watches, followed logs and upgrades last as long as they last.
fn is_long_running(request: &Request<Body>) -> bool {
    request.headers().contains_key(http::header::UPGRADE)
        || is_watch(request)
        || parameters(request).any(|parameter| parameter == "follow=true")
}

/// Whether a request is a watch, and no upgrade.
pub(crate) fn is_watch(request: &Request<Body>) -> bool {
    !request.headers().contains_key(http::header::UPGRADE)
        && parameters(request).any(|parameter| matches!(parameter, "watch=true" | "watch=1" | "watch"))
}

fn parameters(request: &Request<Body>) -> impl Iterator<Item = &str> {
    request.uri().query().unwrap_or_default().split('&')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failing_servers_are_waited_for() {
        let backoff = ServerBackoff::new(Duration::from_secs(1), Duration::from_secs(3));
        let mut waits = Vec::new();
        for code in [500, 429, 503, 200, 404, 500] {
            backoff.note(http::StatusCode::from_u16(code).ok());
            waits.push(backoff.wait().as_secs());
        }
        assert_eq!(waits, [1, 2, 3, 0, 0, 1]);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(backoff.wait(), Duration::ZERO);
    }
}
