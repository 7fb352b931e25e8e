//! The API of the cluster, as kubeadm uses it: plain objects, each call repeated until it succeeds or time is over.

use std::{path::Path, time::Duration};

use client::{ApiErrorExt, Connection};
use futures::AsyncBufRead;
use kube::{Client, Config, config::KubeConfigOptions};
use machinery::gvk::{GroupVersion, GroupVersionKind};
use serde_json::Value;

use crate::{
    error::{Context, Error, Result, fail},
    host::Host,
    kubeconfig::Kubeconfig,
    yaml,
};

/// Deadline of one request.
const REQUEST: Duration = Duration::from_secs(10);
/// Between attempts.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// A text fetched from the network is not larger.
const MAX_TEXT: usize = 1 << 20;

/// Result of one request.
pub type Answer<T> = std::result::Result<T, kube::Error>;

/// What happens to writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// They are done.
    Done,
    /// They are told.
    Told,
}

/// The API of a cluster.
#[derive(Clone)]
pub struct Cluster {
    client: Option<Client>,
    writes: Writes,
    patience: Duration,
}

impl Cluster {
    /// With the credentials of a kubeconfig; `server` replaces the URL in it. `patience` is for one call with its
    /// repetitions.
    pub async fn connect(file: &Kubeconfig, server: Option<&str>, patience: Duration) -> Result<Self> {
        let text = yaml::to_yaml(&file.0)?;
        let parsed = kube::config::Kubeconfig::from_yaml(&text).context("failed to load the kubeconfig")?;
        let mut config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default())
            .await
            .context("failed to create API client configuration from kubeconfig")?;
        if let Some(server) = server {
            config.cluster_url = server.parse().with_context(|| format!("invalid URL {server:?}"))?;
        }
        Self::with(config, patience)
    }

    /// With the credentials of a file.
    pub async fn load(host: &dyn Host, path: &Path, server: Option<&str>, patience: Duration) -> Result<Self> {
        Self::connect(&Kubeconfig::load(host, path)?, server, patience).await
    }

    /// Without credentials; `authorities` are the trusted certificates, `None` trusts any server.
    pub fn anonymous(server: &str, authorities: Option<Vec<Vec<u8>>>, patience: Duration) -> Result<Self> {
        let mut config = Config::new(server.parse().with_context(|| format!("invalid URL {server:?}"))?);
        config.accept_invalid_certs = authorities.is_none();
        config.root_cert = authorities;
        Self::with(config, patience)
    }

    fn with(mut config: Config, patience: Duration) -> Result<Self> {
        config.connect_timeout = Some(REQUEST);
        config.read_timeout = Some(REQUEST);
        config.proxy_url = config.proxy_url.take().filter(|_| !is_local(&config.cluster_url));
        let user_agent = runtime::version::user_agent("kubeadm");
        let connection = Connection { user_agent, qps: 0.0, burst: 0, metrics: None };
        let client = client::connect_with(config, &connection).context("failed to create API client")?;
        Ok(Self { client: Some(client), writes: Writes::Done, patience })
    }

    /// A cluster that only tells what would be written.
    pub fn told() -> Self {
        Self { client: None, writes: Writes::Told, patience: Duration::ZERO }
    }

    /// The same, telling writes instead of doing them.
    #[must_use]
    pub fn telling(mut self) -> Self {
        self.writes = Writes::Told;
        self
    }

    /// Whether writes are only told.
    pub fn is_told(&self) -> bool {
        self.writes == Writes::Told
    }

    async fn request(&self, method: http::Method, path: &str, content: &str, body: Vec<u8>) -> Answer<Value> {
        let Some(client) = &self.client else {
            return Err(kube::Error::Service("there is no cluster in a dry run".into()));
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content)
            .header(http::header::ACCEPT, "application/json")
            .body(body)
            .map_err(kube::Error::HttpError)?;
        match tokio::time::timeout(REQUEST, client.request(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(kube::Error::Service("context deadline exceeded".into())),
        }
    }

    /// Reads a path once.
    pub async fn get_once(&self, path: &str) -> Answer<Value> {
        self.request(http::Method::GET, path, "application/json", Vec::new()).await
    }

    /// Reads a text such as that of a health page once.
    pub async fn text_once(&self, path: &str) -> Answer<String> {
        let Some(client) = &self.client else {
            return Err(kube::Error::Service("there is no cluster in a dry run".into()));
        };
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        match tokio::time::timeout(REQUEST, client.request_text(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(kube::Error::Service("context deadline exceeded".into())),
        }
    }

    /// Reads a path; absence is an answer.
    pub async fn get(&self, path: &str) -> Result<Option<Value>> {
        self.persist(async || match self.get_once(path).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        })
        .await
    }

    /// Posts to a path of an API that speaks JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let body = serde_json::to_vec(body).context("cannot encode a request")?;
        let answer =
            tokio::time::timeout(self.patience, self.request(http::Method::POST, path, "application/json", body));
        match answer.await {
            Ok(answer) => answer.map_err(|error| Error::new(error_text(&error))),
            Err(_) => fail!("context deadline exceeded"),
        }
    }

    /// The same with another time for one call. Requests that take longer than usual need it.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Posts to a path of an API that answers with a stream.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<impl AsyncBufRead + use<>> {
        let Some(client) = &self.client else { return fail!("there is no cluster in a dry run") };
        let body = serde_json::to_vec(body).context("cannot encode a request")?;
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .context("cannot make a request")?;
        match tokio::time::timeout(REQUEST, client.request_stream(request)).await {
            Ok(answer) => answer.map_err(|error| Error::new(error_text(&error))),
            Err(_) => fail!("context deadline exceeded"),
        }
    }

    /// Creates an object once.
    pub async fn create_once(&self, object: &Value) -> Answer<Value> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        self.request(http::Method::POST, &collection_path(object), "application/json", body).await
    }

    /// Creates an object, or brings the one that is there to this state.
    pub async fn create_or_update(&self, host: &dyn Host, object: &Value) -> Result<()> {
        if self.is_told() {
            return tell(host, "CREATE", object);
        }
        let attempt = async || match self.create_once(object).await {
            Err(error) if error.is_already_exists() => self.overwrite_once(object).await,
            other => other,
        };
        let name = machinery::meta::name(object);
        let kind = text(object, "kind");
        self.persist(attempt).await.with_context(|| format!("unable to create {kind} {name:?}"))?;
        Ok(())
    }

    /// Creates an object unless one of its name is there.
    pub async fn create_if_absent(&self, host: &dyn Host, object: &Value) -> Result<()> {
        if self.is_told() {
            return tell(host, "CREATE", object);
        }
        let attempt = async || match self.create_once(object).await {
            Err(error) if error.is_already_exists() => Ok(Value::Null),
            other => other,
        };
        let name = machinery::meta::name(object);
        self.persist(attempt).await.with_context(|| format!("unable to create {name:?}"))?;
        Ok(())
    }

    /// Replaces an object as it is now. Some kinds cannot be replaced without saying what they were.
    async fn overwrite_once(&self, object: &Value) -> Answer<Value> {
        let present = self.get_once(&object_path(object)).await?;
        let mut object = object.clone();
        machinery::meta::set_text(&mut object, "resourceVersion", machinery::meta::resource_version(&present));
        self.replace_once(&object).await
    }

    /// Replaces an object once, whatever its version.
    pub async fn replace_once(&self, object: &Value) -> Answer<Value> {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        self.request(http::Method::PUT, &object_path(object), "application/json", body).await
    }

    /// Patches an object.
    pub async fn patch(&self, path: &str, patch: &Value) -> Result<Value> {
        let body = serde_json::to_vec(patch).context("cannot encode a patch")?;
        self.persist(async || {
            let kind = "application/strategic-merge-patch+json";
            self.request(http::Method::PATCH, path, kind, body.clone()).await
        })
        .await
    }

    /// Deletes an object; `false` when there was none.
    pub async fn delete(&self, path: &str) -> Result<bool> {
        self.persist(async || match self.request(http::Method::DELETE, path, "application/json", Vec::new()).await {
            Err(error) if error.is_not_found() => Ok(false),
            other => other.map(|_| true),
        })
        .await
    }

    /// Repeats a call until it succeeds or time is over.
    async fn persist<T>(&self, attempt: impl AsyncFn() -> Answer<T>) -> Result<T> {
        let end = tokio::time::Instant::now() + self.patience;
        loop {
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) if tokio::time::Instant::now() + INTERVAL > end => return fail!("{}", error_text(&error)),
                Err(error) => {
                    tracing::debug!(err = error_text(&error), "call of the API failed, trying again");
                    tokio::time::sleep(INTERVAL).await;
                }
            }
        }
    }
}

