//! What the API knows of this node's drivers: the CSINode, an annotation and labels of the Node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec, VolumeNodeResources};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use proto::csi::NodeGetInfoResponse;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Csi;
use super::driver::Driver;
use crate::api::{CallError, limited};
use crate::plugins::{Handler, Plugin};

const NODE_ID: &str = "csi.volume.kubernetes.io/nodeid";
const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";
/// Plugins of old that drivers stand in for.
const MIGRATED_PLUGINS: &str = "kubernetes.io/aws-ebs,kubernetes.io/azure-disk,kubernetes.io/azure-file,\
    kubernetes.io/cinder,kubernetes.io/gce-pd,kubernetes.io/portworx-volume,kubernetes.io/vsphere-volume";
const TRIES: u32 = 5;
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(7));

/// Takes drivers and tells the API of them.
pub struct CsiNodes {
    csi: Arc<Csi>,
    client: Option<Client>,
    node: String,
}

impl CsiNodes {
    /// For a node; without a client nobody is told.
    pub fn new(csi: Arc<Csi>, client: Option<Client>, node: &str) -> Arc<Self> {
        if client.is_none() {
            csi.stand_alone();
        }
        Arc::new(Self { csi, client, node: node.to_owned() })
    }

    /// Makes the CSINode, without which the node is not ready.
    pub async fn initialise(self: Arc<Self>, stop: CancellationToken) {
        let mut delay = RETRY.0;
        loop {
            match self.change(|_| Ok(())).await {
                Ok(()) => return self.csi.initialised.store(true, Ordering::Relaxed),
                Err(error) => tracing::warn!(error, "initializing the CSINode"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            delay = (delay * 2).min(RETRY.1);
        }
    }

    /// Changes the drivers of the CSINode, which is made if it is not there.
    async fn change(&self, change: impl Fn(&mut Vec<CSINodeDriver>) -> Result<(), String>) -> Result<(), String> {
        let Some(client) = &self.client else { return Ok(()) };
        let api: Api<CSINode> = Api::all(client.clone());
        let mut last = String::new();
        for _ in 0..TRIES {
            match self.try_change(client, &api, &change).await {
                Ok(()) => return Ok(()),
                Err(Attempt::Refused(error)) => return Err(error),
                Err(Attempt::Call(error)) => last = error.to_string(),
            }
        }
        Err(format!("error updating CSINode: {last}"))
    }

    async fn try_change(
        &self,
        client: &Client,
        api: &Api<CSINode>,
        change: &impl Fn(&mut Vec<CSINodeDriver>) -> Result<(), String>,
    ) -> Result<(), Attempt> {
        let found = limited(api.get_opt(&self.node)).await?;
        let exists = found.is_some();
        let mut object = match found {
            Some(found) => found,
            None => self.fresh(client).await?,
        };
        let before = object.clone();
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(MIGRATED.to_owned(), MIGRATED_PLUGINS.to_owned());
        change(&mut object.spec.drivers).map_err(Attempt::Refused)?;
        if !exists {
            limited(api.create(&PostParams::default(), &object)).await?;
        } else if object != before {
            limited(api.replace(&self.node, &PostParams::default(), &object)).await?;
        }
        Ok(())
    }

    async fn fresh(&self, client: &Client) -> Result<CSINode, Attempt> {
        let node: Node = limited(Api::<Node>::all(client.clone()).get(&self.node)).await?;
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node.clone(),
            uid: node.metadata.uid.unwrap_or_default(),
            ..OwnerReference::default()
        };
        let metadata =
            ObjectMeta { name: Some(self.node.clone()), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
        Ok(CSINode { metadata, spec: CSINodeSpec { drivers: Vec::new() } })
    }

    async fn add(&self, name: &str, info: &NodeGetInfoResponse) -> Result<(), String> {
        let segments: BTreeMap<String, String> =
            info.accessible_topology.iter().flat_map(|topology| topology.segments.clone()).collect();
        self.annotate(name, Some(&info.node_id), &segments).await?;
        let driver = CSINodeDriver {
            name: name.to_owned(),
            node_id: info.node_id.clone(),
            topology_keys: (!segments.is_empty()).then(|| segments.keys().cloned().collect()),
            allocatable: limit(info.max_volumes_per_node),
        };
        self.change(move |drivers| {
            drivers.retain(|known| known.name != driver.name);
            drivers.push(driver.clone());
            Ok(())
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<(), String> {
        self.change(|drivers| {
            drivers.retain(|known| known.name != name);
            Ok(())
        })
        .await?;
        self.annotate(name, None, &BTreeMap::new()).await
    }

    /// The Node's annotation with the id that a driver knows the node by, and the labels of its place.
    async fn annotate(&self, name: &str, id: Option<&str>, segments: &BTreeMap<String, String>) -> Result<(), String> {
        let Some(client) = &self.client else { return Ok(()) };
        let api: Api<Node> = Api::all(client.clone());
        let mut last = String::new();
        for _ in 0..TRIES {
            let node = limited(api.get(&self.node)).await.map_err(|error| error.to_string())?;
            let patch = node_patch(&node, name, id, segments)?;
            let Some(patch) = patch else { return Ok(()) };
            match limited(api.patch(&self.node, &PatchParams::default(), &Patch::Merge(&patch))).await {
                Ok(_) => return Ok(()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(format!("error updating node: {last}"))
    }
}

enum Attempt {
    Call(CallError),
    Refused(String),
}

impl From<CallError> for Attempt {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

/// Zero is a driver that does not say.
fn limit(volumes: i64) -> Option<VolumeNodeResources> {
    let count = i32::try_from(volumes).unwrap_or(i32::MAX);
    (count > 0).then_some(VolumeNodeResources { count: Some(count) })
}

/// What to change of a Node, if anything.
fn node_patch(
    node: &Node,
    name: &str,
    id: Option<&str>,
    segments: &BTreeMap<String, String>,
) -> Result<Option<serde_json::Value>, String> {
    let annotation = node.metadata.annotations.as_ref().and_then(|all| all.get(NODE_ID));
    let before: BTreeMap<String, String> =
        annotation.map(|text| serde_json::from_str(text)).transpose().map_err(|e| e.to_string())?.unwrap_or_default();
    let mut ids = before.clone();
    match id {
        Some(id) => ids.insert(name.to_owned(), id.to_owned()),
        None => ids.remove(name),
    };
    let labels = node.metadata.labels.clone().unwrap_or_default();
    for (key, value) in segments {
        if let Some(old) = labels.get(key).filter(|old| *old != value) {
            return Err(format!(
                "detected topology value collision: driver reported {key:?}:{value:?} but existing label is {key:?}:{old:?}"
            ));
        }
    }
    if ids == before && segments.keys().all(|key| labels.contains_key(key)) {
        return Ok(None);
    }
    let ids = match ids.is_empty() {
        true => None,
        false => Some(serde_json::to_string(&ids).map_err(|error| error.to_string())?),
    };
    let version = node.metadata.resource_version.as_ref();
    let metadata = json!({ "resourceVersion": version, "annotations": { NODE_ID: ids }, "labels": segments });
    Ok(Some(json!({ "metadata": metadata })))
}

#[async_trait]
impl Handler for CsiNodes {
    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        check_versions(plugin)?;
        let (driver, info) = Driver::open(&plugin.name, &plugin.endpoint).await.map_err(|error| error.to_string())?;
        if info.node_id.is_empty() {
            return Err(format!("driver {} does not say its node id", plugin.name));
        }
        self.csi.drivers.lock().insert(plugin.name.clone(), driver);
        if let Err(error) = self.add(&plugin.name, &info).await {
            self.csi.drivers.lock().remove(&plugin.name);
            return Err(error);
        }
        Ok(())
    }

    async fn deregister(&self, plugin: &Plugin) {
        self.csi.drivers.lock().remove(&plugin.name);
        if let Err(error) = self.remove(&plugin.name).await {
            tracing::warn!(driver = plugin.name, error, "removing a driver from the CSINode");
        }
    }
}

/// Only the first major version of the protocol is spoken.
fn check_versions(plugin: &Plugin) -> Result<(), String> {
    let first = |version: &String| version.trim_start_matches('v').split('.').next() == Some("1");
    if plugin.versions.iter().any(first) {
        return Ok(());
    }
    Err(format!(
        "validation failed for CSI Driver {} at endpoint {}: none of the versions specified {:?} are supported",
        plugin.name,
        plugin.endpoint.display(),
        plugin.versions
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_learn_ids_and_labels_once() {
        let mut node = Node::default();
        let zone: BTreeMap<String, String> = [("topology.d/zone".to_owned(), "a".to_owned())].into();
        let patch = node_patch(&node, "d", Some("id"), &zone).unwrap().unwrap();
        assert_eq!(patch["metadata"]["annotations"][NODE_ID], "{\"d\":\"id\"}");
        assert_eq!(patch["metadata"]["labels"]["topology.d/zone"], "a");
        node.metadata.annotations = Some([(NODE_ID.to_owned(), "{\"d\":\"id\",\"e\":\"x\"}".to_owned())].into());
        node.metadata.labels = Some(zone.clone());
        assert_eq!(node_patch(&node, "d", Some("id"), &zone).unwrap(), None);
        let gone = node_patch(&node, "d", None, &BTreeMap::new()).unwrap().unwrap();
        assert_eq!(gone["metadata"]["annotations"][NODE_ID], "{\"e\":\"x\"}");
        let other: BTreeMap<String, String> = [("topology.d/zone".to_owned(), "b".to_owned())].into();
        assert!(
            node_patch(&node, "d", Some("id"), &other).unwrap_err().starts_with("detected topology value collision")
        );
    }

    #[test]
    fn versions_of_the_first_major_are_spoken() {
        let plugin = |version: &str| Plugin { name: "d".into(), endpoint: "/s".into(), versions: vec![version.into()] };
        assert!(check_versions(&plugin("1.0.0")).is_ok() && check_versions(&plugin("v1.9")).is_ok());
        assert!(check_versions(&plugin("0.3.0")).is_err() && check_versions(&plugin("10.0")).is_err());
    }
}
