//! NodeResourcesBalancedAllocation: better the nodes whose resources a Pod fills evenly.

use crate::{
    cluster::{Cluster, NodeIx, Symbol},
    framework::{NodeScore, Plugin, PluginId, Score},
    objects::PodView,
    plugins::node_resources_fit::ResourceWeight,
};

/// See the module.
pub(crate) struct BalancedAllocation {
    pub(crate) resources: Vec<ResourceWeight>,
}

impl Default for BalancedAllocation {
    fn default() -> Self {
        let one = |name: &str| ResourceWeight { name: name.into(), weight: 1 };
        Self { resources: vec![one("cpu"), one("memory")] }
    }
}

struct Scoring {
    resources: Vec<(Kind, i64)>,
}

#[derive(Clone, Copy)]
enum Kind {
    Cpu,
    Memory,
    Ephemeral,
    Scalar(Option<Symbol>),
}

impl Plugin for BalancedAllocation {
    fn id(&self) -> PluginId {
        PluginId::NodeResourcesBalancedAllocation
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }
}

impl Score for BalancedAllocation {
    fn is_local(&self) -> bool {
        true
    }

    fn prepare(&self, pod: &PodView, _feasible: &[NodeIx], cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        let wanted = &pod.template.requests;
        if self.resources.iter().all(|r| wanted.get(&r.name) == 0) {
            return None;
        }
        let resources = self.resources.iter().filter_map(|r| {
            let amount = wanted.get(&r.name);
            let kind = match &*r.name {
                "cpu" => Kind::Cpu,
                "memory" => Kind::Memory,
                "ephemeral-storage" => Kind::Ephemeral,
                name => Kind::Scalar(cluster.symbols.find(name)),
            };
            (amount > 0 || !matches!(kind, Kind::Scalar(_))).then_some((kind, amount))
        });
        Some(Box::new(Scoring { resources: resources.collect() }))
    }
}

impl NodeScore for Scoring {
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        let mut fractions = Vec::with_capacity(self.resources.len());
        for (node, score) in nodes.iter().zip(scores) {
            let mut base = |with_pod: bool| {
                fractions.clear();
                for (kind, added) in &self.resources {
                    let (allocatable, requested) = amounts(cluster, *node, *kind);
                    if allocatable > 0 {
                        let total = if with_pod { requested + added } else { requested };
                        fractions.push((to_f64(total) / to_f64(allocatable)).min(1.0));
                    }
                }
                evenness(&fractions)
            };
            *score = 50 + (50 + base(true) - base(false)) / 2;
        }
    }
}

fn amounts(cluster: &Cluster, node: NodeIx, kind: Kind) -> (i64, i64) {
    let (nodes, at) = (&cluster.nodes, node.at());
    let of = |a: &crate::cluster::Amounts| (a.allocatable[at], a.requested[at]);
    match kind {
        Kind::Cpu => of(&nodes.cpu),
        Kind::Memory => of(&nodes.memory),
        Kind::Ephemeral => of(&nodes.ephemeral),
        Kind::Scalar(symbol) => symbol.map_or((0, 0), |s| nodes.scalar(node, s)),
    }
}

#[allow(clippy::cast_precision_loss)]
fn to_f64(amount: i64) -> f64 {
    amount as f64
}

/// 100 for equal fractions, less the more they differ.
#[allow(clippy::cast_possible_truncation)]
fn evenness(fractions: &[f64]) -> i64 {
    let deviation = match fractions {
        [] | [_] => 0.0,
        [a, b] => (a - b).abs() / 2.0,
        many => {
            #[allow(clippy::cast_precision_loss)]
            let count = many.len() as f64;
            let mean = many.iter().sum::<f64>() / count;
            (many.iter().map(|f| (f - mean) * (f - mean)).sum::<f64>() / count).sqrt()
        }
    };
    ((1.0 - deviation) * 100.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::testing::Fixture;

    #[test]
    fn evenness_truncates() {
        assert_eq!(evenness(&[0.5, 0.5]), 100);
        assert_eq!(evenness(&[0.25, 1.0]), 62);
        assert_eq!(evenness(&[1.0]), 100);
        assert_eq!(evenness(&[0.0, 0.0, 1.0]), 52);
    }

    #[test]
    fn a_pod_that_evens_out_scores_more() {
        let mut fixture = Fixture::new();
        fixture.node("even", |n| n.resources("4", "4Gi"));
        fixture.node("cpu-full", |n| n.resources("4", "4Gi"));
        fixture.bound("big", "cpu-full", |p| p.requests("2", "0"));
        let pod = fixture.pod("new", |p| p.requests("0", "2Gi"));
        // Even before, uneven after: 100 to 75. Uneven before, even after: 75 to 100.
        assert_eq!(fixture.scores(&BalancedAllocation::default(), &pod), [("cpu-full", 87), ("even", 62)]);
        let nothing = fixture.pod("none", |p| p);
        assert_eq!(fixture.scores(&BalancedAllocation::default(), &nothing), []);
    }
}
