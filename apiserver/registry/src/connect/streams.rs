//! `pods/exec`, `pods/attach` and `pods/portforward`: upgraded connections to the Pod's kubelet.

use std::{
    num::{IntErrorKind, ParseIntError},
    sync::Arc,
};

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    admission,
    authz::{Attributes, Decision, forbidden},
    endpoint::{Call, Handler},
    resource::Resource,
};
use http::{HeaderMap, Method, Request, Response, header};
use machinery::{ApiError, ApiResult, meta};
use serde_json::{Map, Value, json};
use streaming::{
    translate::{self, Backend, Streams},
    tunnel,
    upgrade::{self, Answer, UpgradeRequest},
    websocket::{self, Handshake},
};

use util::percent_encode;

use super::{
    backend_failure,
    kubelet::{Kubelet, Kubelets},
    place::Place,
};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A new process.
    Exec,
    /// The container's first process.
    Attach,
    /// Ports of the Pod.
    PortForward,
}

/// Handler of one purpose.
pub struct PodStreams {
    /// Which.
    pub purpose: Purpose,
    /// The Pods.
    pub pods: Arc<Resource>,
    /// Their kubelets.
    pub kubelets: Arc<Kubelets>,
}

#[async_trait]
impl Handler for PodStreams {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        match call.method {
            Method::POST => {}
            // A stream changes the Pod however it is asked for.
            Method::GET => authorize_create(call).await?,
            _ => return Err(ApiError::method_not_allowed()),
        }
        let options = admission::connect(call, self.purpose.kind(), self.options(call)?).await?;
        let place = Place::of(call, &self.pods).await?;
        let target = self.target(&options, &place)?;
        if !upgrade::is_upgrade(&call.headers) {
            return Err(ApiError::bad_request("Upgrade request required"));
        }
        let kubelet = self.kubelets.of(place.node()).await?;
        let request = call.connection.lock().take().ok_or_else(|| ApiError::internal("the connection is taken"))?;
        let offered = websocket::offered(&call.headers);
        let offers = |protocol: &str| offered.iter().any(|name| name == protocol);
        match self.purpose {
            Purpose::PortForward if offers(tunnel::PROTOCOL) => self.tunnel(call, request, &kubelet, target).await,
            Purpose::Exec | Purpose::Attach if offers(translate::PROTOCOL) && !kubelet.speaks_websockets => {
                self.translate(streams(&options), request, &kubelet, target).await
            }
            _ => self.pass_through(call, request, &kubelet, target).await,
        }
    }
}

async fn authorize_create(call: &Call) -> ApiResult<()> {
    let attributes = Attributes::of(&call.info, &call.query, &call.user).with_verb("create");
    match call.server.authorizer.authorize(&attributes).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(reason) | Decision::NoOpinion(reason) => Err(forbidden(&attributes, &reason)),
    }
}

fn port(text: &str) -> ApiResult<u16> {
    text.parse().map_err(|error: ParseIntError| {
        let what = if *error.kind() == IntErrorKind::PosOverflow { "value out of range" } else { "invalid syntax" };
        let text = format!("cannot convert to []int32: strconv.ParseUint: parsing {text:?}: {what}");
        ApiError::bad_request(text)
    })
}

fn streams(options: &Value) -> Streams {
    let flag = |name: &str| options.get(name) == Some(&Value::Bool(true));
    Streams { stdin: flag("stdin"), stdout: flag("stdout"), stderr: flag("stderr") && !flag("tty"), tty: flag("tty") }
}

/// Headers for the next hop: the client's, without what names the client.
fn forwarded(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [header::AUTHORIZATION, header::COOKIE] {
        headers.remove(name);
    }
    headers
}

impl Purpose {
    /// Kind of the options.
    fn kind(self) -> &'static str {
        match self {
            Self::Exec => "PodExecOptions",
            Self::Attach => "PodAttachOptions",
            Self::PortForward => "PodPortForwardOptions",
        }
    }
}

