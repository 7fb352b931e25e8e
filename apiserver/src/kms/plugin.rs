//! The wire to a key management plugin: gRPC on a unix socket.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use proto::kms::{
    DecryptRequest, EncryptRequest, StatusRequest, key_management_service_client::KeyManagementServiceClient,
};
use tonic::transport::{Channel, Endpoint, Uri};

use super::metrics::KmsMetrics;

/// Longest key id and largest annotations that a plugin may answer, bytes.
const MOST_ID: usize = 1024;
const MOST_ANNOTATIONS: usize = 32 << 10;
/// Largest sealed seed.
const MOST_SEALED: usize = 1024;

/// A sealed seed and what it takes to open it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sealed {
    pub(super) ciphertext: Vec<u8>,
    pub(super) key_id: String,
    pub(super) annotations: BTreeMap<String, Vec<u8>>,
}

/// A plugin.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    client: KeyManagementServiceClient<Channel>,
    timeout: Duration,
    /// As the operator calls it.
    pub(super) name: String,
    pub(super) metrics: OnceLock<KmsMetrics>,
}

impl Plugin {
    /// The plugin behind `unix://<path>`; it is connected to when it is asked.
    pub(super) fn new(name: &str, endpoint: &str, timeout: Duration) -> Result<Self, String> {
        let path = match endpoint.split_once("://") {
            Some(("unix", path)) if !path.trim_start_matches('/').is_empty() => PathBuf::from(path),
            Some((scheme, _)) if scheme != "unix" => {
                return Err(format!("unsupported scheme {scheme:?} for remote KMS provider"));
            }
            _ => return Err(format!("invalid endpoint {endpoint:?} for remote KMS provider")),
        };
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel =
            Endpoint::from_static("http://kms.local").connect_timeout(timeout).connect_with_connector_lazy(connector);
        Ok(Self {
            client: KeyManagementServiceClient::new(channel),
            timeout,
            name: name.to_owned(),
            metrics: OnceLock::new(),
        })
    }

    async fn within<T>(
        &self,
        (what, method): (&str, &str),
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, String> {
        let start = Instant::now();
        let outcome = tokio::time::timeout(self.timeout, call).await;
        if let Some(metrics) = self.metrics.get() {
            let code = match &outcome {
                Ok(Ok(_)) => "OK".to_owned(),
                Ok(Err(status)) => format!("{:?}", status.code()),
                Err(_) => "DeadlineExceeded".to_owned(),
            };
            metrics.called(&self.name, method, &code, start.elapsed());
        }
        match outcome {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                Err(format!("{what}: rpc error: code = {:?} desc = {}", status.code(), status.message()))
            }
            Err(_) => Err(format!("{what}: context deadline exceeded")),
        }
    }

    /// The id of the key that is used now, if the plugin is well.
    pub(super) async fn status(&self) -> Result<String, String> {
        let mut client = self.client.clone();
        let answer = self.within(("status", "Status"), client.status(StatusRequest {})).await?;
        if answer.healthz != "ok" {
            return Err(format!("got unexpected healthz status: {:?}", answer.healthz));
        }
        if !matches!(answer.version.as_str(), "v2" | "v2beta1") {
            return Err(format!("expected KMSv2 API version v2, got {}", answer.version));
        }
        if let Some(metrics) = self.metrics.get() {
            match answer.key_id.len() {
                0 => metrics.told_wrongly(&self.name, "empty"),
                length if length > MOST_ID => metrics.told_wrongly(&self.name, "too_long"),
                _ => metrics.told(&self.name, &answer.key_id),
            }
        }
        check_id(&answer.key_id)?;
        Ok(answer.key_id)
    }

    /// Has a seed sealed.
    pub(super) async fn encrypt(&self, plaintext: &[u8]) -> Result<Sealed, String> {
        let mut client = self.client.clone();
        let request = EncryptRequest { plaintext: plaintext.to_vec(), uid: uuid::Uuid::new_v4().to_string() };
        let answer = self.within(("encrypt", "Encrypt"), client.encrypt(request)).await?;
        check_id(&answer.key_id)?;
        if answer.ciphertext.is_empty() || answer.ciphertext.len() > MOST_SEALED {
            return Err(format!(
                "ciphertext is {} bytes, which is not between 1 and {MOST_SEALED}",
                answer.ciphertext.len()
            ));
        }
        let size: usize = answer.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MOST_ANNOTATIONS {
            return Err(format!("total size of annotations is {size}, which is larger than {MOST_ANNOTATIONS}"));
        }
        let annotations = answer.annotations.into_iter().collect();
        Ok(Sealed { ciphertext: answer.ciphertext, key_id: answer.key_id, annotations })
    }

    /// Has a seed opened.
    pub(super) async fn decrypt(&self, sealed: &Sealed) -> Result<Vec<u8>, String> {
        let mut client = self.client.clone();
        let request = DecryptRequest {
            ciphertext: sealed.ciphertext.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: sealed.key_id.clone(),
            annotations: sealed.annotations.clone().into_iter().collect(),
        };
        Ok(self.within(("decrypt", "Decrypt"), client.decrypt(request)).await?.plaintext)
    }
}

fn check_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("keyID is empty".into()),
        length if length > MOST_ID => Err(format!("keyID is {length} bytes, which exceeds the max size of {MOST_ID}")),
        _ => Ok(()),
    }
}
