//! The kubelet's own HTTPS server: logs, streams, Pods, metrics, behind authentication and authorization.

mod auth;
mod checkpoint;
mod idle;
mod log_query;
mod logs;
mod measure;
mod pages;
pub(crate) mod podresources;
mod statistics;
mod streams;
mod system_logs;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use runtime::serving::{self, Connection};
use runtime::tasks::TaskGroup;
use runtime::tls;
use serde_json::json;
use spans::{Context, Kind};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use auth::{Access, AccessError};
pub use pages::Pages;

use crate::certificates::Purpose;
use crate::certificates::store::PairStore;
use crate::config::KubeletConfiguration;
use crate::metrics::METRICS;
use crate::paths::Paths;
use crate::pods;
use crate::services::Services;
use crate::stats::Stats;
use crate::workers::{Stage, Workers};
use measure::Measured;

const GRACE: Duration = Duration::from_secs(2);

/// A server that cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address.
    #[error("listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The address has the wrong form.
    #[error("invalid address {0:?}")]
    Address(String),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// Authentication.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// What requests are answered from.
pub struct Server {
    /// Parts of the kubelet.
    pub services: Arc<Services>,
    /// Pods.
    pub workers: Arc<Workers>,
    /// Statistics.
    pub stats: Arc<Stats>,
    /// Who may do what.
    pub access: Access,
    /// The sync loop's last sign of life.
    pub heartbeat: Arc<Heartbeat>,
    /// Pages about the process.
    pub pages: Pages,
}

/// When the sync loop was last seen.
pub struct Heartbeat(parking_lot::Mutex<Instant>);

impl Default for Heartbeat {
    fn default() -> Self {
        Self(parking_lot::Mutex::new(Instant::now()))
    }
}

impl Heartbeat {
    /// It is alive.
    pub fn beat(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Gives the service supervisor the signs of life that it wants, as long as there are any, until stopped.
    pub async fn feed(self: Arc<Self>, sync_frequency: Duration, stop: CancellationToken) {
        let Some(period) = runtime::env::watchdog() else { return };
        let mut ticks = tokio::time::interval((period / 2).max(Duration::from_millis(1)));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match self.check(longest_silence(sync_frequency)) {
                Ok(()) => runtime::env::notify("WATCHDOG=1"),
                Err(error) => tracing::warn!(
                    error,
                    "Do not notify watchdog this iteration as the kubelet is reportedly not healthy"
                ),
            }
        }
    }

    fn check(&self, limit: Duration) -> Result<(), String> {
        if self.0.lock().elapsed() > limit { Err("sync Loop took longer than expected".to_owned()) } else { Ok(()) }
    }
}

/// How long the sync loop may be silent.
fn longest_silence(sync_frequency: Duration) -> Duration {
    (sync_frequency * 2).max(Duration::from_secs(300))
}

