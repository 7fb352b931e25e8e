//! The life of a request, top to bottom: one function, in the order of upstream's handler chain.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use machinery::{ApiError, ApiResult};
use parking_lot::Mutex;

use crate::{
    audit::{Asked, Record},
    authn::Peer,
    authz::{Attributes, Decision, forbidden},
    delegate,
    endpoint::{Call, Endpoint, Waited, Warnings},
    flowcontrol::Found,
    impersonate,
    journal::Journal,
    metrics,
    negotiate::error_media,
    nonresource,
    request::{Query, RequestInfo},
    respond,
    server::{self, Server},
    steps,
    user::{self, User},
    verbs::body::BODY_LIMIT,
};

static AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Serves one request. Never fails: every failure is an answer.
pub async fn serve(server: Arc<Server>, mut request: Request<Body>, peer: Peer) -> Response<Body> {
    let audit_id = request.headers().get(&AUDIT_ID).cloned().unwrap_or_else(|| {
        HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static(""))
    });
    request.headers_mut().insert(AUDIT_ID.clone(), audit_id.clone());
    let query = Query::parse(request.uri().query().unwrap_or(""));
    let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
    let asked = metrics::Asked::of(&info, request.method(), &query, request.headers());
    let journal = Journal::begin(&request, &peer);
    let (version, waited, found) = (request.version(), Waited::default(), Found::default());
    request.extensions_mut().insert(waited.clone());
    let mut course = Course { server: &server, asked: &asked, is_over: false };
    let _streams = server.metrics.streams(&asked);
    let counted = server.front.enter(&info, request.headers());
    let mut response = match counted {
        Err(refused) => *refused,
        Ok(_counted) => {
            let answer = answer(Arc::clone(&server), request, peer, info.clone(), (query, &found, &asked));
            AssertUnwindSafe(answer).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(path = %info.path, "request handler panicked");
                server.metrics.terminated(&asked, StatusCode::INTERNAL_SERVER_ERROR);
                let text = "This request caused apiserver to panic. Look in the logs for details.\n";
                respond::plain(StatusCode::INTERNAL_SERVER_ERROR, text)
            })
        }
    };
    course.is_over = true;
    server.front.mark(&info, version, response.headers_mut());
    response.headers_mut().insert(AUDIT_ID.clone(), audit_id.clone());
    let (took, size) = (journal.took(), axum::body::HttpBody::size_hint(response.body()).exact());
    server.metrics.observe(&asked, response.status(), took, waited.total(), size);
    journal.end(&asked, &audit_id, response.status(), &found);
    response
}

/// A request on its way; one that is dropped on the way was given up by its client.
struct Course<'a> {
    server: &'a Server,
    asked: &'a metrics::Asked,
    is_over: bool,
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.server.metrics.aborted(self.asked);
        }
    }
}

async fn answer(
    server: Arc<Server>,
    request: Request<Body>,
    peer: Peer,
    info: RequestInfo,
    (query, found, asked): (Query, &Found, &metrics::Asked),
) -> Response<Body> {
    let cross_origin = match server.front.cross_origin(request.method(), request.headers()) {
        Ok(headers) => headers,
        Err(preflight) => return *preflight,
    };
    // Only errors need it, and by then the request is gone.
    let accept: Vec<HeaderValue> = request.headers().get_all(header::ACCEPT).iter().cloned().collect();
    let deadline = match deadline(&info, &query, server.times.request) {
        Ok(deadline) => deadline,
        Err(error) => return respond::error(&error, error_media(&accept)),
    };
    let work = secured(Arc::clone(&server), request, peer, info, query, (found, asked));
    let outcome = match deadline {
        None => work.await,
        Some(deadline) => tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
            server.metrics.terminated(asked, StatusCode::GATEWAY_TIMEOUT);
            server.metrics.ended_late();
            Err(ApiError::timeout("request did not complete within the allotted timeout", 0).edit(|s| s.details = None))
        }),
    };
    let mut response = outcome.unwrap_or_else(|error| respond::error(&error, error_media(&accept)));
    found.mark(response.headers_mut());
    response.headers_mut().extend(cross_origin);
    response
}

/// When a request must have ended; `longest` is the deadline of those that wish none. `None` for streams.
fn deadline(info: &RequestInfo, query: &Query, longest: Duration) -> ApiResult<Option<Duration>> {
    if info.is_long_running() {
        return Ok(None);
    }
    let Some(text) = query.get("timeout").filter(|t| !t.is_empty()) else { return Ok(Some(longest)) };
    let parsed = machinery::duration::parse(text)
        .map_err(|e| ApiError::bad_request(format!("invalid timeout specified in the request URL - {e}")))?;
    let wanted = Duration::try_from(parsed).unwrap_or_default();
    Ok(Some(if wanted.is_zero() { longest } else { wanted.min(longest) }))
}

