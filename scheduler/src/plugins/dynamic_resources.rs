//! DynamicResources: Pods that ask for devices through resource claims come to nodes that have them.

use std::{sync::Arc, time::Duration};

use crate::{
    cluster::{Cluster, NodeIx},
    devices::{Demand, DeviceChange, Devices, State, with_place},
    events::ClusterEvent,
    framework::{self, Denial, Filter, Gate, NodeCheck, NodeScore, Plugin, PluginId, Prepared, Reason, Reasons, Score},
    objects::PodView,
};

/// See the module.
pub(crate) struct DynamicResources {
    pub(crate) devices: Arc<Devices>,
    /// Time for the search on one node; zero for no bound.
    pub(crate) timeout: Duration,
}

impl Plugin for DynamicResources {
    fn id(&self) -> PluginId {
        PluginId::DynamicResources
    }

    fn as_gate(&self) -> Option<&dyn Gate> {
        Some(self)
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::Own { old, new } => {
                old.template.device_claims != new.template.device_claims || old.made_claims != new.made_claims
            }
            ClusterEvent::DevicesChanged(DeviceChange::Offer | DeviceChange::Class) => true,
            ClusterEvent::DevicesChanged(DeviceChange::Claim { key, owner, freed }) => {
                let is_mine = || owner.as_deref() == Some(&*pod.uid);
                let is_named = || {
                    let mut claims = pod.template.device_claims.iter();
                    key.namespace == pod.namespace() && claims.any(|c| c.is_named(&key.name))
                };
                *freed || is_mine() || is_named()
            }
            _ => event.node_changed(|change| change.labels || change.allocatable),
        }
    }
}

impl Gate for DynamicResources {
    fn is_open(&self, pod: &PodView) -> bool {
        pod.template.device_claims.is_empty() || self.devices.claims_of(pod).is_ok()
    }
}

struct Check {
    devices: Arc<Devices>,
    demand: Demand,
    timeout: Duration,
}

impl Filter for DynamicResources {
    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        if !self.devices.concern(pod) {
            return Prepared::Skip;
        }
        match self.devices.demand(pod) {
            Err(text) => Prepared::Reject(text),
            Ok(demand) if demand.is_empty() => Prepared::Skip,
            Ok(demand) => {
                Prepared::Check(Box::new(Check { devices: Arc::clone(&self.devices), demand, timeout: self.timeout }))
            }
        }
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        match with_place(cluster, node, |place| self.demand.check(&self.devices, place, self.timeout)) {
            State::Fits => Ok(()),
            State::Lacks(text) => Err(Denial::by_node(text)),
            State::Broken(text) => Err(Denial { resolvable: false, reasons: Reasons::One(Reason::Told(text.into())) }),
        }
    }
}

struct Scoring {
    devices: Arc<Devices>,
    demand: Demand,
}

impl Score for DynamicResources {
    fn prepare(&self, pod: &PodView, _feasible: &[NodeIx], _cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        if pod.template.device_claims.is_empty() {
            return None;
        }
        let demand = self.devices.demand(pod).ok().filter(Demand::has_alternatives)?;
        Some(Box::new(Scoring { devices: Arc::clone(&self.devices), demand }))
    }
}

impl NodeScore for Scoring {
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(scores.iter_mut()) {
            *score = with_place(cluster, *node, |place| self.demand.score(&self.devices, place));
        }
        framework::normalize(scores, false);
    }
}
