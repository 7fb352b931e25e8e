//! Who signs tokens of ServiceAccounts in place of the API server.

use std::{path::PathBuf, sync::Arc};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use proto::externaljwt::{
    FetchKeysRequest, FetchKeysResponse, Key, MetadataRequest, MetadataResponse, SignJwtRequest, SignJwtResponse,
    external_jwt_signer_server::{ExternalJwtSigner, ExternalJwtSignerServer},
};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

/// The keys there were; the last one signs.
type Keys = Arc<Mutex<Vec<KeyPair>>>;

#[derive(Clone)]
struct Service(Keys);

/// A running signer. It ends with this.
pub struct TokenSigner {
    keys: Keys,
    directory: TempDir,
    _stop: DropGuard,
}

/// A signature as tokens have it: both numbers of it, 32 bytes each.
fn fixed(der: &[u8]) -> Vec<u8> {
    let number = |at: usize| {
        let length = usize::from(der[at + 1]);
        let bytes: Vec<u8> = der[at + 2..at + 2 + length].iter().copied().skip_while(|byte| *byte == 0).collect();
        ([vec![0; 32 - bytes.len()], bytes].concat(), at + 2 + length)
    };
    let (first, next) = number(2);
    [first, number(next).0].concat()
}

#[tonic::async_trait]
impl ExternalJwtSigner for Service {
    async fn sign(&self, request: Request<SignJwtRequest>) -> Result<Response<SignJwtResponse>, Status> {
        let keys = self.0.lock();
        let kid = format!("key-{}", keys.len());
        let header = format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#);
        let header = BASE64_URL_SAFE_NO_PAD.encode(header);
        let text = format!("{header}.{}", request.into_inner().claims);
        let key = keys.last().ok_or_else(|| Status::internal("no key"))?;
        let signature = key.sign(text.as_bytes()).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(SignJwtResponse { header, signature: BASE64_URL_SAFE_NO_PAD.encode(fixed(&signature)) }))
    }

    async fn fetch_keys(&self, _: Request<FetchKeysRequest>) -> Result<Response<FetchKeysResponse>, Status> {
        let keys = self.0.lock();
        let one = |(at, key): (usize, &KeyPair)| Key {
            key_id: format!("key-{}", at + 1),
            key: key.subject_public_key_info(),
            // Old keys verify, and are not shown.
            exclude_from_oidc_discovery: at + 1 < keys.len(),
        };
        Ok(Response::new(FetchKeysResponse {
            keys: keys.iter().enumerate().map(one).collect(),
            data_timestamp: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            refresh_hint_seconds: 3600,
        }))
    }

    async fn metadata(&self, _: Request<MetadataRequest>) -> Result<Response<MetadataResponse>, Status> {
        Ok(Response::new(MetadataResponse { max_token_expiration_seconds: 7200 }))
    }
}

impl TokenSigner {
    /// Starts a signer, which allows lives of two hours.
    pub fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let keys: Keys = Arc::new(Mutex::new(vec![KeyPair::generate().expect("a key")]));
        let listener = UnixListener::bind(directory.path().join("signer.sock")).expect("a socket");
        let incoming = UnixListenerStream::new(listener);
        let service = ExternalJwtSignerServer::new(Service(Arc::clone(&keys)));
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
        Self { keys, directory, _stop: stop.drop_guard() }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("signer.sock")
    }

    /// Signs with another key from now on.
    pub fn rotate(&self) {
        self.keys.lock().push(KeyPair::generate().expect("a key"));
    }
}
