use std::{path::PathBuf, time::SystemTime};

use proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
    key_management_service_server::{KeyManagementService, KeyManagementServiceServer},
};
use runtime::clock::FakeClock;
use tokio::net::UnixListener;
use tokio_util::sync::DropGuard;
use tonic::{Request, Response, Status};

use super::*;

const KEY: &str = "/registry/secrets/default/s";

#[derive(Debug, Default)]
struct State {
    key: String,
    is_ill: bool,
    opened: usize,
}

/// A plugin that turns bytes around.
#[derive(Clone, Default)]
struct Fake(Arc<Mutex<State>>);

fn turned(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| !byte).collect()
}

#[tonic::async_trait]
impl KeyManagementService for Fake {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let state = self.0.lock();
        let healthz = if state.is_ill { "ill" } else { "ok" };
        let (version, key_id) = ("v2".to_owned(), state.key.clone());
        Ok(Response::new(StatusResponse { version, healthz: healthz.to_owned(), key_id }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        self.0.lock().opened += 1;
        Ok(Response::new(DecryptResponse { plaintext: turned(&request.into_inner().ciphertext) }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let ciphertext = turned(&request.into_inner().plaintext);
        let annotations = HashMap::from([("local.example.com/a".to_owned(), b"1".to_vec())]);
        Ok(Response::new(EncryptResponse { ciphertext, key_id: self.0.lock().key.clone(), annotations }))
    }
}

struct Running {
    fake: Fake,
    endpoint: String,
    _directory: tempfile::TempDir,
    _stop: DropGuard,
}

fn serve(fake: Fake, path: PathBuf) -> DropGuard {
    let stop = CancellationToken::new();
    let listener = UnixListener::bind(path).expect("a socket");
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let server = tonic::transport::Server::builder().add_service(KeyManagementServiceServer::new(fake));
    tokio::spawn(server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
    stop.drop_guard()
}

fn running() -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("kms.sock");
    let fake = Fake::default();
    fake.0.lock().key = "one".into();
    let stop = serve(fake.clone(), path.clone());
    Running { fake, endpoint: format!("unix://{}", path.display()), _directory: directory, _stop: stop }
}

fn service(running: &Running) -> (KeyService, Arc<FakeClock>) {
    let clock = FakeClock::new(SystemTime::UNIX_EPOCH);
    let dynamic: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    (KeyService::new("p", &running.endpoint, Duration::from_secs(30), dynamic).expect("a service"), clock)
}

#[tokio::test]
async fn values_are_sealed_and_opened_without_asking() {
    let running = running();
    let (service, _clock) = service(&running);
    assert!(service.seal(KEY, b"plain").is_err() && service.health().is_err());
    service.refresh().await.expect("well");
    service.health().expect("well");
    let sealed = service.seal(KEY, b"plain").expect("sealed");
    assert!(sealed.starts_with(b"k8s:enc:kms:v2:p:") && !sealed.windows(5).any(|window| window == b"plain"));
    assert_ne!(service.seal(KEY, b"plain").expect("sealed"), sealed, "no two are alike");
    let asked = running.fake.0.lock().opened;
    assert_eq!(service.open(KEY, &sealed).await.expect("opened"), "plain");
    assert_eq!(running.fake.0.lock().opened, asked);
    service.open("/registry/secrets/default/other", &sealed).await.expect_err("a value belongs to its key");
    let (other, _clock) = self::service(&running);
    for _ in 0..2 {
        assert_eq!(other.open(KEY, &sealed).await.expect("opened"), "plain", "after a restart");
    }
    assert_eq!(running.fake.0.lock().opened, asked + 1, "asked once");
}

#[tokio::test]
async fn what_is_asked_and_which_keys_are_used_is_told() {
    let running = running();
    let (service, _clock) = service(&running);
    let registry = prometheus::Registry::new();
    service.measure(KmsMetrics::register(&registry, "server").expect("metrics"));
    service.refresh().await.expect("well");
    let sealed = service.seal(KEY, b"plain").expect("sealed");
    service.open(KEY, &sealed).await.expect("opened");
    running.fake.0.lock().key = String::new();
    service.refresh().await.expect_err("no key");
    let told = runtime::metrics::expose(&registry);
    let one = "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    let name = |name: &str| format!("apiserver_envelope_encryption_{name}");
    for (series, value) in [
        (name("dek_source_cache_size{provider_name=\"p\"}"), "1"),
        (name("invalid_key_id_from_status_total{error=\"empty\",provider_name=\"p\"}"), "1"),
        (
            name(
                "kms_operations_latency_seconds_count{grpc_status_code=\"OK\",\
                 method_name=\"/v2.KeyManagementService/Status\",provider_name=\"p\"}",
            ),
            "2",
        ),
    ] {
        assert!(told.contains(&format!("{series} {value}\n")), "{series}: {told}");
    }
    for kind in ["to_storage", "from_storage"] {
        let used = told.lines().find(|line| line.contains("key_id_hash_total{") && line.contains(kind));
        assert!(used.is_some_and(|line| line.contains(one) && line.ends_with(" 1")), "{used:?}");
    }
}

#[tokio::test]
async fn another_key_is_taken_when_the_plugin_has_one() {
    let running = running();
    let (service, _clock) = service(&running);
    service.refresh().await.expect("well");
    let before = service.seal(KEY, b"plain").expect("sealed");
    service.refresh().await.expect("well");
    assert!(service.is_current(&before));
    running.fake.0.lock().key = "two".into();
    service.refresh().await.expect("well");
    assert!(!service.is_current(&before));
    let after = service.seal(KEY, b"plain").expect("sealed");
    assert!(service.is_current(&after));
    assert_eq!(service.open(KEY, &before).await.expect("opened"), "plain");
}

#[tokio::test]
async fn nothing_is_sealed_long_after_the_plugin_was_well() {
    let running = running();
    let (service, clock) = service(&running);
    service.refresh().await.expect("well");
    running.fake.0.lock().is_ill = true;
    assert!(service.refresh().await.is_err_and(|why| why.contains("unexpected healthz status: \"ill\"")));
    let sealed = service.seal(KEY, b"plain").expect("the key is good for a while");
    clock.advance(VALID + Duration::from_secs(1));
    assert!(service.seal(KEY, b"plain").is_err_and(|why| why.contains("expired")));
    assert_eq!(service.open(KEY, &sealed).await.expect("opened"), "plain");
    running.fake.0.lock().is_ill = false;
    service.refresh().await.expect("well again");
    service.seal(KEY, b"plain").expect("sealed");
}

#[test]
fn values_of_one_key_for_all_are_opened_too() {
    let key = gcm(&[7; 32]).expect("a key");
    let nonce = [1; NONCE_LEN];
    let mut sealed = b"plain".to_vec();
    let place = Aad::from(KEY.as_bytes());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), place, &mut sealed).expect("sealed");
    let whole = [nonce.as_slice(), &sealed].concat();
    assert_eq!(open_gcm(&key, KEY, &whole).as_deref(), Some(&b"plain"[..]));
    assert_eq!(open_gcm(&key, "other", &whole), None);
}
