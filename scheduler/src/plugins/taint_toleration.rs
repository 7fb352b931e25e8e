//! TaintToleration: taints keep Pods off, or make a node worse than others.

use std::sync::Arc;

use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    framework::{self, Denial, Filter, NodeCheck, NodeScore, Plugin, PluginId, Prepared, Score},
    objects::{PodView, Taint, TaintEffect, Template, Toleration},
};

const REASON: &str = "node(s) had untolerated taint(s)";

/// See the module.
pub(crate) struct TaintToleration;

struct Check(Arc<Template>);

struct Scoring(Arc<Template>);

impl Plugin for TaintToleration {
    fn id(&self) -> PluginId {
        PluginId::TaintToleration
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => tolerated(&pod.template.tolerations, &node.taints),
            ClusterEvent::NodeChanged { new, change } => {
                change.taints && tolerated(&pod.template.tolerations, &new.taints)
            }
            ClusterEvent::Own { old, new } => old.template.tolerations != new.template.tolerations,
            _ => false,
        }
    }
}

fn tolerated(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    taints.iter().filter(|t| t.repels()).all(|taint| tolerations.iter().any(|t| t.tolerates(taint)))
}

impl Filter for TaintToleration {
    fn is_local(&self) -> bool {
        true
    }

    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        Prepared::Check(Box::new(Check(Arc::clone(&pod.template))))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        let repelling = cluster.nodes.repelling[node.at()];
        if repelling && !tolerated(&self.0.tolerations, &cluster.nodes.get(node).taints) {
            return Err(Denial::by_node(REASON));
        }
        Ok(())
    }
}

impl Score for TaintToleration {
    fn prepare(&self, pod: &PodView, feasible: &[NodeIx], cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        let prefers =
            |node: &NodeIx| cluster.nodes.get(*node).taints.iter().any(|t| t.effect == TaintEffect::PreferNoSchedule);
        // Where no node has such a taint all are equal.
        feasible.iter().any(prefers).then(|| Box::new(Scoring(Arc::clone(&pod.template))) as Box<dyn NodeScore>)
    }
}

impl NodeScore for Scoring {
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        let counts = |t: &&Toleration| matches!(t.effect, None | Some(TaintEffect::PreferNoSchedule));
        let own: Vec<&Toleration> = self.0.tolerations.iter().filter(counts).collect();
        for (node, score) in nodes.iter().zip(&mut *scores) {
            let soft = cluster.nodes.get(*node).taints.iter().filter(|t| t.effect == TaintEffect::PreferNoSchedule);
            let count = soft.filter(|taint| !own.iter().any(|t| t.tolerates(taint))).count();
            *score = i64::try_from(count).unwrap_or(i64::MAX);
        }
        framework::normalize(scores, true);
    }
}