/// Objects of a list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items").and_then(Value::as_array).into_iter().flatten()
}

/// One line about an error of the API.
pub fn error_text(error: &kube::Error) -> String {
    match error.status() {
        Some(_) => error.text(),
        None => util::chain(error),
    }
}

/// Fetches a text over https with the certificate authorities of this host.
pub async fn fetch(url: &str, deadline: Duration) -> Result<String> {
    let uri: http::Uri = url.parse().with_context(|| format!("invalid URL {url:?}"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return fail!("invalid URL {url:?}");
    };
    let cluster =
        Cluster::with(Config::new(format!("{scheme}://{authority}").parse().context("invalid URL")?), deadline)?;
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let text = tokio::time::timeout(deadline, cluster.text_once(path))
        .await
        .map_err(|_| Error::new("context deadline exceeded"))?
        .map_err(|e| Error::new(error_text(&e)))?;
    if text.len() > MAX_TEXT { fail!("the answer is too long") } else { Ok(text) }
}

fn is_local(url: &http::Uri) -> bool {
    url.host().is_some_and(|host| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok())
}

/// Path of the collection an object belongs to.
pub fn collection_path(object: &Value) -> String {
    let (api_version, namespace) = (text(object, "apiVersion"), machinery::meta::namespace(object));
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let plural = plural(object);
    if namespace.is_empty() {
        return format!("/{root}/{api_version}/{plural}");
    }
    format!("/{root}/{api_version}/namespaces/{namespace}/{plural}")
}

/// Path of an object.
pub fn object_path(object: &Value) -> String {
    format!("{}/{}", collection_path(object), machinery::meta::name(object))
}

/// Name of the resource in paths; of kinds that nobody knows, the usual one.
fn plural(object: &Value) -> String {
    let kind = text(object, "kind");
    let gvk = GroupVersion::parse(text(object, "apiVersion"))
        .map(|gv| GroupVersionKind::new(gv.group, gv.version, kind))
        .and_then(|gvk| api::api().kind(&gvk));
    gvk.map_or_else(|| format!("{}s", kind.to_lowercase()), |known| known.plural.to_owned())
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Tells what would be done to an object.
pub fn tell(host: &dyn Host, verb: &str, object: &Value) -> Result<()> {
    let api_version = text(object, "apiVersion");
    let group = if api_version.contains('/') { api_version.to_owned() } else { format!("core/{api_version}") };
    let (name, namespace) = (machinery::meta::name(object), machinery::meta::namespace(object));
    let resource = plural(object);
    host.line(&format!("[dryrun] Would perform action {verb} on resource {resource:?} in API group {group:?}"));
    match namespace {
        "" => host.line(&format!("[dryrun] Resource name {name:?}")),
        _ => host.line(&format!("[dryrun] Resource name {name:?}, namespace {namespace:?}")),
    }
    let mut shown = object.clone();
    if text(object, "kind") == "Secret"
        && let Some(Value::Object(data)) = shown.get_mut("data")
    {
        data.values_mut().for_each(|value| *value = "PHNlY3JldD4=".into());
    }
    host.line(&format!("[dryrun] Attached object:\n{}", indent(&yaml::to_yaml(&shown)?)));
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("\t{line}\n")).collect()
}
