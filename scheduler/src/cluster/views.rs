//! Counts of Pods by topology domain, kept up to date while they are in use.
//!
//! A count is made once for a question such as "Pods of this selector by zone" and from then on follows every Pod that
//! comes or goes, so that the next Pod that asks the same finds it ready. It is void when nodes come, go, or change
//! their labels or taints.

use std::{collections::HashMap, sync::Arc};

use machinery::selector::LabelSelector;

use super::{
    groups::GroupIx,
    nodes::{NodeIx, Nodes},
    symbols::{Symbol, Symbols},
};
use crate::{
    objects::{AffinityTerm, Labels, NodeSelector, Template, Toleration, Weighted},
    plugins::node_affinity,
};

/// The node has the key, but no domain that counts.
const OUTSIDE: u32 = u32::MAX - 1;
/// The node does not have the key.
const NOWHERE: u32 = u32::MAX;

/// Which Pods are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    /// Of a namespace, selected, and not being deleted.
    Selected { namespace: Box<str>, selector: LabelSelector },
    /// Those that all the terms mean.
    Meant(Vec<AffinityTerm>),
    /// Those that carry a rule about others.
    Carrying(Arc<Rule>),
}

/// A rule that Pods carry about others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    pub(crate) kind: RuleKind,
    pub(crate) term: AffinityTerm,
}

/// What a rule demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RuleKind {
    /// Near, without fail; how often the term is repeated.
    Affinity(usize),
    /// Far, without fail.
    AntiAffinity,
    /// Near if positive, far if negative; the sum of a term that is repeated.
    Preferred(i32),
}

/// How often a term is in a list.
pub(super) fn times_in(list: &[AffinityTerm], term: &AffinityTerm) -> usize {
    list.iter().filter(|other| *other == term).count()
}

/// The weight of a term in a list.
pub(super) fn weight_in(list: &[Weighted<AffinityTerm>], term: &AffinityTerm) -> i32 {
    list.iter().filter(|other| other.term == *term).map(|other| other.weight).fold(0, i32::saturating_add)
}

/// Which nodes' Pods and domains are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Eligible {
    /// Labels a node has to have.
    pub(crate) keys: Vec<Box<str>>,
    /// Node selector and required affinity that a node has to match.
    pub(crate) node_selector: Vec<(Box<str>, Box<str>)>,
    pub(crate) node_required: Option<NodeSelector>,
    /// Tolerations without which a node's taints exclude it; `None` if taints do not matter.
    pub(crate) tolerations: Option<Vec<Toleration>>,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) key: Box<str>,
    pub(crate) counted: Counted,
    pub(crate) eligible: Eligible,
}

/// Counts of one question.
#[derive(Debug)]
pub(crate) struct View {
    question: Arc<Question>,
    key: Symbol,
    /// Domain of each node.
    domain: Vec<u32>,
    /// Whether Pods of the node count.
    eligible: Vec<bool>,
    counts: Vec<i64>,
    total: i64,
    last_used: u64,
}

impl View {
    /// Pods in the node's domain; `None` if the node does not have the key.
    pub(crate) fn count(&self, node: NodeIx) -> Option<i64> {
        match self.domain.get(node.at()).copied().unwrap_or(NOWHERE) {
            NOWHERE => None,
            OUTSIDE => Some(0),
            domain => Some(self.at(domain)),
        }
    }

    fn at(&self, domain: u32) -> i64 {
        usize::try_from(domain).ok().and_then(|d| self.counts.get(d)).copied().unwrap_or(0)
    }

    /// The domain of a node, if it is one that counts.
    pub(crate) fn domain(&self, node: NodeIx) -> Option<u32> {
        self.domain.get(node.at()).copied().filter(|d| *d < OUTSIDE)
    }

    /// How many domains count.
    pub(crate) fn domains(&self) -> usize {
        self.counts.len()
    }

