//! Nodes as a struct of arrays: one array per quantity, indexed by node.

use std::{collections::HashMap, sync::Arc};

use super::symbols::{Symbol, Symbols};
use crate::objects::{HostPort, NodeView, PodView, Taint};

/// Index of a node; stays the same while the node or a Pod on it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NodeIx(u32);

impl NodeIx {
    pub(crate) fn new(at: usize) -> Self {
        Self(u32::try_from(at).unwrap_or(u32::MAX))
    }

    pub(crate) fn at(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// An amount of an extended resource on a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar {
    pub(crate) name: Symbol,
    pub(crate) allocatable: i64,
    pub(crate) requested: i64,
}

/// Labels, taints and images of a node: what seldom changes.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) name: Arc<str>,
    /// Whether the node exists: Pods may be known before their node is.
    pub(crate) present: bool,
    /// Sorted by key.
    pub(crate) labels: Vec<(Symbol, Symbol)>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    /// Sorted by name.
    pub(crate) images: Vec<(Symbol, i64)>,
    /// What the node declares that it can do.
    pub(crate) features: Vec<Box<str>>,
    pub(crate) pods: Vec<Arc<PodView>>,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) scalars: Vec<Scalar>,
}

/// Amounts that every filter and score looks at, side by side.
#[derive(Debug, Default)]
pub(crate) struct Amounts {
    pub(crate) allocatable: Vec<i64>,
    pub(crate) requested: Vec<i64>,
}

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) facts: Vec<Facts>,
    pub(crate) cpu: Amounts,
    pub(crate) memory: Amounts,
    pub(crate) ephemeral: Amounts,
    /// Number of Pods against the number allowed.
    pub(crate) pods: Amounts,
    /// Requests with the defaults of scoring.
    pub(crate) scored_cpu: Vec<i64>,
    pub(crate) scored_memory: Vec<i64>,
    /// Whether the node exists and may take Pods at all; a copy of what [`Facts`] say.
    pub(crate) repelling: Vec<bool>,
    by_name: HashMap<Arc<str>, NodeIx>,
    free: Vec<NodeIx>,
    present: usize,
}

impl Nodes {
    /// How many nodes exist.
    pub(crate) fn len(&self) -> usize {
        self.present
    }

    /// Size of the arrays.
    pub(crate) fn slots(&self) -> usize {
        self.facts.len()
    }

