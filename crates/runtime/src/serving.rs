//! Serving HTTP/1.1 and HTTP/2 over TLS, with deadlines, limits and a graceful end.

mod activity;
mod secure;
mod stall;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use prometheus::IntCounter;
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use self::{
    activity::{Activity, Answer, Heads},
    stall::Stalling,
};
pub use secure::{SecureServing, ServingError, bind, listen};

/// Time a client has for the TLS handshake, and for its request headers.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// Time for which a connection may have no request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Time for which a client may take nothing of what is sent to it.
const STALL_TIMEOUT: Duration = Duration::from_secs(300);
/// Connections at once.
const MAX_CONNECTIONS: usize = 20_000;
/// Handshakes at once from one address: each costs a signature.
const MAX_HANDSHAKES_PER_ADDRESS: usize = 256;
/// Resets that a client may cause before its connection is closed (CVE-2023-44487).
const MAX_RESETS: usize = 100;
/// Pause after a failed accept (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a handler may know of the connection; found among the request extensions.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Address of the client.
    pub peer: SocketAddr,
    /// Certificates the client presented, leaf first. The client holds the key; who issued it is not checked.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams of an HTTP/2 connection.
    pub max_streams: u32,
    /// Bytes of request headers.
    pub max_header_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_streams: 250, max_header_bytes: 1 << 20 }
    }
}

/// Serves connections until `stop`, then lets running requests end for `grace`.
pub async fn serve<H, F>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    handler: H,
    stop: CancellationToken,
    grace: Duration,
) where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    serve_with(listener, tls, handler, stop, grace, Limits::default()).await;
}

/// [`serve`] for a router.
pub async fn serve_router(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    stop: CancellationToken,
    grace: Duration,
) {
    serve_with(listener, tls, handler_of(router), stop, grace, Limits::default()).await;
}

/// A handler that asks a router.
pub(crate) fn handler_of(
    router: Router,
) -> impl Fn(Request<Body>) -> futures::future::BoxFuture<'static, Response<Body>> + Clone + Send + Sync + 'static {
    move |request| {
        let router = router.clone();
        Box::pin(async move {
            match router.oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            }
        })
    }
}

/// [`serve`] with other bounds.
pub async fn serve_with<H, F>(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    handler: H,
    stop: CancellationToken,
    grace: Duration,
    limits: Limits,
) where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let acceptor = tls.map(TlsAcceptor::from);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let handshakes = Handshakes::default();
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            // On a socket of both families IPv4 looks like IPv6.
            Ok((stream, peer)) => (stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::debug!(%peer, "too many connections, refused");
            continue;
        };
        let Some(shaking) = handshakes.begin(peer.ip()) else {
            tracing::debug!(%peer, "too many handshakes from one address, refused");
            continue;
        };
        let (acceptor, handler, stop) = (acceptor.clone(), handler.clone(), stop.clone());
        connections.spawn(async move {
            if let Some((about, io)) = stop.run_until_cancelled(open(stream, peer, acceptor, shaking)).await.flatten() {
                match io {
                    Io::Plain(io) => http(io, true, about, handler, stop, limits).await,
                    Io::Tls(io) => {
                        let http1 = io.get_ref().1.alpn_protocol() != Some(b"h2");
                        http(*io, http1, about, handler, stop, limits).await;
                    }
                }
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(grace, connections.wait()).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests still running at the end of the grace period were cut"
        );
    }
}

enum Io {
    Plain(Stalling<TcpStream>),
    Tls(Box<tokio_rustls::server::TlsStream<Stalling<TcpStream>>>),
}

/// Handshakes under way by address.
#[derive(Clone, Default)]
struct Handshakes(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Handshakes {
    fn begin(&self, from: IpAddr) -> Option<Shaking> {
        let mut running = self.0.lock();
        let count = running.entry(from).or_default();
        if *count >= MAX_HANDSHAKES_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Shaking { all: self.clone(), from })
    }
}

/// One handshake; ends when dropped.
struct Shaking {
    all: Handshakes,
    from: IpAddr,
}

impl Drop for Shaking {
    fn drop(&mut self) {
        let mut running = self.all.0.lock();
        if let Some(count) = running.get_mut(&self.from) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.from);
            }
        }
    }
}

async fn open(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    shaking: Shaking,
) -> Option<(Connection, Io)> {
    // A connection without the option works, only slower.
    let _slower = stream.set_nodelay(true).is_err();
    let stream = Stalling::new(stream, STALL_TIMEOUT);
    let Some(acceptor) = acceptor else {
        return Some((Connection { peer, certificates: Arc::from(Vec::new()) }, Io::Plain(stream)));
    };
    let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
    drop(shaking);
    match shaken {
        Ok(Ok(stream)) => {
            let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = presented.iter().map(|c| c.clone().into_owned()).collect();
            Some((Connection { peer, certificates }, Io::Tls(Box::new(stream))))
        }
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake error");
            count_failed_handshake();
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake timed out");
            count_failed_handshake();
            None
        }
    }
}

/// Counts handshakes of this process that failed, where somebody wants to know.
static FAILED_HANDSHAKES: OnceLock<IntCounter> = OnceLock::new();

fn count_failed_handshake() {
    if let Some(counter) = FAILED_HANDSHAKES.get() {
        counter.inc();
    }
}

/// Has TLS handshakes that fail counted; the first counter stays.
pub fn count_failed_handshakes(counter: IntCounter) {
    let _first = FAILED_HANDSHAKES.set(counter).is_ok();
}

/// Takes `Connection: close` from an answer over HTTP/2, which has no such header; whether it was there.
fn asks_to_close(response: &mut Response<Body>) -> bool {
    let closes = response.headers().get(http::header::CONNECTION).is_some_and(|value| value == "close");
    if closes {
        response.headers_mut().remove(http::header::CONNECTION);
    }
    closes
}

/// Serves a connection until it ends, until `stop`, until it has been idle, or until an answer asks to close it: then what runs on it ends, and
/// nothing new begins (HTTP/2: GOAWAY).
async fn http<I, H, F>(io: I, http1: bool, about: Connection, handler: H, stop: CancellationToken, limits: Limits)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let peer = about.peer;
    let closing = CancellationToken::new();
    let close = closing.clone();
    let activity = Activity::new(http1);
    let io = TokioIo::new(Heads::new(io, activity.clone(), HEADER_TIMEOUT, http1));
    let seen = activity.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(about.clone());
        let tunnel = request.method() == http::Method::CONNECT;
        let close = (request.version() == http::Version::HTTP_2).then(|| close.clone());
        let (running, seen) = (seen.begin(), seen.clone());
        let answer = handler(request);
        async move {
            let mut response = answer.await;
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS || (tunnel && response.status().is_success())
            {
                seen.upgrade();
            }
            if let Some(close) = close
                && asks_to_close(&mut response)
            {
                close.cancel();
            }
            Ok::<_, Infallible>(response.map(|body| Answer { body, running }))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let header_bytes = usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(limits.max_header_bytes)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = closing.cancelled() => None,
        () = activity.idle_for(IDLE_TIMEOUT) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
