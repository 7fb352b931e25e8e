//! Memory that containers of Guaranteed Pods have on NUMA nodes of their own.

mod file;
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::allot::{Hints, Mask};
use crate::config::KubeletConfiguration;
use crate::metrics::METRICS;
use crate::pods;
use crate::pods::quantity;
use crate::pods::resources::{self, Qos, qos};
use file::Assignments;
use tables::{Machine, NodeState, Table, Wanted};

const STATE: &str = "memory_manager_state";
const STATIC: &str = "Static";

/// What the system keeps on one NUMA node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Reservation {
    numa_node: u32,
    limits: BTreeMap<String, Quantity>,
}

#[derive(Debug, Default)]
struct State {
    machine: Machine,
    assignments: Assignments,
}

/// Memory of one kind that a container holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldMemory {
    /// `memory` or `hugepages-<size>`.
    pub kind: String,
    /// Bytes.
    pub size: u64,
    /// NUMA nodes.
    pub nodes: Vec<u32>,
}

/// The memory of this node.
pub struct Memory {
    path: PathBuf,
    is_static: bool,
    state: Mutex<State>,
}

impl Memory {
    /// Begins with what an earlier kubelet of the same policy gave away. `devices`: the kernel's description of the
    /// machine, `/sys/devices/system`.
    pub fn open(config: &KubeletConfiguration, root: &Path, devices: &Path) -> Result<Arc<Self>, String> {
        let path = root.join(STATE);
        let policy = config.memory_manager_policy.as_str();
        let advice = |error: String| {
            format!(
                "could not restore state from checkpoint: {error}, please drain this node and delete the memory manager checkpoint file {:?} before restarting Kubelet",
                path.display().to_string()
            )
        };
        let found = file::read(&path, policy).map_err(advice)?;
        let mut state = State::default();
        if policy == STATIC {
            state.machine = machine(config, devices)?;
            if let Some((machine, assignments)) = found {
                check(&machine, &state.machine)?;
                state = State { machine, assignments };
            }
        }
        let memory = Arc::new(Self { path, is_static: policy == STATIC, state: Mutex::new(state) });
        memory.save();
        Ok(memory)
    }

    fn save(&self) {
        let state = self.state.lock();
        let policy = if self.is_static { STATIC } else { "None" };
        if let Err(error) = file::write(&self.path, policy, &state.machine, &state.assignments) {
            tracing::error!(%error, "writing the state of memory");
        }
    }

    /// What a container wants for itself.
    fn wanted(&self, pod: &Pod, container: &Container) -> Wanted {
        if !self.is_static || qos(pod) != Qos::Guaranteed {
            return Wanted::new();
        }
        let own = container.resources.as_ref();
        let requests = own.and_then(|own| own.requests.as_ref().or(own.limits.as_ref()));
        let kinds = requests.into_iter().flatten().map(|(name, _)| name);
        let kinds = kinds.filter(|name| *name == "memory" || name.starts_with("hugepages-"));
        let sized = |name: &String| Some((name.clone(), u64::try_from(resources::request(own, name)?).ok()?));
        kinds.filter_map(sized).filter(|(_, size)| *size > 0).collect()
    }

    /// NUMA nodes that have what containers want; `None` if it does not matter.
    pub fn hints(&self, pod: &Pod, containers: &[&Container]) -> Hints {
        let mut wanted = Wanted::new();
        for (kind, size) in containers.iter().flat_map(|container| self.wanted(pod, container)) {
            let entry = wanted.entry(kind).or_default();
            *entry = entry.saturating_add(size);
        }
        if wanted.is_empty() {
            return None;
        }
        let state = self.state.lock();
        let held = state.assignments.get(pods::uid(pod)).and_then(|own| {
            let blocks = containers.iter().filter_map(|container| own.get(&container.name)).flatten();
            blocks.map(|block| Mask::of(block.numa_affinity.iter().copied())).next()
        });
        match held {
            Some(mask) => Some(vec![(mask, true)]),
            None => Some(tables::hints(&state.machine, &wanted)),
        }
    }

    /// Gives a container its memory.
    pub fn allocate(&self, pod: &Pod, container: &Container, mask: Option<Mask>) -> Result<(), String> {
        let wanted = self.wanted(pod, container);
        if wanted.is_empty() {
            return Ok(());
        }
        {
            let mut state = self.state.lock();
            if state.assignments.get(pods::uid(pod)).is_some_and(|own| own.contains_key(&container.name)) {
                return Ok(());
            }
            METRICS.allot.memory_requests.inc();
            let possible = tables::hints(&state.machine, &wanted);
            let fits = |mask: &Mask| possible.iter().any(|(one, _)| one == mask);
            let best = possible.iter().find(|(_, preferred)| *preferred).or(possible.first()).map(|(mask, _)| *mask);
            let Some(mask) = mask.filter(fits).or(best) else {
                METRICS.allot.memory_errors.inc();
                return Err("[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available".to_owned());
            };
            let blocks = tables::take(&mut state.machine, mask, &wanted);
            let own = state.assignments.entry(pods::uid(pod).to_owned()).or_default();
            own.insert(container.name.clone(), blocks);
        }
        self.save();
        Ok(())
    }

