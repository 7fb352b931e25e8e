//! How this server reaches others: directly, or through a proxy that the operator has chosen for a network.

mod http;
mod tunnel;

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use ::http::Uri;
use futures::future::BoxFuture;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection as Linked},
    rt::TokioIo,
};
use prometheus::{HistogramVec, IntCounterVec, Registry};
use runtime::metrics::{Stability, counter_vec, histogram_vec};
use rustls::{ClientConfig, pki_types::ServerName};
use streaming::Connection;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::dial::host_port;

/// Time for a connection through everything that is on its way.
const WITHIN: Duration = Duration::from_secs(30);

/// Where a proxy listens.
#[derive(Clone)]
pub enum ProxyPlace {
    /// A unix socket.
    Unix(PathBuf),
    /// A host and a port, perhaps behind TLS.
    Tcp(String, u16, Option<(Arc<ClientConfig>, ServerName<'static>)>),
}

impl ProxyPlace {
    fn transport(&self) -> &'static str {
        match self {
            Self::Unix(_) => "uds",
            Self::Tcp(..) => "tcp",
        }
    }

    async fn connect(&self) -> io::Result<Connection> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tcp(host, port, tls) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                match tls {
                    None => Box::new(stream),
                    Some((config, name)) => {
                        Box::new(TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await?)
                    }
                }
            }
        })
    }
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// `CONNECT` of HTTP/1.1.
    HttpConnect,
    /// The protocol of network proxies over gRPC, on a unix socket.
    Grpc,
}

impl ProxyProtocol {
    fn label(self) -> &'static str {
        match self {
            Self::HttpConnect => "http_connect",
            Self::Grpc => "grpc",
        }
    }
}

/// Metrics of connections through proxies.
#[derive(Clone)]
pub struct EgressMetrics {
    seconds: HistogramVec,
    starts: IntCounterVec,
    failures: IntCounterVec,
}

impl EgressMetrics {
    /// Registers the metrics.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        use Stability::Alpha;
        Ok(Self {
            seconds: histogram_vec(
                registry,
                Alpha,
                "apiserver_egress_dialer_dial_duration_seconds",
                "Dial latency histogram in seconds, labeled by the protocol (http-connect or grpc), transport (tcp or \
                 uds)",
                &["protocol", "transport"],
                &[0.005, 0.025, 0.1, 0.5, 2.5, 12.5],
            )?,
            starts: counter_vec(
                registry,
                Alpha,
                "apiserver_egress_dialer_dial_start_total",
                "Dial starts, labeled by the protocol (http-connect or grpc) and transport (tcp or uds).",
                &["protocol", "transport"],
            )?,
            failures: counter_vec(
                registry,
                Alpha,
                "apiserver_egress_dialer_dial_failure_count",
                "Dial failure count, labeled by the protocol (http-connect or grpc), transport (tcp or uds), and stage \
                 (connect or proxy). The stage indicates at which stage the dial failed",
                &["protocol", "transport", "stage"],
            )?,
        })
    }
}

/// A proxy.
struct Proxy {
    protocol: ProxyProtocol,
    place: ProxyPlace,
    metrics: EgressMetrics,
}

impl Proxy {
    async fn dial(&self, address: &str) -> io::Result<Connection> {
        let labels = &[self.protocol.label(), self.place.transport()];
        self.metrics.starts.with_label_values(labels).inc();
        let start = Instant::now();
        let failed = |stage: &str| self.metrics.failures.with_label_values(&[labels[0], labels[1], stage]).inc();
        let carrier = self.place.connect().await.inspect_err(|_| failed("connect"))?;
        let connection = match self.protocol {
            ProxyProtocol::HttpConnect => http::connect(carrier, address).await,
            ProxyProtocol::Grpc => tunnel::open(carrier, address).await,
        };
        let connection = connection.inspect_err(|_| failed("proxy"))?;
        self.metrics.seconds.with_label_values(labels).observe(start.elapsed().as_secs_f64());
        Ok(connection)
    }
}

/// Connects to what is on a network.
#[derive(Clone, Default)]
pub struct Dialer(Option<Arc<Proxy>>);

impl Dialer {
    /// Through a proxy.
    pub fn through(protocol: ProxyProtocol, place: ProxyPlace, metrics: EgressMetrics) -> Self {
        Self(Some(Arc::new(Proxy { protocol, place, metrics })))
    }

    /// A connection to a host, which the proxy looks up if there is one.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<Connection> {
        match &self.0 {
            Some(proxy) => proxy.dial(&host_port(host, port)).await,
            None => {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// How the networks are reached.
#[derive(Clone, Default)]
pub struct Egress {
    /// Nodes, Pods and Services.
    pub cluster: Dialer,
    /// Everything else that this server asks.
    pub control_plane: Dialer,
}

/// A [`Dialer`] for clients of HTTP.
#[derive(Clone, Default)]
pub struct Connector(pub Dialer);

/// A connection for clients of HTTP.
pub struct Link(TokioIo<Connection>);

impl Linked for Link {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Link;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Link>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
            let late = || io::Error::new(io::ErrorKind::TimedOut, "i/o timeout");
            let connection = tokio::time::timeout(WITHIN, dialer.connect(&host, port)).await;
            Ok(Link(TokioIo::new(connection.map_err(|_| late())??)))
        })
    }
}

#[cfg(test)]
mod tests;
