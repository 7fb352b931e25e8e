//! How a machine's processors hang together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::set::CpuSet;

/// Where a processor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// NUMA node.
    pub node: u32,
    /// Package.
    pub socket: u32,
    /// Core, a number unique on the machine.
    pub core: u32,
    /// The last cache that it shares with others, a number unique on the machine.
    pub cache: u32,
}

/// All processors that are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuLayout {
    /// Place by number.
    pub cpus: BTreeMap<u32, Place>,
}

impl CpuLayout {
    /// Reads the kernel's description, `/sys/devices/system`.
    pub fn read(root: &Path) -> Self {
        let list = |path: &Path| {
            fs::read_to_string(path).ok().and_then(|text| text.parse::<CpuSet>().ok()).unwrap_or_default()
        };
        let online = list(&root.join("cpu/online"));
        let mut nodes = BTreeMap::new();
        for node in list(&root.join("node/online")).iter() {
            for cpu in list(&root.join(format!("node/node{node}/cpulist"))).iter() {
                nodes.insert(cpu, node);
            }
        }
        let cpus = online.iter().map(|cpu| {
            let dir = root.join(format!("cpu/cpu{cpu}/topology"));
            let number = |name: &str| fs::read_to_string(dir.join(name)).ok().and_then(|text| text.trim().parse().ok());
            // The first of the threads of a core names it: core ids repeat on every package.
            let core = list(&dir.join("thread_siblings_list")).iter().next().unwrap_or(cpu);
            let socket = number("physical_package_id").unwrap_or(0);
            // A machine that tells of no such cache has one for each package.
            let cached = list(&root.join(format!("cpu/cpu{cpu}/cache/index3/shared_cpu_list")));
            let cache = cached.iter().next().unwrap_or(socket);
            (cpu, Place { node: nodes.get(&cpu).copied().unwrap_or(0), socket, core, cache })
        });
        Self { cpus: cpus.collect() }
    }

