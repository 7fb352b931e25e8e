//! Serving HTTP/1.1 and HTTP/2 over TLS, with deadlines, limits and a graceful end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::body::Body;
use http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Time a client has for the TLS handshake, and for its request headers.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// Connections at once.
const MAX_CONNECTIONS: usize = 20_000;
/// Streams of one HTTP/2 connection, and bytes of its headers.
const MAX_STREAMS: u32 = 250;
const MAX_HEADER_BYTES: u32 = 1 << 20;
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
    let acceptor = tls.map(TlsAcceptor::from);
    let graceful = Arc::new(GracefulShutdown::new());
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (acceptor, handler, graceful) = (acceptor.clone(), handler.clone(), Arc::clone(&graceful));
        tokio::spawn(async move {
            connection(stream, peer, acceptor, handler, graceful).await;
            drop(slot);
        });
    }
    drop(listener);
    // Connections still in their handshake hold a reference; they have no request to wait for.
    if let Some(graceful) = Arc::into_inner(graceful) {
        if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests still running at the end of the grace period were cut");
        }
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    handler: H,
    graceful: Arc<GracefulShutdown>,
) where
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    // A connection without the option works, only slower.
    let _slower = stream.set_nodelay(true).is_err();
    let Some(acceptor) = acceptor else {
        let about = Connection { peer, certificates: Arc::from(Vec::new()) };
        return http(TokioIo::new(stream), about, handler, graceful).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = presented.iter().map(|c| c.clone().into_owned()).collect();
            http(TokioIo::new(stream), Connection { peer, certificates }, handler, graceful).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake error"),
        Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
    }
}

async fn http<I, H, F>(io: I, about: Connection, handler: H, graceful: Arc<GracefulShutdown>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let peer = about.peer;
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(about.clone());
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
    let watched = graceful.watch(connection);
    // From here on the end of the server is known to the connection itself.
    drop(graceful);
    if let Err(error) = watched.await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
