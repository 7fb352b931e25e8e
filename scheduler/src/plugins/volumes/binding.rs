//! VolumeBinding: claims without a volume get one that the node can reach, or one that is made for it.

use std::sync::Arc;

use controller::{Cached, ObjectKey};

use super::{Storage, claims_of, has_claims};
use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{Denial, Filter, NodeCheck, Plugin, PluginId, Prepared, Reason, Reasons},
    objects::{CapacityView, ClaimRef, ClaimView, ClassView, NodeSelector, PodView, VolumeView},
    plugins::node_affinity,
};

const UNREACHABLE: &str = "node(s) didn't match PersistentVolume's node affinity";
const NONE_AVAILABLE: &str = "node(s) didn't find available persistent volumes to bind";
const NO_ROOM: &str = "node(s) did not have enough free storage";
const LOST: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";

/// See the module.
pub(crate) struct VolumeBinding(pub(crate) Arc<Storage>);

/// A claim that waits for a node.
#[derive(Clone)]
pub(super) struct Open {
    pub(super) key: ObjectKey,
    claim: Arc<Cached<ClaimView>>,
    class: Option<Arc<Cached<ClassView>>>,
}

/// What becomes of an open claim on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Volume(Box<str>),
    Provision,
}

/// The claims of a Pod, sorted.
#[derive(Default)]
pub(super) struct Claims {
    bound: Vec<Arc<Cached<VolumeView>>>,
    pub(super) open: Vec<Open>,
    /// A claim's volume does not exist.
    lost: bool,
}

impl Storage {
    /// Looks at the claims of a Pod; the error holds for all nodes.
    pub(super) fn sort(&self, pod: &PodView) -> Result<Claims, String> {
        let mut sorted = Claims::default();
        let mut immediate = false;
        for (key, ephemeral) in claims_of(pod) {
            let name = &key.name;
            let Some(claim) = self.claim(&key) else {
                return Err(if ephemeral {
                    format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                });
            };
            if claim.lost {
                let volume = &*claim.volume;
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                ));
            }
            if claim.terminating {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            if ephemeral && claim.owner.as_deref() != Some(&*pod.uid) {
                let pod = pod.full_name();
                return Err(format!("PVC {key} was not created for pod {pod} (pod is not owner)"));
            }
            if claim.bound {
                match self.volume(&claim.volume) {
                    Some(volume) => sorted.bound.push(volume),
                    None => sorted.lost = true,
                }
                continue;
            }
            let class = Some(&claim.class).filter(|c| !c.is_empty());
            let class = class.and_then(|c| self.classes.get(&ObjectKey::cluster(&**c)));
            if claim.volume.is_empty() && class.as_ref().is_some_and(|c| c.waits) {
                sorted.open.push(Open { key, claim, class });
            } else {
                immediate = true;
            }
        }
        if immediate { Err(IMMEDIATE.to_owned()) } else { Ok(sorted) }
    }

    /// Chooses for all open claims of a Pod on a node, the largest last so that it does not take what another needs.
    /// The error is the reason why there is no choice.
    pub(super) fn choose(
        &self,
        open: &[Open],
        cluster: &Cluster,
        node: NodeIx,
    ) -> Result<Vec<(ObjectKey, Choice)>, &'static str> {
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let mut by_size: Vec<&Open> = open.iter().collect();
        by_size.sort_by_key(|o| o.claim.size);
        let all = self.volumes.list();
        let reserved = self.reserved.lock().clone();
        let mut chosen: Vec<(ObjectKey, Choice)> = Vec::new();
        for open in by_size {
            let elsewhere = |selected: &str| *selected != **cluster.nodes.name(node);
            if open.claim.selected_node.as_deref().is_some_and(elsewhere) {
                return Err(NONE_AVAILABLE);
            }
            let taken = |name: &str| {
                chosen.iter().any(|(_, c)| *c == Choice::Volume(name.into()))
                    || reserved.get(name).is_some_and(|by| *by != open.key)
            };
            let usable = |v: &&Arc<Cached<VolumeView>>| !taken(&v.key.name) && reaches(v.nodes.as_ref(), cluster, node);
            let best = match all.iter().find(|v| v.claim.is_some() && open.accepts(v)) {
                // What is meant for the claim is its volume, or it has none.
                Some(own) => Some(own).filter(usable),
                None => {
                    let fitting = all.iter().filter(|v| open.accepts(v)).filter(usable);
                    fitting.min_by(|a, b| (a.size, &a.key.name).cmp(&(b.size, &b.key.name)))
                }
            };
            let choice = match best {
                Some(volume) => Choice::Volume(volume.key.name.as_str().into()),
                None if !open.can_be_made(cluster, node) => return Err(NONE_AVAILABLE),
                None if !self.has_room(open, cluster, node) => return Err(NO_ROOM),
                None => Choice::Provision,
            };
            chosen.push((open.key.clone(), choice));
        }
        Ok(chosen)
    }

    /// Whether a volume for a claim can be made on a node, as far as the driver tells.
    fn has_room(&self, open: &Open, cluster: &Cluster, node: NodeIx) -> bool {
        let Some(driver) = open.class.as_ref().and_then(|c| c.provisioner.as_deref()) else { return false };
        let tells = self.csi_drivers.get(&ObjectKey::cluster(driver)).is_some_and(|d| d.tells_capacity);
        let label = |key: &str| {
            let found = cluster.symbols.find(key).and_then(|k| cluster.nodes.label(node, k));
            found.map(|v| cluster.symbols.text(v))
        };
        let enough = |c: &Arc<Cached<CapacityView>>| {
            c.class == open.claim.class
                && c.largest.is_some_and(|largest| largest >= open.claim.size)
                && c.nodes.as_ref().is_some_and(|s| s.matches(label))
        };
        !tells || self.capacities.list().iter().any(enough)
    }
}

