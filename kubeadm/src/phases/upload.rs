//! The configuration in the cluster.

use serde_json::{Value, json};

use super::init::Init;
use crate::{
    client::Cluster,
    config::{
        API_VERSION, ClusterConfiguration,
        component::{self, ComponentConfig},
    },
    constants::{BOOTSTRAPPERS, COMPONENT_HASH},
    error::Result,
    host::Host,
    rbac, yaml,
};

/// The ClusterConfiguration as it is stored.
pub fn cluster_document(cluster: &ClusterConfiguration) -> Result<String> {
    yaml::document(API_VERSION, "ClusterConfiguration", cluster)
}

/// A ConfigMap of namespace kube-system.
pub fn config_map(name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "kube-system"},
        "data": data,
    })
}

/// A ConfigMap with a component's configuration, marked when kubeadm made it.
pub fn component_map(name: &str, data: Value, config: &ComponentConfig) -> Value {
    let mut map = config_map(name, data);
    if !config.from_user {
        let mut values: Vec<(String, String)> = Vec::new();
        if let Some(Value::Object(data)) = map.get("data") {
            values.extend(data.iter().map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())));
        }
        values.sort();
        let hash = component::checksum(values.iter().map(|(_, value)| value.as_str()));
        map["metadata"]["annotations"] = json!({COMPONENT_HASH: hash});
    }
    map
}

/// Stores the ClusterConfiguration; of a ConfigMap that is there only this key changes.
pub async fn store_cluster(host: &dyn Host, api: &Cluster, cluster: &ClusterConfiguration) -> Result<()> {
    host.line(
        "[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace",
    );
    let mut map = config_map("kubeadm-config", json!({"ClusterConfiguration": cluster_document(cluster)?}));
    if !api.is_told()
        && let Some(there) = api.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").await?
        && let (Some(Value::Object(old)), Some(Value::Object(new))) = (there.get("data"), map.get_mut("data"))
    {
        for (key, value) in old {
            new.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    api.create_or_update(host, &map).await?;
    let subjects = [rbac::group(BOOTSTRAPPERS), rbac::group("system:nodes")];
    for object in rbac::reader("kubeadm:nodes-kubeadm-config", "kube-system", "configmaps", "kubeadm-config", &subjects)
    {
        api.create_or_update(host, &object).await?;
    }
    Ok(())
}

/// Stores the configuration of the kubelets.
pub async fn store_kubelet(host: &dyn Host, api: &Cluster, config: &ComponentConfig) -> Result<()> {
    host.line(
        "[kubelet] Creating a ConfigMap \"kubelet-config\" in namespace kube-system with the configuration for the \
         kubelets in the cluster",
    );
    let map = component_map("kubelet-config", json!({"kubelet": config.yaml()?}), config);
    api.create_or_update(host, &map).await?;
    let subjects = [rbac::group("system:nodes"), rbac::group(BOOTSTRAPPERS)];
    for object in rbac::reader("kubeadm:kubelet-config", "kube-system", "configmaps", "kubelet-config", &subjects) {
        api.create_or_update(host, &object).await?;
    }
    Ok(())
}

pub(super) async fn kubeadm(init: &mut Init) -> Result<()> {
    let api = init.api().await?;
    let mut cluster = init.config.cluster.clone();
    cluster.dns.disabled |= super::workflow::is_skipped(&init.skipped, "addon/coredns");
    cluster.proxy.disabled |= super::workflow::is_skipped(&init.skipped, "addon/kube-proxy");
    store_cluster(&*init.host, &api, &cluster).await
}

pub(super) async fn kubelet(init: &mut Init) -> Result<()> {
    let api = init.api().await?;
    store_kubelet(&*init.host, &api, &init.config.kubelet).await
}
