//! The API's copies of static Pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;

use super::{CallError, limited};
use crate::pods;

/// Makes and removes mirror Pods.
pub struct Mirrors {
    client: Client,
    node: String,
    node_uid: Mutex<Option<String>>,
}

impl Mirrors {
    /// For one node.
    pub fn new(client: Client, node: &str) -> Arc<Self> {
        Arc::new(Self { client, node: node.to_owned(), node_uid: Mutex::default() })
    }

    /// Makes the mirrors of the API match the static Pods: `mirrors` are those the API has for this node. Answers the
    /// UIDs of static Pods whose mirror is new, and so has no status yet.
    pub async fn reconcile(&self, wanted: &[Arc<Pod>], mirrors: &BTreeMap<String, Arc<Pod>>) -> Vec<String> {
        let mut fresh = Vec::new();
        let by_name: BTreeMap<String, &Arc<Pod>> =
            mirrors.values().filter(|pod| pods::is_mirror(pod)).map(|pod| (pods::full_name(pod), pod)).collect();
        for pod in wanted {
            let mirror = by_name.get(&pods::full_name(pod));
            match self.one(pod, mirror.map(|mirror| &***mirror)).await {
                Ok(true) => fresh.push(pods::uid(pod).to_owned()),
                Ok(false) => {}
                Err(error) => tracing::warn!(pod = pods::describe(pod), %error, "mirror pod"),
            }
        }
        let names: Vec<String> = wanted.iter().map(|pod| pods::full_name(pod)).collect();
        for mirror in by_name.values().filter(|mirror| !names.contains(&pods::full_name(mirror))) {
            if let Err(error) = self.delete(mirror).await {
                tracing::warn!(pod = pods::describe(mirror), %error, "orphaned mirror pod");
            }
        }
        fresh
    }

    /// Answers whether a mirror was made.
    async fn one(&self, pod: &Pod, mirror: Option<&Pod>) -> Result<bool, CallError> {
        let hash = pods::annotation(pod, pods::CONFIG_HASH);
        if let Some(mirror) = mirror {
            if pods::annotation(mirror, pods::CONFIG_MIRROR) == hash && !pods::is_deleting(mirror) {
                return Ok(false);
            }
            self.delete(mirror).await?;
        }
        self.create(pod).await
    }

    async fn create(&self, pod: &Pod) -> Result<bool, CallError> {
        let Some(node_uid) = self.node_uid().await? else { return Ok(false) };
        let mut copy = pod.clone();
        copy.metadata.uid = None;
        copy.metadata.resource_version = None;
        let hash = pods::annotation(pod, pods::CONFIG_HASH).unwrap_or_default().to_owned();
        copy.metadata.annotations.get_or_insert_default().insert(pods::CONFIG_MIRROR.to_owned(), hash.clone());
        copy.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.node.clone(),
            uid: node_uid,
            controller: Some(true),
            block_owner_deletion: None,
        }]);
        copy.status = None;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pods::namespace(pod));
        match limited(api.create(&PostParams::default(), &copy)).await {
            Err(error) if error.is_conflict() => {
                let existing = limited(api.get(pods::name(pod))).await?;
                let same = pods::annotation(&existing, pods::CONFIG_MIRROR) == Some(hash.as_str());
                if same { Ok(false) } else { Err(error) }
            }
            other => other.map(|_| true),
        }
    }

    /// The Node's UID; nothing is mirrored before the Node exists or while it goes.
    async fn node_uid(&self) -> Result<Option<String>, CallError> {
        if let Some(uid) = self.node_uid.lock().clone() {
            return Ok(Some(uid));
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let found = limited(api.get_opt(&self.node)).await?;
        let uid = found.filter(|node| node.metadata.deletion_timestamp.is_none()).and_then(|node| node.metadata.uid);
        self.node_uid.lock().clone_from(&uid);
        Ok(uid)
    }

    /// Forgets the Node, for instance because it was deleted and registered anew.
    pub fn forget_node(&self) {
        *self.node_uid.lock() = None;
    }

    async fn delete(&self, mirror: &Pod) -> Result<(), CallError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pods::namespace(mirror));
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match limited(api.delete(pods::name(mirror), &params)).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other.map(drop),
        }
    }
}
