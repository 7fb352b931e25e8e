//! Calls to webhooks: JSON posted to a URL or to a Service, by TLS that proves the name of the Service.

use std::{collections::HashMap, error::Error as _, io, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use generic::resource::{Resource, decode_cached};
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use parking_lot::Mutex;
use runtime::tls;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::Value;

use super::{
    credentials::{Credentials, Identity, User},
    dial::host_port,
    egress::{Connector, Dialer, Egress},
};

/// Answers are read up to this size, bytes.
const MOST: usize = 16 << 20;
/// Time after which an unused connection is closed.
const IDLE: Duration = Duration::from_secs(90);
/// Unused connections that are kept for each webhook.
const MOST_IDLE: usize = 8;
/// Webhooks whose connections are kept.
const MOST_CLIENTS: usize = 256;
/// Authorities of webhooks that name none.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where a webhook is (`WebhookClientConfig` of several groups).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConfig {
    /// An `https` URL, or
    pub url: Option<String>,
    /// a Service.
    pub service: Option<ServiceReference>,
    /// Authorities, base64 of PEM; those of the system if absent.
    pub ca_bundle: Option<String>,
}

/// A path of a Service.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(default)]
pub struct ServiceReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The path, without a query.
    pub path: Option<String>,
    /// The port of the Service; 443 if absent.
    pub port: Option<u16>,
}

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The configuration is of no use.
    #[error("{0}")]
    Config(String),
    /// TLS cannot be set up.
    #[error("unable to load root certificates: {0}")]
    Tls(#[from] tls::TlsError),
    /// The Service is not there.
    #[error("{0}")]
    Service(String),
    /// The call failed on its way.
    #[error("Post \"{url}\": {why}")]
    Transport {
        /// What was called.
        url: String,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("Post \"{0}\": context deadline exceeded")]
    Deadline(String),
    /// Another status than 200.
    #[error("{0}")]
    Status(String),
    /// The answer is no JSON.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Decode(serde_json::Error),
}

type Client = legacy::Client<HttpsConnector<Connector>, Full<Bytes>>;
/// Server name, authorities, as whom it is asked, and whether it is a Service.
type Key = (String, Option<String>, Option<String>, bool);

/// Calls webhooks. Connections are kept between calls.
pub struct Caller {
    services: Arc<Resource>,
    credentials: Credentials,
    egress: Egress,
    clients: Mutex<HashMap<Key, Client>>,
}

/// Where one call goes.
struct Target {
    /// As errors show it.
    url: String,
    /// As it is connected to.
    uri: String,
    /// `Host`.
    host: String,
    /// Name that the server proves.
    name: String,
    /// Whether it is a Service.
    in_cluster: bool,
}

impl Caller {
    /// With the Services that webhooks may be behind.
    pub fn new(services: Arc<Resource>, egress: Egress) -> Self {
        Self::with_credentials(services, egress, Credentials::default())
    }

    /// The same, with what this server proves itself with.
    pub fn with_credentials(services: Arc<Resource>, egress: Egress, credentials: Credentials) -> Self {
        Self { services, credentials, egress, clients: Mutex::default() }
    }

    /// Posts `body`, with the time it has in the query, and answers the decoded answer.
    pub async fn call(&self, config: &ClientConfig, body: &Value, within: Duration) -> Result<Value, CallError> {
        let target = self.target(config, within).await?;
        let user = self.credentials.of(&target.host);
        let client = self.client(&target, config.ca_bundle.as_deref(), user)?;
        let authorization =
            user.map(|(_, user)| user.authorization()).transpose().map_err(CallError::Config)?.flatten();
        let failed = |why: String| CallError::Transport { url: target.url.clone(), why };
        let request = Request::post(target.uri.parse::<Uri>().map_err(|error| failed(error.to_string()))?)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::HOST, HeaderValue::from_str(&target.host).map_err(|error| failed(error.to_string()))?)
            .header(header::USER_AGENT, "kube-apiserver-admission")
            .body(Full::new(Bytes::from(body.to_string())));
        let mut request = request.map_err(|error| failed(error.to_string()))?;
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let span = spans::child("HTTP POST", spans::Kind::Client);
        if let Some(context) = span.context() {
            context.inject(request.headers_mut());
        }
        if span.is_sent() {
            span.set("http.method", "POST");
            span.set("http.url", target.url.clone());
        }
        let exchange = async {
            let answer = client.request(request).await.map_err(|error| failed(reason(&error, &target)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MOST).collect().await.map_err(|error| failed(error.to_string()))?.to_bytes();
            Ok::<_, CallError>((head.status.as_u16(), body))
        };
        let answer = tokio::time::timeout(within, exchange).await;
        let answer = answer.unwrap_or_else(|_| Err(CallError::Deadline(target.url.clone())));
        match &answer {
            Ok((status, _)) => span.set("http.status_code", i64::from(*status)),
            Err(error) => span.fail(error.to_string()),
        }
        let (status, body) = answer?;
        if status != 200 {
            return Err(CallError::Status(status_text(status, &body)));
        }
        serde_json::from_slice(&body).map_err(CallError::Decode)
    }

    async fn target(&self, config: &ClientConfig, within: Duration) -> Result<Target, CallError> {
        let seconds = within.as_secs() + u64::from(within.subsec_nanos() > 0);
        match (&config.url, &config.service) {
            (Some(url), _) => of_url(url, seconds),
            (None, Some(service)) => self.of_service(service, seconds).await,
            (None, None) => Err(CallError::Config("webhook configuration must have either service or URL".into())),
        }
    }