    /// Every processor.
    pub fn all(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    /// NUMA nodes with processors.
    pub fn nodes(&self) -> BTreeSet<u32> {
        self.cpus.values().map(|place| place.node).collect()
    }

    /// Processors on some NUMA nodes.
    pub fn on_nodes(&self, is_meant: impl Fn(u32) -> bool) -> CpuSet {
        self.cpus.iter().filter(|(_, place)| is_meant(place.node)).map(|(cpu, _)| *cpu).collect()
    }

    /// Threads of each core.
    pub fn threads_per_core(&self) -> usize {
        let cores: BTreeSet<u32> = self.cpus.values().map(|place| place.core).collect();
        self.cpus.len() / cores.len().max(1)
    }

    /// Chooses processors that are close to each other: whole NUMA nodes and packages where as many are wanted, then
    /// whole cores, then threads, each time from where least is left. With `spread`, one thread of each core first.
    pub fn choose(&self, available: &CpuSet, count: usize, spread: bool) -> Option<CpuSet> {
        if available.len() < count {
            return None;
        }
        let mut chosen = CpuSet::default();
        let mut left = available.clone();
        let groups: [fn(&Place) -> u32; 3] = [|place| place.node, |place| place.socket, |place| place.core];
        for group in groups.into_iter().take(if spread { 0 } else { 3 }) {
            for whole in self.whole(&left, group) {
                if whole.len() <= count - chosen.len() {
                    left = left.difference(&whole);
                    chosen = chosen.union(&whole);
                }
            }
        }
        let mut rest: Vec<u32> = left.iter().collect();
        let free = |cpu: u32, group: fn(&Place) -> u32| {
            let own = self.cpus.get(&cpu).map(group);
            left.iter().filter(|other| self.cpus.get(other).map(group) == own).count()
        };
        let near = |cpu: u32| {
            let place = self.cpus.get(&cpu);
            !chosen.iter().any(|taken| self.cpus.get(&taken).map(|other| other.socket) == place.map(|p| p.socket))
        };
        let thread = |cpu: u32| {
            let core = self.cpus.get(&cpu).map(|place| place.core);
            left.iter().filter(|other| *other < cpu && self.cpus.get(other).map(|place| place.core) == core).count()
        };
        rest.sort_by_cached_key(|cpu| {
            let by_core = if spread { thread(*cpu) } else { free(*cpu, |place| place.core) };
            let far = near(*cpu);
            let by_socket = free(*cpu, |place| place.socket);
            if spread {
                (by_core, usize::from(far), by_socket, *cpu)
            } else {
                (usize::from(far), by_socket, by_core, *cpu)
            }
        });
        Some(chosen.iter().chain(rest.into_iter().take(count - chosen.len())).collect())
    }

    /// Chooses processors of as few caches as can be: whole ones where as many are wanted, then some of one that has
    /// enough, whole cores first. What no cache has alone comes from anywhere.
    pub fn choose_by_cache(&self, available: &CpuSet, count: usize) -> Option<CpuSet> {
        if available.len() < count {
            return None;
        }
        let (mut chosen, mut left) = (CpuSet::default(), available.clone());
        for whole in self.whole(&left, |place| place.cache) {
            if whole.len() <= count - chosen.len() {
                left = left.difference(&whole);
                chosen = chosen.union(&whole);
            }
        }
        let rest = count - chosen.len();
        let mut parts: BTreeMap<u32, CpuSet> = BTreeMap::new();
        for (cpu, place) in self.cpus.iter().filter(|(cpu, _)| left.contains(**cpu)) {
            let entry = parts.entry(place.cache).or_default();
            *entry = entry.union(&CpuSet::from_iter([*cpu]));
        }
        let enough = parts.into_values().filter(|part| part.len() >= rest).min_by_key(CpuSet::len);
        let more = self.choose(enough.as_ref().unwrap_or(&left), rest, false)?;
        Some(chosen.union(&more))
    }

    /// Whether processors are of as few caches as can be.
    pub fn is_cache_aligned(&self, cpus: &CpuSet) -> bool {
        let used: BTreeSet<u32> = cpus.iter().filter_map(|cpu| Some(self.cpus.get(&cpu)?.cache)).collect();
        let all: BTreeSet<u32> = self.cpus.values().map(|place| place.cache).collect();
        let size = self.cpus.len() / all.len().max(1);
        used.len() <= cpus.len().div_ceil(size.max(1))
    }

    /// Packages of some NUMA nodes.
    pub fn sockets(&self, is_meant: impl Fn(u32) -> bool) -> BTreeSet<u32> {
        self.cpus.values().filter(|place| is_meant(place.node)).map(|place| place.socket).collect()
    }

    /// Groups of which every processor is still there.
    fn whole(&self, left: &CpuSet, group: fn(&Place) -> u32) -> Vec<CpuSet> {
        let mut groups: BTreeMap<u32, CpuSet> = BTreeMap::new();
        for (cpu, place) in &self.cpus {
            let entry = groups.entry(group(place)).or_default();
            *entry = entry.union(&CpuSet::from_iter([*cpu]));
        }
        groups.into_values().filter(|whole| whole.is_subset(left)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two packages of two cores of two threads; threads of a core are four apart.
    fn machine() -> CpuLayout {
        let place = |cpu: u32| Place { node: cpu % 4 / 2, socket: cpu % 4 / 2, core: cpu % 4, cache: 0 };
        CpuLayout { cpus: (0..8).map(|cpu| (cpu, place(cpu))).collect() }
    }

    #[test]
    fn what_is_whole_is_taken_whole() {
        let machine = machine();
        assert_eq!(machine.threads_per_core(), 2);
        for (available, count, expected) in [
            ("0-7", 4, "0-1,4-5"),
            ("0-7", 2, "0,4"),
            ("0-7", 1, "0"),
            ("1-7", 1, "4"),
            ("1-7", 2, "1,5"),
            ("1-7", 5, "2-4,6-7"),
            ("0-7", 8, "0-7"),
        ] {
            let available: CpuSet = available.parse().unwrap();
            let chosen = machine.choose(&available, count, false).unwrap();
            assert_eq!(chosen.len(), count);
            assert_eq!(chosen.to_string(), expected, "{count} of {available}");
        }
        assert_eq!(machine.choose(&"0-2".parse().unwrap(), 4, false), None);
        assert_eq!(machine.choose(&machine.all(), 4, true).unwrap().to_string(), "0-3");
    }

    #[test]
    fn caches_are_not_shared_where_that_can_be() {
        // One package with three caches of four processors, two threads to a core.
        let place = |cpu: u32| Place { node: 0, socket: 0, core: cpu / 2, cache: cpu / 4 };
        let machine = CpuLayout { cpus: (0..12).map(|cpu| (cpu, place(cpu))).collect() };
        for (available, count, expected, aligned) in [
            ("1-11", 4, "4-7", true),
            ("1-11", 2, "2-3", true),
            ("0-11", 6, "0-5", true),
            ("2-3,6-7,10-11", 4, "2-3,6-7", false),
        ] {
            let chosen = machine.choose_by_cache(&available.parse().unwrap(), count).unwrap();
            assert_eq!(chosen.to_string(), expected, "{count} of {available}");
            assert_eq!(machine.is_cache_aligned(&chosen), aligned, "{count} of {available}");
        }
        assert_eq!(machine.choose_by_cache(&"0-2".parse().unwrap(), 4), None);
    }

    #[test]
    fn the_kernel_describes_every_processor() {
        let layout = CpuLayout::read(Path::new("/sys/devices/system"));
        assert!(!layout.cpus.is_empty() && !layout.nodes().is_empty());
        assert_eq!(layout.on_nodes(|_| true), layout.all());
    }
}
