//! NodeVolumeLimits: a driver can attach only so many volumes to a node.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use controller::ObjectKey;

use super::{Storage, claims_of, has_claims};
use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared},
    objects::{AttachmentView, ClaimView, PodView},
};

const REASON: &str = "node(s) exceed max volume count";

/// See the module.
pub(crate) struct NodeVolumeLimits(pub(crate) Arc<Storage>);

type Handles = BTreeMap<Box<str>, HashSet<Box<str>>>;

struct Check {
    storage: Arc<Storage>,
    wanted: Handles,
}

impl Storage {
    /// Volumes of a Pod by driver.
    fn handles_of(&self, pod: &PodView, into: &mut Handles) {
        for (key, _) in claims_of(pod) {
            let found = self.claim(&key).and_then(|claim| self.handle_of(&key, &claim));
            if let Some((driver, handle)) = found {
                into.entry(driver).or_default().insert(handle);
            }
        }
    }

    /// Driver and handle of a claim's volume; one that is still to be made is counted for who makes it.
    fn handle_of(&self, key: &ObjectKey, claim: &ClaimView) -> Option<(Box<str>, Box<str>)> {
        if !claim.volume.is_empty() {
            return self.volume(&claim.volume)?.csi.clone();
        }
        let driver = self.classes.get(&ObjectKey::cluster(&*claim.class))?.provisioner.clone()?;
        let handle = format!("{driver}-{key}");
        Some((driver, handle.into()))
    }

    /// Volumes that are attached to a node, whoever uses them.
    fn attached_to(&self, node: &str, into: &mut Handles) {
        for attachment in self.attachments.by_index(AttachmentView::BY_NODE, node) {
            if let Some((driver, handle)) = self.volume(&attachment.volume).and_then(|volume| volume.csi.clone()) {
                into.entry(driver).or_default().insert(handle);
            }
        }
    }
}

impl Plugin for NodeVolumeLimits {
    fn id(&self) -> PluginId {
        PluginId::NodeVolumeLimits
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, _pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::PodDeleted(other) => has_claims(other),
            ClusterEvent::StorageChanged | ClusterEvent::NodeAdded(_) => true,
            _ => false,
        }
    }
}

impl Filter for NodeVolumeLimits {
    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        let mut wanted = Handles::new();
        if has_claims(pod) {
            self.0.handles_of(pod, &mut wanted);
        }
        if wanted.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Check { storage: Arc::clone(&self.0), wanted }))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        let name = ObjectKey::cluster(&**cluster.nodes.name(node));
        let Some(csi) = self.storage.csi_nodes.get(&name) else { return Ok(()) };
        if !self.wanted.keys().any(|driver| csi.limits.contains_key(driver)) {
            return Ok(());
        }
        let mut used = Handles::new();
        for pod in cluster.nodes.get(node).pods.iter().filter(|p| has_claims(p)) {
            self.storage.handles_of(pod, &mut used);
        }
        self.storage.attached_to(&name.name, &mut used);
        let none = HashSet::new();
        for (driver, wanted) in &self.wanted {
            let Some(limit) = csi.limits.get(driver) else { continue };
            let there = used.get(driver).unwrap_or(&none);
            let new = wanted.difference(there).count();
            if new > 0 && there.len() + new > usize::try_from(*limit).unwrap_or(0) {
                return Err(Denial::by_pods(REASON));
            }
        }
        Ok(())
    }
}
