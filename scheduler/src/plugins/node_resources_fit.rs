//! NodeResourcesFit: a node has to have room, and how full it gets is its score.

use std::sync::Arc;

use crate::{
    cluster::{Cluster, NodeIx, Symbol},
    devices::Devices,
    events::ClusterEvent,
    framework::{Denial, Filter, MAX_SCORE, NodeCheck, NodeScore, Plugin, PluginId, Prepared, Reason, Reasons, Score},
    objects::{NodeView, PodView, Requests, Template},
    plugins::scored::{ResourceWeight, Scored, are_local},
};

/// How full is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of utilization (0..=100) and score (0..=100).
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// Settings of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FitSettings {
    pub(crate) ignored: Vec<Box<str>>,
    pub(crate) ignored_groups: Vec<Box<str>>,
    pub(crate) strategy: Strategy,
    pub(crate) resources: Vec<ResourceWeight>,
}

impl Default for FitSettings {
    fn default() -> Self {
        Self {
            ignored: Vec::new(),
            ignored_groups: Vec::new(),
            strategy: Strategy::LeastAllocated,
            resources: ResourceWeight::usual(),
        }
    }
}

impl FitSettings {
    fn ignores(&self, name: &str) -> bool {
        let group = name.split('/').next().unwrap_or_default();
        name.contains('/')
            && (self.ignored.iter().any(|n| **n == *name) || self.ignored_groups.iter().any(|g| **g == *group))
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct NodeResourcesFit {
    pub(crate) settings: Arc<FitSettings>,
    /// Devices may stand for extended resources; what a node does not offer itself is then theirs to find.
    pub(crate) devices: Option<Arc<Devices>>,
}

/// A resource besides the first three.
struct Scalar {
    /// Its number, if a node knows it.
    symbol: Option<Symbol>,
    name: Arc<str>,
    amount: i64,
    /// Whether devices stand for it.
    backed: bool,
}

struct Check {
    template: Arc<Template>,
    scalars: Vec<Scalar>,
}

impl Plugin for NodeResourcesFit {
    fn id(&self) -> PluginId {
        PluginId::NodeResourcesFit
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => self.could_hold(&pod.template.requests, node),
            ClusterEvent::NodeChanged { new, change } => {
                change.allocatable && self.could_hold(&pod.template.requests, new)
            }
            // Each Pod takes at least its place among the allowed ones.
            ClusterEvent::PodDeleted(_) => true,
            ClusterEvent::PodChanged { old, new } => less(&old.template.requests, &new.template.requests),
            ClusterEvent::Own { old, new } => less(&old.template.requests, &new.template.requests),
            ClusterEvent::DevicesChanged(_) => !pod.template.extended.is_empty(),
            _ => false,
        }
    }
}

impl NodeResourcesFit {
    fn is_backed(&self, resource: &str) -> bool {
        self.devices.as_ref().is_some_and(|devices| devices.stand_for(resource))
    }

    fn could_hold(&self, wanted: &Requests, node: &NodeView) -> bool {
        let has = &node.allocatable;
        let scalar = |name: &str, amount: i64| amount <= has.get(name) || has.get(name) == 0 && self.is_backed(name);
        wanted.cpu <= has.cpu
            && wanted.memory <= has.memory
            && wanted.ephemeral <= has.ephemeral
            && wanted.scalars.iter().all(|(name, amount)| scalar(name, *amount))
    }
}

fn less(old: &Requests, new: &Requests) -> bool {
    new.cpu < old.cpu
        || new.memory < old.memory
        || new.ephemeral < old.ephemeral
        || old.scalars.iter().any(|(name, amount)| new.get(name) < *amount)
}

impl Filter for NodeResourcesFit {
    fn is_local(&self) -> bool {
        true
    }

