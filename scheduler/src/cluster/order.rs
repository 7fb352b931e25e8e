//! The order in which nodes are tried: one of each zone in turn, so that the first ones found are spread.

use std::{collections::BTreeMap, sync::Arc};

use super::{NodeIx, Nodes, Symbols};

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

/// Nodes in order.
#[derive(Debug, Default)]
pub(crate) struct Order {
    nodes: Arc<[NodeIx]>,
    current: bool,
}

impl Order {
    pub(crate) fn nodes(&self) -> Arc<[NodeIx]> {
        Arc::clone(&self.nodes)
    }

    /// Nodes came, went or moved.
    pub(crate) fn outdated(&mut self) {
        self.current = false;
    }

    /// Puts nodes in order again if they changed.
    pub(crate) fn refresh(&mut self, nodes: &Nodes, symbols: &Symbols) {
        if self.current {
            return;
        }
        self.current = true;
        let (zone, region) = (symbols.find(ZONE), symbols.find(REGION));
        let mut zones: BTreeMap<(&str, &str), Vec<NodeIx>> = BTreeMap::new();
        for node in nodes.present() {
            let label = |key| nodes.label(node, key).map_or("", |v| symbols.text(v));
            let place = (region.map_or("", label), zone.map_or("", label));
            zones.entry(place).or_default().push(node);
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        self.nodes = (0..longest).flat_map(|row| zones.values().filter_map(move |z| z.get(row).copied())).collect();
    }
}