/// Whether a volume can be used on a node.
fn reaches(nodes: Option<&NodeSelector>, cluster: &Cluster, node: NodeIx) -> bool {
    node_affinity::required_matches(&[], nodes, node, &cluster.nodes, &cluster.symbols)
}

impl Open {
    /// Whether a volume is what the claim wants, and is free or meant for it.
    fn accepts(&self, volume: &Cached<VolumeView>) -> bool {
        let claim = &self.claim;
        let is_meant = |r: &ClaimRef| {
            *r.namespace == *self.key.namespace
                && *r.name == *self.key.name
                && (r.uid.is_empty() || *r.uid == *claim.uid)
        };
        let can_do = !volume.terminating
            && volume.block == claim.block
            && volume.size >= claim.size
            && claim.modes.iter().all(|m| volume.modes.contains(m));
        let may_have = || match &volume.claim {
            Some(reference) => is_meant(reference),
            None => {
                volume.available
                    && volume.class == claim.class
                    && claim.selector.as_ref().is_none_or(|s| volume.labels.match_selector(s))
            }
        };
        can_do && may_have()
    }

    /// Whether a volume can be made where the node is.
    fn can_be_made(&self, cluster: &Cluster, node: NodeIx) -> bool {
        let Some(class) = self.class.as_ref().filter(|c| c.provisioner.is_some()) else { return false };
        // A selector asks for something that exists.
        if self.claim.selector.is_some() {
            return false;
        }
        let label = |key: &str| {
            let found = cluster.symbols.find(key).and_then(|k| cluster.nodes.label(node, k));
            found.map(|v| cluster.symbols.text(v))
        };
        let there = |key: &str, values: &[Box<str>]| label(key).is_some_and(|v| values.iter().any(|w| **w == *v));
        class.topologies.is_empty()
            || class.topologies.iter().any(|t| t.match_label_expressions.iter().all(|e| there(&e.key, &e.values)))
    }
}

struct Check {
    storage: Arc<Storage>,
    claims: Claims,
}

impl Plugin for VolumeBinding {
    fn id(&self) -> PluginId {
        PluginId::VolumeBinding
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn may_help(&self, _pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        matches!(event, ClusterEvent::StorageChanged) || event.node_changed(|c| c.labels)
    }
}

impl Filter for VolumeBinding {
    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if !has_claims(pod) {
            return Prepared::Skip;
        }
        match self.0.sort(pod) {
            Ok(claims) => Prepared::Check(Box::new(Check { storage: Arc::clone(&self.0), claims })),
            Err(text) => Prepared::Reject(text),
        }
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        if self.claims.lost {
            return Err(Denial::by_node(LOST));
        }
        let mut reasons = Vec::new();
        if !self.claims.bound.iter().all(|v| reaches(v.nodes.as_ref(), cluster, node)) {
            reasons.push(Reason::Text(UNREACHABLE));
        }
        if let Err(reason) = self.storage.choose(&self.claims.open, cluster, node) {
            reasons.push(Reason::Text(reason));
        }
        if reasons.len() > 1 {
            return Err(Denial { resolvable: false, reasons: Reasons::Many(reasons) });
        }
        match reasons.pop() {
            None => Ok(()),
            Some(one) => Err(Denial { resolvable: false, reasons: Reasons::One(one) }),
        }
    }
}
