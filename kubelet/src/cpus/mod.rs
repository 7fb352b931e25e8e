//! Processors that containers have to themselves.
//!
//! With the static policy a container of a Guaranteed Pod that asks for whole processors gets them exclusively; all
//! others share what is left, and what is reserved for the system is never given away.

mod file;
mod layout;
mod reconcile;
mod set;
mod spread;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;

pub use layout::{CpuLayout, Place};
pub use reconcile::reconcile;
pub use set::CpuSet;

use crate::allot::Mask;
use crate::config::KubeletConfiguration;
use crate::metrics::METRICS;
use crate::pods;
use crate::pods::resources::{self, Qos, qos};
use file::Assignments;

const STATE: &str = "cpu_manager_state";
const FULL_CORES: &str = "full-pcpus-only";
const STRICT: &str = "strict-cpu-reservation";
const ACROSS_NODES: &str = "distribute-cpus-across-numa";
const BY_CACHE: &str = "prefer-align-cpus-by-uncorecache";
const ACROSS_CORES: &str = "distribute-cpus-across-cores";
const BY_SOCKET: &str = "align-by-socket";
/// Options of the static policy, with the gate that each needs.
const OPTIONS: [(&str, Option<&str>); 6] = [
    (FULL_CORES, None),
    (STRICT, None),
    (ACROSS_NODES, Some("CPUManagerPolicyBetaOptions")),
    (BY_CACHE, Some("CPUManagerPolicyBetaOptions")),
    (ACROSS_CORES, Some("CPUManagerPolicyAlphaOptions")),
    (BY_SOCKET, Some("CPUManagerPolicyAlphaOptions")),
];
/// Options that contradict each other.
const CONTRADICTIONS: [(&str, &str); 4] =
    [(FULL_CORES, ACROSS_CORES), (ACROSS_NODES, ACROSS_CORES), (ACROSS_NODES, BY_CACHE), (ACROSS_CORES, BY_CACHE)];

/// What is wrong with the options of the policy. `is_on`: which gates are on.
pub(crate) fn check_options(config: &KubeletConfiguration, is_on: impl Fn(&str) -> bool) -> Vec<String> {
    let options = &config.cpu_manager_policy_options;
    let mut problems = Vec::new();
    for (name, value) in options {
        let flag = format!("cpuManagerPolicyOptions (--cpu-manager-policy-options) {name}={value}");
        match OPTIONS.iter().find(|(known, _)| known == name) {
            None => problems.push(format!("{flag} is not supported")),
            Some((_, Some(gate))) if !is_on(gate) => {
                let stage = if gate.contains("Beta") { "Beta" } else { "Alpha" };
                problems.push(format!(
                    "CPU Manager Policy {stage}-level Options not enabled, but option {name:?} provided"
                ));
            }
            Some(_) if !matches!(value.as_str(), "true" | "false") => {
                problems.push(format!("{flag}: bad value for option: must be true or false"));
            }
            Some(_) => {}
        }
    }
    let is_set = |name: &str| options.get(name).is_some_and(|value| value == "true");
    for (one, other) in CONTRADICTIONS.iter().filter(|(one, other)| is_set(one) && is_set(other)) {
        problems.push(format!("static policy options {one} and {other} can not be used at the same time"));
    }
    if !options.is_empty() && config.cpu_manager_policy != "static" {
        problems.push("cpuManagerPolicyOptions (--cpu-manager-policy-options) need the static policy".to_owned());
    }
    problems
}

/// A container that gets no processors.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpuError {
    /// Only whole cores are given.
    #[error("SMT Alignment Error: requested {requested} cpus not multiple cpus per core = {per_core}")]
    Alignment {
        /// Wanted.
        requested: usize,
        /// Threads of a core.
        per_core: usize,
    },
    /// There are not enough.
    #[error("not enough cpus available to satisfy request: requested={requested}, available={available}")]
    TooFew {
        /// Wanted.
        requested: usize,
        /// Free.
        available: usize,
    },
}

#[derive(Debug, Default)]
struct State {
    shared: CpuSet,
    assignments: Assignments,
}

struct Static {
    layout: CpuLayout,
    reserved: CpuSet,
    full_cores: bool,
    spread: bool,
    strict: bool,
    across_nodes: bool,
    by_cache: bool,
    by_socket: bool,
}

/// The processors of this node.
pub struct Cpus {
    path: PathBuf,
    policy: Option<Static>,
    state: Mutex<State>,
}

