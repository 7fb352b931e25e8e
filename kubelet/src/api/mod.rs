//! The kubelet's dealings with the apiserver: Pods to run, their statuses, mirror Pods, events.

mod access;
mod events;
mod mirror;
mod source;
mod status;
mod watch;

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

pub use access::{AccessError, AccessSettings, ApiAccess, Ready, Reconnect};
pub use events::ApiSink;
pub use mirror::Mirrors;
pub use source::ApiSource;
pub use status::StatusWriter;
pub(crate) use watch::{follow, follow_object};

/// Deadline of ordinary calls.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A kubeconfig that gives no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file.
    #[error("failed to read the kubeconfig")]
    Read(#[from] kube::config::KubeconfigError),
    /// The client.
    #[error("failed to make a client")]
    Build(#[from] client::ClientError),
}

/// A client from a kubeconfig file.
pub async fn client(path: &Path, connection: &client::Connection) -> Result<Client, ClientError> {
    client_of(Kubeconfig::read_from(path)?, connection).await
}

/// A client from a kubeconfig file, with the certificate and key of another file.
pub async fn client_with_pair(
    path: &Path,
    pair: &Path,
    connection: &client::Connection,
) -> Result<Client, ClientError> {
    let mut file = Kubeconfig::read_from(path)?;
    for user in file.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        let pair = Some(pair.to_string_lossy().into_owned());
        (user.client_certificate, user.client_certificate_data) = (pair.clone(), None);
        (user.client_key, user.client_key_data) = (pair, None);
    }
    client_of(file, connection).await
}

async fn client_of(file: Kubeconfig, connection: &client::Connection) -> Result<Client, ClientError> {
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(DEADLINE);
    Ok(client::connect_with(config, connection)?)
}

/// A call within the deadline; running out of time reads like the service being unavailable.
pub(crate) async fn limited<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(result) => result.map_err(CallError::Api),
        Err(_) => Err(CallError::Timeout),
    }
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API said no, or could not be reached.
    #[error(transparent)]
    Api(kube::Error),
    /// No answer in time.
    #[error("context deadline exceeded")]
    Timeout,
}

impl CallError {
    /// The HTTP code of an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// 404.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// 409.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}
