//! InterPodAffinity: near some Pods, far from others, and what Pods that are there think of newcomers.

use std::sync::Arc;

use crate::{
    cluster::{Cluster, Counted, Eligible, NodeIx, Question, RuleKind, ViewIx},
    events::ClusterEvent,
    framework::{Denial, Filter, MAX_SCORE, NodeCheck, NodeScore, Plugin, PluginId, Prepared, Score},
    objects::{AffinityTerm, PodView, Template},
};

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// See the module.
pub(crate) struct InterPodAffinity {
    /// Weight of other Pods' required affinity.
    pub(crate) hard_weight: i64,
    /// Other Pods' preferences count only for Pods that have some themselves.
    pub(crate) ignore_existing_preferences: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self { hard_weight: 1, ignore_existing_preferences: false }
    }
}

struct Check {
    affinity: Vec<ViewIx>,
    /// The Pod itself meets its affinity.
    meets_own: bool,
    anti_affinity: Vec<ViewIx>,
    existing: Vec<ViewIx>,
    template: Arc<Template>,
    /// Rules that there were when it was last looked who shuns the Pod.
    seen_rules: u64,
}

/// Counts of the Pods that shun a Pod.
fn shunning(template: &Template, cluster: &mut Cluster) -> Vec<ViewIx> {
    carriers(template, cluster, |k| k == RuleKind::AntiAffinity).into_iter().map(|(_, view)| view).collect()
}

/// Counts of the Pods that all of `terms` mean, by `key`.
fn meant(terms: &[AffinityTerm], key: &str, cluster: &mut Cluster) -> ViewIx {
    cluster.view(Question { key: key.into(), counted: Counted::Meant(terms.to_vec()), eligible: Eligible::default() })
}

/// Counts of the Pods that carry rules about a Pod, with the kind of rule.
fn carriers(template: &Template, cluster: &mut Cluster, wanted: impl Fn(RuleKind) -> bool) -> Vec<(RuleKind, ViewIx)> {
    let rules = cluster.rules_about(template, wanted);
    let view = |rule: Arc<crate::cluster::Rule>| {
        let question = Question {
            key: rule.term.topology_key.clone(),
            counted: Counted::Carrying(Arc::clone(&rule)),
            eligible: Eligible::default(),
        };
        (rule.kind, cluster.view(question))
    };
    rules.into_iter().map(view).collect()
}

impl Plugin for InterPodAffinity {
    fn id(&self) -> PluginId {
        PluginId::InterPodAffinity
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        let own = &pod.template;
        // Whoever a namespace selector means is not known here: it may be this one.
        let means = |terms: &[AffinityTerm], other: &PodView| {
            terms.iter().any(|t| {
                let place = t.namespaces.iter().any(|n| **n == *other.namespace())
                    || !t.namespace_selector.requirements().is_empty()
                    || t.namespace_selector.is_everything();
                place && other.template.labels.match_selector(&t.selector)
            })
        };
        match event {
            ClusterEvent::PodAssigned(other) => means(&own.affinity, other),
            ClusterEvent::PodChanged { old, new } => {
                means(&own.affinity, new) && !means(&own.affinity, old)
                    || means(&own.anti_affinity, old) && !means(&own.anti_affinity, new)
            }
            ClusterEvent::PodDeleted(other) => {
                means(&own.anti_affinity, other) || means(&other.template.anti_affinity, pod)
            }
            ClusterEvent::NodeAdded(node) => own.affinity.iter().all(|t| node.labels.get(&t.topology_key).is_some()),
            ClusterEvent::NodeChanged { change, .. } => change.labels,
            ClusterEvent::Own { old, new } => old.template.labels != new.template.labels,
            ClusterEvent::NamespaceChanged => true,
            _ => false,
        }
    }
}

impl Filter for InterPodAffinity {
    fn prepare(&self, pod: &PodView, cluster: &mut Cluster) -> Prepared {
        let own = &pod.template;
        let existing = shunning(own, cluster);
        // Who is on a node without the key shuns nobody.
        let is_shunned = existing.iter().any(|view| cluster.counts(*view).is_some_and(|counts| counts.total() > 0));
        if own.affinity.is_empty() && own.anti_affinity.is_empty() && !is_shunned {
            return Prepared::Skip;
        }
        let namespaces = cluster.namespaces();
        let is_meant = |t: &AffinityTerm| t.matches(&own.namespace, &own.labels, || namespaces.get(&own.namespace));
        let meets_own = own.affinity.iter().all(is_meant);
        let affinity = own.affinity.iter().map(|t| meant(&own.affinity, &t.topology_key, cluster)).collect();
        let single = |t: &AffinityTerm, cluster: &mut Cluster| meant(std::slice::from_ref(t), &t.topology_key, cluster);
        let anti_affinity = own.anti_affinity.iter().map(|t| single(t, cluster)).collect();
        let (template, seen_rules) = (Arc::clone(own), cluster.new_rules());
        Prepared::Check(Box::new(Check { affinity, meets_own, anti_affinity, existing, template, seen_rules }))
    }
}

