//! The configuration of a running cluster.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    client::Cluster,
    config::{
        ClusterConfiguration,
        component::{self, ComponentConfig},
        defaults,
        documents::{self, Strictness},
    },
    constants::{ADMIN_CONF, COMPONENT_HASH},
    error::{Context, Error, Result, fail},
    host::{Host, PathKind},
    yaml,
};

/// Path of a ConfigMap of kube-system.
fn map_path(name: &str) -> String {
    format!("/api/v1/namespaces/kube-system/configmaps/{name}")
}

/// Says where the configuration is read.
pub fn announce(host: &dyn Host, prefix: &str) {
    host.line(&format!(
        "[{prefix}] Reading configuration from the \"kubeadm-config\" ConfigMap in namespace \"kube-system\"..."
    ));
    host.line(&format!(
        "[{prefix}] Use 'kubeadm init phase upload-config kubeadm --config your-config-file' to re-upload it."
    ));
}

/// Reads the ClusterConfiguration.
pub async fn cluster(host: &dyn Host, api: &Cluster) -> Result<ClusterConfiguration> {
    let found = api.get(&map_path("kubeadm-config")).await.context("failed to get config map")?;
    let Some(map) = found else { return fail!("failed to get config map: configmaps \"kubeadm-config\" not found") };
    let text = map.pointer("/data/ClusterConfiguration").and_then(Value::as_str);
    let Some(text) = text else {
        return fail!(
            "unexpected error when reading kubeadm-config ConfigMap: ClusterConfiguration key value pair missing"
        );
    };
    let mut value = yaml::parse(text).context("failed to decode cluster configuration data")?;
    if let Value::Object(fields) = &mut value {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    let mut cluster: ClusterConfiguration = documents::decode(host, value, "ClusterConfiguration", Strictness::Warn)
        .context("failed to decode cluster configuration data")?;
    defaults::cluster_static(&mut cluster);
    Ok(cluster)
}

/// Reads a component's configuration. Without a valid mark it counts as the user's.
pub async fn component(api: &Cluster, map: &str, key: &str) -> Result<Option<ComponentConfig>> {
    let Some(map) = api.get(&map_path(map)).await? else { return Ok(None) };
    let data = map.get("data").cloned().unwrap_or_else(|| json!({}));
    let text = data.get(key).and_then(Value::as_str).ok_or_else(|| Error::new(format!("key {key:?} is missing")))?;
    let mut values: Vec<(&String, &str)> =
        data.as_object().into_iter().flatten().map(|(k, v)| (k, v.as_str().unwrap_or_default())).collect();
    values.sort();
    let mark = map.pointer("/metadata/annotations").and_then(|a| a.get(COMPONENT_HASH)).and_then(Value::as_str);
    let from_user = mark != Some(component::checksum(values.into_iter().map(|(_, v)| v)).as_str());
    Ok(Some(ComponentConfig { document: yaml::parse(text)?, from_user }))
}

/// The kubeconfig that administration uses: the given one, the user's own, or that of this host.
pub fn admin_kubeconfig(host: &dyn Host, given: Option<&Path>) -> std::path::PathBuf {
    if let Some(path) = given {
        return path.to_owned();
    }
    let admin = Path::new(ADMIN_CONF);
    let own = host.variable("KUBECONFIG").and_then(|list| list.split(':').next().map(std::path::PathBuf::from));
    if let Some(path) = own.filter(|path| host.kind(path) == Some(PathKind::File)) {
        return path;
    }
    if host.kind(admin) == Some(PathKind::File) {
        return admin.to_owned();
    }
    let home = host.variable("HOME").map(|home| Path::new(&home).join(".kube/config"));
    home.filter(|path| host.kind(path) == Some(PathKind::File)).unwrap_or_else(|| admin.to_owned())
}
