//! The data path: one request in, one request out.
//!
//! [`target`] says what a request asks for, the table where it goes, [`headers`] what it is sent with, [`forward`] tries
//! endpoints, [`pool`] has connections to them, [`upgrade`] joins connections that became something else, [`body`]
//! watches over what streams through.

mod answer;
mod body;
mod forward;
mod headers;
mod pool;
mod target;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::body::Body;
use http::{Method, Request, Response, StatusCode, Uri, header};
use runtime::{CancellationToken, serving::Connection, tasks::TaskGroup};
use tokio_util::task::TaskTracker;

use self::{
    body::{ClientBody, Observed, Progress},
    pool::Pool,
    target::Target,
};
use crate::{
    metrics::{Finished, IngressMetrics},
    policy::Policy,
    table::{Route, Table},
};

/// How a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The proxy.
pub(crate) struct Proxy {
    pub(crate) table: ArcSwap<Table>,
    pub(crate) metrics: Arc<IngressMetrics>,
    pool: Arc<Pool>,
    /// Joined connections.
    upgraded: TaskTracker,
    cut: CancellationToken,
    http_port: u16,
    https_port: u16,
}

/// What is known of a request.
struct Incoming {
    scheme: Scheme,
    /// The client.
    client: IpAddr,
    target: Target,
    /// As it came.
    uri: Uri,
    method: Method,
    since: Instant,
    /// Whether headers of a proxy in front are believed.
    trusted: bool,
    https_of_client: bool,
}

impl Proxy {
    pub(crate) fn new(
        metrics: Arc<IngressMetrics>,
        tasks: &TaskGroup,
        (http_port, https_port): (u16, u16),
    ) -> Result<Self, runtime::tls::TlsError> {
        let pool = Pool::new(tasks)?;
        let table = ArcSwap::from_pointee(Table::default());
        let cut = tasks.token().child_token();
        Ok(Self { table, metrics, pool, upgraded: TaskTracker::new(), cut, http_port, https_port })
    }

    /// Waits for upgraded connections to end; cuts those that are left at the deadline and says whether there were none.
    pub(crate) async fn drain(&self, deadline: Duration) -> bool {
        self.upgraded.close();
        let ended = tokio::time::timeout(deadline, self.upgraded.wait()).await.is_ok();
        self.cut.cancel();
        ended
    }

