//! Why Pods do not fit, and how that is told.

use std::{collections::BTreeMap, sync::Arc};

use super::{PluginId, PluginSet};
use crate::cluster::NodeIx;

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A fixed text.
    Text(&'static str),
    /// Not enough of an extended resource.
    Insufficient(Arc<str>),
    /// Something that is wrong.
    Told(Arc<str>),
}

impl Reason {
    /// As it is told.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Insufficient(name) => format!("Insufficient {name}"),
            Self::Told(text) => text.to_string(),
        }
    }
}

/// The reasons of one node: mostly one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reasons {
    One(Reason),
    Many(Vec<Reason>),
}

/// A node that was rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Whether the absence of other Pods could change it.
    pub(crate) resolvable: bool,
    pub(crate) reasons: Reasons,
}

impl Denial {
    /// Other Pods are in the way.
    pub(crate) fn by_pods(text: &'static str) -> Self {
        Self { resolvable: true, reasons: Reasons::One(Reason::Text(text)) }
    }

    /// The node itself does not suit.
    pub(crate) fn by_node(text: &'static str) -> Self {
        Self { resolvable: false, reasons: Reasons::One(Reason::Text(text)) }
    }
}

/// Why a Pod cannot be placed now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Diagnosis {
    /// Nodes that were rejected, by which plugin, and why.
    pub(crate) denials: Vec<(NodeIx, PluginId, Denial)>,
    /// Nodes that a PreFilter left out, with the text that stands for all of them.
    pub(crate) left_out: Option<LeftOut>,
    /// A PreFilter rejected the Pod whatever the node.
    pub(crate) whole: Option<String>,
    /// Plugins that rejected.
    pub(crate) plugins: PluginSet,
    /// What PostFilter plugins say.
    pub(crate) after: String,
}

/// Nodes that were not even tried.
#[derive(Clone, Debug)]
pub(crate) struct LeftOut {
    pub(crate) nodes: usize,
    pub(crate) text: String,
}

impl Diagnosis {
    /// Adds a node.
    pub(crate) fn deny(&mut self, node: NodeIx, plugin: PluginId, denial: Denial) {
        self.plugins.insert(plugin);
        self.denials.push((node, plugin, denial));
    }

    /// The sentence about all nodes, and what came after it.
    pub(crate) fn message(&self, all_nodes: usize) -> String {
        if all_nodes == 0 && self.whole.is_none() {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut text = format!("0/{all_nodes} nodes are available");
        if let Some(whole) = &self.whole {
            text.push_str(&format!(": {whole}."));
        } else {
            text.push_str(&histogram(self.counted()));
        }
        if !self.after.is_empty() {
            text.push(' ');
            text.push_str(&self.after);
        }
        text
    }

    fn counted(&self) -> BTreeMap<String, usize> {
        let mut fixed: Vec<(&Reason, usize)> = Vec::new();
        let mut count = |reason| match fixed.iter_mut().find(|(r, _)| *r == reason) {
            Some((_, n)) => *n += 1,
            None => fixed.push((reason, 1)),
        };
        for (_, _, denial) in &self.denials {
            match &denial.reasons {
                Reasons::One(reason) => count(reason),
                Reasons::Many(all) => all.iter().for_each(&mut count),
            }
        }
        let mut texts: BTreeMap<String, usize> = BTreeMap::new();
        for (reason, n) in fixed {
            *texts.entry(reason.text()).or_default() += n;
        }
        if let Some(left_out) = self.left_out.as_ref().filter(|l| l.nodes > 0) {
            *texts.entry(left_out.text.clone()).or_default() += left_out.nodes;
        }
        texts
    }
}

/// `: 1 a, 2 b.`; nothing for no reasons but the full stop.
pub(crate) fn histogram(counts: BTreeMap<String, usize>) -> String {
    let mut entries: Vec<String> = counts.into_iter().map(|(text, n)| format!("{n} {text}")).collect();
    entries.sort();
    if entries.is_empty() { String::new() } else { format!(": {}.", entries.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(node: usize) -> NodeIx {
        NodeIx::new(node)
    }

    #[test]
    fn reasons_are_counted_and_sorted_as_text() {
        let mut diagnosis = Diagnosis::default();
        let both =
            Reasons::Many(vec![Reason::Text("Insufficient cpu"), Reason::Insufficient("example.com/gpu".into())]);
        for node in 0..10 {
            let denial = Denial { resolvable: true, reasons: both.clone() };
            diagnosis.deny(at(node), PluginId::NodeResourcesFit, denial);
        }
        diagnosis.deny(at(10), PluginId::TaintToleration, Denial::by_node("node(s) had untolerated taint(s)"));
        diagnosis.after = "preemption: x.".into();
        assert_eq!(
            diagnosis.message(11),
            "0/11 nodes are available: 1 node(s) had untolerated taint(s), 10 Insufficient cpu, \
             10 Insufficient example.com/gpu. preemption: x."
        );
        assert_eq!(Diagnosis::default().message(0), "no nodes available to schedule pods");
        let whole = Diagnosis { whole: Some("pod affinity terms conflict".into()), ..Diagnosis::default() };
        assert_eq!(whole.message(3), "0/3 nodes are available: pod affinity terms conflict.");
    }
}
