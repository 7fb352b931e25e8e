//! What the scheduler knows of the cluster: nodes, the Pods on them, and the Pods that are on their way.
//!
//! A Pod is known here from the moment it has a node. One that this process just placed is *assumed*: it counts from
//! then on, and stays until the API server confirms the binding or refuses it.
//!
//! ```text
//!   unknown --assume--> assumed --confirmed by watch--> bound --deleted--> unknown
//!      |                   +------forget (refused)----------------------------^
//!      +------------seen on a node by watch--------------> bound
//! ```

mod groups;
mod nodes;
mod order;
mod symbols;
mod views;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use groups::{Grouped, Groups};
pub(crate) use nodes::{Amounts, NodeIx, Nodes};
use order::Order;
pub(crate) use symbols::{Symbol, Symbols};
use views::Views;
pub(crate) use views::{Counted, Eligible, Namespaces, Question, Rule, RuleKind, View, ViewIx};

use crate::objects::{AffinityTerm, Labels, NodeView, PodView, Template, Weighted};

/// A Pod with its node.
#[derive(Debug)]
struct Placed {
    pod: Arc<PodView>,
    node: NodeIx,
    assumed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) nodes: Nodes,
    pub(crate) symbols: Symbols,
    pods: HashMap<Arc<str>, Placed>,
    assumed: usize,
    groups: Groups,
    /// Rules that Pods on nodes carry, with the number of groups that do.
    rules: HashMap<Arc<Rule>, usize>,
    /// How often a rule was new.
    new_rules: u64,
    views: Views,
    namespaces: Namespaces,
    /// Pods on nodes by the claims that they use: namespace and name.
    claims: HashMap<(Box<str>, Box<str>), usize>,
    /// Nodes that have an image.
    images: HashMap<Symbol, usize>,
    order: Order,
    /// Grows with every change to a node or the Pods on it; the last one of each node.
    generation: u64,
    versions: Vec<u64>,
}

impl Cluster {
    /// Number that is the same as long as a node, with the Pods on it, did not change.
    pub(crate) fn version(&self, node: NodeIx) -> u64 {
        self.versions.get(node.at()).copied().unwrap_or(0)
    }

    fn changed(&mut self, node: NodeIx) {
        self.generation += 1;
        if self.versions.len() <= node.at() {
            self.versions.resize(node.at() + 1, 0);
        }
        self.versions[node.at()] = self.generation;
    }

    /// Pods on nodes: all, and those that are assumed.
    pub(crate) fn pod_counts(&self) -> (usize, usize) {
        (self.pods.len(), self.assumed)
    }

    /// Begins a scheduling cycle.
    pub(crate) fn begin(&mut self) {
        self.views.begin(&mut self.symbols);
        self.order.refresh(&self.nodes, &self.symbols);
    }

    /// Nodes in the order in which they are tried: zone by zone in turn.
    pub(crate) fn ordered(&self) -> Arc<[NodeIx]> {
        self.order.nodes()
    }

