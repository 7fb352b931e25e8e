//! Reading the kubelets.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::body::Body;
use controller::{Cached, Informer, Viewed};
use futures::{StreamExt, stream};
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use k8s_openapi::api::core::v1::Node;
use parking_lot::RwLock;
use prometheus::{HistogramVec, IntCounterVec};
use runtime::{clock::Clock, tls};

use crate::{exposition, run::Options, usage::Book};

/// Kubelets that are read at once.
const AT_ONCE: usize = 16;
/// Time for one.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest answer.
const LONGEST: usize = 32 << 20;
const IDLE: Duration = Duration::from_secs(60);
/// Port of a kubelet that does not tell it.
const PORT: u16 = 10250;

/// What is kept of a Node.
pub(crate) struct NodeView {
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    /// Types and addresses.
    addresses: Vec<(String, String)>,
    port: u16,
}

impl Viewed for NodeView {
    type Object = Node;

    fn project(node: Node) -> Self {
        let status = node.status.unwrap_or_default();
        let port = status.daemon_endpoints.and_then(|e| e.kubelet_endpoint).and_then(|e| u16::try_from(e.port).ok());
        Self {
            labels: node.metadata.labels.unwrap_or_default(),
            addresses: status.addresses.into_iter().flatten().map(|a| (a.type_, a.address)).collect(),
            port: port.unwrap_or(PORT),
        }
    }
}

/// Why a kubelet was not read.
#[derive(Debug, thiserror::Error)]
enum ScrapeError {
    #[error("node has no address of types [{0}]")]
    Address(String),
    #[error("{0}")]
    Request(String),
    #[error("request failed, status: {0}")]
    Code(http::StatusCode),
    #[error("context deadline exceeded")]
    Deadline,
}

/// Reads all kubelets, again and again.
pub(crate) struct Scraper {
    pub(crate) nodes: Informer<NodeView>,
    pub(crate) book: Arc<RwLock<Book>>,
    pub(crate) clock: Arc<dyn Clock>,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    address_types: Vec<String>,
    token_file: PathBuf,
    resolution: Duration,
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl Scraper {
    pub(crate) fn new(
        options: &Options,
        nodes: Informer<NodeView>,
        book: Arc<RwLock<Book>>,
        clock: Arc<dyn Clock>,
        (requests, seconds): (IntCounterVec, HistogramVec),
    ) -> Result<Self, tls::TlsError> {
        let config = match &options.kubelet_certificate_authority {
            Some(file) if !options.kubelet_insecure_tls => tls::client_config(&tls::read(file)?, None)?,
            _ => tls::unverified_client_config(None)?,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(DEADLINE));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self {
            nodes,
            book,
            clock,
            client,
            address_types: options.kubelet_preferred_address_types.clone(),
            token_file: options.kubelet_token_file.clone(),
            resolution: options.metric_resolution,
            requests,
            seconds,
        })
    }

    /// Runs for ever; `done` is told after each round.
    pub(crate) async fn run(self, done: impl Fn() + Send) {
        loop {
            let began = self.clock.elapsed();
            self.round().await;
            done();
            let took = self.clock.elapsed().saturating_sub(began);
            self.clock.sleep(self.resolution.saturating_sub(took)).await;
        }
    }

    async fn round(&self) {
        let token = match tokio::fs::read_to_string(&self.token_file).await {
            Ok(token) => token.trim().to_owned(),
            Err(error) => {
                tracing::warn!(%error, file = %self.token_file.display(), "no token for kubelets");
                String::new()
            }
        };
        let nodes = self.nodes.list();
        self.book.write().retain(|name| nodes.iter().any(|node| node.key.name == name));
        let each = stream::iter(&nodes).for_each_concurrent(AT_ONCE, |node| self.one(node, &token));
        each.await;
    }

    async fn one(&self, node: &Cached<NodeView>, token: &str) {
        let name = node.key.name.as_str();
        let began = self.clock.elapsed();
        let outcome = tokio::time::timeout(DEADLINE, self.fetch(node, token)).await;
        self.seconds.with_label_values(&[name]).observe(self.clock.elapsed().saturating_sub(began).as_secs_f64());
        match outcome.unwrap_or(Err(ScrapeError::Deadline)) {
            Ok(text) => {
                let now = self.clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let told = exposition::read(&text, i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
                self.book.write().take(name, told);
                self.requests.with_label_values(&["true"]).inc();
            }
            Err(error) => {
                self.requests.with_label_values(&["false"]).inc();
                tracing::error!(err = %error, node = name, "Failed to scrape node");
                self.book.write().forget(name);
            }
        }
    }

    async fn fetch(&self, node: &NodeView, token: &str) -> Result<String, ScrapeError> {
        let failed = |error: &dyn std::fmt::Display| ScrapeError::Request(error.to_string());
        let address = self.address(node)?;
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let uri = format!("https://{host}:{}/metrics/resource", node.port);
        let mut request = Request::get(uri).body(Body::empty()).map_err(|error| failed(&error))?;
        if !token.is_empty() {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|error| failed(&error))?;
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = self.client.request(request).await.map_err(|error| ScrapeError::Request(util::chain(&error)))?;
        if !answer.status().is_success() {
            return Err(ScrapeError::Code(answer.status()));
        }
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| failed(&error))?;
        String::from_utf8(body.to_bytes().into()).map_err(|error| failed(&error))
    }

    fn address<'a>(&self, node: &'a NodeView) -> Result<&'a str, ScrapeError> {
        let of =
            |kind: &String| node.addresses.iter().find(|(own, _)| own == kind).map(|(_, address)| address.as_str());
        self.address_types.iter().find_map(of).ok_or_else(|| ScrapeError::Address(self.address_types.join(" ")))
    }
}