impl Cpus {
    /// Begins with what an earlier kubelet of the same policy gave away.
    pub fn open(config: &KubeletConfiguration, root: &Path, layout: CpuLayout) -> Result<Arc<Self>, String> {
        let path = root.join(STATE);
        let name = config.cpu_manager_policy.as_str();
        let policy = match name {
            "static" => Some(Static::new(config, layout)?),
            _ => None,
        };
        let advice = |error: String| {
            format!(
                "could not restore state from checkpoint: {error}, please drain this node and delete the CPU manager checkpoint file {:?} before restarting Kubelet",
                path.display().to_string()
            )
        };
        let found = file::read(&path, name).map_err(advice)?;
        let state = match (&policy, found) {
            (None, _) => State::default(),
            (Some(policy), None) => State { shared: policy.initial(), assignments: Assignments::new() },
            (Some(policy), Some((shared, assignments))) => {
                policy.check(&shared, &assignments)?;
                State { shared, assignments }
            }
        };
        let cpus = Arc::new(Self { path, policy, state: Mutex::new(state) });
        cpus.save();
        Ok(cpus)
    }

    fn save(&self) {
        let state = self.state.lock();
        let name = if self.policy.is_some() { "static" } else { "none" };
        if let Err(error) = file::write(&self.path, name, &state.shared, &state.assignments) {
            tracing::error!(%error, "writing the state of processors");
        }
        if let Some(policy) = &self.policy {
            policy.tell(&state);
        }
    }

    /// Whether containers can have processors to themselves.
    pub fn is_static(&self) -> bool {
        self.policy.is_some()
    }

    /// How many processors a container wants for itself.
    pub fn wanted(&self, pod: &Pod, container: &Container) -> usize {
        if self.policy.is_none() || qos(pod) != Qos::Guaranteed {
            return 0;
        }
        let milli = resources::request(container.resources.as_ref(), "cpu").unwrap_or(0);
        if milli % 1000 == 0 { usize::try_from(milli / 1000).unwrap_or(0) } else { 0 }
    }

    /// Processors that could be given to somebody.
    fn free(&self, policy: &Static, reusable: &CpuSet) -> CpuSet {
        self.state.lock().shared.union(reusable).difference(&policy.reserved)
    }

    /// NUMA nodes on which a number of processors could be had; `None` if it does not matter.
    pub fn hints(&self, pod: &Pod, containers: &[&Container], reusable: &CpuSet) -> Option<Vec<(Mask, bool)>> {
        let policy = self.policy.as_ref()?;
        let wanted: usize = containers.iter().map(|container| self.wanted(pod, container)).sum();
        if wanted == 0 {
            return None;
        }
        let held: CpuSet = containers
            .iter()
            .filter_map(|container| self.exclusive(pods::uid(pod), &container.name))
            .fold(CpuSet::default(), |all, one| all.union(&one));
        let free = self.free(policy, &reusable.union(&held));
        let capacity = |mask: Mask| policy.layout.on_nodes(|node| mask.contains(node)).difference(&policy.reserved);
        let nodes = policy.layout.nodes();
        let possible = Mask::combinations(&nodes).into_iter().filter(|mask| capacity(*mask).len() >= wanted);
        let possible: Vec<Mask> = possible.collect();
        let least = possible.iter().map(|mask| mask.len()).min()?;
        let now = possible.iter().copied().filter(|mask| capacity(*mask).intersection(&free).len() >= wanted);
        let sockets = |mask: Mask| policy.layout.sockets(|node| mask.contains(node)).len();
        let fewest = possible.iter().filter(|mask| mask.len() == least).map(|mask| sockets(*mask)).min();
        let is_preferred =
            |mask: Mask| mask.len() == least || (policy.by_socket && fewest.is_some_and(|few| sockets(mask) <= few));
        Some(now.map(|mask| (mask, is_preferred(mask))).collect())
    }

