//! A key management plugin: it seals by a byte that is its key, and is well unless a test says otherwise.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
    key_management_service_server::{KeyManagementService, KeyManagementServiceServer},
};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

#[derive(Debug)]
struct State {
    key: u8,
    is_well: bool,
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

/// A running plugin. It ends with this.
pub struct KmsPlugin {
    state: Arc<Mutex<State>>,
    directory: TempDir,
    _stop: DropGuard,
}

#[tonic::async_trait]
impl KeyManagementService for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let state = self.0.lock();
        let healthz = if state.is_well { "ok" } else { "unwell" };
        let (version, key_id) = ("v2".to_owned(), format!("key-{}", state.key));
        Ok(Response::new(StatusResponse { version, healthz: healthz.to_owned(), key_id }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        let request = request.into_inner();
        let key = request.key_id.strip_prefix("key-").and_then(|key| key.parse::<u8>().ok());
        let key = key.ok_or_else(|| Status::invalid_argument("there is no such key"))?;
        Ok(Response::new(DecryptResponse { plaintext: request.ciphertext.iter().map(|byte| byte ^ key).collect() }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let key = self.0.lock().key;
        let ciphertext = request.into_inner().plaintext.iter().map(|byte| byte ^ key).collect();
        let annotations = HashMap::from([("plugin.example.com/note".to_owned(), b"kept".to_vec())]);
        Ok(Response::new(EncryptResponse { ciphertext, key_id: format!("key-{key}"), annotations }))
    }
}

impl KmsPlugin {
    /// Starts a plugin.
    pub fn start() -> Self {
        let directory = TempDir::new().expect("a directory");
        let state = Arc::new(Mutex::new(State { key: 1, is_well: true }));
        let listener = UnixListener::bind(directory.path().join("kms.sock")).expect("a socket");
        let incoming = UnixListenerStream::new(listener);
        let service = KeyManagementServiceServer::new(Service(Arc::clone(&state)));
        let stop = CancellationToken::new();
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
        Self { state, directory, _stop: stop.drop_guard() }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("kms.sock")
    }

    /// Another key from now on; the old ones still open what they have sealed.
    pub fn rotate(&self) {
        self.state.lock().key += 1;
    }

    /// Whether it says that it is well.
    pub fn set_well(&self, is_well: bool) {
        self.state.lock().is_well = is_well;
    }
}