    /// NUMA nodes that a container's memory has to come from, as the kernel lists them.
    pub fn nodes(&self, uid: &str, container: &str) -> Option<String> {
        let held = self.held(uid, container);
        let nodes: crate::cpus::CpuSet = held.iter().flat_map(|one| one.nodes.iter().copied()).collect();
        (!nodes.is_empty()).then(|| nodes.to_string())
    }

    /// What a container holds.
    pub fn held(&self, uid: &str, container: &str) -> Vec<HeldMemory> {
        let state = self.state.lock();
        let blocks = state.assignments.get(uid).and_then(|own| own.get(container)).into_iter().flatten();
        let one = |block: &tables::Block| HeldMemory {
            kind: block.r#type.clone(),
            size: block.size,
            nodes: block.numa_affinity.clone(),
        };
        blocks.map(one).collect()
    }

    /// What can be given away at all.
    pub fn allocatable(&self) -> Vec<HeldMemory> {
        let state = self.state.lock();
        let mut out = Vec::new();
        for (node, own) in &state.machine {
            for (kind, table) in own.memory_map.iter().filter(|(_, table)| table.allocatable > 0) {
                out.push(HeldMemory { kind: kind.clone(), size: table.allocatable, nodes: vec![*node] });
            }
        }
        out
    }

    /// Takes everything back from a Pod that is over.
    pub fn release(&self, uid: &str) {
        {
            let mut state = self.state.lock();
            let Some(own) = state.assignments.remove(uid) else { return };
            own.values().for_each(|blocks| tables::give_back(&mut state.machine, blocks));
        }
        self.save();
    }

    /// Takes everything back from Pods that are not among these.
    pub fn retain(&self, is_known: impl Fn(&str) -> bool) {
        let owners: Vec<String> = self.state.lock().assignments.keys().cloned().collect();
        owners.iter().filter(|uid| !is_known(uid)).for_each(|uid| self.release(uid));
    }
}

/// Whether the machine is still the one that a state speaks of.
fn check(state: &Machine, machine: &Machine) -> Result<(), String> {
    let shape = |machine: &Machine| -> Vec<(u32, String, u64, u64)> {
        let tables = machine.iter().flat_map(|(node, own)| own.memory_map.iter().map(move |entry| (node, entry)));
        tables.map(|(node, (kind, table))| (*node, kind.clone(), table.total, table.system_reserved)).collect()
    };
    if shape(state) == shape(machine) {
        return Ok(());
    }
    Err("[memorymanager] the expected machine state is different from the real one".to_owned())
}

/// The nodes as the kernel describes them, less what is reserved.
fn machine(config: &KubeletConfiguration, devices: &Path) -> Result<Machine, String> {
    let reserved = reservations(config)?;
    let online = std::fs::read_to_string(devices.join("node/online")).unwrap_or_else(|_| "0".to_owned());
    let nodes: crate::cpus::CpuSet = online.parse().map_err(|_| format!("{online:?} is no list of NUMA nodes"))?;
    let mut machine = Machine::new();
    for node in nodes.iter() {
        let dir = devices.join(format!("node/node{node}"));
        let mut pages = 0;
        let mut tables = BTreeMap::new();
        for (name, size, bytes) in huge_pages(&dir.join("hugepages")) {
            tables.insert(format!("hugepages-{name}"), (bytes, size));
            pages += bytes;
        }
        tables.insert("memory".to_owned(), (node_memory(&dir).unwrap_or(0).saturating_sub(pages), 0));
        let memory_map = tables.into_iter().map(|(kind, (total, _))| {
            let kept = reserved.get(&(node, kind.clone())).copied().unwrap_or(0);
            let free = total.saturating_sub(kept);
            (kind, Table { total, system_reserved: kept, allocatable: free, reserved: 0, free })
        });
        let own = NodeState { number_of_assignments: 0, memory_map: memory_map.collect(), cells: vec![node] };
        machine.insert(node, own);
    }
    Ok(machine)
}

