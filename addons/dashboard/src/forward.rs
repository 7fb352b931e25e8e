//! Requests of the page go to the API server as the user's: with the user's token, and with nothing else.

use std::sync::Arc;

use axum::{Router, body::Body, extract::State, routing::any};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use kube::Client;
use prometheus::IntCounterVec;
use runtime::{
    CancellationToken, Registry,
    metrics::{Stability, counter_vec},
};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::security;

/// Longest body, as the API server has it.
const MAX_BODY: usize = 3 << 20;
/// Requests and open streams at once.
const MAX_REQUESTS: usize = 2000;
/// Subprotocol by which browsers show a token when they open a WebSocket.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Headers that go to the API server.
const PASSED_ON: [HeaderName; 3] = [header::AUTHORIZATION, header::ACCEPT, header::CONTENT_TYPE];
/// The same for a WebSocket.
const OF_UPGRADES: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
];
/// Headers that come back.
const PASSED_BACK: [HeaderName; 3] = [header::CONTENT_TYPE, header::WARNING, header::RETRY_AFTER];

/// The way to the API server.
#[derive(Clone)]
pub(crate) struct Forwarder(Arc<Inner>);

struct Inner {
    client: Client,
    slots: Arc<Semaphore>,
    streams: TaskTracker,
    stop: CancellationToken,
    requests: IntCounterVec,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It is not of the page.
    Foreign,
    /// It is not of the API, or one that the page does not make.
    Path,
    /// Without a token.
    Anonymous,
    /// Too many are under way.
    Busy,
    /// The body is too long, or did not come.
    Body,
    /// The API server does not answer.
    Unreachable,
}

