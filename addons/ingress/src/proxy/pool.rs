//! Connections to endpoints. Those of HTTP/1.1 are kept when their answer has ended, one of HTTP/2 is shared by all.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use axum::body::Body;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use runtime::tasks::TaskGroup;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::TlsConnector;

use super::{Patience, body::Progress};
use crate::policy::Protocol;

/// Idle connections of one endpoint, and the time they are kept.
const MAX_IDLE: usize = 64;
const IDLE: Duration = Duration::from_secs(60);
/// Time between looks for those that are to be closed.
const REAP: Duration = Duration::from_secs(10);
/// Bytes of an answer's headers.
const MAX_HEADERS: usize = 64 * 1024;

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
    /// Name of an external host, for TLS.
    pub(super) name: Option<String>,
    /// Time without progress in sending.
    pub(super) send: Duration,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no connection in time")]
    ConnectTimeout,
    #[error("{0}")]
    Broken(hyper::Error),
    #[error("no answer in time")]
    Timeout,
}

/// A request without an answer.
pub(super) struct Failure {
    pub(super) cause: Cause,
    /// The request, if the endpoint has seen nothing of it.
    pub(super) request: Option<Request<Body>>,
    /// Whether the connection had served before: it may have been closed for that.
    pub(super) reused: bool,
}

/// An answer that begins.
pub(super) struct Sent {
    pub(super) response: Response<Incoming>,
    /// Its connection, to be given back at the end; not if it is shared.
    pub(super) lease: Option<Lease>,
    /// Time it took to connect, if that was necessary.
    pub(super) connecting: Option<Duration>,
}

struct Idle {
    driven: Driven,
    since: Instant,
}

/// A connection that moves while whoever uses it looks at it. A task of its own would cost each request two changes of
/// thread.
struct Driven {
    sender: http1::SendRequest<Body>,
    /// `None` once it has ended.
    connection: Option<Box<Connection>>,
}

type Connection = http1::Connection<TokioIo<Box<dyn Io>>, Body>;

impl Driven {
    /// Lets the connection do what it can.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(ended) = Pin::new(&mut **connection).poll(context)
        {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to an endpoint");
            }
            self.connection = None;
        }
    }

    /// Whether it can take a request. Looks whether the other side has closed it meanwhile.
    fn is_usable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Sends a request and moves the connection until the answer begins.
    async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        std::future::poll_fn(|context| {
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            self.drive(context);
            answer.as_mut().poll(context)
        })
        .await
    }
}

/// The pool.
pub(super) struct Pool {
    idle: Mutex<HashMap<Key, Vec<Idle>>>,
    shared: Mutex<HashMap<Key, http2::SendRequest<Body>>>,
    tasks: TaskGroup,
    tls: TlsConnector,
    tls_http2: TlsConnector,
}

/// A connection that serves one request.
pub(super) struct Lease {
    pool: Arc<Pool>,
    key: Key,
    driven: Driven,
}

impl Lease {
    /// Lets the connection do what it can: bring more of the answer, or take more of the request.
    pub(super) fn drive(&mut self, context: &mut Context<'_>) {
        self.driven.drive(context);
    }

    /// The answer has ended: another request may come.
    pub(super) fn give_back(mut self) {
        if !self.driven.is_usable() {
            return;
        }
        let mut idle = self.pool.idle.lock();
        let of_key = idle.entry(self.key).or_default();
        if of_key.len() < MAX_IDLE {
            of_key.push(Idle { driven: self.driven, since: Instant::now() });
        }
    }
}

impl Pool {
    pub(super) fn new(tasks: &TaskGroup) -> Result<Arc<Self>, runtime::tls::TlsError> {
        let config = |protocol: &[u8]| -> Result<TlsConnector, runtime::tls::TlsError> {
            // Certificates of Pods are nobody's; who wants them checked has a mesh.
            let mut config: ClientConfig = runtime::tls::unverified_client_config(None)?;
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok(TlsConnector::from(Arc::new(config)))
        };
        let pool = Arc::new(Self {
            idle: Mutex::default(),
            shared: Mutex::default(),
            tasks: tasks.child("upstreams"),
            tls: config(b"http/1.1")?,
            tls_http2: config(b"h2")?,
        });
        let weak = Arc::downgrade(&pool);
        tasks.spawn_cancellable("idle connections", async move {
            loop {
                tokio::time::sleep(REAP).await;
                match weak.upgrade() {
                    Some(pool) => pool.reap(),
                    None => return,
                }
            }
        });
        Ok(pool)
    }

    fn reap(&self) {
        let mut idle = self.idle.lock();
        idle.retain(|_, of_key| {
            of_key.retain_mut(|one| one.since.elapsed() < IDLE && one.driven.is_usable());
            !of_key.is_empty()
        });
        drop(idle);
        self.shared.lock().retain(|_, sender| !sender.is_closed());
    }

