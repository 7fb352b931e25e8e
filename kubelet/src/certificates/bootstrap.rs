//! TLS bootstrap: from a bootstrap token to a client certificate and the kubeconfig that names it.
//! <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/>

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Request;
use jiff::Timestamp;
use kube::Client;
use kube::config::Kubeconfig;
use rcgen::KeyPair;
use runtime::tls;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::store::{Pair, PairStore};
use super::{CertificateError, Purpose, content, file, request};
use crate::api::limited;

/// Time for the apiserver to answer at all.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(60);
const HEALTH_PERIOD: Duration = Duration::from_secs(1);
/// Time for somebody to sign the first certificate.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What a bootstrap leads to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The kubeconfig to be written.
    pub kubeconfig: &'a Path,
    /// Where the certificate is kept.
    pub directory: &'a Path,
    /// Node name.
    pub node: &'a str,
}

/// Makes sure that there is a kubeconfig with a valid certificate.
pub async fn ensure(
    bootstrap: &Path,
    target: &Target<'_>,
    connection: &client::Connection,
    stop: &CancellationToken,
) -> Result<(), CertificateError> {
    let Target { kubeconfig, directory, node } = *target;
    if is_usable(kubeconfig, Timestamp::now()) {
        tracing::info!(v = 2, "current kubeconfig file contents are still valid, no bootstrap necessary");
        return Ok(());
    }
    tracing::info!(v = 2, "using bootstrap kubeconfig to generate TLS client cert, key and kubeconfig file");
    let start = Kubeconfig::read_from(bootstrap)?;
    let client =
        crate::api::client(bootstrap, connection).await.map_err(|error| content("bootstrap kubeconfig", error))?;
    wait_for_server(&client, stop).await;
    let pending = directory.join("kubelet-client.key.tmp");
    let key = pending_key(&pending)?;
    let wanted = request::Wanted { node, purpose: Purpose::Client, names: Vec::new(), addresses: Vec::new() };
    let name = wanted.stable_name(&key);
    let certificate = request::certificate(&client, &wanted, &key, Some(name), PATIENCE, stop).await?;
    let store = PairStore::new(directory, Purpose::Client);
    store.update(&certificate, key.serialize_pem().as_bytes(), Timestamp::now())?;
    write_kubeconfig(kubeconfig, &start, &store.current_path())?;
    match fs::remove_file(&pending) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file(&pending)(error)),
        _ => Ok(()),
    }
}

/// Whether a kubeconfig can be read, and its certificate, if it has one, may be used now.
pub fn is_usable(path: &Path, now: Timestamp) -> bool {
    let Ok(config) = Kubeconfig::read_from(path) else { return false };
    let Some(user) = config.auth_infos.first().and_then(|named| named.auth_info.as_ref()) else { return false };
    let pem = match (&user.client_certificate, &user.client_certificate_data) {
        (Some(file), _) => fs::read(file).ok(),
        (None, Some(data)) => STANDARD.decode(data).ok(),
        (None, None) => return true,
    };
    pem.and_then(|pem| Pair::parse(pem).ok()).is_some_and(|pair| pair.is_valid(now))
}

/// Keeps a certificate that stands in the kubeconfig itself as the first pair. Whether that was done.
pub fn seed(kubeconfig: &Path, store: &PairStore) -> Result<bool, CertificateError> {
    if store.current().is_some() {
        return Ok(false);
    }
    let text = fs::read_to_string(kubeconfig).map_err(file(kubeconfig))?;
    let config: Value = serde_yaml::from_str(&text).map_err(|error| content("kubeconfig", error))?;
    let data = |field: &str| config.pointer(&format!("/users/0/user/{field}")).and_then(Value::as_str);
    let (Some(certificate), Some(key)) = (data("client-certificate-data"), data("client-key-data")) else {
        return Ok(false);
    };
    let decode = |text: &str| STANDARD.decode(text).map_err(|error| content("kubeconfig", error));
    store.update(&decode(certificate)?, &decode(key)?, Timestamp::now())?;
    Ok(true)
}