    /// Whether a Pod is placed but not yet confirmed.
    pub(crate) fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|p| p.assumed)
    }

    /// The node of a Pod.
    #[cfg(test)]
    pub(crate) fn node_of(&self, uid: &str) -> Option<NodeIx> {
        self.pods.get(uid).map(|p| p.node)
    }

    /// Pods on nodes that use a claim.
    pub(crate) fn users_of_claim(&self, namespace: &str, claim: &str) -> usize {
        self.claims.get(&(namespace.into(), claim.into())).copied().unwrap_or(0)
    }

    /// Nodes that have an image.
    pub(crate) fn nodes_with_image(&self, image: Symbol) -> usize {
        self.images.get(&image).copied().unwrap_or(0)
    }

    /// Takes over a node. Tells whether it is new.
    pub(crate) fn set_node(&mut self, view: &NodeView) -> bool {
        let node = self.nodes.place(&view.name);
        self.changed(node);
        let was_present = self.nodes.get(node).present;
        let before = self.shape(node);
        self.count_images(node, false);
        self.nodes.set(node, view, &mut self.symbols);
        self.count_images(node, true);
        if !was_present || before != self.shape(node) {
            self.views.clear(&mut self.symbols);
            self.order.outdated();
        }
        !was_present
    }

    /// What counts by topology depend on.
    fn shape(&self, node: NodeIx) -> (Vec<(Symbol, Symbol)>, Vec<crate::objects::Taint>) {
        let facts = self.nodes.get(node);
        (facts.labels.clone(), facts.taints.clone())
    }

    /// Forgets a node.
    pub(crate) fn remove_node(&mut self, name: &str) {
        let Some(node) = self.nodes.find(name) else { return };
        self.changed(node);
        self.count_images(node, false);
        self.nodes.unset(node, &mut self.symbols);
        self.views.clear(&mut self.symbols);
        self.order.outdated();
    }

    fn count_images(&mut self, node: NodeIx, there: bool) {
        for (name, _) in &self.nodes.get(node).images {
            if there {
                *self.images.entry(*name).or_default() += 1;
            } else if let Some(count) = self.images.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(name);
                }
            }
        }
    }

    /// Takes over the labels of a namespace; `None` when it is gone.
    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let before = self.namespaces.get(name);
        if before == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.into(), labels),
            None => self.namespaces.remove(name),
        };
        self.views.clear(&mut self.symbols);
    }

    pub(crate) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// A Pod that has a node came or changed.
    pub(crate) fn set_pod(&mut self, pod: &Arc<PodView>) {
        self.remove_pod(&pod.uid);
        let node = self.nodes.place(&pod.node_name);
        self.insert(pod, node, false);
    }

    /// A Pod is gone, or has ended.
    pub(crate) fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodView>> {
        let placed = self.pods.remove(uid)?;
        self.assumed -= usize::from(placed.assumed);
        self.detach(&placed.pod, placed.node);
        Some(placed.pod)
    }

    /// Counts a Pod on the node that was chosen for it.
    pub(crate) fn assume(&mut self, pod: &Arc<PodView>, node: NodeIx) {
        self.remove_pod(&pod.uid);
        self.insert(pod, node, true);
    }

    /// Takes an assumption back.
    pub(crate) fn forget(&mut self, uid: &str) -> bool {
        let assumed = self.is_assumed(uid);
        if assumed {
            self.remove_pod(uid);
        }
        assumed
    }

    fn insert(&mut self, pod: &Arc<PodView>, node: NodeIx, assumed: bool) {
        self.attach(pod, node);
        self.assumed += usize::from(assumed);
        self.pods.insert(Arc::clone(&pod.uid), Placed { pod: Arc::clone(pod), node, assumed });
    }

    /// Counts a Pod on a node. With [`Cluster::detach`], also to try what would be if.
    pub(crate) fn attach(&mut self, pod: &Arc<PodView>, node: NodeIx) {
        self.changed(node);
        self.nodes.add_pod(node, pod, &mut self.symbols);
        for claim in &pod.template.claims {
            *self.claims.entry((pod.template.namespace.clone(), claim.clone())).or_default() += 1;
        }
        let group = match self.groups.add(&pod.template, node, pod.terminating) {
            Grouped::Came(group) => {
                self.views.group_came(group, &pod.template, &self.namespaces);
                for rule in rules_of(&pod.template) {
                    let carriers = self.rules.entry(Arc::new(rule)).or_default();
                    self.new_rules += u64::from(*carriers == 0);
                    *carriers += 1;
                }
                group
            }
            Grouped::Same(group) | Grouped::Left(group) => group,
        };
        self.views.count(group, node, 1, pod.terminating);
    }

    /// Takes a Pod off a node.
    pub(crate) fn detach(&mut self, pod: &Arc<PodView>, node: NodeIx) {
        self.changed(node);
        self.nodes.remove_pod(node, pod, &mut self.symbols);
        for claim in &pod.template.claims {
            let key = (pod.template.namespace.clone(), claim.clone());
            if let Some(users) = self.claims.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.claims.remove(&key);
                }
            }
        }
        match self.groups.remove(&pod.template, node, pod.terminating) {
            None => {}
            Some(Grouped::Left(group)) => {
                self.views.count(group, node, -1, pod.terminating);
                self.views.group_left(group);
                for rule in rules_of(&pod.template) {
                    self.rule_left(&rule);
                }
            }
            Some(Grouped::Same(group) | Grouped::Came(group)) => {
                self.views.count(group, node, -1, pod.terminating);
            }
        }
    }

    fn rule_left(&mut self, rule: &Rule) {
        if let Some(count) = self.rules.get_mut(rule) {
            *count -= 1;
            if *count == 0 {
                self.rules.remove(rule);
            }
        }
    }

    /// The counts of a question.
    pub(crate) fn view(&mut self, question: Question) -> ViewIx {
        if let Some(found) = self.views.find(&question) {
            return found;
        }
        let namespaces = &self.namespaces;
        let members: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, g)| question.counts(&g.template, namespaces))
            .map(|(at, g)| {
                let places = g.places().map(|(node, all, living)| (node, question.of_group(all, living)));
                (at, places.collect::<Vec<_>>())
            })
            .collect();
        self.views.make(question, &self.nodes, &mut self.symbols, &members)
    }

    /// The counts of a view; void ones count nothing.
    pub(crate) fn counts(&self, view: ViewIx) -> Option<&View> {
        self.views.get(view)
    }

    /// Grows when Pods on nodes carry a rule that none carried before.
    pub(crate) fn new_rules(&self) -> u64 {
        self.new_rules
    }

    /// Rules of Pods on nodes that mean a Pod of `template`.
    pub(crate) fn rules_about(&self, template: &Template, wanted: impl Fn(RuleKind) -> bool) -> Vec<Arc<Rule>> {
        let labels = || self.namespaces.get(&template.namespace);
        let meant = |rule: &Rule| rule.term.matches(&template.namespace, &template.labels, labels);
        self.rules.keys().filter(|r| wanted(r.kind) && meant(r)).cloned().collect()
    }

    /// Whether the parts agree with each other; for tests.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for facts in self.nodes.present() {
            let pods = &self.nodes.get(facts).pods;
            assert_eq!(self.nodes.pods.requested[facts.at()], i64::try_from(pods.len()).unwrap());
            let cpu: i64 = pods.iter().map(|p| p.template.requests.cpu).sum();
            assert_eq!(self.nodes.cpu.requested[facts.at()], cpu);
        }
    }
}

/// The rules about others in a template, each once.
fn rules_of(template: &Template) -> HashSet<Rule> {
    let rule = |kind, term: &AffinityTerm| Rule { kind, term: term.clone() };
    let near = &template.affinity;
    let near = near.iter().map(|t| rule(RuleKind::Affinity(views::times_in(near, t)), t));
    let far = template.anti_affinity.iter().map(|t| rule(RuleKind::AntiAffinity, t));
    let (liked, disliked) = (&template.affinity_preferred, &template.anti_affinity_preferred);
    let weight = |list, p: &Weighted<AffinityTerm>| views::weight_in(list, &p.term);
    let disliked = disliked.iter().map(|p| rule(RuleKind::Preferred(-weight(disliked, p)), &p.term));
    let liked = liked.iter().map(|p| rule(RuleKind::Preferred(weight(liked, p)), &p.term));
    near.chain(far).chain(liked).chain(disliked).collect()
}

#[cfg(test)]
mod tests;