async fn secured(
    server: Arc<Server>,
    request: Request<Body>,
    peer: Peer,
    info: RequestInfo,
    query: Query,
    (found, labels): (&Found, &metrics::Asked),
) -> ApiResult<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let user = authenticate(&server, &mut parts, &peer, &info).await?;
    let record = match &server.audit {
        None => None,
        Some(auditor) => {
            let id = parts.headers.get(&AUDIT_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
            let asked = Asked { info: &info, uri: &parts.uri, headers: &parts.headers, peer: &peer, id };
            auditor.begin(asked, &user).await?
        }
    };
    let streams = info.is_long_running();
    let span = steps::begin(&server.tracer, &parts, &info, &user);
    let asked = Request::from_parts(parts, body);
    let work = authenticated(server, asked, peer, (info, query), user, record.clone(), (found, labels));
    let outcome = span.within(work).await;
    let outcome = match record {
        Some(record) => record.finish(outcome, streams).await,
        None => outcome,
    };
    steps::end(&span, &outcome);
    outcome
}

/// What comes after authentication: the user is known, and the request is on record.
async fn authenticated(
    server: Arc<Server>,
    request: Request<Body>,
    peer: Peer,
    (info, query): (RequestInfo, Query),
    user: User,
    record: Option<Arc<Record>>,
    (found, labels): (&Found, &metrics::Asked),
) -> ApiResult<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let name = user.name.clone();
    let user = impersonate::apply(&server, user, &mut parts.headers).await?;
    let queued = std::time::Instant::now();
    let admitted = server.admit(&info, &query, &user, found).await;
    if let Some(waited) = parts.extensions.get::<Waited>() {
        waited.add(queued.elapsed());
    }
    server.metrics.filtered("priorityandfairness", queued.elapsed());
    let _admitted = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => {
            server.metrics.terminated(labels, StatusCode::TOO_MANY_REQUESTS);
            return Ok(too_many(refused.retry_after));
        }
    };
    found.runs();
    let attributes = Attributes::of(&info, &query, &user);
    let asked = std::time::Instant::now();
    let decision = server.authorizer.authorize(&attributes).await;
    let result = match &decision {
        Decision::Allow(_) => 0,
        Decision::Deny(_) => 1,
        Decision::NoOpinion(_) => 2,
    };
    server.metrics.authorization.count(result, asked.elapsed());
    server.metrics.filtered("authorization", asked.elapsed());
    if let Some(record) = &record {
        if user.name != name {
            record.impersonates(&user);
        }
        record.decided(&decision);
        parts.extensions.insert(Arc::clone(record));
    }
    match decision {
        Decision::Allow(_) => {}
        Decision::Deny(reason) | Decision::NoOpinion(reason) => return Err(forbidden(&attributes, &reason)),
    }
    let request = Request::from_parts(parts, body);
    if let Some(delegate) = &server.delegate
        && let Some((group, version)) = delegate::group_version(&info.path)
        && delegate.claims(group, version)
    {
        return Ok(delegate.pass_on((group, version), request, &user, &peer).await);
    }
    if !info.is_resource {
        return nonresource::serve(&server, request, &user).await;
    }
    let Some(endpoint) = find(&server, &info)? else {
        return Ok(plain_not_found());
    };
    resource(server, endpoint, request, peer, info, query, user).await
}

/// The endpoint of a resource path. `None`: no such group version; an error: no such resource in it.
fn find(server: &Server, info: &RequestInfo) -> ApiResult<Option<Arc<Endpoint>>> {
    match server.endpoints.get(&info.group, &info.version, &info.resource) {
        Some(endpoint) if !endpoint.namespaced && !info.namespace.is_empty() && info.resource != "namespaces" => {
            if endpoint.custom().is_some() {
                Ok(None)
            } else {
                Err(ApiError::no_resource())
            }
        }
        Some(endpoint) => Ok(Some(endpoint)),
        None if server.endpoints.has_version(&info.group, &info.version) => Err(ApiError::no_resource()),
        None if !server.endpoints.is_complete() => {
            let text = "the request has been made before all known HTTP paths have been installed, please try again";
            Err(ApiError::unavailable(text).retry_after(5))
        }
        None => Ok(None),
    }
}

