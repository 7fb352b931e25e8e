//! How much memory of each kind every NUMA node has left.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::allot::Mask;

/// One kind of memory of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    pub total: u64,
    #[serde(rename = "systemReserved")]
    pub system_reserved: u64,
    pub allocatable: u64,
    pub reserved: u64,
    pub free: u64,
}

/// One NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeState {
    pub number_of_assignments: i64,
    pub memory_map: BTreeMap<String, Table>,
    /// Nodes that serve containers together with this one.
    pub cells: Vec<u32>,
}

/// What a container holds of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block {
    pub numa_affinity: Vec<u32>,
    pub r#type: String,
    pub size: u64,
}

/// All nodes by number.
pub(super) type Machine = BTreeMap<u32, NodeState>;
/// What is asked for, by kind.
pub(super) type Wanted = BTreeMap<String, u64>;

fn sum(machine: &Machine, mask: Mask, kind: &str, field: fn(&Table) -> u64) -> u64 {
    let nodes = machine.iter().filter(|(node, _)| mask.contains(**node));
    nodes.filter_map(|(_, state)| state.memory_map.get(kind)).map(field).fold(0, u64::saturating_add)
}

/// Nodes that serve containers together serve others only in the same company.
fn is_usable(machine: &Machine, mask: Mask) -> bool {
    machine.iter().filter(|(node, state)| mask.contains(**node) && state.number_of_assignments > 0).all(|(_, state)| {
        let company = Mask::of(state.cells.iter().copied());
        company == mask || (company.len() == 1 && mask.len() == 1)
    })
}

/// Sets of nodes that have enough left, and whether they are as few as can be.
pub(super) fn hints(machine: &Machine, wanted: &Wanted) -> Vec<(Mask, bool)> {
    let nodes: BTreeSet<u32> = machine.keys().copied().collect();
    let holds = |mask: Mask, field: fn(&Table) -> u64| {
        wanted.iter().all(|(kind, size)| sum(machine, mask, kind, field) >= *size)
    };
    let possible: Vec<Mask> =
        Mask::combinations(&nodes).into_iter().filter(|mask| holds(*mask, |table| table.allocatable)).collect();
    let least = possible.iter().map(|mask| mask.len()).min().unwrap_or(0);
    let now = possible.into_iter().filter(|mask| holds(*mask, |table| table.free) && is_usable(machine, *mask));
    now.map(|mask| (mask, mask.len() == least)).collect()
}

/// Takes memory from nodes; answers what was taken.
pub(super) fn take(machine: &mut Machine, mask: Mask, wanted: &Wanted) -> Vec<Block> {
    let cells: Vec<u32> = machine.keys().copied().filter(|node| mask.contains(*node)).collect();
    let mut blocks = Vec::new();
    for (kind, size) in wanted {
        let mut left = *size;
        for node in &cells {
            let Some(state) = machine.get_mut(node) else { continue };
            state.cells.clone_from(&cells);
            state.number_of_assignments += 1;
            if let Some(table) = state.memory_map.get_mut(kind) {
                let part = left.min(table.free);
                table.free -= part;
                table.reserved += part;
                left -= part;
            }
        }
        blocks.push(Block { numa_affinity: cells.clone(), r#type: kind.clone(), size: *size });
    }
    blocks
}

/// Gives memory back.
pub(super) fn give_back(machine: &mut Machine, blocks: &[Block]) {
    for block in blocks {
        let mut left = block.size;
        for node in &block.numa_affinity {
            let Some(state) = machine.get_mut(node) else { continue };
            state.number_of_assignments = (state.number_of_assignments - 1).max(0);
            if state.number_of_assignments == 0 {
                state.cells = vec![*node];
            }
            if let Some(table) = state.memory_map.get_mut(&block.r#type) {
                let part = left.min(table.reserved);
                table.free += part;
                table.reserved -= part;
                left -= part;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let table = Table { total: 10, system_reserved: 2, allocatable: 8, reserved: 0, free: 8 };
        let node = |number: u32| NodeState {
            number_of_assignments: 0,
            memory_map: [("memory".to_owned(), table)].into(),
            cells: vec![number],
        };
        [(0, node(0)), (1, node(1))].into()
    }

    fn wanted(size: u64) -> Wanted {
        [("memory".to_owned(), size)].into()
    }

    #[test]
    fn memory_comes_from_as_few_nodes_as_can_be() {
        let mut machine = machine();
        let (first, second, both) = (Mask::of([0]), Mask::of([1]), Mask::of([0, 1]));
        assert_eq!(hints(&machine, &wanted(5)), [(first, true), (second, true), (both, false)]);
        let blocks = take(&mut machine, first, &wanted(5));
        assert_eq!(hints(&machine, &wanted(5)), [(second, true)], "a node in use is not shared with others");
        assert_eq!(hints(&machine, &wanted(3)), [(first, true), (second, true)]);
        give_back(&mut machine, &blocks);
        assert_eq!(machine, self::machine());
    }

    #[test]
    fn nodes_in_company_stay_in_it() {
        let mut machine = machine();
        let both = Mask::of([0, 1]);
        assert_eq!(hints(&machine, &wanted(12)), [(both, true)]);
        let blocks = take(&mut machine, both, &wanted(12));
        assert_eq!(machine[&1].memory_map["memory"].free, 4);
        assert_eq!(hints(&machine, &wanted(2)), [(both, false)]);
        assert!(hints(&machine, &wanted(17)).is_empty());
        give_back(&mut machine, &blocks);
        assert_eq!(machine, self::machine());
    }
}
