//! Thresholds over time, order of victims, and the whole against a made-up node.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::rank::rank;
use super::*;
use crate::config::KubeletConfiguration;
use crate::node::status::Pressure;
use crate::platform::{CgroupUsage, DiskUse};
use crate::stats::{ContainerStats, GroupStats, PodStats, VolumeStats};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn config(change: Value) -> KubeletConfiguration {
    let mut whole = json!({ "evictionHard": {}, "enforceNodeAllocatable": ["none"] });
    for (key, value) in change.as_object().unwrap() {
        whole[key] = value.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn seen(signal: Signal, available: u64, capacity: u64, second: i64) -> Observations {
    BTreeMap::from([(signal, Observation { available, capacity, at: at(second) })])
}

#[test]
fn thresholds_are_read_and_checked() {
    let all = thresholds(&KubeletConfiguration::default()).unwrap();
    let names: Vec<&str> = all.iter().map(|one| one.signal.as_str()).collect();
    let wanted = [
        "imagefs.available",
        "imagefs.inodesFree",
        "memory.available",
        "nodefs.available",
        "nodefs.inodesFree",
        "containerfs.available",
        "containerfs.inodesFree",
        "allocatableMemory.available",
    ];
    assert_eq!(names, wanted);
    assert!(thresholds(&config(json!({ "evictionHard": { "nodefs.available": "0%" } }))).unwrap().is_empty());
    let wrong = json!({
        "evictionHard": { "disk": "1Gi", "memory.available": "120%", "pid.available": "-1" },
        "evictionSoft": { "memory.available": "1Gi" },
    });
    let problems = thresholds(&config(wrong)).unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn hard_thresholds_act_at_once_and_pressure_lingers() {
    let all = thresholds(&config(json!({ "evictionHard": { "memory.available": "100" },
        "evictionMinimumReclaim": { "memory.available": "50" } })))
    .unwrap();
    let mut state = State::default();
    let transition = Duration::from_secs(300);
    let mut step = |available, second| {
        let decision = state.step(&all, seen(Signal::Memory, available, 1000, second), at(second), transition);
        (!decision.conditions.is_empty(), decision.act.len())
    };
    assert_eq!(step(100, 0), (false, 0));
    assert_eq!(step(99, 10), (true, 1));
    assert_eq!(step(140, 20), (true, 1), "less than the minimum was reclaimed");
    assert_eq!(step(150, 30), (true, 0), "pressure lasts");
    assert_eq!(step(150, 319), (true, 0));
    assert_eq!(step(150, 330), (false, 0));
}

#[test]
fn soft_thresholds_wait_and_one_look_is_acted_upon_once() {
    let all = thresholds(&config(json!({ "evictionSoft": { "nodefs.available": "10%" },
        "evictionSoftGracePeriod": { "nodefs.available": "1m" } })))
    .unwrap();
    let mut state = State::default();
    let mut step = |available, looked, now| {
        let look = seen(Signal::NodeFs, available, 1000, looked);
        state.step(&all, look, at(now), Duration::ZERO).act.len()
    };
    assert_eq!(step(90, 0, 0), 0);
    assert_eq!(step(90, 59, 59), 0);
    assert_eq!(step(90, 60, 60), 1);
    assert_eq!(step(90, 60, 70), 0, "nothing new was seen");
    assert_eq!(step(200, 80, 80), 0);
    assert_eq!(step(90, 90, 90), 0, "the grace begins anew");
}

fn pod(name: &str, spec: Value) -> Arc<Pod> {
    let mut whole = json!({ "metadata": { "name": name, "namespace": "n", "uid": name },
        "spec": { "containers": [{ "name": "c" }] } });
    for (key, value) in spec.as_object().unwrap() {
        whole["spec"][key] = value.clone();
    }
    Arc::new(serde_json::from_value(whole).unwrap())
}

fn uses(pod: &Arc<Pod>, memory: u64, disk: u64) -> Candidate {
    let group =
        Some(GroupStats { usage: CgroupUsage { memory, pids: memory, ..Default::default() }, ..Default::default() });
    let used = |bytes| DiskUse { bytes, inodes: bytes };
    let container =
        ContainerStats { name: "c".into(), group, rootfs: Some(used(disk)), logs: Some(used(1)), ..Default::default() };
    let stats = PodStats { uid: pods::uid(pod).into(), group, containers: vec![container], ..Default::default() };
    Candidate { pod: Arc::clone(pod), stats: Some(stats) }
}

fn asks(memory: &str) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": { "memory": memory } } }] })
}

#[test]
fn victims_are_ordered() {
    let modest = pod("modest", asks("500"));
    let greedy = pod("greedy", asks("10"));
    let greedier = pod("greedier", asks("10"));
    let important = pod("important", json!({ "priority": 5 }));
    let unknown = Candidate { pod: pod("unknown", json!({})), stats: None };
    let mut all =
        vec![uses(&modest, 400, 0), uses(&important, 900, 0), uses(&greedy, 20, 0), uses(&greedier, 30, 0), unknown];
    let order = |all: &[Candidate]| all.iter().map(|one| pods::name(&one.pod).to_owned()).collect::<Vec<_>>();
    rank(&mut all, Signal::Memory, Layout::default());
    assert_eq!(order(&all), ["unknown", "greedier", "greedy", "important", "modest"]);
    rank(&mut all, Signal::Pid, Layout::default());
    assert_eq!(order(&all), ["modest", "greedier", "greedy", "unknown", "important"]);
    let (a, b) = (pod("a", json!({})), pod("b", json!({})));
    let mut two = vec![uses(&a, 0, 10), uses(&b, 0, 20)];
    rank(&mut two, Signal::ImageFs, Layout { image_fs: true, split: false });
    assert_eq!(order(&two), ["b", "a"]);
}

#[test]
fn new_pods_are_refused_under_pressure() {
    let best_effort = pod("a", json!({}));
    let burstable = pod("a", asks("1"));
    let critical = pod("a", json!({ "priority": 2_000_000_000 }));
    let tolerant =
        pod("a", json!({ "tolerations": [{ "key": "node.kubernetes.io/memory-pressure", "operator": "Exists" }] }));
    let memory = Pressure { memory: true, ..Pressure::default() };
    let both = Pressure { disk: true, ..memory };
    for (pod, pressure, fits) in [
        (&best_effort, Pressure::default(), true),
        (&best_effort, memory, false),
        (&burstable, memory, true),
        (&tolerant, memory, true),
        (&burstable, both, false),
        (&critical, both, true),
    ] {
        assert_eq!(admit(pod, pressure).is_ok(), fits, "{pressure:?}");
    }
    let refusal = admit(&burstable, both).unwrap_err();
    assert_eq!(
        (refusal.reason.as_str(), refusal.message.as_str()),
        ("Evicted", "The node had condition: [DiskPressure MemoryPressure]. ")
    );
}

#[derive(Default)]
struct Fake {
    observations: Mutex<Observations>,
    candidates: Vec<Candidate>,
    /// What is free after each thing that is reclaimed.
    after_reclaim: Mutex<Vec<Observations>>,
    log: Mutex<Vec<String>>,
}

#[async_trait]
impl World for &Fake {
    async fn observe(&self) -> (Observations, Layout) {
        (self.observations.lock().clone(), Layout::default())
    }

    async fn candidates(&self) -> Vec<Candidate> {
        self.candidates.clone()
    }

    async fn limited(&self) -> Vec<Candidate> {
        self.candidates.clone()
    }

    async fn reclaim(&self, what: Reclaim) {
        self.log.lock().push(format!("reclaim {what:?}"));
        if let Some(next) = self.after_reclaim.lock().pop() {
            *self.observations.lock() = next;
        }
    }

    fn tell(&self, conditions: &BTreeSet<Condition>) {
        self.log.lock().extend(conditions.iter().map(|one| one.as_str().to_owned()));
    }

    fn warn(&self, message: String) {
        self.log.lock().push(message);
    }

    fn evict(&self, pod: &Arc<Pod>, request: StopRequest) {
        let verdict = request.verdict.unwrap();
        let disrupted = if verdict.disruption.is_some() { "!" } else { "" };
        let line = format!("{} {}{disrupted}: {}", pods::name(pod), request.grace.unwrap(), verdict.message);
        self.log.lock().push(line);
    }

    async fn alarmed(&self, _: &[Threshold]) {
        std::future::pending().await
    }

    async fn wait_gone(&self, _pods: &[Arc<Pod>]) {}
}

async fn look(fake: &Fake, change: Value) -> Vec<String> {
    let config = config(change);
    let policy = EvictionPolicy {
        thresholds: thresholds(&config).unwrap(),
        transition: config.eviction_pressure_transition_period.0,
        max_grace: i64::from(config.eviction_max_pod_grace_period),
        local_limits: config.local_storage_capacity_isolation,
    };
    Evictor::new(fake, policy).look(at(100)).await;
    std::mem::take(&mut fake.log.lock())
}

#[tokio::test]
async fn the_greediest_pod_is_ended() {
    let critical = pod("critical", json!({ "priority": 2_000_000_000 }));
    let fake = Fake {
        observations: Mutex::new(seen(Signal::Memory, 40 << 20, 1 << 30, 100)),
        candidates: vec![uses(&critical, 1 << 31, 0), uses(&pod("greedy", json!({})), 1 << 30, 0)],
        ..Fake::default()
    };
    let log = look(&fake, json!({ "evictionHard": { "memory.available": "100Mi" } })).await;
    let message = "greedy 1!: The node was low on resource: memory. Threshold quantity: 100Mi, available: 40Mi. \
                   Container c was using 1Gi, request is 0, has larger consumption of memory. ";
    assert_eq!(log, ["MemoryPressure", "Attempting to reclaim memory", message]);
}

#[tokio::test]
async fn the_node_frees_its_own_first() {
    let full = seen(Signal::NodeFs, 50, 1000, 100);
    let fake = Fake {
        observations: Mutex::new(full.clone()),
        candidates: vec![uses(&pod("p", json!({})), 0, 5)],
        after_reclaim: Mutex::new(vec![seen(Signal::NodeFs, 500, 1000, 101), full]),
        ..Fake::default()
    };
    let log = look(&fake, json!({ "evictionHard": { "nodefs.available": "10%" } })).await;
    let wanted = ["DiskPressure", "Attempting to reclaim ephemeral-storage", "reclaim Containers", "reclaim Images"];
    assert_eq!(log, wanted);
}

#[tokio::test]
async fn limits_of_local_storage_are_enforced() {
    let limited = |name, spec| (pod(name, spec), name);
    let resources = |limit: &str| {
        json!({ "containers": [{ "name": "c", "resources": { "limits": { "ephemeral-storage": limit } } },
        { "name": "d" }] })
    };
    let (by_container, _) = limited("container", resources("1Ki"));
    let (by_pod, _) = limited(
        "pod",
        json!({ "containers": [{ "name": "c",
        "resources": { "limits": { "ephemeral-storage": "1Gi" } } }] }),
    );
    let (by_volume, _) = limited("volume", json!({ "volumes": [{ "name": "v", "emptyDir": { "sizeLimit": "1Gi" } }] }));
    let (fine, _) = limited("fine", resources("1Mi"));
    let mut volume = uses(&by_volume, 0, 0);
    volume.stats.as_mut().unwrap().volumes.push(VolumeStats {
        name: "v".into(),
        claim: None,
        fs: Default::default(),
        used: DiskUse { bytes: (1 << 30) + 1, inodes: 1 },
        abnormal: None,
        ephemeral: true,
    });
    let fake = Fake {
        candidates: vec![uses(&by_container, 0, 2048), uses(&by_pod, 0, 1 << 30), volume, uses(&fine, 0, 2048)],
        ..Fake::default()
    };
    let log = look(&fake, json!({})).await;
    let wanted = [
        "container 1: Container c exceeded its local ephemeral storage limit \"1Ki\". ",
        "pod 1: Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
        "volume 1: Usage of EmptyDir volume \"v\" exceeds the limit \"1Gi\". ",
    ];
    assert_eq!(log, wanted);
    assert!(look(&fake, json!({ "localStorageCapacityIsolation": false })).await.is_empty());
}
