//! From flags and files to a client.

use std::{path::Path, sync::Arc};

use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use runtime::flags::ClientArgs;

use crate::{
    connector,
    metrics::ClientMetrics,
    transport::{RateLimit, ServerBackoff, TransportLayer},
    watches::WatchLayer,
};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be read or used.
    #[error("invalid configuration: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Not in a cluster.
    #[error(
        "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
    )]
    InCluster(#[from] kube::config::InClusterError),
    /// The address of the server is no URL.
    #[error("host must be a URL or a host:port pair: {0:?}")]
    Master(String),
    /// `tls-server-name` of the kubeconfig is no name.
    #[error("tls-server-name is not a valid DNS name or IP address")]
    ServerName,
    /// `proxy-url` of the kubeconfig is no URL.
    #[error("proxy-url is not a valid URL")]
    Proxy,
    /// TLS or credentials are unusable.
    #[error("cannot make a client: {0}")]
    Client(#[from] kube::Error),
}

/// What a connection needs besides credentials.
#[derive(Clone)]
pub struct Connection {
    /// User agent, see [`runtime::version::user_agent`].
    pub user_agent: String,
    /// Requests a second on average; zero or less means no limit.
    pub qps: f32,
    /// Requests at once.
    pub burst: i32,
    /// Where requests are counted.
    pub metrics: Option<ClientMetrics>,
}

impl Connection {
    /// For `component` with the rate of its flags. `suffix` names the part of the component, such as
    /// `leader-election`; empty for none.
    pub fn of(component: &str, suffix: &str, args: &ClientArgs, metrics: Option<ClientMetrics>) -> Self {
        let mut user_agent = runtime::version::user_agent(component);
        if !suffix.is_empty() {
            user_agent = format!("{user_agent}/{suffix}");
        }
        Self { user_agent, qps: args.kube_api_qps, burst: args.kube_api_burst, metrics }
    }
}

/// A client from `--kubeconfig` and `--master`, or from inside the cluster if neither is given.
pub async fn connect(args: &ClientArgs, connection: &Connection) -> Result<Client, ClientError> {
    connect_to(args.kubeconfig.as_deref(), args.master.as_deref(), connection).await
}

/// [`connect`] for components that have these settings in a file.
pub async fn connect_to(
    kubeconfig: Option<&Path>,
    master: Option<&str>,
    connection: &Connection,
) -> Result<Client, ClientError> {
    connect_with(load(kubeconfig, master).await?, connection)
}

/// [`connect`], but with a bearer token instead of the credentials of the kubeconfig.
pub async fn connect_with_token(
    args: &ClientArgs,
    connection: &Connection,
    token: &str,
) -> Result<Client, ClientError> {
    let mut config = load(args.kubeconfig.as_deref(), args.master.as_deref()).await?;
    // A token alone always decodes.
    config.auth_info = serde_json::from_value(serde_json::json!({"token": token})).unwrap_or_default();
    connect_with(config, connection)
}

/// [`connect`], but without any credentials: each request brings its own.
pub async fn connect_without_credentials(args: &ClientArgs, connection: &Connection) -> Result<Client, ClientError> {
    let mut config = load(args.kubeconfig.as_deref(), args.master.as_deref()).await?;
    config.auth_info = AuthInfo::default();
    connect_with(config, connection)
}

/// A client for a configuration.
pub fn connect_with(mut config: Config, connection: &Connection) -> Result<Client, ClientError> {
    // The first component to come decides; all come with the same provider.
    let _second = rustls::crypto::ring::default_provider().install_default().is_err();
    if let Ok(agent) = http::HeaderValue::from_str(&connection.user_agent) {
        config.headers.retain(|(name, _)| name != http::header::USER_AGENT);
        config.headers.push((http::header::USER_AGENT, agent));
    }
    let host: Arc<str> = config.cluster_url.authority().map_or("", |a| a.as_str()).into();
    let metrics = connection.metrics.as_ref();
    let watches = WatchLayer::new(&config, metrics)?;
    let requests = connector::requests(&config, metrics, &host)?;
    if let Some(metrics) = metrics {
        metrics.connected();
    }
    let layer = TransportLayer {
        limit: RateLimit::new(connection.qps, connection.burst),
        backoff: ServerBackoff::from_environment(),
        metrics: connection.metrics.clone(),
        host,
    };
    let builder = ClientBuilder::new(requests, config.default_namespace);
    Ok(builder.with_layer(&watches).with_layer(&layer).build())
}

/// Reads the configuration.
async fn load(kubeconfig: Option<&Path>, master: Option<&str>) -> Result<Config, ClientError> {
    let master = master.filter(|m| !m.is_empty()).map(url).transpose()?;
    let kubeconfig = kubeconfig.filter(|p| !p.as_os_str().is_empty());
    let mut config = match (kubeconfig, &master) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path)?;
            let proxy = named_proxy(&file)?;
            let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
            config.proxy_url = proxy;
            config
        }
        (None, Some(url)) => Config::new(url.clone()),
        (None, None) => {
            tracing::warn!(
                "Neither --kubeconfig nor --master was specified. Using the inClusterConfig. This might not work."
            );
            let mut config = Config::incluster()?;
            if let Some(namespace) = runtime::env::non_empty("POD_NAMESPACE") {
                config.default_namespace = namespace;
            }
            config
        }
    };
    if let Some(url) = master {
        config.cluster_url = url;
    }
    Ok(config)
}

/// `proxy-url` of the cluster in use; kube mixes it with what the environment says.
fn named_proxy(file: &Kubeconfig) -> Result<Option<http::Uri>, ClientError> {
    let in_use = file.current_context.as_ref();
    let context =
        file.contexts.iter().find(|named| Some(&named.name) == in_use).and_then(|named| named.context.as_ref());
    let cluster = context.and_then(|context| file.clusters.iter().find(|named| named.name == context.cluster));
    let proxy = cluster.and_then(|named| named.cluster.as_ref()).and_then(|cluster| cluster.proxy_url.as_ref());
    let Some(proxy) = proxy.filter(|proxy| !proxy.is_empty()) else { return Ok(None) };
    proxy.parse().map(Some).map_err(|_| ClientError::Proxy)
}

fn url(text: &str) -> Result<http::Uri, ClientError> {
    let fail = || ClientError::Master(text.to_owned());
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: http::Uri = full.parse().map_err(|_| fail())?;
    if uri.host().is_some() { Ok(uri) } else { Err(fail()) }
}
