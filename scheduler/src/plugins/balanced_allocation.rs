//! NodeResourcesBalancedAllocation: better the nodes whose resources a Pod fills evenly.

use std::sync::Arc;

use crate::{
    cluster::{Cluster, NodeIx},
    devices::Devices,
    framework::{NodeScore, Plugin, PluginId, Score},
    objects::PodView,
    plugins::scored::{ResourceWeight, Scored, are_local},
};

/// See the module.
pub(crate) struct BalancedAllocation {
    pub(crate) resources: Vec<ResourceWeight>,
    /// Devices may stand for extended resources.
    pub(crate) devices: Option<Arc<Devices>>,
}

impl Default for BalancedAllocation {
    fn default() -> Self {
        Self { resources: ResourceWeight::usual(), devices: None }
    }
}

struct Scoring(Vec<Scored>);

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
        are_local(&self.resources, self.devices.as_ref())
    }

    fn prepare(&self, pod: &PodView, _feasible: &[NodeIx], cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        let wanted = &pod.template.requests;
        if self.resources.iter().all(|r| wanted.get(&r.name) == 0) {
            return None;
        }
        let resources = self.resources.iter();
        let scored = resources.filter_map(|r| Scored::new(r, wanted.get(&r.name), cluster, self.devices.as_ref()));
        Some(Box::new(Scoring(scored.collect())))
    }
}

impl NodeScore for Scoring {
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        let mut has = Vec::with_capacity(self.0.len());
        let mut fractions = Vec::with_capacity(self.0.len());
        for (node, score) in nodes.iter().zip(scores) {
            has.clear();
            has.extend(self.0.iter().map(|resource| (resource.amounts(cluster, *node, false), resource.added)));
            let mut base = |with_pod: bool| {
                fractions.clear();
                for ((allocatable, requested), added) in has.iter().filter(|((allocatable, _), _)| *allocatable > 0) {
                    let total = if with_pod { requested + added } else { *requested };
                    fractions.push((to_f64(total) / to_f64(*allocatable)).min(1.0));
                }
                evenness(&fractions)
            };
            *score = 50 + (50 + base(true) - base(false)) / 2;
        }
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