    /// Sends a request and waits until its answer begins. `fresh` wants a connection of its own, which nobody gets after.
    pub(super) async fn send(
        self: &Arc<Self>,
        key: &Key,
        request: Request<Body>,
        patience: Patience,
        progress: &Progress,
        fresh: bool,
    ) -> Result<Sent, Failure> {
        if key.protocol.is_http2() {
            self.send_http2(key, request, patience, progress).await
        } else {
            self.send_http1(key, request, patience, progress, fresh).await
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        key: &Key,
        mut request: Request<Body>,
        patience: Patience,
        progress: &Progress,
        fresh: bool,
    ) -> Result<Sent, Failure> {
        loop {
            let known = if fresh { None } else { self.take(key) };
            let reused = known.is_some();
            let mut connecting = None;
            let mut driven = match known {
                Some(driven) => driven,
                None => {
                    let start = Instant::now();
                    let connected = within(patience.connect, self.connect_http1(key)).await;
                    connecting = Some(start.elapsed());
                    match connected {
                        Ok(driven) => driven,
                        Err(cause) => return Err(Failure { cause, request: Some(request), reused }),
                    }
                }
            };
            let answer = if fresh {
                // What it becomes lives on after the answer.
                self.detach(driven.connection.take());
                head(driven.sender.try_send_request(request), progress, patience.read).await
            } else {
                head(driven.send(request), progress, patience.read).await
            };
            match answer {
                None => return Err(Failure { cause: Cause::Timeout, request: None, reused }),
                Some(Ok(response)) => {
                    let lease = Lease { pool: Arc::clone(self), key: key.clone(), driven };
                    return Ok(Sent { response, lease: (!fresh).then_some(lease), connecting });
                }
                Some(Err(mut error)) => match error.take_message() {
                    Some(back) if reused => request = back,
                    back => return Err(Failure { cause: Cause::Broken(error.into_error()), request: back, reused }),
                },
            }
        }
    }

    async fn send_http2(
        self: &Arc<Self>,
        key: &Key,
        mut request: Request<Body>,
        patience: Patience,
        progress: &Progress,
    ) -> Result<Sent, Failure> {
        loop {
            let known = self.shared.lock().get(key).filter(|sender| !sender.is_closed()).cloned();
            let reused = known.is_some();
            let mut connecting = None;
            let mut sender = match known {
                Some(sender) => sender,
                None => {
                    let start = Instant::now();
                    let connected = within(patience.connect, self.connect_http2(key)).await;
                    connecting = Some(start.elapsed());
                    match connected {
                        Ok(sender) => sender,
                        Err(cause) => return Err(Failure { cause, request: Some(request), reused }),
                    }
                }
            };
            match head(sender.try_send_request(request), progress, patience.read).await {
                None => return Err(Failure { cause: Cause::Timeout, request: None, reused }),
                Some(Ok(response)) => return Ok(Sent { response, lease: None, connecting }),
                Some(Err(mut error)) => {
                    if sender.is_closed() {
                        self.shared.lock().remove(key);
                    }
                    match error.take_message() {
                        Some(back) if reused => {
                            self.shared.lock().remove(key);
                            request = back;
                        }
                        back => {
                            return Err(Failure { cause: Cause::Broken(error.into_error()), request: back, reused });
                        }
                    }
                }
            }
        }
    }

    /// An idle connection; the one that was used last, for it lives longest.
    fn take(&self, key: &Key) -> Option<Driven> {
        loop {
            let last = self.idle.lock().get_mut(key)?.pop()?;
            let mut driven = last.driven;
            if last.since.elapsed() < IDLE && driven.is_usable() {
                return Some(driven);
            }
        }
    }

    async fn connect_http1(&self, key: &Key) -> Result<Driven, Cause> {
        let io = self.open(key).await.map_err(Cause::Connect)?;
        let handshake = http1::Builder::new().max_buf_size(MAX_HEADERS).handshake(TokioIo::new(io)).await;
        let (sender, connection) = handshake.map_err(Cause::Broken)?;
        Ok(Driven { sender, connection: Some(Box::new(connection)) })
    }

    /// Lets a connection move by itself, also when it becomes something else.
    fn detach(&self, connection: Option<Box<Connection>>) {
        let Some(connection) = connection else { return };
        self.tasks.spawn_cancellable("connection", async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to an endpoint");
            }
        });
    }

    async fn connect_http2(&self, key: &Key) -> Result<http2::SendRequest<Body>, Cause> {
        let io = self.open(key).await.map_err(Cause::Connect)?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(30)).adaptive_window(true);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(Cause::Broken)?;
        self.tasks.spawn_cancellable("connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to an endpoint");
            }
        });
        self.shared.lock().insert(key.clone(), sender.clone());
        Ok(sender)
    }

    async fn open(&self, key: &Key) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(key.address).await?;
        // A connection without the option works, only slower.
        let _slower = stream.set_nodelay(true).is_err();
        let stream = Sending { inner: stream, limit: key.send, stalled: None };
        if !key.protocol.is_tls() {
            return Ok(Box::new(stream));
        }
        let by_name = key.name.as_deref().and_then(|name| ServerName::try_from(name.to_owned()).ok());
        let name = by_name.unwrap_or_else(|| ServerName::from(key.address.ip()));
        let tls = if key.protocol.is_http2() { &self.tls_http2 } else { &self.tls };
        Ok(Box::new(tls.connect(name, stream).await?))
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(Cause::ConnectTimeout))
}

/// Waits for the head of an answer, as long as it takes after the last sign of the request.
async fn head<T>(answer: impl Future<Output = T>, progress: &Progress, limit: Duration) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let mut from = Instant::now();
    loop {
        let deadline = from + limit;
        tokio::select! {
            answer = &mut answer => return Some(answer),
            () = tokio::time::sleep_until(deadline.into()) => {
                if progress.last() <= from {
                    return None;
                }
                from = progress.last();
            }
        }
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection that breaks when nothing can be sent for a while.
struct Sending {
    inner: TcpStream,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Sending {
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Sending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for Sending {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, bytes);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
