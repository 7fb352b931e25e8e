//! What the log says of requests: 6 that they were made, 7 with headers, 8 with the beginning of bodies, 9 with all of
//! them.
//!
//! Credentials are added further down and are not seen here; bodies that carry secrets are not told.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use kube::client::Body;
use runtime::logging::verbosity;
use tower::BoxError;

const REQUESTS: i32 = 6;
const HEADERS: i32 = 7;
const BODIES: i32 = 8;
const WHOLE_BODIES: i32 = 9;
/// Bytes of a body that are told where not all are.
const BEGINNING: usize = 1024;
/// Parts of paths of which bodies are not told.
const SECRET: [&str; 4] = ["secrets", "token", "tokenreviews", "podcertificaterequests"];

/// A request that is to be told of.
pub(crate) struct Entry {
    verb: String,
    url: String,
    headers: Option<String>,
    body: Option<Body>,
    secret: bool,
}

impl Entry {
    /// `None` if nothing is to be told.
    pub(crate) fn of(request: &Request<Body>, host: &str) -> Option<Self> {
        let level = verbosity();
        if level < REQUESTS {
            return None;
        }
        let path = request.uri().path();
        let secret = path.split('/').any(|part| SECRET.contains(&part));
        Some(Self {
            verb: request.method().to_string(),
            url: format!("//{host}{}", request.uri()),
            headers: (level >= HEADERS).then(|| lines(request.headers())),
            body: (level >= BODIES && !secret).then(|| request.body().try_clone()).flatten(),
            secret,
        })
    }

    /// The request goes out.
    pub(crate) fn sent(&self) {
        let Some(headers) = &self.headers else { return };
        tracing::info!(v = HEADERS, verb = self.verb, url = self.url, headers, "Request");
        if let Some(body) = self.body.as_ref().and_then(Body::try_clone) {
            let collected = futures::FutureExt::now_or_never(body.collect());
            if let Some(Ok(whole)) = collected {
                tell("Request Body", &whole.to_bytes());
            }
        }
    }

    /// There is an answer, or there is none.
    pub(crate) fn answered<B>(&self, outcome: &Result<Response<B>, BoxError>, took: Duration) {
        let (status, headers) = match outcome {
            Ok(answer) => (answer.status().to_string(), lines(answer.headers())),
            Err(_) => (String::new(), String::new()),
        };
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if self.headers.is_some() {
            tracing::info!(v = REQUESTS, verb = self.verb, url = self.url, status, headers, milliseconds, "Response");
        } else {
            tracing::info!(v = REQUESTS, verb = self.verb, url = self.url, status, milliseconds, "Response");
        }
    }

    /// The body of the answer, told as it comes.
    pub(crate) fn told(entry: Option<Self>, body: UnsyncBoxBody<Bytes, BoxError>) -> UnsyncBoxBody<Bytes, BoxError> {
        if entry.is_none_or(|entry| entry.secret) || verbosity() < BODIES {
            return body;
        }
        body.map_frame(|frame| {
            if let Some(data) = frame.data_ref() {
                tell("Response Body", data);
            }
            frame
        })
        .boxed_unsync()
    }
}

fn lines(headers: &HeaderMap) -> String {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let each = headers.iter().map(|(name, value)| match *name {
        http::header::AUTHORIZATION | http::header::COOKIE | http::header::SET_COOKIE => format!("{name}: <masked>\n"),
        _ => format!("{name}: {}\n", text(value)),
    });
    each.collect()
}

fn tell(what: &str, data: &Bytes) {
    let shown = if verbosity() >= WHOLE_BODIES { data.len() } else { data.len().min(BEGINNING) };
    let mut body = String::from_utf8_lossy(&data[..shown]).into_owned();
    if shown < data.len() {
        body.push_str(&format!(" [truncated {} chars]", data.len() - shown));
    }
    tracing::info!(v = BODIES, body, "{what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_masked() {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::AUTHORIZATION, http::HeaderValue::from_static("Bearer abc"));
        headers.insert(http::header::ACCEPT, http::HeaderValue::from_static("x"));
        let text = lines(&headers);
        assert!(text.contains("authorization: <masked>\n") && text.contains("accept: x\n"), "{text}");
    }
}