/// What is kept by node and kind; its sum is what the node as a whole keeps.
fn reservations(config: &KubeletConfiguration) -> Result<BTreeMap<(u32, String), u64>, String> {
    let mut out = BTreeMap::new();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for value in &config.reserved_memory {
        let one: Reservation =
            serde_json::from_value(value.clone()).map_err(|error| format!("reservedMemory: {error}"))?;
        for (kind, amount) in one.limits {
            let size = u64::try_from(quantity::value(&amount)).unwrap_or(0);
            *sums.entry(kind.clone()).or_default() += size;
            if out.insert((one.numa_node, kind.clone()), size).is_some() {
                return Err(format!(
                    "the reserved memory has a duplicate value for NUMA node {} and resource {kind}",
                    one.numa_node
                ));
            }
        }
    }
    let mut kinds: Vec<String> = sums.keys().cloned().collect();
    kinds.push("memory".to_owned());
    for kind in kinds {
        let whole = u64::try_from(crate::node::machine::withheld(config, &kind)).unwrap_or(0);
        let sum = sums.get(&kind).copied().unwrap_or(0);
        if sum != whole {
            return Err(format!(
                "the total amount \"{sum}\" of type {kind:?} is not equal to the value \"{whole}\" determined by Node Allocatable feature"
            ));
        }
    }
    Ok(out)
}

fn node_memory(dir: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(dir.join("meminfo")).ok()?;
    let line = text.lines().find(|line| line.contains("MemTotal:"))?;
    line.split_whitespace().rev().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Name, size and total bytes of each kind of huge pages of a node.
fn huge_pages(dir: &Path) -> Vec<(String, u64, u64)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let one = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count = std::fs::read_to_string(entry.path().join("nr_hugepages")).ok()?;
        let count: u64 = count.trim().parse().ok()?;
        let shown = match kilobytes {
            n if n >= 1 << 20 => format!("{}Gi", n >> 20),
            n if n >= 1 << 10 => format!("{}Mi", n >> 10),
            n => format!("{n}Ki"),
        };
        Some((shown, kilobytes * 1024, kilobytes * 1024 * count))
    };
    entries.filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn machine_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("node")).unwrap();
        std::fs::write(dir.path().join("node/online"), "0-1").unwrap();
        for node in 0..2 {
            let own = dir.path().join(format!("node/node{node}"));
            std::fs::create_dir_all(&own).unwrap();
            std::fs::write(own.join("meminfo"), format!("Node {node} MemTotal:       4194304 kB\n")).unwrap();
        }
        dir
    }

    fn config(reserved: &str) -> KubeletConfiguration {
        KubeletConfiguration {
            memory_manager_policy: "Static".into(),
            kube_reserved: [("memory".to_owned(), "924Mi".to_owned())].into(),
            reserved_memory: vec![json!({ "numaNode": 0, "limits": { "memory": reserved } })],
            ..KubeletConfiguration::default()
        }
    }

    fn pod(uid: &str, memory: &str) -> Pod {
        let amounts = json!({ "cpu": "1", "memory": memory });
        let value = json!({ "metadata": { "uid": uid }, "spec": {
            "containers": [{ "name": "c", "resources": { "limits": amounts, "requests": amounts } }],
        } });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn guaranteed_containers_have_nodes_of_their_own() {
        let (root, devices) = (tempfile::tempdir().unwrap(), machine_dir());
        let error = Memory::open(&config("1Mi"), root.path(), devices.path()).err().unwrap();
        assert!(error.contains("determined by Node Allocatable feature"), "{error}");
        let memory = Memory::open(&config("1Gi"), root.path(), devices.path()).unwrap();
        let sizes: Vec<u64> = memory.allocatable().iter().map(|one| one.size >> 30).collect();
        assert_eq!(sizes, [3, 4]);
        let give = |memory: &Memory, uid: &str, size: &str| {
            let pod = pod(uid, size);
            memory.allocate(&pod, &pods::containers(&pod)[0], None)?;
            Ok::<_, String>(memory.nodes(uid, "c").unwrap_or_default())
        };
        assert_eq!(give(&memory, "u1", "3584Mi").unwrap(), "1");
        assert_eq!(give(&memory, "u2", "3Gi").unwrap(), "0");
        let error = give(&memory, "u3", "1Gi").unwrap_err();
        assert!(error.starts_with("[memorymanager] failed to get the default NUMA affinity"), "{error}");
        let later = Memory::open(&config("1Gi"), root.path(), devices.path()).unwrap();
        assert_eq!(later.nodes("u1", "c").as_deref(), Some("1"));
        later.retain(|uid| uid == "u1");
        assert_eq!(give(&later, "u3", "1Gi").unwrap(), "0");
        let other = Memory::open(&KubeletConfiguration::default(), root.path(), devices.path()).err().unwrap();
        assert!(other.contains("differs from state checkpoint policy \"Static\""), "{other}");
    }
}