    /// The smallest count of a domain.
    pub(crate) fn minimum(&self) -> Option<i64> {
        self.counts.iter().min().copied()
    }

    /// Pods in all domains.
    pub(crate) fn total(&self) -> i64 {
        self.total
    }

    fn add(&mut self, node: NodeIx, pods: i64) {
        if !self.eligible.get(node.at()).copied().unwrap_or(false) {
            return;
        }
        let Some(domain) = self.domain(node) else { return };
        if let Some(count) = usize::try_from(domain).ok().and_then(|d| self.counts.get_mut(d)) {
            *count += pods;
            self.total += pods;
        }
    }
}

/// Name of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ViewIx(usize);

/// All counts in use.
#[derive(Debug, Default)]
pub(crate) struct Views {
    slots: Vec<Option<View>>,
    free: Vec<ViewIx>,
    by_question: HashMap<Arc<Question>, ViewIx>,
    /// Views that count the Pods of a group.
    by_group: HashMap<GroupIx, Vec<ViewIx>>,
    tick: u64,
}

/// How many counts are kept that nobody asked for lately.
const KEPT: usize = 512;

impl Views {
    pub(crate) fn get(&self, view: ViewIx) -> Option<&View> {
        self.slots.get(view.0)?.as_ref()
    }

    /// The view of a question, if it is there.
    pub(crate) fn find(&mut self, question: &Question) -> Option<ViewIx> {
        let found = *self.by_question.get(question)?;
        if let Some(Some(view)) = self.slots.get_mut(found.0) {
            view.last_used = self.tick;
        }
        Some(found)
    }

    /// Makes a view; `members` are the groups it counts, with the nodes their Pods are on.
    pub(crate) fn make(
        &mut self,
        question: Question,
        nodes: &Nodes,
        symbols: &mut Symbols,
        members: &[(GroupIx, Vec<(NodeIx, i64)>)],
    ) -> ViewIx {
        let key = symbols.acquire(&question.key);
        let mut view = empty(question, key, nodes, symbols);
        view.last_used = self.tick;
        for (node, pods) in members.iter().flat_map(|(_, places)| places) {
            view.add(*node, *pods);
        }
        let question = Arc::clone(&view.question);
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            ViewIx(self.slots.len() - 1)
        });
        self.slots[at.0] = Some(view);
        self.by_question.insert(question, at);
        for (group, _) in members {
            self.by_group.entry(*group).or_default().push(at);
        }
        at
    }

    /// A Pod of a group came to a node (`pods` 1) or left it (-1).
    pub(crate) fn count(&mut self, group: GroupIx, node: NodeIx, pods: i64, terminating: bool) {
        let Some(views) = self.by_group.get(&group) else { return };
        for at in views {
            if let Some(Some(view)) = self.slots.get_mut(at.0)
                && !(terminating && view.question.skips_terminating())
            {
                view.add(node, pods);
            }
        }
    }

    /// A group appeared: the views it belongs to count it from now on.
    pub(crate) fn group_came(&mut self, group: GroupIx, template: &Template, namespaces: &Namespaces) {
        for (at, slot) in self.slots.iter().enumerate() {
            if let Some(view) = slot
                && view.question.counts(template, namespaces)
            {
                self.by_group.entry(group).or_default().push(ViewIx(at));
            }
        }
    }

    /// A group is gone, with all its Pods.
    pub(crate) fn group_left(&mut self, group: GroupIx) {
        self.by_group.remove(&group);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, symbols: &mut Symbols) {
        for view in self.slots.drain(..).flatten() {
            symbols.release(view.key);
        }
        self.free.clear();
        self.by_question.clear();
        self.by_group.clear();
    }

    /// Begins a scheduling cycle: forgets what was not asked for lately, if there is too much.
    pub(crate) fn begin(&mut self, symbols: &mut Symbols) {
        self.tick += 1;
        if self.by_question.len() <= KEPT {
            return;
        }
        let mut used: Vec<u64> = self.slots.iter().flatten().map(|v| v.last_used).collect();
        used.sort_unstable();
        let oldest_kept = used.get(used.len() / 2).copied().unwrap_or(0);
        let mut dropped = Vec::new();
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if let Some(view) = slot.take_if(|v| v.last_used < oldest_kept) {
                symbols.release(view.key);
                self.by_question.remove(&view.question);
                dropped.push(ViewIx(at));
            }
        }
        self.by_group.retain(|_, views| {
            views.retain(|v| dropped.binary_search(v).is_err());
            !views.is_empty()
        });
        self.free.extend(dropped);
    }
}

