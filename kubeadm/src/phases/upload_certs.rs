//! Certificates that joining control planes share, encrypted in a Secret.

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::{Value, json};

use super::{certs, init::Init};
use crate::{
    client::Cluster,
    config::{BootstrapToken, ClusterConfiguration, Period},
    constants::BOOTSTRAPPERS,
    encryption,
    error::{Context, Error, Result, fail},
    host::Host,
    rbac, token,
};

const SECRET: &str = "kubeadm-certs";
/// Path of the Secret.
const PATH: &str = "/api/v1/namespaces/kube-system/secrets/kubeadm-certs";

/// A new key.
pub fn new_key(host: &dyn Host) -> String {
    let mut bytes = [0_u8; 32];
    host.random(&mut bytes);
    hex::encode(bytes)
}

/// Keys of the Secret and the files they hold, relative to the certificate directory unless absolute.
pub fn files(cluster: &ClusterConfiguration) -> Vec<(&'static str, String)> {
    let mut all: Vec<(&str, String)> =
        ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.pub", "sa.key", encryption::FILE]
            .into_iter()
            .map(|name| (name, name.to_owned()))
            .collect();
    match &cluster.etcd.external {
        Some(etcd) => {
            all.push(("external-etcd-ca.crt", etcd.ca_file.clone()));
            all.push(("external-etcd.crt", etcd.cert_file.clone()));
            all.push(("external-etcd.key", etcd.key_file.clone()));
        }
        None => {
            all.push(("etcd-ca.crt", "etcd/ca.crt".into()));
            all.push(("etcd-ca.key", "etcd/ca.key".into()));
        }
    }
    all
}

fn cipher(key: &str) -> Result<LessSafeKey> {
    let bytes = hex::decode(key).context("error decoding certificate key")?;
    let key = UnboundKey::new(&AES_256_GCM, &bytes)
        .map_err(|_| Error::new("error decoding certificate key: invalid length"))?;
    Ok(LessSafeKey::new(key))
}

/// Whether a key has the right form.
pub fn check_key(key: &str) -> Result<()> {
    cipher(key).map(drop)
}

/// Nonce, ciphertext and tag.
pub fn encrypt(host: &dyn Host, key: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let mut nonce = [0_u8; NONCE_LEN];
    host.random(&mut nonce);
    let mut content = plain.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut content)
        .map_err(|_| Error::new("cannot encrypt"))?;
    Ok([nonce.as_slice(), &content].concat())
}

/// The plain text.
pub fn decrypt(key: &str, sealed: &[u8]) -> Result<Vec<u8>> {
    let wrong = || Error::new("error decoding secret data with provided key: cipher: message authentication failed");
    let (nonce, content) = sealed.split_at_checked(NONCE_LEN).ok_or_else(wrong)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
    let mut content = content.to_vec();
    let len = cipher(key)?.open_in_place(nonce, Aad::empty(), &mut content).map_err(|_| wrong())?.len();
    content.truncate(len);
    Ok(content)
}

/// Stores the certificates of this host.
pub async fn upload(host: &dyn Host, api: &Cluster, cluster: &ClusterConfiguration, key: &str) -> Result<()> {
    let directory = Path::new(&cluster.certificates_dir);
    let external = |file| certs::is_external_ca(host, directory, file);
    if external("ca") || external("front-proxy-ca") {
        return fail!("can't use upload-certs with an external CA or an external front-proxy CA");
    }
    host.line("[upload-certs] Storing the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace");
    let owner = owner(host, api).await.context("error to create token")?;
    let mut data = BTreeMap::new();
    for (name, file) in files(cluster) {
        // Those that are not there are stored empty.
        let plain = host.read(&directory.join(&file)).unwrap_or_default();
        let sealed = if plain.is_empty() { Vec::new() } else { encrypt(host, key, &plain)? };
        data.insert(name, STANDARD.encode(sealed));
    }
    let mut secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": "kube-system"},
        "data": data,
    });
    if let Some(owner) = owner {
        secret["metadata"]["ownerReferences"] = json!([owner]);
    }
    api.create_or_update(host, &secret).await?;
    for object in rbac::reader("kubeadm:kubeadm-certs", "kube-system", "secrets", SECRET, &[rbac::group(BOOTSTRAPPERS)])
    {
        api.create_or_update(host, &object).await?;
    }
    Ok(())
}

/// A token whose end is the end of the certificates.
async fn owner(host: &dyn Host, api: &Cluster) -> Result<Option<Value>> {
    let token = BootstrapToken {
        token: token::generate(host),
        description: "Proxy for managing TTL for the kubeadm-certs secret".into(),
        ttl: Some(Period::seconds(2 * 3600)),
        ..BootstrapToken::default()
    };
    let secret = token::to_secret(&token, host.now())?;
    api.create_or_update(host, &secret).await?;
    if api.is_told() {
        return Ok(None);
    }
    let name = machinery::meta::name(&secret);
    let Some(made) = api.get(&format!("/api/v1/namespaces/kube-system/secrets/{name}")).await? else {
        return fail!("token Secret {name:?} is gone");
    };
    Ok(Some(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "name": name,
        "uid": machinery::meta::uid(&made),
        "controller": true,
        "blockOwnerDeletion": true,
    })))
}

/// Brings the certificates to a joining host; those that are there stay.
pub async fn download(host: &dyn Host, api: &Cluster, cluster: &ClusterConfiguration, key: &str) -> Result<()> {
    host.line(
        "[download-certs] Downloading the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace",
    );
    let Some(secret) = api.get(PATH).await? else {
        return fail!(
            "Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace. This Secret might have expired. \
             Please, run `kubeadm init phase upload-certs --upload-certs` on a control plane to generate a new one"
        );
    };
    let directory = Path::new(&cluster.certificates_dir);
    host.line(&format!("[download-certs] Saving the certificates to the folder: {:?}", cluster.certificates_dir));
    for (name, file) in files(cluster) {
        let encoded = secret.get("data").and_then(|d| d.get(name)).and_then(Value::as_str).unwrap_or_default();
        let sealed = STANDARD.decode(encoded).with_context(|| format!("secret {name:?} is not readable"))?;
        if sealed.is_empty() || file.is_empty() {
            continue;
        }
        let plain = decrypt(key, &sealed)?;
        let mode = if file.ends_with(".key") { 0o600 } else { 0o644 };
        let path = directory.join(&file);
        if !host.exists(&path) {
            host.put(&path, mode, &plain).with_context(|| format!("error saving {}", path.display()))?;
        }
    }
    Ok(())
}

pub(super) async fn init(init: &mut Init) -> Result<()> {
    if !init.upload_certs {
        init.host.line("[upload-certs] Skipping phase. Please see --upload-certs");
        return Ok(());
    }
    if init.config.init.certificate_key.is_empty() {
        init.config.init.certificate_key = new_key(&*init.host);
    }
    let api = init.api().await?;
    let key = &init.config.init.certificate_key;
    upload(&*init.host, &api, init.cluster(), key).await.context("error uploading certs")?;
    if !init.hide_certificate_key {
        init.host.line(&format!("[upload-certs] Using certificate key:\n{key}"));
    }
    Ok(())
}
