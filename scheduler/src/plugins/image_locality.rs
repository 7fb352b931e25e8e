//! ImageLocality: better the nodes that have a Pod's images already.

use crate::{
    cluster::{Cluster, NodeIx, Symbol},
    framework::{MAX_SCORE, NodeScore, Plugin, PluginId, Score},
    objects::PodView,
};

const MIB: i64 = 1024 * 1024;
/// Sizes below this make no difference.
const LEAST: i64 = 23 * MIB;
/// Sizes above this, per container, make no difference.
const MOST: i64 = 1000 * MIB;

/// See the module.
pub(crate) struct ImageLocality;

struct Scoring {
    /// Images that some node has, with the share of nodes that do.
    images: Vec<(Symbol, f64)>,
    containers: i64,
}

impl Plugin for ImageLocality {
    fn id(&self) -> PluginId {
        PluginId::ImageLocality
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Score for ImageLocality {
    fn prepare(&self, pod: &PodView, _feasible: &[NodeIx], cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        let share = |image: Symbol| {
            #[allow(clippy::cast_precision_loss)]
            let share = cluster.nodes_with_image(image) as f64 / cluster.nodes.len().max(1) as f64;
            share
        };
        let known = pod.template.images.iter().filter_map(|name| cluster.symbols.find(name));
        let images: Vec<(Symbol, f64)> =
            known.filter(|i| cluster.nodes_with_image(*i) > 0).map(|i| (i, share(i))).collect();
        // Without them all nodes score nothing.
        (!images.is_empty()).then(|| {
            let containers = i64::try_from(pod.template.images.len()).unwrap_or(1);
            Box::new(Scoring { images, containers }) as Box<dyn NodeScore>
        })
    }
}

impl NodeScore for Scoring {
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        let most = MOST * self.containers;
        for (node, score) in nodes.iter().zip(scores) {
            let has = &cluster.nodes.get(*node).images;
            let size = |image: Symbol| has.binary_search_by_key(&image, |(n, _)| *n).ok().and_then(|at| has.get(at));
            let sum: i64 = self.images.iter().filter_map(|(i, share)| size(*i).map(|(_, s)| scaled(*s, *share))).sum();
            *score = MAX_SCORE * (sum.clamp(LEAST, most) - LEAST) / (most - LEAST);
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn scaled(size: i64, share: f64) -> i64 {
    (size as f64 * share) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Fixture;

    #[test]
    fn size_times_spread() {
        let mut fixture = Fixture::new();
        fixture.node("has", |n| n.image("example.com/big:latest", 523 * MIB));
        fixture.node("has-not", |n| n);
        let pod = fixture.pod("p", |p| p.image("example.com/big"));
        // 523 MiB on half of the nodes: 261.5; (261.5 - 23) of (1000 - 23).
        assert_eq!(fixture.scores(&ImageLocality, &pod), [("has", 24), ("has-not", 0)]);
        let other = fixture.pod("q", |p| p.image("example.com/unknown"));
        assert_eq!(fixture.scores(&ImageLocality, &other), []);
    }
}
