//! Sets of NUMA nodes, and agreeing on one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// NUMA nodes by number, below 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mask(u64);

impl Mask {
    /// These nodes.
    pub fn of(nodes: impl IntoIterator<Item = u32>) -> Self {
        Self(nodes.into_iter().filter(|node| *node < 64).fold(0, |bits, node| bits | 1 << node))
    }

    /// Whether a node is in it.
    pub fn contains(self, node: u32) -> bool {
        node < 64 && self.0 >> node & 1 == 1
    }

    /// How many there are.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Fewer nodes are narrower; of as many those closer to each other, where that is asked for, then the lower ones.
    fn is_narrower(self, other: Self, near: Option<&Distances>) -> bool {
        let rank = |mask: Self| (mask.len(), near.map_or(0, |distances| distances.within(mask)), mask.0);
        rank(self) < rank(other)
    }

    /// The nodes.
    fn nodes(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |node| self.contains(*node))
    }

    /// Every set of some of these nodes, small ones first. Not more than [`MOST_NODES`] are combined.
    pub fn combinations(nodes: &BTreeSet<u32>) -> Vec<Self> {
        let nodes: Vec<u32> = nodes.iter().copied().take(MOST_NODES).collect();
        let subset = |bits: u32| {
            Self::of(nodes.iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1).map(|(_, node)| *node))
        };
        let mut all: Vec<Self> = (1..1_u32 << nodes.len()).map(subset).collect();
        all.sort_by_key(|mask| (mask.len(), mask.0));
        all
    }
}

/// More nodes make the combinations many, which has to be asked for.
pub(super) const MAX_NODES: usize = 8;
/// More make them too many.
pub(super) const MOST_NODES: usize = 16;

/// How far NUMA nodes are from each other, as the kernel tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distances(BTreeMap<(u32, u32), u64>);

