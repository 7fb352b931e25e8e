//! Watches share HTTP/2 connections; other requests keep connections of their own.
//!
//! A component watches dozens of kinds, each watch is open all the time, and a connection costs some 40 kB on both
//! sides. A connection carries fewer watches than the streams that servers allow (100 at least, RFC 9113 section
//! 6.5.2), because a request beyond them would wait for another watch to end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt as _},
};
use parking_lot::Mutex;
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, util::BoxCloneService};

use crate::{
    ClientError, ClientMetrics,
    connector::{self, Connector},
};

/// Watches of one connection.
const PER_CONNECTION: usize = 80;
/// What one watch may have on its way; a busy one takes nothing from the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = PER_CONNECTION as u32 * STREAM_WINDOW;
/// A silent server is asked whether it lives, and given this long to answer, unless the environment says otherwise.
const IDLE: Duration = Duration::from_secs(30);
const PING: Duration = Duration::from_secs(15);

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;
type Http = Client<Connector, Body>;

/// One connection and the watches on it.
#[derive(Clone)]
struct Shared {
    http: Http,
    open: Arc<AtomicUsize>,
    /// Whether the last request was answered and no watch was cut since.
    connected: Arc<AtomicBool>,
    /// Held by the request that connects; the others would each make a connection.
    connecting: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let mut first = None;
        if !self.connected.load(Ordering::Acquire) {
            first = Some(self.connecting.lock().await).filter(|_| !self.connected.load(Ordering::Acquire));
        }
        let outcome = self.http.request(request).await;
        self.connected.store(outcome.is_ok(), Ordering::Release);
        drop(first);
        Ok(outcome?)
    }
}

/// A place on a connection, given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections that watches share.
#[derive(Clone)]
struct Connections {
    connector: Connector,
    shared: Arc<Mutex<Vec<Shared>>>,
}

impl Connections {
    /// The first connection that has room.
    fn place(&self) -> (Shared, Place) {
        let mut all = self.shared.lock();
        let free = all.iter().find(|c| c.open.load(Ordering::Relaxed) < PER_CONNECTION).cloned();
        let chosen = free.unwrap_or_else(|| {
            let (open, connected, connecting) = (Arc::default(), Arc::default(), Arc::default());
            let made = Shared { http: self.connect(), open, connected, connecting };
            all.push(made.clone());
            made
        });
        chosen.open.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(&chosen.open));
        (chosen, place)
    }

    fn connect(&self) -> Http {
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(seconds("HTTP2_READ_IDLE_TIMEOUT_SECONDS", IDLE))
            .http2_keep_alive_timeout(seconds("HTTP2_PING_TIMEOUT_SECONDS", PING).unwrap_or(PING))
            .build(self.connector.clone())
    }
}

impl Service<Request<Body>> for Connections {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (shared, place) = self.place();
        Box::pin(async move {
            let answer = shared.send(request).await?;
            Ok(answer.map(|body| {
                body.map_frame(move |frame| {
                    let _held = &place;
                    frame
                })
                .map_err(move |error| {
                    shared.connected.store(false, Ordering::Release);
                    BoxError::from(error)
                })
                .boxed_unsync()
            }))
        })
    }
}

/// A time that a variable gives in seconds; zero is none.
fn seconds(variable: &str, default: Duration) -> Option<Duration> {
    let given = runtime::env::non_empty(variable).and_then(|text| text.parse::<u64>().ok()).map(Duration::from_secs);
    Some(given.unwrap_or(default)).filter(|time| !time.is_zero())
}

/// Sends watches over shared connections and everything else to the inner service.
pub(crate) struct WatchLayer {
    watches: BoxCloneService<Request<Body>, Answer, BoxError>,
}

impl WatchLayer {
    pub(crate) fn new(config: &Config, metrics: Option<&ClientMetrics>) -> Result<Self, ClientError> {
        let connector = connector::connector(config, metrics, true)?;
        let watches = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .map_err(BoxError::from)
            .service(Connections { connector, shared: Arc::default() });
        Ok(Self { watches: BoxCloneService::new(watches) })
    }
}

impl<S> Layer<S> for WatchLayer {
    type Service = Watches<S>;

    fn layer(&self, inner: S) -> Watches<S> {
        Watches { inner, watches: self.watches.clone() }
    }
}

/// The service that [`WatchLayer`] makes.
pub(crate) struct Watches<S> {
    inner: S,
    watches: BoxCloneService<Request<Body>, Answer, BoxError>,
}

impl<S, B> Service<Request<Body>> for Watches<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if crate::transport::is_watch(&request) {
            return Box::pin(self.watches.clone().oneshot(request));
        }
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| body.map_err(Into::into).boxed_unsync())) })
    }
}

#[cfg(test)]
mod tests;