/// Labels of namespaces by name.
pub(crate) type Namespaces = HashMap<Box<str>, Labels>;

impl Question {
    fn skips_terminating(&self) -> bool {
        matches!(self.counted, Counted::Selected { .. })
    }

    /// Whether Pods of a template are counted.
    pub(crate) fn counts(&self, template: &Template, namespaces: &Namespaces) -> bool {
        match &self.counted {
            Counted::Selected { namespace, selector } => {
                *namespace == template.namespace && template.labels.match_selector(selector)
            }
            Counted::Meant(terms) => terms
                .iter()
                .all(|t| t.matches(&template.namespace, &template.labels, || namespaces.get(&template.namespace))),
            Counted::Carrying(rule) => match rule.kind {
                RuleKind::Affinity(times) => times_in(&template.affinity, &rule.term) == times,
                RuleKind::AntiAffinity => template.anti_affinity.contains(&rule.term),
                RuleKind::Preferred(weight) => {
                    weight_in(&template.affinity_preferred, &rule.term) == weight
                        || weight_in(&template.anti_affinity_preferred, &rule.term) == -weight
                }
            },
        }
    }

    /// Pods of a group on a node that count, of `all` and those that are not being deleted.
    pub(crate) fn of_group(&self, all: i64, living: i64) -> i64 {
        if self.skips_terminating() { living } else { all }
    }
}

fn empty(question: Question, key: Symbol, nodes: &Nodes, symbols: &Symbols) -> View {
    let slots = nodes.slots();
    let mut view = View {
        key,
        domain: vec![NOWHERE; slots],
        eligible: vec![false; slots],
        counts: Vec::new(),
        total: 0,
        last_used: 0,
        question: Arc::new(question),
    };
    let wanted = &view.question.eligible;
    let keys: Vec<Option<Symbol>> = wanted.keys.iter().map(|k| symbols.find(k)).collect();
    let mut domains: HashMap<Symbol, u32> = HashMap::new();
    for node in nodes.present() {
        let Some(value) = nodes.label(node, key) else { continue };
        let has_keys = || keys.iter().all(|k| k.is_some_and(|k| nodes.label(node, k).is_some()));
        if !has_keys() || !node_is_eligible(wanted, node, nodes, symbols) {
            continue;
        }
        view.eligible[node.at()] = true;
        let next = u32::try_from(domains.len()).unwrap_or(OUTSIDE);
        let domain = *domains.entry(value).or_insert(next);
        view.domain[node.at()] = domain;
    }
    for node in nodes.present() {
        if !view.eligible[node.at()]
            && let Some(value) = nodes.label(node, key)
        {
            view.domain[node.at()] = domains.get(&value).copied().unwrap_or(OUTSIDE);
        }
    }
    view.counts = vec![0; domains.len()];
    view
}

fn node_is_eligible(wanted: &Eligible, node: NodeIx, nodes: &Nodes, symbols: &Symbols) -> bool {
    let facts = nodes.get(node);
    let tolerated = match &wanted.tolerations {
        None => true,
        Some(list) => facts.taints.iter().filter(|t| t.repels()).all(|t| list.iter().any(|own| own.tolerates(t))),
    };
    tolerated
        && node_affinity::required_matches(&wanted.node_selector, wanted.node_required.as_ref(), node, nodes, symbols)
}