/// Waits until the apiserver answers; then, or after a minute, the request shows what is wrong.
async fn wait_for_server(client: &Client, stop: &CancellationToken) {
    let healthy = async {
        loop {
            let Ok(request) = Request::get("/healthz").body(Vec::new()) else { return };
            match limited(client.request_text(request)).await {
                Ok(_) => return,
                Err(error) => tracing::debug!(%error, "waiting for the apiserver"),
            }
            tokio::time::sleep(HEALTH_PERIOD).await;
        }
    };
    tokio::select! {
        // Running out of time is no failure of its own.
        _ = tokio::time::timeout(HEALTH_TIMEOUT, healthy) => {}
        () = stop.cancelled() => {}
    }
}

/// The key of a request that may be pending since an earlier start, or a new one.
fn pending_key(path: &Path) -> Result<KeyPair, CertificateError> {
    let present = fs::read_to_string(path).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
    if let Some(key) = present {
        return Ok(key);
    }
    let key = KeyPair::generate().map_err(|error| content("key", error))?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(file(directory))?;
    }
    tls::write_private(path, key.serialize_pem().as_bytes()).map_err(|error| content("key", error))?;
    Ok(key)
}

/// The kubeconfig of the same cluster, with the certificate in a file that rotation replaces.
fn write_kubeconfig(path: &Path, start: &Kubeconfig, pem: &Path) -> Result<(), CertificateError> {
    let current = start.current_context.as_deref().unwrap_or_default();
    let context = start.contexts.iter().find(|context| context.name == current).or(start.contexts.first());
    let context = context.and_then(|named| named.context.as_ref());
    let named = context.and_then(|context| start.clusters.iter().find(|cluster| cluster.name == context.cluster));
    let cluster = named.and_then(|named| named.cluster.clone());
    let cluster = cluster.ok_or_else(|| content("bootstrap kubeconfig", "it names no cluster"))?;
    let cluster: Value = serde_json::to_value(cluster).map_err(|error| content("bootstrap kubeconfig", error))?;
    let config = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster}],
        "contexts": [{"name": "default-context", "context":
            {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"}}],
        "current-context": "default-context",
        "preferences": {},
        "users": [{"name": "default-auth", "user": {"client-certificate": pem, "client-key": pem}}],
    });
    let text = serde_yaml::to_string(&config).map_err(|error| content("kubeconfig", error))?;
    tls::write_private(path, text.as_bytes()).map_err(|error| content("kubeconfig", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "apiVersion: v1\nkind: Config\ncurrent-context: b\n\
        clusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443', certificate-authority-data: QUJD}}]\n\
        contexts: [{name: b, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: a.b}}]\n";

    #[test]
    fn the_kubeconfig_names_the_current_pair() {
        let directory = tempfile::tempdir().unwrap();
        let (path, pem) = (directory.path().join("kubelet.conf"), directory.path().join("current.pem"));
        let start = Kubeconfig::from_yaml(START).unwrap();
        write_kubeconfig(&path, &start, &pem).unwrap();
        assert!(!is_usable(&path, Timestamp::now()), "there is no certificate yet");
        let (certificate, key) = tls::self_signed("n", &["n".to_owned()], &[]).unwrap();
        fs::write(&pem, format!("{certificate}{key}")).unwrap();
        assert!(is_usable(&path, Timestamp::now()));
        assert!(!is_usable(&path, Timestamp::UNIX_EPOCH), "not valid yet");
        let written = Kubeconfig::read_from(&path).unwrap();
        let cluster = written.clusters[0].cluster.clone().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://10.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some("QUJD"));
    }

    #[test]
    fn a_pending_key_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pki/kubelet-client.key.tmp");
        let first = pending_key(&path).unwrap();
        assert_eq!(first.serialize_pem(), pending_key(&path).unwrap().serialize_pem());
    }
}