    async fn of_service(&self, service: &ServiceReference, seconds: u64) -> Result<Target, CallError> {
        let ServiceReference { namespace, name, path, port } = service;
        let port = port.unwrap_or(443);
        let found = self.services.get_settled(namespace, name).await;
        let found = found.map_err(|error| CallError::Service(error.to_string()))?;
        let found = decode_cached(&found).map_err(|error| CallError::Service(error.to_string()))?.object;
        let text = |pointer: &str| found.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let address = match text("/spec/type") {
            "ExternalName" => text("/spec/externalName"),
            _ => text("/spec/clusterIP"),
        };
        if matches!(address, "" | "None") {
            return Err(CallError::Service(format!("service {namespace}/{name} has no cluster IP")));
        }
        let server = format!("{name}.{namespace}.svc");
        let path = path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let tail = format!("{slash}{path}?timeout={seconds}s");
        Ok(Target {
            url: format!("https://{server}:{port}{tail}"),
            uri: format!("https://{}{tail}", host_port(address, port)),
            host: format!("{server}:{port}"),
            name: server,
            in_cluster: true,
        })
    }

    fn client(
        &self,
        target: &Target,
        authorities: Option<&str>,
        user: Option<(&str, &User)>,
    ) -> Result<Client, CallError> {
        let authorities = authorities.filter(|bundle| !bundle.is_empty()).map(str::to_owned);
        let key = (target.name.clone(), authorities, user.map(|(name, _)| name.to_owned()), target.in_cluster);
        if let Some(client) = self.clients.lock().get(&key) {
            return Ok(client.clone());
        }
        let identity = user.map(|(_, user)| user.identity()).transpose().map_err(CallError::Config)?.flatten();
        let dialer = if target.in_cluster { &self.egress.cluster } else { &self.egress.control_plane };
        let client = new_client(&key, identity, dialer.clone())?;
        let mut clients = self.clients.lock();
        if clients.len() >= MOST_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn of_url(url: &str, seconds: u64) -> Result<Target, CallError> {
    let wrong = || CallError::Config(format!("{url:?} is no https URL of a webhook"));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?.to_owned();
    if uri.scheme_str() != Some("https") {
        return Err(wrong());
    }
    let authority = uri.authority().ok_or_else(wrong)?.to_string();
    let url = format!("https://{authority}{}?timeout={seconds}s", uri.path());
    let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target { uri: url.clone(), url, host: authority, name, in_cluster: false })
}

fn new_client((name, authorities, ..): &Key, identity: Option<Identity>, dialer: Dialer) -> Result<Client, CallError> {
    let roots = match authorities {
        Some(bundle) => BASE64_STANDARD
            .decode(bundle)
            .map_err(|error| CallError::Config(format!("unable to load root certificates: {error}")))?,
        None => tls::read(SYSTEM_ROOTS.as_ref())?,
    };
    let identity = identity.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
    let config = tls::client_config(&roots, identity)?;
    let wrong = |_| CallError::Config(format!("{name:?} is no name of a server"));
    let server = ServerName::try_from(name.clone()).map_err(wrong)?;
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .with_server_name_resolver(FixedServerNameResolver::new(server))
        .enable_http1()
        .wrap_connector(Connector(dialer));
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MOST_IDLE)
        .build(connector))
}

/// Why a request failed, in upstream's words where they are known.
fn reason(error: &legacy::Error, target: &Target) -> String {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return tls_reason(tls, &target.name);
        }
        if let Some(failure) = inner.downcast_ref::<io::Error>() {
            if let Some(tls) = failure.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                return tls_reason(tls, &target.name);
            }
            if failure.kind() == io::ErrorKind::ConnectionRefused {
                let place = target.uri.trim_start_matches("https://").split('/').next().unwrap_or_default();
                return format!("dial tcp {place}: connect: connection refused");
            }
        }
        source = inner.source();
    }
    util::chain(error)
}

fn tls_reason(error: &rustls::Error, name: &str) -> String {
    use rustls::CertificateError::{Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer};
    let why = match error {
        rustls::Error::InvalidCertificate(UnknownIssuer) => "certificate signed by unknown authority".to_owned(),
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "certificate has expired or is not yet valid".to_owned()
        }
        rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            format!("certificate is not valid for {name}")
        }
        other => return format!("tls: {other}"),
    };
    format!("tls: failed to verify certificate: x509: {why}")
}

/// What upstream's client says of an answer that is no success.
fn status_text(status: u16, body: &[u8]) -> String {
    match status {
        404 => "the server could not find the requested resource".into(),
        401 => "the server has asked for the client to provide credentials".into(),
        403 => "forbidden".into(),
        code if code >= 500 => {
            let shown: String = String::from_utf8_lossy(body).chars().take(2048).collect();
            format!("an error on the server ({:?}) has prevented the request from succeeding", shown.trim())
        }
        _ => "the server rejected our request for an unknown reason".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_get_the_time_as_query() {
        let target = of_url("https://hook.example:8443/validate", 3).expect("a target");
        assert_eq!(target.url, "https://hook.example:8443/validate?timeout=3s");
        assert_eq!((target.host.as_str(), target.name.as_str()), ("hook.example:8443", "hook.example"));
        assert_eq!(of_url("https://[::1]:1/", 1).expect("a target").name, "::1");
        for wrong in ["http://x/", "x", "https://", ""] {
            assert!(of_url(wrong, 1).is_err(), "{wrong}");
        }
    }
}
