//! Configuration of the kubelets and the proxies.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{ApiEndpoint, ClusterConfiguration};
use crate::{constants::MANIFESTS_DIR, error::Result, host::Host, yaml};

/// Group and version of KubeletConfiguration.
pub const KUBELET_API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Group and version of KubeProxyConfiguration.
pub const PROXY_API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";

/// One component's configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentConfig {
    /// The document.
    pub document: Value,
    /// Whether the user gave it.
    pub from_user: bool,
}

impl ComponentConfig {
    /// From the user's document, or an empty one.
    pub fn new(given: Option<Value>, api_version: &str, kind: &str) -> Self {
        let from_user = given.is_some();
        Self { document: given.unwrap_or_else(|| json!({"apiVersion": api_version, "kind": kind})), from_user }
    }

    /// Text of the file.
    pub fn yaml(&self) -> Result<String> {
        yaml::to_yaml(&self.document)
    }

    /// A field.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.document, |at, field| at.get(field))
    }
}

/// The mark of data that kubeadm made: over the values of a ConfigMap in the order of their keys.
pub fn checksum<'a>(values: impl IntoIterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    values.into_iter().for_each(|value| hash.update(value.as_bytes()));
    format!("sha256:{}", hex::encode(hash.finalize()))
}

/// Sets what is absent; warns about what differs.
struct Completion<'a> {
    host: &'a dyn Host,
    kind: &'static str,
    document: &'a mut Value,
}

impl Completion<'_> {
    fn recommend(&mut self, path: &[&str], value: Value) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut at = &mut *self.document;
        for field in parents {
            at = object(at).entry((*field).to_owned()).or_insert_with(|| Value::Object(Map::new()));
        }
        let fields = object(at);
        match fields.get(*last).filter(|found| !is_zero(found)) {
            Some(found) if *found != value => self.host.warn(&format!(
                "The recommended value for \"{}\" in \"{}\" is: {}; the provided value is: {}\n",
                path.join("."),
                self.kind,
                plain(&value),
                plain(found)
            )),
            Some(_) => {}
            None => {
                fields.insert((*last).to_owned(), value);
            }
        }
    }
}

/// Completes the configuration of the kubelets.
pub fn complete_kubelet(host: &dyn Host, config: &mut ComponentConfig, cluster: &ClusterConfiguration) -> Result<()> {
    let dns = cluster.dns_address()?.to_string();
    let ca = format!("{}/ca.crt", cluster.certificates_dir);
    let mut set = Completion { host, kind: "KubeletConfiguration", document: &mut config.document };
    set.recommend(&["staticPodPath"], MANIFESTS_DIR.into());
    set.recommend(&["clusterDNS"], json!([dns]));
    set.recommend(&["clusterDomain"], cluster.networking.dns_domain.as_str().into());
    set.recommend(&["authentication", "x509", "clientCAFile"], ca.into());
    let anonymous = config.get(&["authentication", "anonymous", "enabled"]).is_some();
    let mut set = Completion { host, kind: "KubeletConfiguration", document: &mut config.document };
    if !anonymous {
        set.recommend(&["authentication", "anonymous", "enabled"], false.into());
    }
    set.recommend(&["authentication", "webhook", "enabled"], true.into());
    set.recommend(&["authorization", "mode"], "Webhook".into());
    set.recommend(&["healthzBindAddress"], "127.0.0.1".into());
    set.recommend(&["healthzPort"], 10248.into());
    let driver = if host.has_systemd() { "systemd" } else { "cgroupfs" };
    set.recommend(&["cgroupDriver"], driver.into());
    object(&mut config.document).insert("rotateCertificates".into(), true.into());
    Ok(())
}

/// Completes the configuration of the proxies.
pub fn complete_proxy(
    host: &dyn Host,
    config: &mut ComponentConfig,
    cluster: &ClusterConfiguration,
    endpoint: &ApiEndpoint,
) {
    let mut set = Completion { host, kind: "KubeProxyConfiguration", document: &mut config.document };
    set.recommend(&["bindAddress"], if endpoint.is_v6() { "::" } else { "0.0.0.0" }.into());
    if !cluster.networking.pod_subnet.is_empty() {
        set.recommend(&["clusterCIDR"], cluster.networking.pod_subnet.as_str().into());
    }
    set.recommend(&["clientConnection", "kubeconfig"], "/var/lib/kube-proxy/kubeconfig.conf".into());
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    machinery::meta::object_mut(value)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// As Go prints a value.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        other => other.to_string(),
    }
}