/// The answer to paths that nobody serves.
pub fn plain_not_found() -> Response<Body> {
    respond::plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// The answer to requests that are too many.
fn too_many(retry_after: u32) -> Response<Body> {
    let mut response = respond::plain(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
    response
}

async fn authenticate(
    server: &Server,
    parts: &mut http::request::Parts,
    peer: &Peer,
    info: &RequestInfo,
) -> ApiResult<User> {
    let started = std::time::Instant::now();
    let counted = |result| {
        server.metrics.authentication.count(result, started.elapsed());
        server.metrics.filtered("authentication", started.elapsed());
    };
    let mut refusals = Vec::new();
    for authenticator in &server.authenticators {
        match authenticator.authenticate(parts, peer).await {
            Ok(Some(user)) => {
                parts.headers.remove(header::AUTHORIZATION);
                counted(0);
                server.metrics.user(&user.name);
                return Ok(user.authenticated());
            }
            Ok(None) => {}
            Err(error) => refusals.push(error.to_string()),
        }
    }
    if !refusals.is_empty() {
        tracing::error!(err = format!("[{}]", refusals.join(", ")), "Unable to authenticate the request");
        counted(2);
        return Err(ApiError::unauthorized());
    }
    if parts.headers.contains_key(header::AUTHORIZATION) || !server.allows_anonymous(&info.path) {
        counted(1);
        return Err(ApiError::unauthorized());
    }
    counted(0);
    server.metrics.user(user::ANONYMOUS);
    Ok(user::User::anonymous())
}

async fn resource(
    server: Arc<Server>,
    endpoint: Arc<Endpoint>,
    request: Request<Body>,
    peer: Peer,
    info: RequestInfo,
    query: Query,
    user: User,
) -> ApiResult<Response<Body>> {
    let record = request.extensions().get::<Arc<Record>>().cloned();
    let waited = request.extensions().get::<Waited>().cloned().unwrap_or_default();
    let headers = request.headers().clone();
    let method = request.method().clone();
    let takes_over = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log");
    let writes = !matches!(method, Method::GET | Method::HEAD);
    let (body, connection) = if takes_over {
        (Bytes::new(), Some(request))
    } else if writes {
        let body = read_body(request.into_body()).await?;
        server.metrics.body(&info, body.len());
        (body, None)
    } else {
        (Bytes::new(), None)
    };
    if let Some(record) = &record {
        record.sent(&headers, &body);
    }
    let call = Call {
        audit: record.map(|record| record.annotations()).unwrap_or_default(),
        server,
        endpoint,
        info,
        query,
        headers,
        method,
        user,
        peer,
        body,
        connection: Mutex::new(connection),
        warnings: Warnings::default(),
        waited,
    };
    if writes && !takes_over {
        // A write that passed admission runs to its end even if the client leaves.
        let work = spans::enter(spans::current(), async move { with_warnings(&call).await });
        return match tokio::spawn(work).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Err(ApiError::internal(error)),
            },
        };
    }
    with_warnings(&call).await
}

async fn with_warnings(call: &Call) -> ApiResult<Response<Body>> {
    if let Some(text) = rules::strategy::deprecation(&call.endpoint.gvk, &call.info.verb) {
        call.server.metrics.deprecated(&call.info);
        call.warnings.add(text);
    }
    if let Some(text) = call.endpoint.custom().and_then(|c| c.deprecation()) {
        call.warnings.add(text);
    }
    let outcome = steps::handle(call, server::dispatch(call)).await;
    let warnings = call.warnings.take();
    if warnings.is_empty() {
        return outcome;
    }
    let refused = |error| respond::error(&error, error_media(call.headers.get_all(header::ACCEPT)));
    let mut response = outcome.unwrap_or_else(refused);
    add_warnings(response.headers_mut(), warnings);
    Ok(response)
}

/// Total length of warnings after which each is cut, and what it is cut to (characters).
const WARNING_TOTAL: usize = 4096;
const WARNING_CUT: usize = 256;

fn add_warnings(headers: &mut HeaderMap, warnings: Vec<String>) {
    let total: usize = warnings.iter().map(String::len).sum();
    for text in warnings {
        let text: String = if total > WARNING_TOTAL { text.chars().take(WARNING_CUT).collect() } else { text };
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append(header::WARNING, value);
        }
    }
}

async fn read_body(mut body: Body) -> ApiResult<Bytes> {
    match Limited::new(&mut body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            discard(body).await;
            Err(ApiError::body_too_large(BODY_LIMIT))
        }
        Err(error) => Err(ApiError::bad_request(format!("error reading the request body: {error}"))),
    }
}

/// Reads what is left of a refused body, within bounds: a client that is still sending would not see the answer.
async fn discard(mut body: Body) {
    const MOST: usize = 4 * BODY_LIMIT;
    const LONGEST: Duration = Duration::from_secs(5);
    let reading = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > MOST {
                return;
            }
        }
    };
    // Out of time or not, the request is refused.
    tokio::time::timeout(LONGEST, reading).await.unwrap_or_default();
}
