//! The plugin framework: extension points as traits, verdicts, profiles.
//!
//! PreFilter and Filter are one trait here, as are PreScore and Score: the first half prepares what the second half
//! then asks of each node. What is prepared holds no borrow of the cluster and asks it anew, so that Pods may be taken
//! off a node, or put on it, to see what would be.

mod ids;
mod profile;
mod verdict;

use std::sync::Arc;

pub(crate) use ids::{PluginId, PluginSet};
pub(crate) use profile::{Profile, Scorer};
pub(crate) use verdict::{Denial, Diagnosis, LeftOut, Reason, Reasons, histogram};

use crate::{
    cluster::{Cluster, NodeIx},
    events::ClusterEvent,
    objects::PodView,
};

/// Highest score of a node.
pub(crate) const MAX_SCORE: i64 = 100;

/// A plugin: what it is called, and where it takes part.
pub(crate) trait Plugin: Send + Sync {
    fn id(&self) -> PluginId;

    fn as_gate(&self) -> Option<&dyn Gate> {
        None
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        None
    }

    fn as_score(&self) -> Option<&dyn Score> {
        None
    }

    /// Whether an event may make a Pod schedulable that this plugin rejected.
    fn may_help(&self, _pod: &PodView, _event: &ClusterEvent<'_>) -> bool {
        true
    }
}

/// PreEnqueue: what has to be true before a Pod is tried at all.
pub(crate) trait Gate: Send + Sync {
    fn is_open(&self, pod: &PodView) -> bool;
}

/// PreFilter and Filter.
pub(crate) trait Filter: Send + Sync {
    /// Whether what it says of a node depends on the Pod's template and that node alone.
    fn is_local(&self) -> bool {
        false
    }

    /// Looks at the Pod before the nodes.
    fn prepare(&self, pod: &PodView, cluster: &mut Cluster) -> Prepared;
}

/// What came of PreFilter.
pub(crate) enum Prepared {
    /// No node needs to be asked.
    Skip,
    /// No node will do, and no preemption helps.
    Reject(String),
    /// Each node is to be asked.
    Check(Box<dyn NodeCheck>),
    /// Each of these nodes is to be asked; no other will do.
    CheckOnly(Vec<Box<str>>, Box<dyn NodeCheck>),
}

/// Filter, for one Pod.
pub(crate) trait NodeCheck {
    /// Whether the Pod can be on the node, as the cluster is now.
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial>;

    /// Pods were put on nodes or taken off since it was prepared.
    fn refresh(&mut self, _cluster: &mut Cluster) {}
}

/// PreScore and Score.
pub(crate) trait Score: Send + Sync {
    /// Whether a node's score depends on the Pod's template and that node alone.
    fn is_local(&self) -> bool {
        false
    }

    /// Looks at the Pod before the nodes that can take it; `None` if it gives no scores.
    fn prepare(&self, pod: &PodView, feasible: &[NodeIx], cluster: &mut Cluster) -> Option<Box<dyn NodeScore>>;
}

/// Score, for one Pod.
pub(crate) trait NodeScore {
    /// The score of each node, brought to 0..=100.
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]);
}

/// Scales scores so that the highest becomes 100; `reverse` gives 100 to the lowest.
pub(crate) fn normalize(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().max().copied().unwrap_or(0);
    for score in scores {
        *score = match (max, reverse) {
            (0, true) => MAX_SCORE,
            (0, false) => 0,
            (max, true) => MAX_SCORE - MAX_SCORE * *score / max,
            (max, false) => MAX_SCORE * *score / max,
        };
    }
}

/// A shared plugin.
pub(crate) type SharedPlugin = Arc<dyn Plugin>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalization_truncates() {
        let mut scores = [0, 1, 3];
        normalize(&mut scores, false);
        assert_eq!(scores, [0, 33, 100]);
        let mut scores = [0, 1, 3];
        normalize(&mut scores, true);
        assert_eq!(scores, [100, 67, 0]);
        let mut none = [0, 0];
        normalize(&mut none, true);
        assert_eq!(none, [100, 100]);
    }
}
