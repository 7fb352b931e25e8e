//! Upgrades: the client's is repeated at a back end, then the two connections are joined.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{self, CONNECTION, UPGRADE},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use crate::{BackendError, Connection};

/// Time for a back end to answer an upgrade.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest text of a refused upgrade that is passed on, bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;
/// Names the protocol of the streams.
pub(crate) const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// Whether a request asks for another protocol.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = values.flat_map(|value| value.split(','));
    headers.contains_key(UPGRADE) && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// What an upgrade is sent with.
#[derive(Clone, Debug)]
pub struct UpgradeRequest {
    /// HTTP method.
    pub method: Method,
    /// Path and query at the back end.
    pub target: String,
    /// The `Host` header.
    pub host: String,
    /// Headers, credentials already removed.
    pub headers: HeaderMap,
}

impl UpgradeRequest {
    /// An upgrade to SPDY/3.1 with a stream protocol (`X-Stream-Protocol-Version`).
    pub fn spdy(target: String, host: String, protocol: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
        Self { method: Method::POST, target, host, headers }
    }
}

/// The answer to an upgrade.
pub enum Answer {
    /// 101 with its headers, and the connection.
    Switched(HeaderMap, Upgraded),
    /// Anything else; the connection is gone.
    Refused(Refusal),
}

/// An upgrade that was not answered with 101.
#[derive(Debug)]
pub struct Refusal {
    /// Status code.
    pub status: StatusCode,
    /// Content-Type of the body.
    pub content_type: Option<HeaderValue>,
    /// The body, at most 64 KiB.
    pub body: Bytes,
}

impl Refusal {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }

    /// The answer for the client. Redirects are not the client's to follow.
    pub fn into_response(self) -> Response<Body> {
        if self.status.is_redirection() {
            let text = "the backend attempted to redirect this request, which is not permitted\n";
            return plain(StatusCode::BAD_GATEWAY, text);
        }
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let kind = self.content_type.unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

/// A plain text answer.
pub(crate) fn plain(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Sends an upgrade over a fresh connection and waits for the answer.
pub async fn send(connection: Connection, request: UpgradeRequest) -> Result<Answer, BackendError> {
    tokio::time::timeout(ANSWER_TIMEOUT, exchange(connection, request)).await.map_err(|_| BackendError::Deadline)?
}

async fn exchange(connection: Connection, request: UpgradeRequest) -> Result<Answer, BackendError> {
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    tokio::spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "connection of an upgrade");
        }
    });
    let mut outgoing = Request::builder().method(request.method).uri(request.target).body(Empty::<Bytes>::new())?;
    for (name, value) in &request.headers {
        let names_request = *name == header::HOST || *name == header::CONTENT_LENGTH;
        if !names_request && *name != header::TRANSFER_ENCODING {
            outgoing.headers_mut().append(name.clone(), value.clone());
        }
    }
    outgoing.headers_mut().insert(header::HOST, HeaderValue::from_str(&request.host).map_err(http::Error::from)?);
    let mut answer = sender.send_request(outgoing).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let headers = answer.headers().clone();
        let upgraded = hyper::upgrade::on(&mut answer).await?;
        return Ok(Answer::Switched(headers, upgraded));
    }
    Ok(Answer::Refused(refusal(answer).await))
}

async fn refusal(answer: Response<Incoming>) -> Refusal {
    let (parts, body) = answer.into_parts();
    let collected = Limited::new(body, MAX_ERROR_BODY).collect().await;
    Refusal {
        status: parts.status,
        content_type: parts.headers.get(header::CONTENT_TYPE).cloned(),
        body: collected.map(|c| c.to_bytes()).unwrap_or_default(),
    }
}

/// Repeats the client's upgrade at a back end; when it agrees, joins the two connections until either ends.
pub async fn pass_through(
    mut client: Request<Body>,
    connection: Connection,
    request: UpgradeRequest,
) -> Result<Response<Body>, BackendError> {
    let switched = hyper::upgrade::on(&mut client);
    match send(connection, request).await? {
        Answer::Refused(refusal) => Ok(refusal.into_response()),
        Answer::Switched(headers, backend) => {
            tokio::spawn(join(switched, backend));
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = headers;
            Ok(response)
        }
    }
}

async fn join(client: OnUpgrade, backend: Upgraded) {
    let client = match client.await {
        Ok(client) => client,
        Err(error) => return tracing::debug!(%error, "upgrade of a client"),
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!(%error, "joined streams ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What a client gets, and what the back end is sent after its answer.
    async fn tried(answer: &'static str) -> (Response<Body>, Vec<u8>) {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let backend = tokio::spawn(async move {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(far.read_u8().await.expect("a request"));
            }
            far.write_all(answer.as_bytes()).await.expect("answered");
            let mut more = Vec::new();
            far.read_to_end(&mut more).await.expect("the end");
            more
        });
        let client = Request::new(Body::from("GET /secrets HTTP/1.1\r\n\r\n"));
        let request = UpgradeRequest::spdy("/exec".into(), "node".into(), "v4.channel.k8s.io");
        let response = pass_through(client, Box::new(near), request).await.expect("an answer");
        (response, backend.await.expect("the back end ends"))
    }

    #[tokio::test]
    async fn cve_2018_1002105_a_refused_upgrade_leaves_no_connection() {
        for (answer, status) in [
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nno\n", StatusCode::BAD_REQUEST),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", StatusCode::OK),
            (
                "HTTP/1.1 403 Forbidden\r\nconnection: upgrade\r\nupgrade: SPDY/3.1\r\ncontent-length: 0\r\n\r\n",
                StatusCode::FORBIDDEN,
            ),
        ] {
            let (response, more) = tried(answer).await;
            assert_eq!(response.status(), status);
            assert!(more.is_empty(), "nothing of the client reaches the back end");
        }
    }

    #[tokio::test]
    async fn cve_2020_8559_redirects_are_not_followed() {
        for code in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
            let answer = format!("HTTP/1.1 {code}\r\nlocation: https://other:10250/exec\r\ncontent-length: 0\r\n\r\n");
            let (response, more) = tried(Box::leak(answer.into_boxed_str())).await;
            assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
            assert!(response.headers().get(header::LOCATION).is_none() && more.is_empty());
        }
    }
}
