//! Connections to another API server: TLS that proves the Service's name, kept connections for plain requests.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{Request, Response, Uri};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use registry::connect::egress::{Connector, Dialer};
use runtime::tls;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use crate::{identity::ProxyIdentity, place::Place, view::Spec};

/// Time for a connection and its handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// Time after which an unused connection is closed.
const IDLE: Duration = Duration::from_secs(90);
/// Unused connections that are kept.
const MOST_IDLE: usize = 16;

/// Why another server cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackendError {
    #[error("tls: failed to verify certificate: x509: certificate signed by unknown authority")]
    NoAuthority,
    #[error("unable to load root certificates: {0}")]
    Bundle(base64::DecodeError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("{0:?} is no name of a server")]
    Name(String),
    #[error("{0}")]
    Request(String),
    #[error("no answer in time")]
    Deadline,
}

/// How one server is spoken to.
pub(crate) struct Backend {
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    client: Client<HttpsConnector<Connector>, Body>,
    dialer: Dialer,
}

impl Backend {
    /// For the server of an APIService.
    pub(crate) fn new(
        spec: &Spec,
        host: &str,
        identity: Option<&ProxyIdentity>,
        dialer: Dialer,
    ) -> Result<Self, BackendError> {
        let pair = identity.map(ProxyIdentity::pair);
        let pair = pair.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()));
        let config = if spec.insecure {
            tls::unverified_client_config(pair)?
        } else {
            let bundle =
                spec.ca_bundle.as_deref().filter(|bundle| !bundle.is_empty()).ok_or(BackendError::NoAuthority)?;
            tls::client_config(&BASE64_STANDARD.decode(bundle).map_err(BackendError::Bundle)?, pair)?
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| BackendError::Name(host.to_owned()))?;
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config.clone())
            .https_only()
            .with_server_name_resolver(FixedServerNameResolver::new(name.clone()))
            .enable_all_versions()
            .wrap_connector(Connector(dialer.clone()));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE)
            .build(connector);
        Ok(Self { name, tls: Arc::new(config), client, dialer })
    }

    /// Sends a request to a place; the answer's body streams. `within` bounds the time to the head of the answer.
    pub(crate) async fn send(
        &self,
        place: &Place,
        mut request: Request<Body>,
        within: Duration,
    ) -> Result<Response<Body>, BackendError> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme("https").authority(place.authority()).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|error| BackendError::Request(error.to_string()))?;
        *request.version_mut() = http::Version::HTTP_11;
        spans::inject(request.headers_mut());
        let answer = tokio::time::timeout(within, self.client.request(request)).await;
        let answer = answer.map_err(|_| BackendError::Deadline)?;
        Ok(answer.map_err(|error| BackendError::Request(util::chain(&error)))?.map(Body::new))
    }

    /// A connection of its own, for a request that takes it over.
    pub(crate) async fn connect(&self, place: &Place) -> Result<streaming::Connection, BackendError> {
        let dial = async {
            let stream = self.dialer.connect(&place.address.to_string(), place.port).await?;
            TlsConnector::from(Arc::clone(&self.tls)).connect(self.name.clone(), stream).await
        };
        let stream = tokio::time::timeout(CONNECT, dial).await.map_err(|_| BackendError::Deadline)?;
        let stream =
            stream.map_err(|error| BackendError::Request(format!("dial tcp {}: {error}", place.authority())))?;
        Ok(Box::new(stream))
    }
}
