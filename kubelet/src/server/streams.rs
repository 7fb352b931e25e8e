//! Exec, attach and port-forward: the runtime gives an address, and the upgraded connection is passed through to it.
//!
//! Nothing is reused after an upgrade that was not answered with 101 (CVE-2018-1002105), and redirects are never
//! followed (CVE-2020-8559).

use axum::body::Body;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Server, query_pairs, text};
use crate::cri::{CriError, PodView, RecordState, v1};
use crate::pods;

const MAX_ERROR_BODY: usize = 64 * 1024;

/// What a stream is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Server {
    pub(super) async fn stream(
        &self,
        kind: &str,
        (namespace, pod, container): (String, String, String),
        request: Request<Body>,
    ) -> Response<Body> {
        let pairs = query_pairs(request.uri().query().unwrap_or_default());
        let flag = |name: &str| pairs.iter().any(|(key, value)| key == name && value == "1");
        let tty = flag("tty");
        let wanted = Wanted { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") && !tty, tty };
        if kind != "portForward" && !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr\n");
        }
        let Some(found) = self.workers.find(&namespace, &pod) else {
            return text(StatusCode::NOT_FOUND, "pod does not exist\n");
        };
        let view = match PodView::read(&self.services.cri, pods::uid(&found.pod)).await {
            Ok(view) => view,
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        let command: Vec<String> = pairs.iter().filter(|(key, _)| key == "command").map(|(_, v)| v.clone()).collect();
        let ports = pairs.iter().filter(|(key, _)| key == "port").filter_map(|(_, v)| v.parse().ok()).collect();
        let url = match self.url(kind, &view, &container, command, wanted, ports).await {
            Ok(Some(url)) => url,
            Ok(None) if kind == "portForward" => {
                return text(StatusCode::NOT_FOUND, format!("pod not found ({pod:?})\n"));
            }
            Ok(None) => return text(StatusCode::NOT_FOUND, format!("container not found ({container:?})\n")),
            Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        pass_through(request, &url).await
    }

    async fn url(
        &self,
        kind: &str,
        view: &PodView,
        container: &str,
        cmd: Vec<String>,
        wanted: Wanted,
        port: Vec<i32>,
    ) -> Result<Option<String>, CriError> {
        let cri = &self.services.cri;
        let Wanted { stdin, stdout, stderr, tty } = wanted;
        if kind == "portForward" {
            let Some(sandbox) = view.active_sandbox() else { return Ok(None) };
            let request = v1::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port };
            return cri.port_forward(request).await.map(Some);
        }
        let running = view.newest(container).filter(|record| record.state == RecordState::Running);
        let Some(record) = running else { return Ok(None) };
        let container_id = record.id.clone();
        let url = match kind {
            "exec" => cri.exec(v1::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }).await?,
            _ => cri.attach(v1::AttachRequest { container_id, stdin, tty, stdout, stderr }).await?,
        };
        Ok(Some(url))
    }

    /// `POST /run/...?cmd=`: runs a command to its end.
    pub(super) async fn run_command(&self, namespace: &str, pod: &str, container: &str, query: &str) -> Response<Body> {
        let Some(found) = self.workers.find(namespace, pod) else {
            return text(StatusCode::NOT_FOUND, "pod does not exist\n");
        };
        let command = query_pairs(query).into_iter().find(|(key, _)| key == "cmd").map(|(_, value)| value);
        let command: Vec<String> = command.unwrap_or_default().split(' ').map(str::to_owned).collect();
        let view = PodView::read(&self.services.cri, pods::uid(&found.pod)).await;
        let id = view.ok().and_then(|view| view.newest(container).map(|record| record.id.clone()));
        let Some(id) = id else { return text(StatusCode::NOT_FOUND, format!("container not found ({container:?})\n")) };
        match self.services.cri.exec_sync(&id, command, std::time::Duration::ZERO).await {
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                Response::new(Body::from(output))
            }
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

/// Repeats the upgrade at the runtime's address and joins the two connections.
async fn pass_through(mut request: Request<Body>, url: &str) -> Response<Body> {
    if !is_upgrade(request.headers()) {
        return text(StatusCode::BAD_REQUEST, "Upgrade request required\n");
    }
    let client = hyper::upgrade::on(&mut request);
    let (method, headers) = (request.method().clone(), request.headers().clone());
    drop(request);
    match upgrade(method, &headers, url).await {
        Ok(mut answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let backend = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                let (client, backend) = match tokio::try_join!(client, backend) {
                    Ok(both) => both,
                    Err(error) => return tracing::debug!(%error, "upgrade of a stream"),
                };
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                    tracing::debug!(%error, "stream ended");
                }
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *response.headers_mut() = answer.headers().clone();
            response
        }
        Ok(answer) => refused(answer).await,
        Err(error) => text(StatusCode::BAD_GATEWAY, error),
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let mut tokens =
        headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
    headers.contains_key(UPGRADE) && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

async fn upgrade(method: Method, headers: &HeaderMap, url: &str) -> Result<Response<hyper::body::Incoming>, String> {
    let uri: Uri = url.parse().map_err(|_| "the runtime gave an address that is none".to_owned())?;
    let authority = uri.authority().ok_or("the runtime gave an address without a host")?;
    let port = authority.port_u16().unwrap_or(80);
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, port)).await.map_err(|error| format!("dial the runtime: {error}"))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to the runtime's streams");
        }
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut outgoing = Request::builder().method(method).uri(path).body(Body::empty()).map_err(|e| e.to_string())?;
    for (name, value) in headers {
        // Credentials for the kubelet are none of the runtime's business.
        if !matches!(name.as_str(), "authorization" | "cookie" | "host" | "content-length") {
            outgoing.headers_mut().append(name.clone(), value.clone());
        }
    }
    let value = HeaderValue::from_str(authority.as_str()).map_err(|error| error.to_string())?;
    outgoing.headers_mut().insert(HOST, value);
    sender.send_request(outgoing).await.map_err(|error| error.to_string())
}

/// An answer that is no upgrade ends here; a redirect is not for the client to follow.
async fn refused(answer: Response<hyper::body::Incoming>) -> Response<Body> {
    let status = answer.status();
    if status.is_redirection() {
        return text(
            StatusCode::BAD_GATEWAY,
            "the backend attempted to redirect this request, which is not permitted\n",
        );
    }
    let body = Limited::new(answer.into_body(), MAX_ERROR_BODY).collect().await;
    let body = body.map(|collected| collected.to_bytes()).unwrap_or_default();
    text(status, String::from_utf8_lossy(&body).into_owned())
}