    fn prepare(&self, pod: &PodView, cluster: &mut Cluster) -> Prepared {
        let scalars = pod.template.requests.scalars.iter();
        let scalars = scalars
            .filter(|(name, amount)| *amount > 0 && !self.settings.ignores(name))
            .map(|(name, amount)| Scalar {
                symbol: cluster.symbols.find(name),
                name: Arc::from(&**name),
                amount: *amount,
                backed: self.is_backed(name),
            })
            .collect();
        Prepared::Check(Box::new(Check { template: Arc::clone(&pod.template), scalars }))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        let (nodes, at) = (&cluster.nodes, node.at());
        let wanted = &self.template.requests;
        let fits = |want: i64, amounts: &crate::cluster::Amounts| {
            want <= 0 || want <= amounts.allocatable[at] - amounts.requested[at]
        };
        let room = nodes.pods.requested[at] < nodes.pods.allocatable[at];
        if room
            && fits(wanted.cpu, &nodes.cpu)
            && fits(wanted.memory, &nodes.memory)
            && fits(wanted.ephemeral, &nodes.ephemeral)
            && self.scalars.is_empty()
        {
            return Ok(());
        }
        self.explain(cluster, node)
    }
}

impl Check {
    /// All that is missing.
    fn explain(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        let (nodes, at) = (&cluster.nodes, node.at());
        let wanted = &self.template.requests;
        let mut reasons = Vec::new();
        let mut resolvable = true;
        if nodes.pods.requested[at] >= nodes.pods.allocatable[at] {
            reasons.push(Reason::Text("Too many pods"));
            resolvable &= nodes.pods.allocatable[at] >= 1;
        }
        let mut look = |want: i64, (allocatable, requested): (i64, i64), reason: Reason| {
            if want > 0 && want > allocatable - requested {
                reasons.push(reason);
                resolvable &= want <= allocatable;
            }
        };
        let of = |amounts: &crate::cluster::Amounts| (amounts.allocatable[at], amounts.requested[at]);
        look(wanted.cpu, of(&nodes.cpu), Reason::Text("Insufficient cpu"));
        look(wanted.memory, of(&nodes.memory), Reason::Text("Insufficient memory"));
        look(wanted.ephemeral, of(&nodes.ephemeral), Reason::Text("Insufficient ephemeral-storage"));
        for scalar in &self.scalars {
            let has = scalar.symbol.map_or((0, 0), |s| nodes.scalar(node, s));
            if scalar.backed && has.0 == 0 {
                continue;
            }
            look(scalar.amount, has, Reason::Insufficient(Arc::clone(&scalar.name)));
        }
        if reasons.len() > 1 {
            return Err(Denial { resolvable, reasons: Reasons::Many(reasons) });
        }
        match reasons.pop() {
            None => Ok(()),
            Some(one) => Err(Denial { resolvable, reasons: Reasons::One(one) }),
        }
    }
}

struct Scoring {
    resources: Vec<Scored>,
    settings: Arc<FitSettings>,
}

impl Score for NodeResourcesFit {
    fn is_local(&self) -> bool {
        are_local(&self.settings.resources, self.devices.as_ref())
    }

    fn prepare(&self, pod: &PodView, _feasible: &[NodeIx], cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        let resources = self.settings.resources.iter().filter_map(|resource| {
            Scored::new(resource, pod.template.scored.get(&resource.name), cluster, self.devices.as_ref())
        });
        Some(Box::new(Scoring { resources: resources.collect(), settings: Arc::clone(&self.settings) }))
    }
}

impl NodeScore for Scoring {
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(scores) {
            let amounts = self.resources.iter().map(|r| {
                let (allocatable, requested) = r.amounts(cluster, *node, true);
                (allocatable, requested + r.added, r.weight)
            });
            *score = score_of(&self.settings.strategy, amounts);
        }
    }
}

/// Weighted mean over (allocatable, requested, weight).
fn score_of(strategy: &Strategy, amounts: impl Iterator<Item = (i64, i64, i64)>) -> i64 {
    let (mut sum, mut weights) = (0_i64, 0_i64);
    for (allocatable, requested, weight) in amounts {
        if allocatable == 0 {
            continue;
        }
        let score = match strategy {
            Strategy::LeastAllocated if requested > allocatable => 0,
            Strategy::LeastAllocated => percent(allocatable - requested, allocatable),
            Strategy::MostAllocated => percent(requested.min(allocatable), allocatable),
            Strategy::RequestedToCapacityRatio(shape) => {
                let used = if requested > allocatable { 100 } else { percent(requested, allocatable) };
                let score = on_shape(shape, used);
                // What scores nothing does not pull the mean down.
                if score <= 0 {
                    continue;
                }
                score
            }
        };
        sum += score * weight;
        weights += weight;
    }
    match (weights, strategy) {
        (0, _) => 0,
        (_, Strategy::RequestedToCapacityRatio(_)) => (sum + weights / 2) / weights,
        _ => sum / weights,
    }
}

/// Byte counts times a hundred stay far below the limit of the type.
fn percent(part: i64, whole: i64) -> i64 {
    part.saturating_mul(MAX_SCORE) / whole
}

/// The score at a utilization, on straight lines between the points.
fn on_shape(shape: &[(i64, i64)], used: i64) -> i64 {
    let mut before: Option<(i64, i64)> = None;
    for (utilization, score) in shape.iter().copied() {
        if used <= utilization {
            return match before {
                None => score,
                Some((u, s)) => s + (score - s) * (used - u) / (utilization - u).max(1),
            };
        }
        before = Some((utilization, score));
    }
    before.map_or(0, |(_, score)| score)
}

#[cfg(test)]
mod tests;
