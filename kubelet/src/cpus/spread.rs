//! Processors spread evenly over NUMA nodes.

use std::collections::BTreeMap;

use super::layout::CpuLayout;
use super::set::CpuSet;
use crate::allot::Mask;

impl CpuLayout {
    /// Chooses processors from as few NUMA nodes as have enough, and from each of these as many as from the others, in
    /// groups of `unit`. Of several such sets of nodes the one counts that leaves the nodes most alike. `None` if no
    /// nodes can give equal parts.
    pub fn choose_evenly(&self, available: &CpuSet, count: usize, unit: usize) -> Option<CpuSet> {
        let unit = unit.max(1);
        let free: BTreeMap<u32, CpuSet> = self
            .nodes()
            .into_iter()
            .map(|node| (node, self.on_nodes(|one| one == node).intersection(available)))
            .collect();
        let sets = Mask::combinations(&self.nodes());
        for size in 1..=free.len() {
            let of_size = sets.iter().filter(|mask| mask.len() as usize == size);
            let shares = of_size.filter_map(|mask| shares(&free, *mask, count, unit));
            let unevenness = |shares: &BTreeMap<u32, usize>| unevenness(&free, shares);
            if let Some(best) = shares.min_by_key(unevenness) {
                return self.take(&free, &best);
            }
        }
        None
    }

    fn take(&self, free: &BTreeMap<u32, CpuSet>, shares: &BTreeMap<u32, usize>) -> Option<CpuSet> {
        let mut chosen = CpuSet::default();
        for (node, share) in shares {
            chosen = chosen.union(&self.choose(free.get(node)?, *share, false)?);
        }
        Some(chosen)
    }
}

/// How many each node of a set gives: equal parts, and what is left over one unit after the other.
fn shares(free: &BTreeMap<u32, CpuSet>, mask: Mask, count: usize, unit: usize) -> Option<BTreeMap<u32, usize>> {
    let nodes: Vec<u32> = free.keys().copied().filter(|node| mask.contains(*node)).collect();
    let part = count / nodes.len() / unit * unit;
    let room = |node: u32| free.get(&node).map_or(0, CpuSet::len);
    if nodes.iter().any(|node| room(*node) < part) {
        return None;
    }
    let mut shares: BTreeMap<u32, usize> = nodes.iter().map(|node| (*node, part)).collect();
    let mut left = count - part * nodes.len();
    // Those with the most room give more.
    let mut by_room = nodes;
    by_room.sort_by_key(|node| (std::cmp::Reverse(room(*node)), *node));
    while left > 0 {
        let before = left;
        for node in &by_room {
            let more = unit.min(left);
            let share = shares.get_mut(node)?;
            if more > 0 && *share + more <= room(*node) {
                *share += more;
                left -= more;
            }
        }
        if left == before {
            return None;
        }
    }
    Some(shares)
}

/// How different nodes are from each other afterwards: the sum of squares of what is free, which is least when all have
/// the same.
fn unevenness(free: &BTreeMap<u32, CpuSet>, shares: &BTreeMap<u32, usize>) -> usize {
    let after = free.iter().map(|(node, cpus)| cpus.len() - shares.get(node).copied().unwrap_or(0));
    after.map(|left| left * left).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpus::Place;

    /// Four NUMA nodes of two cores of two threads.
    fn machine() -> CpuLayout {
        let place = |cpu: u32| Place { node: cpu / 4, socket: cpu / 8, core: cpu / 2, cache: cpu / 4 };
        CpuLayout { cpus: (0..16).map(|cpu| (cpu, place(cpu))).collect() }
    }

    #[test]
    fn few_nodes_give_equal_parts() {
        for (available, count, unit, expected) in [
            ("0-15", 4, 1, Some("0-3")),
            ("0-15", 6, 1, Some("0-2,4-6")),
            ("0-15", 6, 2, Some("0-3,4-5")),
            ("0-15", 12, 1, Some("0-11")),
            ("0-1,4-15", 8, 1, Some("4-11")),
            ("0-1,4-5", 4, 1, Some("0-1,4-5")),
            ("0-2", 4, 1, None),
        ] {
            let chosen = machine().choose_evenly(&available.parse().unwrap(), count, unit);
            let expected: Option<CpuSet> = expected.map(|list| list.parse().unwrap());
            assert_eq!(chosen, expected, "{count} of {available} by {unit}");
        }
    }
}
