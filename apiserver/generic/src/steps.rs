//! Traces of requests, and what the log says of slow ones.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, Method, Response, header, request::Parts};
use machinery::ApiResult;
use spans::{Context, Kind, Span, Tracer};

use crate::{
    endpoint::Call,
    metrics::Asked,
    request::RequestInfo,
    user::{MASTERS, User},
};

/// Handling that takes longer is told step by step.
const SLOW: Duration = Duration::from_millis(500);
/// Who may choose what is sent to the collector, besides administrators.
const MONITORING: &str = "system:monitoring";

/// What a request is called in traces: names of objects would make too many.
fn name(method: &Method, info: &RequestInfo) -> String {
    if !info.is_resource {
        return method.to_string();
    }
    let mut path = String::new();
    let prefix = if info.group.is_empty() { "api" } else { "apis" };
    for part in [prefix, &info.group, &info.version] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    if !info.namespace.is_empty() {
        path.push_str("/namespaces/{:namespace}");
    }
    path.push('/');
    path.push_str(&info.resource);
    if !info.name.is_empty() {
        path.push_str("/{:name}");
    }
    if !info.subresource.is_empty() {
        path.push('/');
        path.push_str(&info.subresource);
    }
    format!("{method} {path}")
}

/// Begins the work on a request whose user is known. The word of who asks for it on whether it is sent counts only if
/// it comes from those who run the cluster.
pub(crate) fn begin(tracer: &Tracer, parts: &Parts, info: &RequestInfo, user: &User) -> Span {
    if !tracer.is_on() {
        return tracer.span("", Kind::Server, None);
    }
    let asked = Context::of_headers(&parts.headers);
    let name = name(&parts.method, info);
    let span = match asked {
        Some(asked) if user.in_group(MASTERS) || user.in_group(MONITORING) => {
            tracer.span(name, Kind::Server, Some(&asked))
        }
        other => tracer.linked(name, Kind::Server, other),
    };
    if span.is_sent() {
        span.set("http.method", parts.method.to_string());
        span.set("http.target", parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default());
        span.set("http.user_agent", text(&parts.headers, &header::USER_AGENT));
    }
    span
}

/// Notes how a request ended.
pub(crate) fn end(span: &Span, outcome: &ApiResult<Response<Body>>) {
    if !span.is_sent() {
        return;
    }
    let status = match outcome {
        Ok(response) => response.status().as_u16(),
        Err(error) => error.status().code,
    };
    span.set("http.status_code", i64::from(status));
    if status >= 500 {
        span.fail(outcome.as_ref().err().map(ToString::to_string).unwrap_or_default());
    }
}

fn text(headers: &HeaderMap, name: &header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// What the handler of a verb is called.
fn handler(call: &Call) -> Option<&'static str> {
    Some(match call.info.verb.as_str() {
        _ if call.info.is_long_running() => return None,
        "get" => "Get",
        "list" => "List",
        "create" => "Create",
        "update" => "Update",
        "patch" => "Patch",
        "delete" | "deletecollection" => "Delete",
        _ => return None,
    })
}

/// Runs the handler of a call. The log is told of one that takes long.
pub(crate) async fn handle<T>(call: &Call, work: impl Future<Output = T>) -> T {
    let Some(name) = handler(call) else { return work.await };
    let span = spans::child(name, Kind::Internal).log_if_long(SLOW);
    if !call.body.is_empty() {
        span.step("limitedReadBody succeeded");
    }
    let outcome = span.within(work).await;
    if span.is_told() {
        describe(&span, call);
    }
    outcome
}

fn describe(span: &Span, call: &Call) {
    let Call { info, headers, .. } = call;
    let scope = Asked::of(info, &call.method, &call.query, headers).scope();
    let client = call.peer.address.map(|address| address.ip().to_string()).unwrap_or_default();
    for (name, value) in [
        ("accept", text(headers, &header::ACCEPT)),
        ("audit-id", text(headers, &header::HeaderName::from_static("audit-id"))),
        ("client", client),
        ("api-group", info.group.clone()),
        ("api-version", info.version.clone()),
        ("name", info.name.clone()),
        ("subresource", info.subresource.clone()),
        ("namespace", info.namespace.clone()),
        ("resource", info.resource.clone()),
        ("scope", scope.to_owned()),
        ("url", info.path.clone()),
        ("user-agent", text(headers, &header::USER_AGENT)),
        ("verb", call.method.to_string()),
    ] {
        span.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    #[test]
    fn requests_are_named_without_names() {
        for (path, wanted) in [
            ("/api/v1/namespaces/default/pods/web/log", "GET /api/v1/namespaces/{:namespace}/pods/{:name}/log"),
            ("/apis/apps/v1/deployments", "GET /apis/apps/v1/deployments"),
            ("/healthz", "GET"),
        ] {
            let info = RequestInfo::parse(&Method::GET, path, &Query::default());
            assert_eq!(name(&Method::GET, &info), wanted, "{path}");
        }
    }
}