    /// Gives a container the processors it wants. `reusable`: those of containers of the Pod that run before it.
    pub fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        mask: Option<Mask>,
        reusable: &CpuSet,
    ) -> Result<(), CpuError> {
        let (Some(policy), wanted) = (&self.policy, self.wanted(pod, container)) else { return Ok(()) };
        let uid = pods::uid(pod).to_owned();
        if wanted == 0 || self.exclusive(&uid, &container.name).is_some() {
            return Ok(());
        }
        METRICS.allot.cpu_requests.inc();
        let result = self.give(policy, wanted, mask, reusable);
        if result.is_err() {
            METRICS.allot.cpu_errors.inc();
        }
        if policy.full_cores {
            crate::allot::count_alignment("container", "physical_cpu", result.is_ok());
        }
        if policy.by_cache
            && let Ok(given) = &result
        {
            crate::allot::count_alignment("container", "uncore_cache", policy.layout.is_cache_aligned(given));
        }
        let given = result?;
        {
            let mut state = self.state.lock();
            state.shared = state.shared.difference(&given);
            state.assignments.entry(uid).or_default().insert(container.name.clone(), given);
        }
        self.save();
        Ok(())
    }

    fn give(&self, policy: &Static, wanted: usize, mask: Option<Mask>, reusable: &CpuSet) -> Result<CpuSet, CpuError> {
        let per_core = policy.layout.threads_per_core();
        if policy.full_cores && !wanted.is_multiple_of(per_core) {
            return Err(CpuError::Alignment { requested: wanted, per_core });
        }
        let free = self.free(policy, reusable);
        let too_few = CpuError::TooFew { requested: wanted, available: free.len() };
        // What belongs to the Pod already comes first, then what is near.
        let own = reusable.intersection(&free);
        let choose = |from: &CpuSet, count: usize| policy.choose(from, count);
        let mut given = choose(&own, wanted.min(own.len())).unwrap_or_default();
        let near = policy.near(mask);
        for from in [free.intersection(&near), free] {
            let left = from.difference(&given);
            let more = choose(&left, (wanted - given.len()).min(left.len())).unwrap_or_default();
            given = given.union(&more);
        }
        if given.len() < wanted { Err(too_few) } else { Ok(given) }
    }

    /// Processors that a container has to itself.
    pub fn exclusive(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.state.lock().assignments.get(uid)?.get(container).cloned()
    }

    /// Processors that a container may run on, if that is limited.
    pub fn of(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.policy.as_ref()?;
        Some(self.exclusive(uid, container).unwrap_or_else(|| self.state.lock().shared.clone()))
    }

    /// Processors that can be given away at all.
    pub fn allocatable(&self) -> CpuSet {
        self.policy.as_ref().map(|policy| policy.layout.all().difference(&policy.reserved)).unwrap_or_default()
    }

    /// Takes everything back from a Pod that is over.
    pub fn release(&self, uid: &str) {
        let Some(policy) = &self.policy else { return };
        {
            let mut state = self.state.lock();
            let Some(own) = state.assignments.remove(uid) else { return };
            let back = own.values().fold(CpuSet::default(), |all, one| all.union(one));
            let back = if policy.strict { back.difference(&policy.reserved) } else { back };
            // Containers of one Pod may have had the same ones, one after the other.
            state.shared = state.shared.union(&back);
        }
        self.save();
    }

    /// Takes everything back from Pods that are not among these.
    pub fn retain(&self, is_known: impl Fn(&str) -> bool) {
        let owners: Vec<String> = self.state.lock().assignments.keys().cloned().collect();
        owners.iter().filter(|uid| !is_known(uid)).for_each(|uid| self.release(uid));
    }
}

impl Static {
    fn new(config: &KubeletConfiguration, layout: CpuLayout) -> Result<Self, String> {
        let option = |name: &str| config.cpu_manager_policy_options.get(name).is_some_and(|value| value == "true");
        let spread = option(ACROSS_CORES);
        let reserved = reserved(config, &layout)?;
        let (full_cores, strict) = (option(FULL_CORES), option(STRICT));
        let (across_nodes, by_cache, by_socket) = (option(ACROSS_NODES), option(BY_CACHE), option(BY_SOCKET));
        Ok(Self { layout, reserved, full_cores, spread, strict, across_nodes, by_cache, by_socket })
    }

    /// Tells who has what.
    fn tell(&self, state: &State) {
        let count = |cpus: &CpuSet| i64::try_from(cpus.len()).unwrap_or(i64::MAX);
        let exclusive = state.assignments.values().flat_map(BTreeMap::values);
        let exclusive = exclusive.fold(CpuSet::default(), |all, one| all.union(one));
        METRICS.allot.shared_pool.set(state.shared.difference(&self.reserved).len() as f64 * 1000.0);
        METRICS.allot.exclusive_cpus.set(count(&exclusive));
        for node in self.layout.nodes() {
            let here = self.layout.on_nodes(|one| one == node).intersection(&exclusive);
            METRICS.allot.cpus_per_node.with_label_values(&[&node.to_string()]).set(count(&here));
        }
    }

