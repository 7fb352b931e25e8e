//! PodTopologySpread: Pods spread over zones, hosts or whatever nodes are labelled with.

use std::sync::Arc;

use crate::{
    cluster::{Cluster, Counted, Eligible, NodeIx, Question, ViewIx},
    events::ClusterEvent,
    framework::{Denial, Filter, MAX_SCORE, NodeCheck, NodeScore, Plugin, PluginId, Prepared, Score},
    objects::{InclusionPolicy, PodView, SpreadConstraint, Template},
};

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Finds what Services and the owner of a Pod select: that is who a Pod is spread among by default.
pub(crate) type DefaultSelector = Arc<dyn Fn(&Template) -> machinery::selector::LabelSelector + Send + Sync>;

/// A constraint for Pods that have none; its selector is found per Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DefaultConstraint {
    pub(crate) max_skew: i32,
    pub(crate) topology_key: Box<str>,
    pub(crate) hard: bool,
}

/// Constraints for Pods that have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defaults {
    /// Hosts and zones, softly; nodes without a zone count too.
    System,
    List(Vec<DefaultConstraint>),
}

/// See the module.
pub(crate) struct TopologySpread {
    pub(crate) defaults: Defaults,
    pub(crate) selector: DefaultSelector,
}

struct Constraint {
    view: ViewIx,
    max_skew: i64,
    min_domains: i64,
    /// The Pod counts itself.
    own: i64,
    least: i64,
}

struct Check(Vec<Constraint>);

impl TopologySpread {
    /// The constraints that hold for a Pod, and whether nodes have to have all the keys.
    fn constraints(&self, template: &Template, hard: bool) -> (Vec<SpreadConstraint>, bool) {
        if !template.spread.is_empty() {
            return (template.spread.iter().filter(|c| c.hard == hard).cloned().collect(), true);
        }
        let one = |max_skew, key: &str, hard| DefaultConstraint { max_skew, topology_key: key.into(), hard };
        let system = [one(3, HOSTNAME, false), one(5, ZONE, false)];
        let (list, all_keys) = match &self.defaults {
            Defaults::System => (&system[..], false),
            Defaults::List(list) => (&list[..], true),
        };
        let mut wanted = list.iter().filter(|c| c.hard == hard).peekable();
        if wanted.peek().is_none() {
            return (Vec::new(), all_keys);
        }
        let selector = (self.selector)(template);
        if selector.is_everything() {
            return (Vec::new(), all_keys);
        }
        let filled = |c: &DefaultConstraint| SpreadConstraint {
            max_skew: c.max_skew,
            topology_key: c.topology_key.clone(),
            hard,
            selector: selector.clone(),
            min_domains: 1,
            affinity_policy: InclusionPolicy::Honor,
            taints_policy: InclusionPolicy::Ignore,
        };
        (wanted.map(filled).collect(), all_keys)
    }
}

fn question(constraint: &SpreadConstraint, template: &Template, keys: Vec<Box<str>>) -> Question {
    let affinity = constraint.affinity_policy == InclusionPolicy::Honor;
    let taints = constraint.taints_policy == InclusionPolicy::Honor;
    Question {
        key: constraint.topology_key.clone(),
        counted: Counted::Selected { namespace: template.namespace.clone(), selector: constraint.selector.clone() },
        eligible: Eligible {
            keys,
            node_selector: if affinity { template.node_selector.clone() } else { Vec::new() },
            node_required: template.node_required.clone().filter(|_| affinity),
            tolerations: taints.then(|| template.tolerations.clone()),
        },
    }
}

fn keys_of(constraints: &[SpreadConstraint]) -> Vec<Box<str>> {
    constraints.iter().map(|c| c.topology_key.clone()).collect()
}

impl Plugin for TopologySpread {
    fn id(&self) -> PluginId {
        PluginId::PodTopologySpread
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        let (constraints, _) = self.constraints(&pod.template, true);
        let counts = |other: &PodView| {
            other.namespace() == pod.namespace()
                && constraints.iter().any(|c| other.template.labels.match_selector(&c.selector))
        };
        match event {
            ClusterEvent::PodAssigned(other) | ClusterEvent::PodDeleted(other) => counts(other),
            ClusterEvent::PodChanged { old, new } => {
                counts(old) != counts(new) || counts(new) && old.terminating != new.terminating
            }
            ClusterEvent::NodeAdded(node) => constraints.iter().all(|c| node.labels.get(&c.topology_key).is_some()),
            ClusterEvent::NodeChanged { change, .. } => change.labels || change.taints,
            ClusterEvent::NodeDeleted => true,
            ClusterEvent::Own { old, new } => old.template.labels != new.template.labels,
            _ => false,
        }
    }
}

