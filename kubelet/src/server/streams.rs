//! Exec, attach and port-forward: the runtime gives an address, and the upgraded connection is passed through to it.
//!
//! Clients that speak `v5.channel.k8s.io` or the port-forward tunnel are translated, for runtimes speak SPDY.

use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, COOKIE};
use http::{Request, Response, StatusCode, Uri};
use streaming::Connection;
use streaming::translate::{self, Backend, Streams};
use streaming::tunnel;
use streaming::upgrade::{self, Answer, UpgradeRequest};
use streaming::websocket::{self, Handshake};
use tokio::net::TcpStream;

use super::idle::Idle;
use super::{Server, query_pairs, text};
use crate::cri::{CriError, PodView, RecordState, v1};
use crate::pods;

const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

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
        let wanted = Streams { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") && !tty, tty };
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
        if !upgrade::is_upgrade(request.headers()) {
            return text(StatusCode::BAD_REQUEST, "Upgrade request required\n");
        }
        let idle = self.services.config.streaming_connection_idle_timeout.0;
        let carried = carry(request, &url, idle, kind, wanted).await;
        carried.unwrap_or_else(|error| text(StatusCode::BAD_GATEWAY, error))
    }

    async fn url(
        &self,
        kind: &str,
        view: &PodView,
        container: &str,
        cmd: Vec<String>,
        wanted: Streams,
        port: Vec<i32>,
    ) -> Result<Option<String>, CriError> {
        let cri = &self.services.cri;
        let Streams { stdin, stdout, stderr, tty } = wanted;
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

/// Where the runtime serves a stream.
struct Address {
    host: String,
    port: u16,
    authority: String,
    target: String,
    /// Time without any byte after which the stream ends.
    idle: Duration,
}

impl Address {
    fn parse(url: &str, idle: Duration) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "the runtime gave an address that is none".to_owned())?;
        let authority = uri.authority().ok_or("the runtime gave an address without a host")?;
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: authority.to_string(),
            target: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            idle,
        })
    }

    async fn connect(&self) -> Result<Connection, String> {
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(DIAL_TIMEOUT, connect).await.map_err(|_| "dial the runtime: timeout")?;
        let stream = stream.map_err(|error| format!("dial the runtime: {error}"))?;
        Ok(Box::new(Idle::new(stream, self.idle)))
    }
}

/// Carries the client's upgrade to the runtime: as it is, or as SPDY where the client speaks what runtimes do not.
async fn carry(
    request: Request<Body>,
    url: &str,
    idle: Duration,
    kind: &str,
    wanted: Streams,
) -> Result<Response<Body>, String> {
    let address = Address::parse(url, idle)?;
    let offered = websocket::offered(request.headers());
    let offers = |protocol: &str| offered.iter().any(|name| name == protocol);
    if kind == "portForward" && offers(tunnel::PROTOCOL) {
        return tunnelled(request, address).await;
    }
    if kind != "portForward" && offers(translate::PROTOCOL) {
        return translated(request, address, wanted);
    }
    let mut headers = request.headers().clone();
    // Credentials for the kubelet are none of the runtime's business.
    for name in [AUTHORIZATION, COOKIE] {
        headers.remove(name);
    }
    let connection = address.connect().await?;
    let Address { authority: host, target, .. } = address;
    let outgoing = UpgradeRequest { method: request.method().clone(), target, host, headers };
    upgrade::pass_through(request, connection, outgoing).await.map_err(|error| error.to_string())
}

fn translated(mut request: Request<Body>, address: Address, wanted: Streams) -> Result<Response<Body>, String> {
    let handshake = Handshake::accept(&mut request, translate::PROTOCOL).map_err(|error| error.to_string())?;
    let (response, socket) = handshake.split();
    tokio::spawn(async move {
        let socket = match socket.await {
            Ok(socket) => socket,
            Err(error) => return tracing::debug!(%error, "upgrade of a stream"),
        };
        let connection = address.connect().await;
        let Address { authority: host, target, .. } = address;
        let backend = connection.map(|connection| Backend { connection, target, host });
        translate::run(socket, backend, wanted).await;
    });
    Ok(response)
}

async fn tunnelled(mut request: Request<Body>, address: Address) -> Result<Response<Body>, String> {
    let connection = address.connect().await?;
    let outgoing = UpgradeRequest::spdy(address.target, address.authority, "portforward.k8s.io");
    let upgraded = match upgrade::send(connection, outgoing).await.map_err(|error| error.to_string())? {
        Answer::Switched(_, upgraded) => upgraded,
        Answer::Refused(refusal) => return Ok(refusal.into_response()),
    };
    let handshake = Handshake::accept(&mut request, tunnel::PROTOCOL).map_err(|error| error.to_string())?;
    Ok(tunnel::start(handshake, upgraded))
}
