//! Other servers that are asked about tokens, access and keys: JSON over HTTPS.

use std::{path::Path, time::Duration};

use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Limited};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use runtime::tls;
use serde_json::Value;

/// Answers are read up to this size, bytes.
const MOST: usize = 4 << 20;
/// Tries of a call that fails.
const TRIES: u32 = 5;
/// Growth of the pause between tries.
const GROWTH: f64 = 1.5;
/// What is said of an answer that is not there in time.
const LATE: &str = "context deadline exceeded";

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// The configuration is of no use.
    #[error("{0}")]
    Config(String),
    /// The call failed.
    #[error("{verb} \"{url}\": {why}")]
    Transport {
        /// `Get` or `Post`.
        verb: &'static str,
        /// What was called.
        url: String,
        /// Why.
        why: String,
    },
    /// Another status than success.
    #[error("{url}: {status}")]
    Status {
        /// What was called.
        url: String,
        /// The answer.
        status: u16,
    },
    /// The answer is no JSON.
    #[error("{url}: {why}")]
    Decode {
        /// What was called.
        url: String,
        /// Why.
        why: String,
    },
}

impl RemoteError {
    /// Whether the reason is one that may pass.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Transport { .. } | Self::Status { status: 429 | 500..=599, .. })
    }

    /// Whether the answer was not there in time.
    pub(crate) fn is_late(&self) -> bool {
        matches!(self, Self::Transport { why, .. } if why == LATE)
    }
}

/// Calls again what failed for a reason that `passes`, first after `pause`.
pub async fn again<T, F>(
    mut pause: Duration,
    passes: impl Fn(&RemoteError) -> bool,
    mut call: impl FnMut() -> F,
) -> Result<T, RemoteError>
where
    F: Future<Output = Result<T, RemoteError>>,
{
    for _ in 1..TRIES {
        match call().await {
            Err(error) if passes(&error) => {}
            answer => return answer,
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(GROWTH);
    }
    call().await
}

/// One URL of another server. Redirects are not followed, and nothing is tried twice.
pub struct Remote {
    client: Client,
    path: String,
    url: String,
}

fn bad(why: impl ToString) -> RemoteError {
    RemoteError::Config(why.to_string())
}

impl Remote {
    /// The server of the current context of a kubeconfig file, with the credentials of its user.
    pub async fn of_kubeconfig(file: &Path) -> Result<Self, RemoteError> {
        let kubeconfig = Kubeconfig::read_from(file).map_err(bad)?;
        let options = KubeConfigOptions::default();
        Self::new(Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(bad)?)
    }

    /// A URL, whose server proves itself by `authorities` (PEM), or by those of the system.
    pub fn of_url(url: &str, authorities: Option<&str>) -> Result<Self, RemoteError> {
        let mut config = Config::new(url.parse().map_err(|error| bad(format!("{url:?}: {error}")))?);
        if let Some(pem) = authorities {
            let roots = tls::certificates(pem.as_bytes()).map_err(bad)?;
            config.root_cert = Some(roots.iter().map(|root| root.to_vec()).collect());
        }
        Self::new(config)
    }

    fn new(mut config: Config) -> Result<Self, RemoteError> {
        let url = config.cluster_url.to_string();
        let path = config.cluster_url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        // The client puts the path of its URL in front of that of a request.
        let mut parts = std::mem::take(&mut config.cluster_url).into_parts();
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
        config.cluster_url = Uri::from_parts(parts).map_err(bad)?;
        config.default_retry = false;
        config.read_timeout = None;
        Ok(Self { client: Client::try_from(config).map_err(bad)?, path, url })
    }

    /// Reads the URL.
    pub async fn get(&self, within: Duration) -> Result<Value, RemoteError> {
        self.exchange(Method::GET, &self.path, Body::empty(), within).await
    }

    /// Posts to the URL.
    pub async fn post(&self, body: &Value, within: Duration) -> Result<Value, RemoteError> {
        let mark = if self.path.contains('?') { '&' } else { '?' };
        let path = format!("{}{mark}timeout={}s", self.path, within.as_secs().max(1));
        self.exchange(Method::POST, &path, Body::from(body.to_string().into_bytes()), within).await
    }

    async fn exchange(&self, method: Method, path: &str, body: Body, within: Duration) -> Result<Value, RemoteError> {
        let verb = if method == Method::GET { "Get" } else { "Post" };
        let failed = |why: String| RemoteError::Transport { verb, url: self.url.clone(), why };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .body(body)
            .map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            let answer = self.client.send(request).await.map_err(|error| failed(util::chain(&error)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MOST).collect().await.map_err(|error| failed(error.to_string()))?;
            Ok::<_, RemoteError>((head.status, body.to_bytes()))
        };
        let answer = tokio::time::timeout(within, exchange).await;
        let (status, bytes) = answer.map_err(|_| failed(LATE.into()))??;
        if !status.is_success() {
            return Err(RemoteError::Status { url: self.url.clone(), status: status.as_u16() });
        }
        let decoded = serde_json::from_slice(&bytes);
        decoded.map_err(|error| RemoteError::Decode { url: self.url.clone(), why: error.to_string() })
    }
}