impl Filter for TopologySpread {
    fn prepare(&self, pod: &PodView, cluster: &mut Cluster) -> Prepared {
        let template = &pod.template;
        let (constraints, _) = self.constraints(template, true);
        if constraints.is_empty() {
            return Prepared::Skip;
        }
        let keys = keys_of(&constraints);
        let prepared = constraints.iter().map(|c| Constraint {
            view: cluster.view(question(c, template, keys.clone())),
            max_skew: i64::from(c.max_skew),
            min_domains: i64::from(c.min_domains),
            own: i64::from(template.labels.match_selector(&c.selector)),
            least: 0,
        });
        let mut check = Check(prepared.collect());
        check.refresh(cluster);
        Prepared::Check(Box::new(check))
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        for constraint in &self.0 {
            let Some(view) = cluster.counts(constraint.view) else { continue };
            let Some(pods) = view.count(node) else { return Err(Denial::by_node(REASON_LABEL)) };
            if pods + constraint.own - constraint.least > constraint.max_skew {
                return Err(Denial::by_pods(REASON));
            }
        }
        Ok(())
    }

    fn refresh(&mut self, cluster: &mut Cluster) {
        for constraint in &mut self.0 {
            let Some(view) = cluster.counts(constraint.view) else { continue };
            let domains = i64::try_from(view.domains()).unwrap_or(i64::MAX);
            constraint.least = match view.minimum() {
                Some(_) if domains < constraint.min_domains => 0,
                Some(least) => least,
                // No node counts, so no skew can be too large.
                None => i64::from(i32::MAX),
            };
        }
    }
}

struct SoftConstraint {
    view: ViewIx,
    max_skew: i64,
    weight: f64,
}

struct Scoring {
    constraints: Vec<SoftConstraint>,
    all_keys: bool,
}

impl Score for TopologySpread {
    fn prepare(&self, pod: &PodView, feasible: &[NodeIx], cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        let template = &pod.template;
        let (constraints, all_keys) = self.constraints(template, false);
        if constraints.is_empty() {
            return None;
        }
        let keys = if all_keys { keys_of(&constraints) } else { Vec::new() };
        let prepared = constraints.iter().map(|c| {
            let view = cluster.view(question(c, template, keys.clone()));
            SoftConstraint { view, max_skew: i64::from(c.max_skew), weight: 0.0 }
        });
        let mut scoring = Scoring { constraints: prepared.collect(), all_keys };
        let counted: Vec<NodeIx> = feasible.iter().copied().filter(|n| scoring.counts_node(cluster, *n)).collect();
        for (soft, constraint) in scoring.constraints.iter_mut().zip(&constraints) {
            let size = if &*constraint.topology_key == HOSTNAME {
                counted.len()
            } else {
                domains_among(cluster, soft.view, &counted)
            };
            #[allow(clippy::cast_precision_loss)]
            let weight = (size as f64 + 2.0).ln();
            soft.weight = weight;
        }
        Some(Box::new(scoring))
    }
}

/// How many domains some nodes are in; those that have no label are in one of their own.
fn domains_among(cluster: &Cluster, view: ViewIx, nodes: &[NodeIx]) -> usize {
    let Some(view) = cluster.counts(view) else { return 0 };
    let mut seen = vec![false; view.domains()];
    let mut elsewhere = false;
    for node in nodes {
        match view.domain(*node).and_then(|d| usize::try_from(d).ok()).and_then(|d| seen.get_mut(d)) {
            Some(seen) => *seen = true,
            None => elsewhere = true,
        }
    }
    seen.into_iter().filter(|s| *s).count() + usize::from(elsewhere)
}

impl Scoring {
    fn counts_node(&self, cluster: &Cluster, node: NodeIx) -> bool {
        let has_key = |c: &SoftConstraint| cluster.counts(c.view).is_some_and(|v| v.count(node).is_some());
        !self.all_keys || self.constraints.iter().all(has_key)
    }
}

impl NodeScore for Scoring {
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        let mut raw: Vec<Option<i64>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            if !self.counts_node(cluster, *node) {
                raw.push(None);
                continue;
            }
            let mut sum = 0.0;
            for c in &self.constraints {
                if let Some(pods) = cluster.counts(c.view).and_then(|v| v.count(*node)) {
                    sum += pods as f64 * c.weight + (c.max_skew - 1) as f64;
                }
            }
            raw.push(Some(sum.round() as i64));
        }
        let counted = || raw.iter().flatten().copied();
        let (min, max) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for (score, raw) in scores.iter_mut().zip(&raw) {
            *score = match raw {
                None => 0,
                Some(_) if max == 0 => MAX_SCORE,
                Some(raw) => MAX_SCORE * (max + min - raw) / max,
            };
        }
    }
}

#[cfg(test)]
mod tests;