impl Server {
    /// Serves the main port and the health port until stopped.
    pub async fn run(
        self: Arc<Self>,
        certificate: Arc<tls::ServingCertificate>,
        stop: CancellationToken,
    ) -> Result<(), ServerError> {
        let config = Arc::clone(&self.services.config);
        let mut tasks = Vec::new();
        if config.enable_server {
            let listener = listen(&config.address, config.port)?;
            let tls = tls::server_config_with(&tls_options(&config), certificate)?;
            let server = Arc::clone(&self);
            let handler = move |request| {
                let server = Arc::clone(&server);
                async move { server.answer(request).await }
            };
            tasks.push(tokio::spawn(serving::serve(listener, Some(tls), handler, stop.clone(), GRACE)));
        }
        if config.read_only_port > 0 {
            let listener = listen(&config.address, config.read_only_port)?;
            let server = Arc::clone(&self);
            let handler = move |request: Request<Body>| {
                let server = Arc::clone(&server);
                async move { server.read_only(request).await }
            };
            tasks.push(tokio::spawn(serving::serve(listener, None, handler, stop.clone(), GRACE)));
        }
        if config.healthz_port > 0 {
            let listener = listen(&config.healthz_bind_address, config.healthz_port)?;
            let server = Arc::clone(&self);
            let handler = move |request: Request<Body>| {
                let server = Arc::clone(&server);
                async move {
                    match request.uri().path().strip_prefix("/healthz") {
                        Some(rest) => server.healthz(rest, request.uri().query()),
                        None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
                    }
                }
            };
            tasks.push(tokio::spawn(serving::serve(listener, None, handler, stop.clone(), GRACE)));
        }
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "server");
            }
        }
        Ok(())
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let _measured = Measured::begin(request.method(), request.uri().path(), "readwrite");
        let tracer = &self.services.tracer;
        if !tracer.is_on() {
            return self.authorized(request).await;
        }
        let parent = Context::of_headers(request.headers());
        let path = request.uri().path().split('/').nth(1).unwrap_or_default();
        let span = tracer.span(format!("/{}", measure::known_path(path)), Kind::Server, parent.as_ref());
        span.within(self.authorized(request)).await
    }

    /// What anybody may read on the port without authentication.
    async fn read_only(&self, request: Request<Body>) -> Response<Body> {
        let _measured = Measured::begin(request.method(), request.uri().path(), "readonly");
        if measure::is_open(request.method(), request.uri().path()) {
            return self.route(request).await;
        }
        text(StatusCode::NOT_FOUND, "404 page not found\n")
    }

    async fn authorized(&self, request: Request<Body>) -> Response<Body> {
        let connection = request.extensions().get::<Connection>().cloned();
        let Some(user) = self.access.authenticate(connection.as_ref(), request.headers()).await else {
            return text(StatusCode::UNAUTHORIZED, "Unauthorized");
        };
        let node = self.services.facts.get().name.clone();
        if let Err(message) = self.access.authorize(&user, request.method(), request.uri().path(), &node).await {
            return text(StatusCode::FORBIDDEN, message);
        }
        self.route(request).await
    }

    async fn route(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let head = parts.first().copied().unwrap_or_default();
        let debug = matches!(
            head,
            "run" | "exec" | "attach" | "portForward" | "containerLogs" | "runningpods" | "logs" | "debug"
        );
        if debug && !self.services.config.enable_debugging_handlers {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n");
        }
        let get = request.method() == Method::GET;
        let post = request.method() == Method::POST;
        match (head, parts.as_slice()) {
            ("healthz", _) if get => {
                let rest = path.strip_prefix("/healthz").unwrap_or_default();
                self.healthz(rest, request.uri().query())
            }
            ("pods", ["pods"]) if get => self.pods(),
            ("runningpods", _) if get => self.running_pods(),
            ("configz" | "statusz" | "flagz" | "version" | "debug", _) => self.pages.answer(request).await,
            ("metrics", ["metrics"] | ["metrics", "slis"]) if get => {
                Arc::clone(&self.stats).measure_logs().await;
                self.pages.answer(request).await
            }
            ("metrics", ["metrics", "probes"]) if get => {
                runtime::metrics::response(&METRICS.probe_registry, request.headers())
            }
            ("stats", ["stats", "summary"]) if get || post => self.summary(request.uri().query()).await,
            ("metrics", ["metrics", "cadvisor"]) if get => self.cadvisor().await,
            ("metrics", ["metrics", "resource"]) if get => self.resource_metrics().await,
            ("logs", _) if get && self.services.config.enable_system_log_handler => {
                let query = request.uri().query().filter(|_| self.services.config.enable_system_log_query);
                system_logs::answer(&path, query, Path::new("/var/log")).await
            }
            ("containerLogs", [_, namespace, pod, container]) if get => {
                self.logs(namespace, pod, container, request.uri().query().unwrap_or_default()).await
            }
            ("exec" | "attach", [_, namespace, pod, container] | [_, namespace, pod, _, container]) if get || post => {
                let target = (namespace.to_string(), pod.to_string(), container.to_string());
                self.stream(head, target, request).await
            }
            ("portForward", [_, namespace, pod] | [_, namespace, pod, _]) if get || post => {
                let target = (namespace.to_string(), pod.to_string(), String::new());
                self.stream("portForward", target, request).await
            }
            ("checkpoint", [_, namespace, pod, container]) if post => {
                self.checkpoint(namespace, pod, container, request.uri().query().unwrap_or_default()).await
            }
            ("run", [_, namespace, pod, container] | [_, namespace, pod, _, container]) if post => {
                self.run_command(namespace, pod, container, request.uri().query().unwrap_or_default()).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn healthz(&self, rest: &str, query: Option<&str>) -> Response<Body> {
        let limit = longest_silence(self.services.config.sync_frequency.0);
        let checks = [("ping", Ok(())), ("log", Ok(())), ("syncloop", self.heartbeat.check(limit))];
        if let Some(name) = rest.strip_prefix('/').filter(|name| !name.is_empty()) {
            return match checks.into_iter().find(|(check, _)| *check == name) {
                Some((_, Ok(()))) => text(StatusCode::OK, "ok"),
                Some((_, Err(error))) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {error}\n"))
                }
                None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
            };
        }
        let failed = checks.iter().any(|(_, result)| result.is_err());
        let verbose = query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
        if !failed && !verbose {
            return text(StatusCode::OK, "ok");
        }
        let mut out = String::new();
        for (name, result) in &checks {
            out.push_str(&match result {
                Ok(()) => format!("[+]{name} ok\n"),
                Err(_) => format!("[-]{name} failed: reason withheld\n"),
            });
        }
        let (status, end) =
            if failed { (StatusCode::INTERNAL_SERVER_ERROR, "failed") } else { (StatusCode::OK, "passed") };
        text(status, format!("{out}healthz check {end}\n"))
    }

    /// Every Pod of this node with its last known status.
    fn pods(&self) -> Response<Body> {
        let items: Vec<_> = self
            .workers
            .all()
            .into_iter()
            .filter(|summary| !summary.removed)
            .map(|summary| {
                let mut pod = (*summary.pod).clone();
                pod.status = self.services.statuses.get(pods::uid(&pod)).or(pod.status);
                pod
            })
            .collect();
        json_response(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
    }

    fn running_pods(&self) -> Response<Body> {
        let running = self.workers.all().into_iter().filter(|summary| summary.stage <= Stage::Terminating);
        let items: Vec<_> = running
            .map(|summary| {
                let containers = pods::containers(&summary.pod);
                let containers: Vec<_> =
                    containers.iter().map(|c| json!({ "name": c.name, "image": c.image, "resources": {} })).collect();
                json!({ "metadata": { "name": pods::name(&summary.pod), "namespace": pods::namespace(&summary.pod),
                    "uid": pods::uid(&summary.pod) }, "spec": { "containers": containers }, "status": {} })
            })
            .collect();
        json_response(&json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
    }
}

fn tls_options(config: &KubeletConfiguration) -> tls::ServerOptions {
    tls::ServerOptions {
        cipher_suites: config.tls_cipher_suites.clone(),
        min_version: config.tls_min_version.clone(),
        curves: config.tls_curve_preferences.iter().filter_map(|curve| u16::try_from(*curve).ok()).collect(),
        ..tls::ServerOptions::default()
    }
}

fn listen(address: &str, port: u16) -> Result<TcpListener, ServerError> {
    let ip = address.parse().map_err(|_| ServerError::Address(address.to_owned()))?;
    let address = SocketAddr::new(ip, port);
    runtime::serving::listen(address).map_err(|source| ServerError::Listen { address, source })
}

/// The serving certificate: the configured files as they are at any time, the newest that the cluster signed, or one of our own below
/// `cert_dir`. With `serverTLSBootstrap` the last only stands in until the first is signed.
pub fn certificate(
    services: &Services,
    cert_dir: &std::path::Path,
    tasks: &TaskGroup,
) -> Result<Arc<tls::ServingCertificate>, ServerError> {
    let config = &services.config;
    let (cert, key) = (&config.tls_cert_file, &config.tls_private_key_file);
    if !cert.is_empty() && !key.is_empty() {
        return Ok(tls::watch_pair(cert.as_ref(), key.as_ref(), tasks)?);
    }
    if config.server_tls_bootstrap
        && let Some(pair) = PairStore::new(cert_dir, Purpose::Server).current()
        && pair.is_valid(jiff::Timestamp::now())
    {
        return Ok(Arc::new(tls::ServingCertificate::new(&pair.pem, &pair.pem)?));
    }
    let (cert, key) = (cert_dir.join("kubelet.crt"), cert_dir.join("kubelet.key"));
    if !cert.exists() || !key.exists() {
        let facts = services.facts.get();
        let names = vec![facts.name.clone()];
        let (cert_pem, key_pem) = tls::self_signed(&facts.name, &names, &facts.addresses)?;
        tls::write_private(&key, key_pem.as_bytes())?;
        tls::write_private(&cert, cert_pem.as_bytes())?;
    }
    Ok(Arc::new(tls::ServingCertificate::new(&tls::read(&cert)?, &tls::read(&key)?)?))
}

/// A plain text answer.
fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

fn json_response(value: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Decoded `key=value` pairs of a query.
fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut out = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'+' => out.push(b' '),
                b'%' => {
                    let digits = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
                    let value = std::str::from_utf8(&digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
                    out.push(value.unwrap_or(b'?'));
                }
                other => out.push(other),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// Where logs below the node's log directory may be.
pub(crate) fn is_log_path(paths: &Paths, path: &std::path::Path) -> bool {
    path.starts_with(paths.pod_logs())
}
