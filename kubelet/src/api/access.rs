//! The way to the apiserver, with a certificate that is replaced, and which may be had only after the kubelet began.
//!
//! While the first client certificate is asked for there is no way yet: static Pods run, requests fail at once, and
//! everything that needs the API waits for [`Ready`].

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ClientError;
use crate::certificates::rotation::{Rotation, Use};
use crate::certificates::store::PairStore;
use crate::certificates::{CertificateError, Purpose, bootstrap};
use crate::node::SharedFacts;

/// Pauses between tries to get the first certificate.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(32));

/// The kubelet has no certificate yet.
#[derive(Debug, thiserror::Error)]
#[error("the client certificate has not been issued yet")]
struct NotConnected;

/// Whether requests to the apiserver make sense yet.
#[derive(Clone, Debug)]
pub struct Ready(watch::Receiver<bool>);

impl Ready {
    /// From the start.
    pub fn now() -> Self {
        Self(watch::channel(true).1)
    }

    /// Whether they do now.
    pub fn is_ready(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when they do.
    pub async fn wait(&mut self) {
        if self.0.wait_for(|ready| *ready).await.is_err() {
            // Nobody is left who could make it so: the kubelet ends.
            std::future::pending().await
        }
    }
}

/// What a client is made from.
#[derive(Clone)]
pub struct AccessSettings {
    /// The kubeconfig in use.
    pub kubeconfig: PathBuf,
    /// The kubeconfig that is good enough to ask for a certificate.
    pub bootstrap: Option<PathBuf>,
    /// Where certificates are kept.
    pub cert_dir: PathBuf,
    /// Whether the client certificate is kept fresh.
    pub rotate: bool,
    /// Node name.
    pub node: String,
    /// User agent, rates, metrics.
    pub connection: client::Connection,
}

impl AccessSettings {
    fn store(&self) -> PairStore {
        PairStore::new(&self.cert_dir, Purpose::Client)
    }

    fn needs_bootstrap(&self) -> bool {
        self.bootstrap.is_some() && !bootstrap::is_usable(&self.kubeconfig, Timestamp::now())
    }

    /// A client as the files are now.
    pub async fn client(&self) -> Result<Client, ClientError> {
        let store = self.store();
        match store.current().filter(|pair| self.rotate && pair.is_valid(Timestamp::now())) {
            Some(_) => super::client_with_pair(&self.kubeconfig, &store.current_path(), &self.connection).await,
            None => super::client(&self.kubeconfig, &self.connection).await,
        }
    }
}

/// Begins all connections anew.
#[derive(Clone)]
pub struct Reconnect {
    settings: AccessSettings,
    reload: client::Reload,
}

impl Reconnect {
    /// Ends whatever still waits, watches and requests, and lets further ones open new connections.
    pub async fn reconnect(&self) {
        match self.settings.client().await {
            Ok(client) => self.reload.abandon(client),
            Err(error) => tracing::error!(error = util::chain(&error), "new connections to the apiserver"),
        }
    }
}

/// The way to the apiserver.
pub struct ApiAccess {
    settings: AccessSettings,
    client: Client,
    reload: client::Reload,
    opened: watch::Sender<bool>,
    seeded: bool,
}

impl ApiAccess {
    /// Opens it, or, where a certificate is still to be asked for, prepares it.
    pub async fn open(settings: AccessSettings) -> Result<Self, AccessError> {
        let pending = settings.needs_bootstrap();
        let mut seeded = false;
        let first = if pending {
            Client::new(tower::service_fn(refuse), "default")
        } else {
            seeded = settings.rotate && bootstrap::seed(&settings.kubeconfig, &settings.store())?;
            settings.client().await?
        };
        let (client, reload) = client::reloadable(first);
        Ok(Self { settings, client, reload, opened: watch::channel(!pending).0, seeded })
    }

    /// The client; it stays the same when credentials change.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Tells when requests make sense.
    pub fn ready(&self) -> Ready {
        Ready(self.opened.subscribe())
    }

    /// Means to begin all connections anew.
    pub fn reconnect(&self) -> Reconnect {
        Reconnect { settings: self.settings.clone(), reload: self.reload.clone() }
    }

    /// Gets the first certificate where there is none, and keeps it fresh.
    pub async fn run(mut self, facts: SharedFacts, stop: CancellationToken) {
        if !*self.opened.borrow() && !self.bootstrap(&stop).await {
            return;
        }
        self.opened.send_replace(true);
        if self.settings.rotate {
            let usage = Use::Client {
                reload: self.reload,
                kubeconfig: self.settings.kubeconfig.clone(),
                connection: Box::new(self.settings.connection.clone()),
                can_bootstrap: self.settings.bootstrap.is_some(),
                seeded: self.seeded,
            };
            let store = PairStore::new(&self.settings.cert_dir, Purpose::Client);
            Rotation { client: self.client, store, usage, facts }.run(stop).await;
        }
    }

    /// Tries until there is a client; `false` if stopped before.
    async fn bootstrap(&mut self, stop: &CancellationToken) -> bool {
        let mut pause = RETRY.0;
        loop {
            match self.try_bootstrap(stop).await {
                Ok(client) => {
                    self.reload.replace(client);
                    return true;
                }
                Err(AccessError::Certificate(CertificateError::Stopped)) => return false,
                Err(error) => tracing::error!(error = util::chain(&error), "failed to get the first certificate"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY.1),
            }
        }
    }

    async fn try_bootstrap(&mut self, stop: &CancellationToken) -> Result<Client, AccessError> {
        let settings = &self.settings;
        if let Some(start) = &settings.bootstrap {
            let to = bootstrap::Target {
                kubeconfig: &settings.kubeconfig,
                directory: &settings.cert_dir,
                node: &settings.node,
            };
            bootstrap::ensure(start, &to, &settings.connection, stop).await?;
        }
        Ok(settings.client().await?)
    }
}

async fn refuse(
    _request: http::Request<kube::client::Body>,
) -> Result<http::Response<http_body_util::Empty<bytes::Bytes>>, tower::BoxError> {
    Err(NotConnected.into())
}

/// No way to the apiserver.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig gives no client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The certificate cannot be had.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}