    /// Answers a request.
    pub(crate) async fn handle(self: Arc<Self>, scheme: Scheme, request: Request<Body>) -> Response<Body> {
        let since = Instant::now();
        let table = self.table.load_full();
        let peer = request.extensions().get::<Connection>().map(|connection| connection.peer);
        let peer = peer.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0))).ip().to_canonical();
        let method = request.method().clone();
        let target = match Target::of(&request) {
            Ok(target) => target,
            Err(status) => return self.local("_", &method, since, answer::page(status)),
        };
        let trusted = table.settings.use_forwarded_headers;
        let incoming = Incoming {
            scheme,
            client: if trusted { headers::client_of(request.headers()).unwrap_or(peer) } else { peer },
            target,
            uri: request.uri().clone(),
            method,
            since,
            trusted,
            https_of_client: scheme == Scheme::Https || trusted && headers::says_https(request.headers()),
        };
        let found = table.find(&incoming.target.host, &incoming.target.path);
        let Some(route) = found.route else {
            return self.local("_", &incoming.method, since, answer::page(StatusCode::NOT_FOUND));
        };
        if let Some(response) = self.decided(&incoming, route, found.tls, request.headers()) {
            return self.local_of(route, &incoming, response);
        }
        let mut response = self.pass(&incoming, route, request).await;
        if found.tls
            && scheme == Scheme::Https
            && let Some(hsts) = &table.settings.hsts
        {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
        response
    }

    /// Answers that need no back end.
    fn decided(
        &self,
        incoming: &Incoming,
        route: &Route,
        tls: bool,
        headers: &http::HeaderMap,
    ) -> Option<Response<Body>> {
        let policy = &route.policy;
        if !incoming.https_of_client && (policy.force_ssl_redirect || tls && policy.ssl_redirect) {
            return Some(answer::to_https(&incoming.target, &incoming.uri, self.https_port));
        }
        if !policy.admits(incoming.client) {
            return Some(answer::page(StatusCode::FORBIDDEN));
        }
        if let Some((status, location)) = &policy.redirect {
            return Some(answer::redirect(*status, location.clone()));
        }
        if incoming.target.path == "/"
            && let Some(root) = &policy.app_root
        {
            return Some(answer::redirect(StatusCode::FOUND, root.clone()));
        }
        let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if let (Some(length), Some(limit)) = (length, policy.body_limit)
            && length > limit
        {
            return Some(answer::page(StatusCode::PAYLOAD_TOO_LARGE));
        }
        None
    }

    /// Passes a request on.
    async fn pass(&self, incoming: &Incoming, route: &Arc<Route>, mut request: Request<Body>) -> Response<Body> {
        let upgrade = upgrade::asked(&request).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        let progress = Arc::new(Progress::new());
        let port = if incoming.scheme == Scheme::Https { self.https_port } else { self.http_port };
        headers::prepare(&mut parts.headers, incoming, &route.policy, port, upgrade.is_some());
        let path = self.path_for(incoming, route);
        let body = ClientBody::wrap(body, &progress, route.policy.body_limit);
        let outgoing =
            forward::Outgoing { parts, body, path, progress: Arc::clone(&progress), upgrade: upgrade.is_some() };
        let sent = forward::send(self, incoming, route, outgoing).await;
        let response = match sent {
            Err(status) => return self.local_of(route, incoming, answer::page(progress.blamed().unwrap_or(status))),
            Ok(response) => response,
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return match upgrade {
                Some(client) => self.join(incoming, route, client, response),
                None => self.local_of(route, incoming, answer::page(StatusCode::BAD_GATEWAY)),
            };
        }
        let observed = Observed::new(incoming, route, response.status(), Arc::clone(&self.metrics), progress);
        response.map(|body| body.observed(observed))
    }

    /// Path and query at the back end.
    fn path_for(&self, incoming: &Incoming, route: &Route) -> String {
        let query = incoming.uri.query();
        match &route.policy.rewrite_target {
            Some(target) => route.matcher.rewrite(&incoming.target.path, target, query),
            None => incoming.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        }
    }

    fn join(
        &self,
        incoming: &Incoming,
        route: &Arc<Route>,
        client: hyper::upgrade::OnUpgrade,
        mut response: Response<body::UpstreamBody>,
    ) -> Response<Body> {
        let backend = hyper::upgrade::on(&mut response);
        let (parts, body) = response.into_parts();
        let observed = Observed::new(
            incoming,
            route,
            StatusCode::SWITCHING_PROTOCOLS,
            Arc::clone(&self.metrics),
            Arc::new(Progress::new()),
        );
        let gauge = self.metrics.connections.with_label_values(&["upgraded"]);
        let idle = route.policy.read_timeout.max(route.policy.send_timeout);
        let cut = self.cut.clone();
        self.upgraded.spawn(async move {
            gauge.inc();
            let counted = upgrade::Counted(gauge);
            cut.run_until_cancelled(upgrade::join(client, backend, idle)).await;
            drop((counted, observed, body));
        });
        Response::from_parts(parts, Body::empty())
    }

    fn local_of(&self, route: &Route, incoming: &Incoming, response: Response<Body>) -> Response<Body> {
        self.metrics.done(&Finished {
            host: &route.host,
            route: Some(route),
            method: &incoming.method,
            status: response.status(),
            since: incoming.since,
            received: 0,
            sent: 0,
        });
        response
    }

    fn local(&self, host: &str, method: &Method, since: Instant, response: Response<Body>) -> Response<Body> {
        let status = response.status();
        self.metrics.done(&Finished { host, route: None, method, status, since, received: 0, sent: 0 });
        response
    }
}

/// Whether a request may be sent again after it may have been received.
fn repeatable(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

/// Time endpoints have for a request.
#[derive(Clone, Copy)]
struct Patience {
    connect: Duration,
    send: Duration,
    read: Duration,
}

impl Patience {
    fn of(policy: &Policy) -> Self {
        Self { connect: policy.connect_timeout, send: policy.send_timeout, read: policy.read_timeout }
    }
}
