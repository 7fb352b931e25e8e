//! What drivers offer: slices put together to pools.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use controller::Cached;
use machinery::quantity::Quantity;

use crate::objects::{DeviceView, NodeSelector, Reach, SliceView};

/// What is asked of a node.
pub(crate) trait NodeTraits {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;

    /// Whether its kubelet offers an extended resource.
    fn provides(&self, resource: &str) -> bool;
}

/// A node, as selectors see it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) node: &'a dyn NodeTraits,
}

impl Place<'_> {
    /// Whether it is one of the nodes that a selector means.
    pub(crate) fn is_among(&self, nodes: &NodeSelector) -> bool {
        let label = |key: &str| self.node.label(key);
        nodes.node_selector_terms.iter().any(|term| term.matches(self.name, &label))
    }
}

type Slice = Arc<Cached<SliceView>>;

/// Set of counters and counter.
pub(super) type CounterName = (Box<str>, Box<str>);

/// All slices of a pool in its newest generation.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) driver: Box<str>,
    pub(super) name: Box<str>,
    pub(super) slices: Vec<Slice>,
    /// Some slices are missing.
    pub(super) is_incomplete: bool,
    /// Why it cannot be used.
    pub(super) invalid: Option<String>,
    /// What its devices share.
    pub(super) counters: HashMap<CounterName, Quantity>,
}

impl Pool {
    fn new(driver: &str, name: &str, all: Vec<Slice>) -> Self {
        let newest = all.iter().map(|s| s.generation).max().unwrap_or(0);
        let mut slices: Vec<_> = all.into_iter().filter(|s| s.generation == newest).collect();
        slices.sort_by(|a, b| a.key.name.cmp(&b.key.name));
        let mut names = HashSet::new();
        let twice = slices.iter().flat_map(|s| &s.devices).find(|d| !names.insert(&*d.id.device));
        let invalid = twice.map(|device| format!("duplicate device name {}", device.id.device));
        let counters = slices.iter().flat_map(|s| &s.counters);
        let counters = counters
            .flat_map(|set| set.amounts.iter().map(|(name, amount)| ((set.set.clone(), name.clone()), *amount)))
            .collect();
        let expected = slices.first().map_or(0, |s| s.slices);
        Self {
            driver: driver.into(),
            name: name.into(),
            is_incomplete: i64::try_from(slices.len()) != Ok(expected),
            invalid,
            counters,
            slices,
        }
    }

    /// `driver/pool`.
    pub(super) fn full_name(&self) -> String {
        format!("{}/{}", self.driver, self.name)
    }

    fn has_binding_conditions(&self) -> bool {
        self.slices.iter().flat_map(|s| &s.devices).any(|d| d.binding_conditions.is_some())
    }

    /// The devices that can be used on a node.
    pub(super) fn devices<'p>(
        &'p self,
        place: &'p Place<'_>,
    ) -> impl Iterator<Item = (&'p SliceView, &'p Arc<DeviceView>)> {
        let slices = self.slices.iter().map(|slice| &slice.view);
        let here = slices.filter(|s| match &s.reach {
            Some(Reach::PerDevice) => true,
            Some(reach) => reaches(reach, place),
            None => false,
        });
        here.flat_map(|s| s.devices.iter().map(move |d| (s, d)))
            .filter(|(s, d)| reach(s, d).is_some_and(|reach| reaches(reach, place)))
    }
}

/// Where a device can be used.
pub(super) fn reach<'a>(slice: &'a SliceView, device: &'a DeviceView) -> Option<&'a Reach> {
    match &slice.reach {
        Some(Reach::PerDevice) => device.reach.as_ref(),
        other => other.as_ref(),
    }
}

fn reaches(reach: &Reach, place: &Place<'_>) -> bool {
    match reach {
        Reach::Everywhere => true,
        Reach::Node(name) => **name == *place.name,
        Reach::Nodes(selector, _) => place.is_among(selector),
        Reach::PerDevice => false,
    }
}

/// All pools.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pools: Vec<Pool>,
    /// Pools by the nodes that their devices are tied to.
    by_node: HashMap<Box<str>, Vec<usize>>,
    /// Pools that other nodes may reach too.
    elsewhere: Vec<usize>,
}

