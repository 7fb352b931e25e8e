//! How a joining host finds the cluster and makes sure that it is the right one.

use std::{path::Path, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use client::ApiErrorExt;
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    client::{Cluster, error_text, fetch},
    config::{JoinConfiguration, Timeouts, TokenDiscovery},
    error::{Context, Error, Result, fail},
    host::Host,
    kubeconfig::Kubeconfig,
    phases::summary,
    pki::issue,
    token::Token,
};

/// Path of the public ConfigMap.
const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
/// Between attempts.
const INTERVAL: Duration = Duration::from_secs(5);
/// Name of the user of the kubelet's first request.
const BOOTSTRAP_USER: &str = "tls-bootstrap-token-user";

/// The detached signature of a text under a token.
pub fn signature(token: &Token, text: &str) -> String {
    let header = format!("{{\"alg\":\"HS256\",\"kid\":\"{}\"}}", token.id);
    let header = URL_SAFE_NO_PAD.encode(header);
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret.as_bytes());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(text));
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}

/// Whether a signature belongs to a text; takes the same time wherever they differ.
fn is_signed(token: &Token, text: &str, given: &str) -> bool {
    let expected = signature(token, text);
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.secret.as_bytes());
    hmac::verify(&key, given.as_bytes(), hmac::sign(&key, expected.as_bytes()).as_ref()).is_ok()
}

/// The kubeconfig inside the ConfigMap, if it is signed with the token.
fn checked<'a>(map: &'a Value, token: &Token) -> Result<&'a str> {
    let data = |key: &str| map.get("data").and_then(|d| d.get(key)).and_then(Value::as_str).filter(|t| !t.is_empty());
    let Some(text) = data("kubeconfig") else {
        return fail!(
            "there is no kubeconfig key in the cluster-info ConfigMap. This API Server isn't set up for token \
             bootstrapping, can't connect"
        );
    };
    let Some(given) = data(&format!("jws-kubeconfig-{}", token.id)) else {
        return fail!("could not find a JWS signature in the cluster-info ConfigMap for token ID {:?}", token.id);
    };
    if !is_signed(token, text, given) {
        return fail!("failed to verify JWS signature of received cluster info object, can't trust this API Server");
    }
    Ok(text)
}

/// At least one authority must be pinned.
fn check_pins(host: &dyn Host, file: &Kubeconfig, pins: &[String]) -> Result<()> {
    let found = summary::pins(host, file)?;
    let matches = |pin: &String| pins.iter().any(|wanted| wanted.eq_ignore_ascii_case(pin));
    if found.iter().any(matches) {
        return Ok(());
    }
    fail!(
        "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys {:?} are pinned",
        found.join(":")
    )
}

/// Finds the cluster; the result has its address and authority, and the credentials of a file if that has some.
pub async fn discover(host: &dyn Host, config: &JoinConfiguration) -> Result<Kubeconfig> {
    let patience = Timeouts::discovery(config.timeouts.as_ref());
    let found = match (&config.discovery.bootstrap_token, &config.discovery.file) {
        (Some(by_token), _) => by_signature(host, by_token, patience).await,
        (None, Some(file)) => by_file(host, &file.kube_config_path, patience).await,
        (None, None) => fail!("couldn't find a valid discovery configuration"),
    };
    let found = found.context("couldn't validate the identity of the API Server")?;
    credentials(found, &config.discovery.tls_bootstrap_token)
}

async fn by_signature(host: &dyn Host, by: &TokenDiscovery, patience: Duration) -> Result<Kubeconfig> {
    let token = Token::parse(&by.token)?;
    for pin in &by.ca_cert_hashes {
        let good = pin.strip_prefix("sha256:").is_some_and(|hash| hex::decode(hash).is_ok_and(|b| b.len() == 32));
        if !good {
            return fail!(
                "invalid public key hash: invalid hash, expected \"format:value\" with a sha256 value: {pin:?}"
            );
        }
    }
    let server = format!("https://{}", by.api_server_endpoint);
    let unverified = Cluster::anonymous(&server, None, Duration::ZERO)?;
    let text = ask(&unverified, &token, patience).await?;
    let file = Kubeconfig::parse(&text).context("couldn't parse the kubeconfig file in the cluster-info ConfigMap")?;
    if by.ca_cert_hashes.is_empty() {
        return named(&file);
    }
    check_pins(host, &file, &by.ca_cert_hashes)?;
    let authorities =
        file.authorities(host).ok_or_else(|| Error::new("the cluster-info kubeconfig has no authority"))?;
    let verified = Cluster::anonymous(&server, Some(issue::certificates(&authorities)), Duration::ZERO)?;
    let second = ask(&verified, &token, patience).await?;
    if second != text {
        return fail!(
            "the second kubeconfig from the cluster-info ConfigMap (using validated TLS) was different from the first"
        );
    }
    named(&file)
}