impl Refusal {
    fn response(self) -> Response<Body> {
        let (status, reason, message) = match self {
            Self::Foreign => (StatusCode::FORBIDDEN, "Forbidden", "the request comes from another site"),
            Self::Path => (StatusCode::FORBIDDEN, "Forbidden", "the dashboard does not make such requests"),
            Self::Anonymous => (StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", "too many requests, try again later"),
            Self::Body => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", "the request body is too long"),
            Self::Unreachable => (StatusCode::BAD_GATEWAY, "ServiceUnavailable", "the API server does not answer"),
        };
        let object = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": status.as_u16()});
        let mut response = Response::new(Body::from(object.to_string()));
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

impl Forwarder {
    pub(crate) fn new(client: Client, registry: &Registry, stop: CancellationToken) -> Result<Self, prometheus::Error> {
        let name = "timonel_dashboard_requests_total";
        let requests = counter_vec(registry, Stability::Alpha, name, "Requests passed on, by status", &["code"])?;
        let slots = Arc::new(Semaphore::new(MAX_REQUESTS));
        Ok(Self(Arc::new(Inner { client, slots, streams: TaskTracker::new(), stop, requests })))
    }

    pub(crate) fn router(self) -> Router {
        let mut router = Router::new();
        for path in ["/api", "/api/{*rest}", "/apis", "/apis/{*rest}", "/version"] {
            router = router.route(path, any(handle));
        }
        router.with_state(self)
    }
}

async fn handle(State(forwarder): State<Forwarder>, request: Request<Body>) -> Response<Body> {
    let requests = forwarder.0.requests.clone();
    let response = match forwarder.pass(request).await {
        Ok(response) => response,
        Err(refusal) => refusal.response(),
    };
    requests.with_label_values(&[response.status().as_str()]).inc();
    response
}

impl Forwarder {
    async fn pass(&self, mut request: Request<Body>) -> Result<Response<Body>, Refusal> {
        let inner = &self.0;
        let upgrade = is_upgrade(request.headers());
        admit(request.method(), request.uri().path(), request.headers(), upgrade)?;
        let slot = Arc::clone(&inner.slots).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let client = upgrade.then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| Refusal::Body)?;
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut outgoing = Request::new(kube::client::Body::from(body));
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = target.parse().map_err(|_| Refusal::Path)?;
        copy(&parts.headers, outgoing.headers_mut(), &PASSED_ON);
        if upgrade {
            copy(&parts.headers, outgoing.headers_mut(), &OF_UPGRADES);
        }
        let mut answer = inner.client.send(outgoing).await.map_err(|error| {
            tracing::warn!(%error, "The API server does not answer");
            Refusal::Unreachable
        })?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client else { return Err(Refusal::Unreachable) };
            let server = hyper::upgrade::on(&mut answer);
            let stop = inner.stop.clone();
            inner.streams.spawn(async move {
                stop.run_until_cancelled(join(client, server)).await;
                drop(slot);
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let back =
                [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_PROTOCOL];
            copy(answer.headers(), response.headers_mut(), &back);
            return Ok(response);
        }
        // Where a redirect leads is not the API server's to say, and tokens do not follow.
        if answer.status().is_redirection() {
            return Err(Refusal::Unreachable);
        }
        let (parts, body) = answer.into_parts();
        let mut response = Response::new(Body::new(Held { body, _slot: slot }));
        *response.status_mut() = parts.status;
        copy(&parts.headers, response.headers_mut(), &PASSED_BACK);
        Ok(response)
    }
}

/// Whether a request may go on.
fn admit(method: &Method, path: &str, headers: &HeaderMap, upgrade: bool) -> Result<(), Refusal> {
    if !security::is_own(headers) {
        return Err(Refusal::Foreign);
    }
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    if !methods.contains(method) || !is_of_api(path) {
        return Err(Refusal::Path);
    }
    let bearer =
        |value: &HeaderValue| value.as_bytes().len() > 7 && value.as_bytes()[..7].eq_ignore_ascii_case(b"bearer ");
    let shown = headers.get(header::AUTHORIZATION).is_some_and(bearer);
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut protocols = protocols.flat_map(|value| value.split(','));
    let by_protocol = upgrade && protocols.any(|protocol| protocol.trim().starts_with(TOKEN_PROTOCOL));
    if shown || by_protocol { Ok(()) } else { Err(Refusal::Anonymous) }
}

/// Whether a path is of the API, and not of a proxy behind it: what Pods serve must not run as part of the page.
fn is_of_api(path: &str) -> bool {
    if path.contains('%') || path.contains("//") || path.split('/').any(|part| part == "." || part == "..") {
        return false;
    }
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let resource = match parts.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        ["version" | "api" | "apis"] | ["apis", _] => return true,
        _ => return false,
    };
    let (first, subresource) = match resource {
        ["namespaces", _, kind, _, subresource, ..] => (*kind, Some(*subresource)),
        [kind, _, subresource, ..] if *kind != "namespaces" => (*kind, Some(*subresource)),
        [kind, ..] => (*kind, None),
        [] => return true,
    };
    first != "proxy" && subresource != Some("proxy")
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        for value in from.get_all(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

async fn join(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    match tokio::try_join!(client, server) {
        Ok((client, server)) => {
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                tracing::debug!(%error, "joined streams ended");
            }
        }
        Err(error) => tracing::debug!(%error, "an upgrade failed"),
    }
}

/// An answer that counts as a running request until it ends.
struct Held {
    body: kube::client::Body,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = axum::body::Bytes;
    type Error = <kube::client::Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_api() {
        let table = [
            ("/version", true),
            ("/api", true),
            ("/apis/apps/v1/namespaces/default/deployments/web/scale", true),
            ("/api/v1/namespaces/default/pods/web/log", true),
            ("/api/v1/namespaces/default/services/proxy", true),
            ("/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node", true),
            ("/api/v1/namespaces/proxy/pods", true),
            ("/api/v1/namespaces/default/services/web/proxy", false),
            ("/api/v1/namespaces/default/services/web/proxy/x", false),
            ("/api/v1/namespaces/default/pods/web/pro%78y/", false),
            ("/api/v1/nodes/n/proxy/logs", false),
            ("/api/v1/proxy/namespaces/x", false),
            ("/api/v1/../../metrics", false),
            ("/api//v1", false),
            ("/metrics", false),
            ("/logs/x", false),
            ("/openapi/v2", false),
        ];
        for (path, wanted) in table {
            assert_eq!(is_of_api(path), wanted, "{path}");
        }
    }

    #[test]
    fn a_token_is_wanted() {
        let admitted = |pairs: &[(&str, &'static str)], upgrade: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers
                    .insert(HeaderName::from_bytes(name.as_bytes()).expect("a name"), HeaderValue::from_static(value));
            }
            admit(&Method::GET, "/api/v1/pods", &headers, upgrade)
        };
        assert_eq!(admitted(&[("authorization", "Bearer x")], false), Ok(()));
        assert_eq!(admitted(&[("authorization", "Basic x")], false), Err(Refusal::Anonymous));
        assert_eq!(admitted(&[("authorization", "Bearer ")], false), Err(Refusal::Anonymous));
        assert_eq!(admitted(&[], false), Err(Refusal::Anonymous));
        let protocol = ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.eA");
        assert_eq!(admitted(&[protocol], true), Ok(()));
        assert_eq!(admitted(&[protocol], false), Err(Refusal::Anonymous));
        let foreign = [("authorization", "Bearer x"), ("sec-fetch-site", "cross-site")];
        assert_eq!(admitted(&foreign, false), Err(Refusal::Foreign));
    }
}