impl Inventory {
    /// Puts slices together.
    pub(super) fn new(slices: Vec<Slice>) -> Self {
        let mut grouped: BTreeMap<(Box<str>, Box<str>), Vec<Slice>> = BTreeMap::new();
        for slice in slices {
            grouped.entry((slice.driver.clone(), slice.pool.clone())).or_default().push(slice);
        }
        let mut pools: Vec<Pool> =
            grouped.into_iter().map(|((driver, name), slices)| Pool::new(&driver, &name, slices)).collect();
        // Devices that need preparation come last.
        pools.sort_by_key(Pool::has_binding_conditions);
        let mut inventory = Self { pools, ..Self::default() };
        for (at, pool) in inventory.pools.iter().enumerate() {
            let devices = pool.slices.iter().flat_map(|s| s.devices.iter().map(move |d| (&s.view, d)));
            let mut nodes = BTreeSet::new();
            let mut is_wide = false;
            for (slice, device) in devices {
                match reach(slice, device) {
                    Some(Reach::Node(name)) => drop(nodes.insert(name.clone())),
                    _ => is_wide = true,
                }
            }
            if is_wide {
                inventory.elsewhere.push(at);
            } else {
                nodes.into_iter().for_each(|node| inventory.by_node.entry(node).or_default().push(at));
            }
        }
        inventory
    }

    /// Pools with devices that a node may reach, in order.
    pub(super) fn pools_of(&self, node: &str) -> Vec<&Pool> {
        let own = self.by_node.get(node).map(Vec::as_slice).unwrap_or_default();
        let mut all: Vec<usize> = own.iter().chain(&self.elsewhere).copied().collect();
        all.sort_unstable();
        all.into_iter().filter_map(|at| self.pools.get(at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::devices::testing::slice;

    fn names(inventory: &Inventory, node: &str) -> Vec<String> {
        struct East;
        impl NodeTraits for East {
            fn label(&self, key: &str) -> Option<&str> {
                (key == "zone").then_some("east")
            }

            fn provides(&self, _resource: &str) -> bool {
                false
            }
        }
        let place = Place { name: node, node: &East };
        let pools = inventory.pools_of(node);
        pools.iter().flat_map(|p| p.devices(&place).map(|(_, d)| d.id.device.to_string())).collect()
    }

    #[test]
    fn nodes_reach_what_is_meant_for_them() {
        let zone = |value: &str| {
            json!({"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "zone", "operator": "In", "values": [value]}]}]})
        };
        let inventory = Inventory::new(vec![
            slice("a", "pool-a", json!({"nodeName": "n1", "devices": [{"name": "local"}]})),
            slice("b", "pool-b", json!({"allNodes": true, "devices": [{"name": "net"}]})),
            slice("c", "pool-c", json!({"nodeSelector": zone("east"), "devices": [{"name": "east"}]})),
            slice("d", "pool-d", json!({"nodeSelector": zone("west"), "devices": [{"name": "west"}]})),
            slice(
                "e",
                "pool-e",
                json!({"perDeviceNodeSelection": true, "devices": [
                {"name": "mine", "nodeName": "n1"}, {"name": "yours", "nodeName": "n2"}, {"name": "all", "allNodes": true}]}),
            ),
        ]);
        assert_eq!(names(&inventory, "n1"), ["local", "net", "east", "mine", "all"]);
        assert_eq!(names(&inventory, "n2"), ["net", "east", "yours", "all"]);
    }

    #[test]
    fn only_the_newest_generation_counts() {
        let of = |generation: i64, count: i64, name: &str| {
            json!({"allNodes": true, "pool": {"name": "p", "generation": generation, "resourceSliceCount": count},
                "devices": [{"name": name}]})
        };
        let inventory = Inventory::new(vec![
            slice("a", "p", of(1, 1, "old")),
            slice("b", "p", of(2, 2, "new")),
            slice("c", "q", json!({"allNodes": true, "devices": [{"name": "x"}, {"name": "x"}]})),
        ]);
        let pools = inventory.pools_of("n");
        assert!(pools[0].is_incomplete && pools[0].slices.len() == 1);
        assert_eq!(pools[1].invalid.as_deref(), Some("duplicate device name x"));
        assert!(!pools[1].is_incomplete);
    }
}