/// Asks for the ConfigMap until it is signed with the token.
async fn ask(cluster: &Cluster, token: &Token, patience: Duration) -> Result<String> {
    let end = tokio::time::Instant::now() + patience;
    loop {
        let failed = match cluster.get_once(CLUSTER_INFO).await {
            Ok(map) => match checked(&map, token) {
                Ok(text) => return Ok(text.to_owned()),
                // The signature comes a moment after the token; a wrong one stays wrong.
                Err(error) if error.to_string().starts_with("failed to verify") => return Err(error),
                Err(error) => error,
            },
            Err(error) => Error::new(format!("failed to request the cluster-info ConfigMap: {}", error_text(&error))),
        };
        if tokio::time::Instant::now() + INTERVAL > end {
            return Err(failed);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn by_file(host: &dyn Host, path: &str, patience: Duration) -> Result<Kubeconfig> {
    let file = if path.starts_with("https://") {
        Kubeconfig::parse(&fetch(path, Duration::from_secs(30)).await?)?
    } else {
        Kubeconfig::load(host, Path::new(path))?
    };
    let Some(authorities) = file.authorities(host) else {
        return fail!("the kubeconfig file has no certificate authority that can be embedded");
    };
    let server = file.server().ok_or_else(|| Error::new("the kubeconfig file has no cluster"))?.to_owned();
    let cluster = match file.user() {
        Some(_) => Cluster::connect(&file, None, patience).await?,
        None => Cluster::anonymous(&server, Some(issue::certificates(&authorities)), patience)?,
    };
    match cluster.get_once(CLUSTER_INFO).await {
        Ok(_) => {}
        Err(error) if error.status().is_some_and(|s| s.code == 403) => host.warn(
            "[discovery] Could not access the cluster-info ConfigMap for refreshing the cluster-info information, but the \
             TLS cert is valid so proceeding...\n",
        ),
        Err(error) => return fail!("failed to request the cluster-info ConfigMap: {}", error_text(&error)),
    }
    let mut found = named_with(&server, &authorities);
    if let (Some(user), Some(context)) = (file.user(), found.0.pointer_mut("/contexts/0/context")) {
        context["user"] = BOOTSTRAP_USER.into();
        found.0["users"] = json!([{"name": BOOTSTRAP_USER, "user": user}]);
    }
    Ok(found)
}

/// The same cluster under a name, without users.
fn named(file: &Kubeconfig) -> Result<Kubeconfig> {
    let cluster = file.any_cluster().ok_or_else(|| Error::new("the kubeconfig of cluster-info has no cluster"))?;
    Ok(Kubeconfig(with_cluster(cluster.clone())))
}

fn named_with(server: &str, authorities: &[u8]) -> Kubeconfig {
    use base64::engine::general_purpose::STANDARD;
    Kubeconfig(with_cluster(json!({"server": server, "certificate-authority-data": STANDARD.encode(authorities)})))
}

fn with_cluster(cluster: Value) -> Value {
    let context = format!("{BOOTSTRAP_USER}@kubernetes");
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kubernetes", "cluster": cluster}],
        "contexts": [{"name": context, "context": {"cluster": "kubernetes", "user": BOOTSTRAP_USER}}],
        "current-context": context,
        "users": [],
    })
}

/// Adds the token of the kubelet's first request.
fn credentials(mut file: Kubeconfig, token: &str) -> Result<Kubeconfig> {
    if !token.is_empty() {
        file.0["users"] = json!([{"name": BOOTSTRAP_USER, "user": {"token": token}}]);
        return Ok(file);
    }
    if file.user().is_some() {
        return Ok(file);
    }
    fail!(
        "could not find authentication credentials for the TLS bootstrap process. Please use Token discovery, a discovery \
         file with authentication credentials or an explicit --tls-bootstrap-token"
    )
}

/// Gives the cluster of a kubeconfig its own name.
pub fn rename_cluster(file: &mut Kubeconfig, name: &str) {
    let context = format!("{BOOTSTRAP_USER}@{name}");
    if let Some(cluster) = file.0.pointer_mut("/clusters/0/name") {
        *cluster = name.into();
    }
    if let Some(entry) = file.0.pointer_mut("/contexts/0") {
        entry["name"] = context.as_str().into();
        entry["context"]["cluster"] = name.into();
    }
    file.0["current-context"] = context.into();
}
