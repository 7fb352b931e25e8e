//! NodeAffinity: node selectors, required and preferred node affinity.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    cluster::{Cluster, NodeIx, Nodes, Symbols},
    events::ClusterEvent,
    framework::{self, Denial, Filter, NodeCheck, NodeScore, Plugin, PluginId, Prepared, Score},
    objects::{NodeSelector, NodeSelectorTerm, NodeView, PodView, Template, Weighted},
};

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
const REASON_ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";
const CONFLICT: &str = "pod affinity terms conflict";

/// Affinity that a profile adds to all its Pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddedAffinity {
    pub(crate) required: Option<NodeSelector>,
    pub(crate) preferred: Vec<Weighted<NodeSelectorTerm>>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct NodeAffinity {
    pub(crate) added: Arc<AddedAffinity>,
}

struct Check {
    template: Arc<Template>,
    added: Arc<AddedAffinity>,
}

struct Scoring {
    template: Arc<Template>,
    added: Arc<AddedAffinity>,
}

impl Plugin for NodeAffinity {
    fn id(&self) -> PluginId {
        PluginId::NodeAffinity
    }

    fn as_filter(&self) -> Option<&dyn Filter> {
        Some(self)
    }

    fn as_score(&self) -> Option<&dyn Score> {
        Some(self)
    }

    fn may_help(&self, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => suits(&pod.template, node),
            ClusterEvent::NodeChanged { new, change } => change.labels && suits(&pod.template, new),
            ClusterEvent::Own { old, new } => {
                old.template.node_selector != new.template.node_selector
                    || old.template.node_required != new.template.node_required
            }
            _ => false,
        }
    }
}

/// Whether a node from the API matches what a template requires.
fn suits(template: &Template, node: &NodeView) -> bool {
    let label = |key: &str| node.labels.get(key);
    let terms = template.node_required.as_ref();
    template.node_selector.iter().all(|(k, v)| label(k) == Some(&**v))
        && terms.is_none_or(|s| s.node_selector_terms.iter().any(|t| t.matches(&node.name, &label)))
}

fn any_term(selector: &NodeSelector, node: NodeIx, nodes: &Nodes, symbols: &Symbols) -> bool {
    selector.node_selector_terms.iter().any(|t| term_matches(t, node, nodes, symbols))
}

fn term_matches(term: &NodeSelectorTerm, node: NodeIx, nodes: &Nodes, symbols: &Symbols) -> bool {
    let label = |key: &str| symbols.find(key).and_then(|k| nodes.label(node, k)).map(|v| symbols.text(v));
    term.matches(nodes.name(node), &label)
}

/// Whether a node has the labels of a node selector and matches required node affinity.
pub(crate) fn required_matches(
    selector: &[(Box<str>, Box<str>)],
    required: Option<&NodeSelector>,
    node: NodeIx,
    nodes: &Nodes,
    symbols: &Symbols,
) -> bool {
    let has = |key: &str, value: &str| {
        let found = symbols.find(key).and_then(|k| nodes.label(node, k));
        found.is_some() && found == symbols.find(value)
    };
    selector.iter().all(|(k, v)| has(k, v)) && required.is_none_or(|r| any_term(r, node, nodes, symbols))
}

/// Names of the only nodes that required terms allow; `None` if some term allows any name.
fn allowed_names(required: &NodeSelector) -> Option<BTreeSet<&str>> {
    let mut all = BTreeSet::new();
    for term in &required.node_selector_terms {
        all.extend(term.names()?);
    }
    Some(all)
}

impl Filter for NodeAffinity {
    fn is_local(&self) -> bool {
        true
    }

    fn prepare(&self, pod: &PodView, _cluster: &mut Cluster) -> Prepared {
        let template = &pod.template;
        if template.node_selector.is_empty() && template.node_required.is_none() && self.added.required.is_none() {
            return Prepared::Skip;
        }
        let check = Box::new(Check { template: Arc::clone(template), added: Arc::clone(&self.added) });
        let terms = template.node_required.as_ref().filter(|r| !r.node_selector_terms.is_empty());
        match terms.and_then(allowed_names) {
            None => Prepared::Check(check),
            Some(names) if names.is_empty() => Prepared::Reject(CONFLICT.to_owned()),
            Some(names) => Prepared::CheckOnly(names.into_iter().map(Into::into).collect(), check),
        }
    }
}

impl NodeCheck for Check {
    fn check(&self, cluster: &Cluster, node: NodeIx) -> Result<(), Denial> {
        let (nodes, symbols) = (&cluster.nodes, &cluster.symbols);
        if self.added.required.as_ref().is_some_and(|r| !any_term(r, node, nodes, symbols)) {
            return Err(Denial::by_node(REASON_ENFORCED));
        }
        let own = &self.template;
        if !required_matches(&own.node_selector, own.node_required.as_ref(), node, nodes, symbols) {
            return Err(Denial::by_node(REASON));
        }
        Ok(())
    }
}

impl Score for NodeAffinity {
    fn prepare(&self, pod: &PodView, _feasible: &[NodeIx], _cluster: &mut Cluster) -> Option<Box<dyn NodeScore>> {
        if pod.template.node_preferred.is_empty() && self.added.preferred.is_empty() {
            return None;
        }
        Some(Box::new(Scoring { template: Arc::clone(&pod.template), added: Arc::clone(&self.added) }))
    }
}

impl NodeScore for Scoring {
    fn score(&self, cluster: &Cluster, nodes: &[NodeIx], scores: &mut [i64]) {
        for (node, score) in nodes.iter().zip(&mut *scores) {
            let terms = self.added.preferred.iter().chain(&self.template.node_preferred);
            let met = terms.filter(|p| term_matches(&p.term, *node, &cluster.nodes, &cluster.symbols));
            *score = met.map(|p| i64::from(p.weight)).sum();
        }
        framework::normalize(scores, false);
    }
}