    /// Chooses as the options say.
    fn choose(&self, from: &CpuSet, count: usize) -> Option<CpuSet> {
        let layout = &self.layout;
        if self.across_nodes {
            let unit = if self.full_cores { layout.threads_per_core() } else { 1 };
            return layout.choose_evenly(from, count, unit).or_else(|| layout.choose(from, count, false));
        }
        if self.by_cache {
            return layout.choose_by_cache(from, count);
        }
        layout.choose(from, count, self.spread)
    }

    /// Processors of the nodes of a mask, or of all packages that these nodes are on.
    fn near(&self, mask: Option<Mask>) -> CpuSet {
        let Some(mask) = mask else { return self.layout.all() };
        let sockets = self.layout.sockets(|node| mask.contains(node));
        let is_near = |place: &Place| match self.by_socket {
            true => sockets.contains(&place.socket),
            false => mask.contains(place.node),
        };
        self.layout.cpus.iter().filter(|(_, place)| is_near(place)).map(|(cpu, _)| *cpu).collect()
    }

    /// What is shared as long as nobody has anything.
    fn initial(&self) -> CpuSet {
        if self.strict { self.layout.all().difference(&self.reserved) } else { self.layout.all() }
    }

    /// Whether a state fits this machine.
    fn check(&self, shared: &CpuSet, assignments: &Assignments) -> Result<(), String> {
        if shared.is_empty() && !self.initial().is_empty() && assignments.is_empty() {
            return Err("default cpuset cannot be empty".to_owned());
        }
        if !self.strict && !self.reserved.is_subset(shared) {
            return Err(format!(
                "not all reserved cpus: {:?} are present in defaultCpuSet: {:?}",
                self.reserved.to_string(),
                shared.to_string()
            ));
        }
        let mut all = shared.clone();
        for (uid, own) in assignments {
            for (name, cpus) in own {
                let both = cpus.intersection(shared);
                if !both.is_empty() {
                    return Err(format!(
                        "pod: {uid}, container: {name} cpuset: {cpus:?} overlaps with default cpuset {shared:?}",
                        cpus = cpus.to_string(),
                        shared = shared.to_string()
                    ));
                }
                all = all.union(cpus);
            }
        }
        let machine = self.initial();
        if all != machine {
            return Err(format!(
                "current set of available CPUs {:?} doesn't match with CPUs in state {:?}",
                machine.to_string(),
                all.to_string()
            ));
        }
        Ok(())
    }
}