    pub(crate) fn find(&self, name: &str) -> Option<NodeIx> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, node: NodeIx) -> &Arc<str> {
        &self.facts[node.at()].name
    }

    pub(crate) fn get(&self, node: NodeIx) -> &Facts {
        &self.facts[node.at()]
    }

    /// Nodes that exist.
    pub(crate) fn present(&self) -> impl Iterator<Item = NodeIx> {
        self.facts.iter().enumerate().filter(|(_, f)| f.present).map(|(at, _)| NodeIx::new(at))
    }

    /// The node of a name; a place for it if it is not known.
    pub(crate) fn place(&mut self, name: &str) -> NodeIx {
        if let Some(node) = self.find(name) {
            return node;
        }
        let name: Arc<str> = name.into();
        let facts = Facts { name: Arc::clone(&name), ..Facts::default() };
        let node = match self.free.pop() {
            Some(node) => {
                self.facts[node.at()] = facts;
                node
            }
            None => {
                self.facts.push(facts);
                for amounts in [&mut self.cpu, &mut self.memory, &mut self.ephemeral, &mut self.pods] {
                    amounts.allocatable.push(0);
                    amounts.requested.push(0);
                }
                self.scored_cpu.push(0);
                self.scored_memory.push(0);
                self.repelling.push(false);
                NodeIx::new(self.facts.len() - 1)
            }
        };
        self.by_name.insert(name, node);
        node
    }

    /// Takes over what a node says of itself.
    pub(crate) fn set(&mut self, node: NodeIx, view: &NodeView, symbols: &mut Symbols) {
        let at = node.at();
        self.cpu.allocatable[at] = view.allocatable.cpu;
        self.memory.allocatable[at] = view.allocatable.memory;
        self.ephemeral.allocatable[at] = view.allocatable.ephemeral;
        self.pods.allocatable[at] = view.allowed_pods;
        let facts = &mut self.facts[at];
        if !facts.present {
            facts.present = true;
            self.present += 1;
        }
        let mut labels: Vec<_> = view.labels.iter().map(|(k, v)| (symbols.acquire(k), symbols.acquire(v))).collect();
        labels.sort_unstable();
        let mut images: Vec<_> = view.images.iter().map(|(n, size)| (symbols.acquire(n), *size)).collect();
        images.sort_unstable();
        let scalars = view.allocatable.scalars.iter();
        let fresh: Vec<_> = scalars.map(|(n, amount)| (symbols.acquire(n), *amount)).collect();
        release(facts, symbols);
        facts.labels = labels;
        facts.images = images;
        for scalar in &mut facts.scalars {
            scalar.allocatable = 0;
        }
        for (name, amount) in fresh {
            match facts.scalars.iter_mut().find(|s| s.name == name) {
                Some(scalar) => {
                    // The entry has a use of the text already.
                    symbols.release(name);
                    scalar.allocatable = amount;
                }
                None => facts.scalars.push(Scalar { name, allocatable: amount, requested: 0 }),
            }
        }
        facts.taints.clone_from(&view.taints);
        facts.features.clone_from(&view.features);
        facts.unschedulable = view.unschedulable;
        self.repelling[at] = view.taints.iter().any(Taint::repels);
    }

    /// The node is gone; its place stays while it has Pods.
    pub(crate) fn unset(&mut self, node: NodeIx, symbols: &mut Symbols) {
        let facts = &mut self.facts[node.at()];
        if facts.present {
            facts.present = false;
            self.present -= 1;
        }
        release(facts, symbols);
        facts.labels.clear();
        facts.images.clear();
        facts.taints.clear();
        for amounts in [&mut self.cpu, &mut self.memory, &mut self.ephemeral, &mut self.pods] {
            amounts.allocatable[node.at()] = 0;
        }
        self.give_up(node, symbols);
    }

    /// Frees the place of a node that is gone and empty.
    fn give_up(&mut self, node: NodeIx, symbols: &mut Symbols) {
        let facts = &mut self.facts[node.at()];
        if facts.present || !facts.pods.is_empty() {
            return;
        }
        for scalar in facts.scalars.drain(..) {
            symbols.release(scalar.name);
        }
        self.by_name.remove(&facts.name);
        facts.name = Arc::from("");
        self.free.push(node);
    }

    pub(crate) fn add_pod(&mut self, node: NodeIx, pod: &Arc<PodView>, symbols: &mut Symbols) {
        self.count(node, pod, 1, symbols);
        let facts = &mut self.facts[node.at()];
        facts.ports.extend_from_slice(&pod.template.host_ports);
        facts.pods.push(Arc::clone(pod));
    }

    pub(crate) fn remove_pod(&mut self, node: NodeIx, pod: &Arc<PodView>, symbols: &mut Symbols) {
        let facts = &mut self.facts[node.at()];
        let Some(found) = facts.pods.iter().position(|p| p.uid == pod.uid) else { return };
        facts.pods.swap_remove(found);
        for port in &pod.template.host_ports {
            if let Some(taken) = facts.ports.iter().position(|p| p == port) {
                facts.ports.swap_remove(taken);
            }
        }
        self.count(node, pod, -1, symbols);
        self.give_up(node, symbols);
    }

    fn count(&mut self, node: NodeIx, pod: &PodView, sign: i64, symbols: &mut Symbols) {
        let at = node.at();
        let (real, scored) = (&pod.template.requests, &pod.template.scored);
        self.cpu.requested[at] += sign * real.cpu;
        self.memory.requested[at] += sign * real.memory;
        self.ephemeral.requested[at] += sign * real.ephemeral;
        self.pods.requested[at] += sign;
        self.scored_cpu[at] += sign * scored.cpu;
        self.scored_memory[at] += sign * scored.memory;
        let facts = &mut self.facts[at];
        for (name, amount) in &real.scalars {
            let symbol = symbols.acquire(name);
            match facts.scalars.iter_mut().find(|s| s.name == symbol) {
                Some(scalar) => {
                    symbols.release(symbol);
                    scalar.requested += sign * amount;
                }
                None => facts.scalars.push(Scalar { name: symbol, allocatable: 0, requested: sign * amount }),
            }
        }
    }

    /// Value of a label.
    pub(crate) fn label(&self, node: NodeIx, key: Symbol) -> Option<Symbol> {
        let labels = &self.facts[node.at()].labels;
        let found = labels.binary_search_by_key(&key, |(k, _)| *k).ok()?;
        labels.get(found).map(|(_, v)| *v)
    }

    /// Allocatable and requested amounts of an extended resource.
    pub(crate) fn scalar(&self, node: NodeIx, name: Symbol) -> (i64, i64) {
        let found = self.facts[node.at()].scalars.iter().find(|s| s.name == name);
        found.map_or((0, 0), |s| (s.allocatable, s.requested))
    }
}

fn release(facts: &Facts, symbols: &mut Symbols) {
    for (key, value) in &facts.labels {
        symbols.release(*key);
        symbols.release(*value);
    }
    for (name, _) in &facts.images {
        symbols.release(*name);
    }
}