impl Distances {
    /// Reads the kernel's description, `/sys/devices/system`.
    pub fn read(root: &Path, nodes: &BTreeSet<u32>) -> Self {
        let mut found = BTreeMap::new();
        for from in nodes {
            let path = root.join(format!("node/node{from}/distance"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let distances = text.split_whitespace().filter_map(|word| word.parse().ok());
            found.extend(nodes.iter().zip(distances).map(|(to, distance)| ((*from, *to), distance)));
        }
        Self(found)
    }

    /// All distances between nodes of a set; comparable between sets of as many nodes.
    fn within(&self, mask: Mask) -> u64 {
        let pairs = mask.nodes().flat_map(|from| mask.nodes().map(move |to| (from, to)));
        pairs.filter_map(|pair| self.0.get(&pair)).sum()
    }
}

/// Where one resource could come from: nodes, and whether these are as few as can be. No list: it does not matter.
pub type Hints = Option<Vec<(Mask, bool)>>;

/// Who agrees to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nobody is asked.
    None,
    /// The best there is.
    BestEffort,
    /// As few nodes as can be, or nothing.
    Restricted,
    /// One node, or nothing.
    SingleNode,
}

/// There are no nodes that the policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagreement;

/// Finds the nodes that suit all resources best; an error if the policy wants none of what there is. `near`: of as many
/// nodes those are better that are closer to each other.
pub fn agree(
    policy: Policy,
    all: Mask,
    wishes: &[Hints],
    near: Option<&Distances>,
) -> Result<Option<Mask>, Disagreement> {
    if policy == Policy::None {
        return Ok(None);
    }
    let single = |hint: &(Option<Mask>, bool)| match hint.0 {
        Some(mask) => mask.len() == 1 && hint.1,
        None => hint.1,
    };
    let lists: Vec<Vec<(Option<Mask>, bool)>> = wishes
        .iter()
        .map(|hints| match hints.as_deref() {
            None => vec![(None, true)],
            Some([]) => vec![(None, false)],
            Some(hints) => hints.iter().map(|(mask, preferred)| (Some(*mask), *preferred)).collect(),
        })
        .map(|list: Vec<(Option<Mask>, bool)>| match policy {
            Policy::SingleNode => list.into_iter().filter(single).collect(),
            _ => list,
        })
        .collect();
    let mut best = (all, false);
    let mut chosen = Vec::new();
    permute(&lists, &mut chosen, &mut |permutation| {
        let merged = merge(all, permutation);
        let better = (merged.1 && !best.1) || (merged.1 == best.1 && merged.0.is_narrower(best.0, near));
        if !merged.0.is_empty() && better {
            best = merged;
        }
    });
    let admitted = policy == Policy::BestEffort || best.1;
    if admitted { Ok((best.0 != all).then_some(best.0)) } else { Err(Disagreement) }
}

/// Calls `each` with one hint of every list, in all ways.
fn permute(
    lists: &[Vec<(Option<Mask>, bool)>],
    chosen: &mut Vec<(Option<Mask>, bool)>,
    each: &mut impl FnMut(&[(Option<Mask>, bool)]),
) {
    let Some((first, rest)) = lists.split_first() else { return each(chosen) };
    for hint in first {
        chosen.push(*hint);
        permute(rest, chosen, each);
        chosen.pop();
    }
}

/// Preferred is only what all prefer, and all the same.
fn merge(all: Mask, permutation: &[(Option<Mask>, bool)]) -> (Mask, bool) {
    let named: Vec<Mask> = permutation.iter().filter_map(|(mask, _)| *mask).collect();
    let preferred = permutation.iter().all(|(_, preferred)| *preferred) && named.windows(2).all(|two| two[0] == two[1]);
    (named.into_iter().fold(all, Mask::and), preferred)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(list: &[(&[u32], bool)]) -> Hints {
        Some(list.iter().map(|(nodes, preferred)| (Mask::of(nodes.iter().copied()), *preferred)).collect())
    }

    #[test]
    fn policies_agree_or_refuse() {
        let all = Mask::of([0, 1]);
        let here = hints(&[(&[0], true), (&[1], true), (&[0, 1], false)]);
        let there = hints(&[(&[1], true), (&[0, 1], false)]);
        let wide = hints(&[(&[0, 1], true)]);
        let late = hints(&[(&[0, 1], false)]);
        let none = hints(&[]);
        let one = |node: u32| Ok(Some(Mask::of([node])));
        for (policy, wishes, expected) in [
            (Policy::None, vec![none.clone()], Ok(None)),
            (Policy::BestEffort, vec![here.clone(), there.clone()], one(1)),
            (Policy::Restricted, vec![here.clone(), there.clone()], one(1)),
            (Policy::SingleNode, vec![here.clone(), there.clone(), None], one(1)),
            (Policy::BestEffort, vec![late.clone()], Ok(None)),
            (Policy::Restricted, vec![late.clone()], Err(Disagreement)),
            (Policy::Restricted, vec![wide.clone()], Ok(None)),
            (Policy::SingleNode, vec![wide], Err(Disagreement)),
            (Policy::Restricted, vec![none.clone()], Err(Disagreement)),
            (Policy::BestEffort, vec![none], Ok(None)),
            (Policy::SingleNode, vec![None], Ok(None)),
        ] {
            assert_eq!(agree(policy, all, &wishes, None), expected, "{policy:?} {wishes:?}");
        }
    }

    #[test]
    fn close_nodes_are_better_where_wanted() {
        let root = tempfile::tempdir().unwrap();
        for (node, distances) in ["10 21 11", "21 10 21", "11 21 10"].iter().enumerate() {
            let dir = root.path().join(format!("node/node{node}"));
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("distance"), distances).unwrap();
        }
        let distances = Distances::read(root.path(), &[0, 1, 2].into());
        let two = hints(&[(&[0, 1], true), (&[0, 2], true), (&[1, 2], true)]);
        let all = Mask::of([0, 1, 2]);
        let chosen = |near| agree(Policy::BestEffort, all, std::slice::from_ref(&two), near);
        assert_eq!(chosen(None), Ok(Some(Mask::of([0, 1]))));
        assert_eq!(chosen(Some(&distances)), Ok(Some(Mask::of([0, 2]))));
    }

    #[test]
    fn combinations_grow() {
        let all = Mask::combinations(&[0, 2].into());
        assert_eq!(all, [Mask::of([0]), Mask::of([2]), Mask::of([0, 2])]);
    }
}
