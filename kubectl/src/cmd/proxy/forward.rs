//! Requests that go on to the API server.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use kube::Client;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Body, full, text};

/// Headers of one connection; they go no further.
const OF_CONNECTION: [&str; 7] =
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"];

/// Longest body of a request; it is sent when all of it is there.
const LARGEST: usize = 64 << 20;

/// The way to the API server.
pub(super) struct Forwarder {
    client: Client,
    /// Where the API begins here, with a slash at its end.
    prefix: String,
    /// Path of the server's address.
    base: String,
    user_agent: Option<HeaderValue>,
}

impl Forwarder {
    pub(super) fn new(client: Client, prefix: &str, server: String, user_agent: String) -> Self {
        let mut prefix = prefix.to_owned();
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        let path = server.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()));
        let base = path.unwrap_or_default().trim_end_matches('/').to_owned();
        Self { client, prefix, base, user_agent: HeaderValue::from_str(&user_agent).ok() }
    }

    /// Whether a path is the prefix but for its last slash.
    pub(super) fn is_prefix(&self, path: &str) -> bool {
        self.prefix.len() > 1 && path == self.prefix.trim_end_matches('/')
    }

    /// What a request asks the API server for; nothing if it is not below the prefix.
    pub(super) fn target(&self, uri: &Uri) -> Option<String> {
        let path = uri.path().strip_prefix(&self.prefix)?;
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        Some(format!("{}/{}{query}", self.base, path.trim_start_matches('/')))
    }

    pub(super) async fn forward(
        &self,
        mut request: Request<Incoming>,
        target: &str,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Response<Body> {
        let upgrade = request.headers().get(header::UPGRADE).cloned();
        let local = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let Ok(target) = target.parse::<Uri>() else { return failed("the path is not valid") };
        let body = match Limited::new(body, LARGEST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return text(StatusCode::PAYLOAD_TOO_LARGE, "the request body is too long\n"),
        };
        let mut outgoing = Request::new(kube::client::Body::from(body));
        *outgoing.method_mut() = parts.method;
        *outgoing.uri_mut() = target;
        let headers = outgoing.headers_mut();
        pass(&parts.headers, headers);
        headers.remove(header::HOST);
        if let Some(upgrade) = upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, upgrade);
        }
        if let (false, Some(agent)) = (headers.contains_key(header::USER_AGENT), &self.user_agent) {
            headers.insert(header::USER_AGENT, agent.clone());
        }
        let mut answer = match self.client.send(outgoing).await {
            Ok(answer) => answer,
            Err(error) => return failed(&util::chain(&error)),
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(local) = local else { return failed("the server changed the protocol unasked") };
            let remote = hyper::upgrade::on(&mut answer);
            let stop = stop.clone();
            tasks.spawn(async move {
                let join = async {
                    if let (Ok(local), Ok(remote)) = (local.await, remote.await) {
                        let (mut local, mut remote) = (TokioIo::new(local), TokioIo::new(remote));
                        // Either side ends as it likes.
                        let _cut = tokio::io::copy_bidirectional(&mut local, &mut remote).await.is_err();
                    }
                };
                let _ended = stop.run_until_cancelled(join).await;
            });
            let mut response = Response::new(full(""));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = answer.headers().clone();
            return response;
        }
        let (parts, body) = answer.into_parts();
        let mut response = Response::new(body.map_err(std::io::Error::other).boxed_unsync());
        *response.status_mut() = parts.status;
        pass(&parts.headers, response.headers_mut());
        response
    }
}

/// Headers that concern more than one connection.
fn pass(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        if !OF_CONNECTION.contains(&name.as_str()) && name != header::UPGRADE {
            to.append(name.clone(), value.clone());
        }
    }
}

fn failed(text: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::from(format!("{text}\n"))));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
