//! How requests other than watches go out, and how any connection is made: directly or through a proxy.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::{
            Client,
            connect::{
                HttpConnector,
                dns::{GaiAddrs, GaiResolver, Name},
                proxy::{SocksV5, Tunnel},
            },
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use kube::{
    Config,
    client::{Body, ConfigExt as _},
};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep},
};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt,
    retry::{Policy, RetryLayer},
    util::BoxCloneService,
};

use crate::{ClientError, ClientMetrics, watches::Answer};

/// How often a request is sent again that the server asks to be sent again.
const MAX_RETRIES: u32 = 10;

/// What makes connections to a server, with TLS where its address says so.
pub(crate) type Connector = HttpsConnector<Route>;
/// A service for requests.
pub(crate) type Requests = BoxCloneService<Request<Body>, Answer, BoxError>;

/// A connector for a configuration. `http2` offers that protocol, unless the environment forbids it.
pub(crate) fn connector(
    config: &Config,
    metrics: Option<&ClientMetrics>,
    http2: bool,
) -> Result<Connector, ClientError> {
    let route = Route::of(config, metrics)?;
    let mut tls = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = config.tls_server_name.clone() {
        let name = name.try_into().map_err(|_| ClientError::ServerName)?;
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let forbidden = runtime::env::non_empty("DISABLE_HTTP2").is_some();
    Ok(if http2 && !forbidden {
        tls.enable_all_versions().wrap_connector(route)
    } else {
        tls.enable_http1().wrap_connector(route)
    })
}

/// The service behind a client, watches aside: connections of HTTP/1.1, one request at a time on each.
pub(crate) fn requests(
    config: &Config,
    metrics: Option<&ClientMetrics>,
    host: &Arc<str>,
) -> Result<Requests, ClientError> {
    let client: Client<Connector, Body> = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .build(connector(config, metrics, false)?);
    let retries = Retries { left: MAX_RETRIES, metrics: metrics.cloned(), host: Arc::clone(host) };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(retries))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(BoxCloneService::new(service.map_response(|answer: Response<_>| {
        answer.map(|body: hyper::body::Incoming| body.map_err(BoxError::from).boxed_unsync())
    })))
}

/// The proxy for a server, by the variables that Go's programs read.
pub(crate) fn proxy_from_environment(server: &Uri) -> Option<Intercept> {
    let variable = |upper: &str, lower: &str| {
        runtime::env::non_empty(upper).or_else(|| runtime::env::non_empty(lower)).unwrap_or_default()
    };
    let host = server.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if local {
        return None;
    }
    Matcher::builder()
        .http(variable("HTTP_PROXY", "http_proxy"))
        .https(variable("HTTPS_PROXY", "https_proxy"))
        .no(variable("NO_PROXY", "no_proxy"))
        .build()
        .intercept(server)
}

/// The proxy that a configuration names.
fn proxy_of(config: &Config) -> Option<Intercept> {
    let named = config.proxy_url.as_ref()?;
    Matcher::builder().all(named.to_string()).build().intercept(&config.cluster_url)
}

/// The way to a server.
#[derive(Clone)]
pub(crate) enum Route {
    /// No proxy.
    Direct(HttpConnector<Names>),
    /// A proxy that makes tunnels, itself with or without TLS.
    Tunnel(Tunnel<HttpsConnector<HttpConnector<Names>>>),
    /// A proxy that speaks SOCKS 5.
    Socks(SocksV5<HttpConnector<Names>>),
}

impl Route {
    fn of(config: &Config, metrics: Option<&ClientMetrics>) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new_with_resolver(Names { inner: GaiResolver::new(), metrics: metrics.cloned() });
        tcp.enforce_http(false);
        tcp.set_connect_timeout(config.connect_timeout);
        let Some(proxy) = proxy_of(config).or_else(|| proxy_from_environment(&config.cluster_url)) else {
            return Ok(Self::Direct(tcp));
        };
        if proxy.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks5")) {
            let socks = SocksV5::new(proxy.uri().clone(), tcp);
            return Ok(Self::Socks(match proxy.raw_auth() {
                Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()),
                None => socks,
            }));
        }
        let tls = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?);
        let tunnel = Tunnel::new(proxy.uri().clone(), tls.https_or_http().enable_http1().wrap_connector(tcp));
        Ok(Self::Tunnel(match proxy.basic_auth() {
            Some(auth) => tunnel.with_auth(auth.clone()),
            None => tunnel,
        }))
    }
}

impl Service<Uri> for Route {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Self::Tunnel(tunnel) => tunnel.poll_ready(context).map_err(Into::into),
            Self::Socks(socks) => socks.poll_ready(context).map_err(Into::into),
        }
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        match self {
            Self::Direct(tcp) => {
                let connecting = tcp.call(server);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Self::Tunnel(tunnel) => {
                let connecting = tunnel.call(server);
                Box::pin(async move { Ok(connecting.await?) })
            }
            Self::Socks(socks) => {
                let connecting = socks.call(server);
                Box::pin(async move { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
        }
    }
}

/// Looks names up and tells how long it took.
#[derive(Clone)]
pub(crate) struct Names {
    inner: GaiResolver,
    metrics: Option<ClientMetrics>,
}

impl Service<Name> for Names {
    type Response = GaiAddrs;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<GaiAddrs, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (start, host, metrics) = (Instant::now(), name.as_str().to_owned(), self.metrics.clone());
        let looking = self.inner.call(name);
        Box::pin(async move {
            let found = looking.await;
            if let Some(metrics) = metrics {
                metrics.resolved(&host, start.elapsed());
            }
            found
        })
    }
}

/// Sends a request again where the server is overloaded or fails, and says when to come again.
#[derive(Clone)]
struct Retries {
    left: u32,
    metrics: Option<ClientMetrics>,
    host: Arc<str>,
}

impl<B> Policy<Request<Body>, Response<B>, BoxError> for Retries {
    type Future = Sleep;

    fn retry(&mut self, request: &mut Request<Body>, outcome: &mut Result<Response<B>, BoxError>) -> Option<Sleep> {
        let answer = outcome.as_ref().ok()?;
        let wait = asks_again(answer.status(), answer.headers())?;
        self.left = self.left.checked_sub(1)?;
        if let Some(metrics) = &self.metrics {
            metrics.again(answer.status().as_u16(), request.method().as_str(), &self.host);
        }
        Some(tokio::time::sleep(wait))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let body = request.body().try_clone()?;
        let mut copy = Request::new(body);
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        *copy.headers_mut() = request.headers().clone();
        *copy.extensions_mut() = request.extensions().clone();
        Some(copy)
    }
}

/// The time after which an answer asks for the request again.
fn asks_again(status: StatusCode, headers: &http::HeaderMap) -> Option<Duration> {
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return None;
    }
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