/// What the system keeps: the named ones, or as many as are reserved.
fn reserved(config: &KubeletConfiguration, layout: &CpuLayout) -> Result<CpuSet, String> {
    if !config.reserved_system_cpus.is_empty() {
        return config.reserved_system_cpus.parse::<CpuSet>().map_err(|error| error.to_string());
    }
    let milli = crate::node::machine::reserved(config, "cpu");
    let count = usize::try_from((milli + 999) / 1000).unwrap_or(0);
    if count == 0 {
        return Err("[cpumanager] unable to determine reserved CPU resources for static policy".to_owned());
    }
    let chosen = layout.choose(&layout.all(), count, false);
    chosen.ok_or_else(|| {
        format!("[cpumanager] unable to reserve the required amount of CPUs (size of 0 did not equal {count})")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(options: &[&str]) -> KubeletConfiguration {
        KubeletConfiguration {
            cpu_manager_policy: "static".into(),
            cpu_manager_policy_options: options.iter().map(|name| ((*name).to_owned(), "true".to_owned())).collect(),
            kube_reserved: [("cpu".to_owned(), "500m".to_owned())].into(),
            ..KubeletConfiguration::default()
        }
    }

    /// Four cores of two threads, on two NUMA nodes.
    fn layout() -> CpuLayout {
        let place = |cpu: u32| Place { node: cpu / 4, socket: cpu / 4, core: cpu / 2, cache: cpu / 4 };
        CpuLayout { cpus: (0..8).map(|cpu| (cpu, place(cpu))).collect() }
    }

    fn pod(uid: &str, cpu: &str) -> Pod {
        let amounts = json!({ "cpu": cpu, "memory": "1Gi" });
        let value = json!({ "metadata": { "uid": uid }, "spec": {
            "containers": [{ "name": "c", "resources": { "limits": amounts, "requests": amounts } }],
        } });
        serde_json::from_value(value).unwrap()
    }

    fn give(cpus: &Cpus, pod: &Pod) -> Result<String, CpuError> {
        let container = &pods::containers(pod)[0];
        cpus.allocate(pod, container, None, &CpuSet::default())?;
        Ok(cpus.of(pods::uid(pod), "c").map(|set| set.to_string()).unwrap_or_default())
    }

    #[test]
    fn whole_processors_are_exclusive_until_the_pod_ends() {
        let dir = tempfile::tempdir().unwrap();
        let cpus = Cpus::open(&config(&[]), dir.path(), layout()).unwrap();
        assert_eq!(cpus.allocatable().to_string(), "1-7");
        assert_eq!(give(&cpus, &pod("u1", "2")).unwrap(), "2-3");
        assert_eq!(give(&cpus, &pod("u2", "1500m")).unwrap(), "0-1,4-7", "shares what is left");
        let error = give(&cpus, &pod("u3", "6")).unwrap_err();
        let text = "not enough cpus available to satisfy request: requested=6, available=5";
        assert_eq!(error.to_string(), text);
        let later = Cpus::open(&config(&[]), dir.path(), layout()).unwrap();
        assert_eq!(later.exclusive("u1", "c").unwrap().to_string(), "2-3");
        later.retain(|_| false);
        assert_eq!(give(&later, &pod("u3", "6")).unwrap().parse::<CpuSet>().unwrap().len(), 6);
        let other = Cpus::open(&KubeletConfiguration::default(), dir.path(), layout()).err().unwrap();
        assert!(other.contains("please drain this node and delete the CPU manager checkpoint file"), "{other}");
    }

    #[test]
    fn whole_cores_only_if_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let cpus = Cpus::open(&config(&["full-pcpus-only"]), dir.path(), layout()).unwrap();
        let error = give(&cpus, &pod("u", "3")).unwrap_err();
        let text = "SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2";
        assert_eq!(error.to_string(), text);
        assert!(give(&cpus, &pod("u", "4")).is_ok());
    }

    #[test]
    fn options_say_what_is_near() {
        // Two packages of two NUMA nodes of four processors.
        let place = |cpu: u32| Place { node: cpu / 4, socket: cpu / 8, core: cpu / 2, cache: cpu / 2 };
        let wide = || CpuLayout { cpus: (0..16).map(|cpu| (cpu, place(cpu))).collect() };
        let open = |dir: &Path, options: &[&str]| Cpus::open(&config(options), dir, wide()).unwrap();
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let even = open(dirs[0].path(), &[ACROSS_NODES]);
        assert_eq!(give(&even, &pod("u", "8")).unwrap(), "4-11");
        let cached = open(dirs[1].path(), &[BY_CACHE]);
        assert_eq!(give(&cached, &pod("u", "3")).unwrap(), "1-3", "no cache more than it takes");
        let socket = open(dirs[2].path(), &[BY_SOCKET]);
        let pod = pod("u", "4");
        let containers: Vec<&Container> = pods::containers(&pod).iter().collect();
        let hints = socket.hints(&pod, &containers, &CpuSet::default()).unwrap();
        assert!(hints.contains(&(Mask::of([2, 3]), true)), "both on one package: {hints:?}");
        assert!(hints.contains(&(Mask::of([1, 2]), false)), "on two: {hints:?}");
        socket.allocate(&pod, containers[0], Some(Mask::of([0])), &CpuSet::default()).unwrap();
        assert_eq!(socket.exclusive("u", "c").unwrap().to_string(), "4-7", "the same package");
    }

    #[test]
    fn options_need_gates_and_no_contradictions() {
        let all = |_: &str| true;
        let beta = |gate: &str| !gate.contains("Alpha");
        assert_eq!(check_options(&config(&[FULL_CORES, BY_CACHE]), beta), [""; 0]);
        let alpha = "CPU Manager Policy Alpha-level Options not enabled, but option \"align-by-socket\" provided";
        assert_eq!(check_options(&config(&[BY_SOCKET]), beta), [alpha]);
        assert_eq!(check_options(&config(&[BY_SOCKET]), all), [""; 0]);
        assert_eq!(check_options(&config(&[ACROSS_NODES, BY_CACHE]), all).len(), 1);
        assert_eq!(check_options(&config(&["other"]), all).len(), 1);
    }

    #[test]
    fn hints_name_nodes_that_are_large_enough() {
        let dir = tempfile::tempdir().unwrap();
        let cpus = Cpus::open(&config(&[]), dir.path(), layout()).unwrap();
        let pod = pod("u", "4");
        let containers: Vec<&Container> = pods::containers(&pod).iter().collect();
        let hints = cpus.hints(&pod, &containers, &CpuSet::default()).unwrap();
        assert_eq!(hints, [(Mask::of([1]), true), (Mask::of([0, 1]), false)]);
    }
}