impl Check {
    fn meets_affinity(&self, cluster: &Cluster, node: NodeIx) -> bool {
        let mut all_there = true;
        for view in self.affinity.iter().filter_map(|v| cluster.counts(*v)) {
            match view.count(node) {
                None => return false,
                Some(pods) => all_there &= pods > 0,
            }
        }
        let nobody = || self.affinity.iter().all(|v| cluster.counts(*v).is_none_or(|v| v.total() == 0));
        // The first of a set of Pods that want to be together has nobody to be with.
        all_there || self.meets_own && nobody()
    }
}

impl NodeCheck for Check {
    /// Pods that were put on nodes may shun the Pod for reasons that nobody had before.
    fn refresh(&mut self, cluster: &mut Cluster) {
        if cluster.new_rules() != self.seen_rules {
            self.seen_rules = cluster.new_rules();
            self.existing = shunning(&self.template, cluster);
        }
    }

    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        if !self.meets_affinity(cluster, node) {
            return Err(Denial::by_node(AFFINITY));
        }
        let any = |views: &[ViewIx]| {
            views.iter().filter_map(|v| cluster.counts(*v)).any(|v| v.count(node).is_some_and(|pods| pods > 0))
        };
        if any(&self.anti_affinity) {
            return Err(Denial::by_pods(ANTI_AFFINITY));
        }
        if any(&self.existing) {
            return Err(Denial::by_pods(EXISTING));
        }
        Ok(())
    }
}

struct Scoring {
    weighted: Vec<(i64, ViewIx)>,
}

impl Score for InterPodAffinity {
    fn prepare(&self, pod: &PodView, _feasible: &[NodeIx], cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        let own = &pod.template;
        let has_own = !own.affinity_preferred.is_empty() || !own.anti_affinity_preferred.is_empty();
        let mut weighted: Vec<(i64, ViewIx)> = Vec::new();
        if has_own || !self.ignore_existing_preferences {
            let hard = self.hard_weight;
            let counts = |k: RuleKind| match k {
                RuleKind::Affinity(_) => hard > 0,
                RuleKind::AntiAffinity => false,
                RuleKind::Preferred(_) => true,
            };
            let weight = |kind| match kind {
                RuleKind::Preferred(weight) => i64::from(weight),
                RuleKind::Affinity(times) => hard.saturating_mul(i64::try_from(times).unwrap_or(i64::MAX)),
                RuleKind::AntiAffinity => 0,
            };
            weighted.extend(carriers(own, cluster, counts).into_iter().map(|(kind, view)| (weight(kind), view)));
        }
        let signed =
            own.affinity_preferred.iter().map(|p| (1, p)).chain(own.anti_affinity_preferred.iter().map(|p| (-1, p)));
        for (sign, preferred) in signed {
            let view = meant(std::slice::from_ref(&preferred.term), &preferred.term.topology_key, cluster);
            weighted.push((sign * i64::from(preferred.weight), view));
        }
        weighted.retain(|(_, view)| cluster.counts(*view).is_some_and(|v| v.total() > 0));
        (!weighted.is_empty()).then(|| Box::new(Scoring { weighted }) as Box<dyn NodeScore>)
    }
}

impl NodeScore for Scoring {
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        for (weight, view) in self.weighted.iter().filter_map(|(w, v)| cluster.counts(*v).map(|v| (*w, v))) {
            for (node, score) in nodes.iter().zip(&mut *scores) {
                *score += weight * view.count(*node).unwrap_or(0);
            }
        }
        let (min, max) = (scores.iter().min().copied().unwrap_or(0), scores.iter().max().copied().unwrap_or(0));
        for score in scores {
            let part = if max > min { (*score - min) as f64 / (max - min) as f64 } else { 0.0 };
            *score = (MAX_SCORE as f64 * part) as i64;
        }
    }
}

#[cfg(test)]
mod tests;