impl PodStreams {
    /// What the client asks for, as an object.
    fn options(&self, call: &Call) -> ApiResult<Value> {
        let mut options = Map::new();
        if self.purpose == Purpose::PortForward {
            let ports = call.query.all("ports").flat_map(|ports| ports.split(',')).map(port);
            let ports = ports.collect::<ApiResult<Vec<u16>>>()?;
            if !ports.is_empty() {
                options.insert("ports".into(), json!(ports));
            }
            return Ok(Value::Object(options));
        }
        for name in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|name| call.query.flag(name)) {
            options.insert(name.into(), Value::Bool(true));
        }
        if let Some(container) = call.query.get("container").filter(|name| !name.is_empty()) {
            options.insert("container".into(), json!(container));
        }
        if self.purpose == Purpose::Exec {
            options.insert("command".into(), json!(call.query.all("command").collect::<Vec<_>>()));
        }
        Ok(Value::Object(options))
    }

    /// Path and query at the kubelet.
    fn target(&self, options: &Value, place: &Place) -> ApiResult<String> {
        let (namespace, pod) = (meta::namespace(place.pod()), meta::name(place.pod()));
        let no_host = || ApiError::bad_request(format!("pod {pod} does not have a host assigned"));
        let path = |what: &str| format!("/{what}/{}/{}", percent_encode(namespace), percent_encode(pod));
        if self.purpose == Purpose::PortForward {
            let ports = options.get("ports").and_then(Value::as_array).into_iter().flatten();
            let ports: Vec<String> = ports.map(|port| format!("port={port}")).collect();
            let query = if ports.is_empty() { String::new() } else { format!("?{}", ports.join("&")) };
            return if place.node().is_empty() {
                Err(no_host())
            } else {
                Ok(format!("{}{query}", path("portForward")))
            };
        }
        let container = place.container(options.get("container").and_then(Value::as_str))?;
        if place.node().is_empty() {
            return Err(no_host());
        }
        let Streams { stdin, stdout, stderr, tty } = streams(options);
        let flags = [("input", stdin), ("output", stdout), ("error", stderr), ("tty", tty)];
        let mut parameters: Vec<String> =
            flags.iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name}=1")).collect();
        let what = if self.purpose == Purpose::Exec { "exec" } else { "attach" };
        if self.purpose == Purpose::Exec {
            let words = options.get("command").and_then(Value::as_array).into_iter().flatten();
            let words = words.filter_map(Value::as_str);
            parameters.extend(words.map(|word| format!("command={}", percent_encode(word))));
        }
        Ok(format!("{}/{}?{}", path(what), percent_encode(container), parameters.join("&")))
    }

    async fn pass_through(
        &self,
        call: &Call,
        request: Request<Body>,
        kubelet: &Kubelet,
        target: String,
    ) -> ApiResult<Response<Body>> {
        let failed = |error: &dyn std::fmt::Display| ApiError::internal(format!("error dialing backend: {error}"));
        let connection = self.kubelets.stream(kubelet).await.map_err(|e| failed(&e))?;
        let host = kubelet.authority();
        let outgoing = UpgradeRequest { method: call.method.clone(), target, host, headers: forwarded(&call.headers) };
        upgrade::pass_through(request, connection, outgoing).await.map_err(|e| failed(&e))
    }

    async fn translate(
        &self,
        streams: Streams,
        mut request: Request<Body>,
        kubelet: &Kubelet,
        target: String,
    ) -> ApiResult<Response<Body>> {
        let handshake = Handshake::accept(&mut request, translate::PROTOCOL);
        let (response, socket) = handshake.map_err(|e| ApiError::bad_request(e.to_string()))?.split();
        let (kubelets, kubelet) = (Arc::clone(&self.kubelets), kubelet.clone());
        tokio::spawn(async move {
            let socket = match socket.await {
                Ok(socket) => socket,
                Err(error) => return tracing::debug!(%error, "upgrade of a client"),
            };
            let host = kubelet.authority();
            let connection = kubelets.stream(&kubelet).await;
            let backend = connection.map(|connection| Backend { connection, target, host });
            let backend = backend.map_err(|error| format!("error dialing backend: {error}"));
            translate::run(socket, backend, streams).await;
        });
        Ok(response)
    }

    async fn tunnel(
        &self,
        call: &Call,
        mut request: Request<Body>,
        kubelet: &Kubelet,
        target: String,
    ) -> ApiResult<Response<Body>> {
        let failed = |error: &dyn std::fmt::Display| ApiError::internal(format!("error dialing backend: {error}"));
        let connection = self.kubelets.stream(kubelet).await.map_err(|e| failed(&e))?;
        let outgoing = UpgradeRequest::spdy(target, kubelet.authority(), "portforward.k8s.io");
        let upgraded = match upgrade::send(connection, outgoing).await.map_err(|e| failed(&e))? {
            Answer::Switched(_, upgraded) => upgraded,
            Answer::Refused(refusal) => return Err(backend_failure(&refusal, "pods/portforward", &call.info.name)),
        };
        let handshake = Handshake::accept(&mut request, tunnel::PROTOCOL);
        Ok(tunnel::start(handshake.map_err(|e| ApiError::bad_request(e.to_string()))?, upgraded))
    }
}
