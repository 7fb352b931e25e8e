//! Statuses of typical moments.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;

use super::*;
use crate::cri::{ContainerRecord, RecordState, SandboxRecord};

struct AllReady;

impl Readiness for AllReady {
    fn started(&self, _: &str, _: &str) -> bool {
        true
    }

    fn ready(&self, _: &str, _: &str) -> bool {
        true
    }
}

fn pod(policy: &str) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 3 },
        "spec": { "restartPolicy": policy, "containers": [{ "name": "c", "image": "i" }],
            "initContainers": [{ "name": "i", "image": "i" }] } }))
    .unwrap()
}

fn record(name: &str, state: RecordState, exit_code: i32) -> ContainerRecord {
    ContainerRecord {
        id: format!("{name}1"),
        name: name.into(),
        state,
        sandbox_id: "s".into(),
        created_at: 1_000_000_000,
        started_at: 1_000_000_000,
        finished_at: 2_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: "sha".into(),
        restart_count: 0,
        hash: String::new(),
        log_path: String::new(),
        annotations: HashMap::new(),
        resources: None,
        user: None,
        mounts: Vec::new(),
    }
}

fn status(pod: &Pod, records: Vec<ContainerRecord>, terminal: bool, waiting: &HashMap<String, Waiting>) -> PodStatus {
    following(pod, records, terminal, waiting, (None, false))
}

/// With the status before, and whether all containers are being removed.
fn following(
    pod: &Pod,
    records: Vec<ContainerRecord>,
    terminal: bool,
    waiting: &HashMap<String, Waiting>,
    (previous, restarting_all): (Option<&PodStatus>, bool),
) -> PodStatus {
    let sandbox = SandboxRecord {
        id: "s".into(),
        attempt: 0,
        ready: !terminal,
        created_at: 1,
        host_network: false,
        ips: vec!["10.0.0.5".into()],
        handler: String::new(),
    };
    let view = PodView { sandboxes: vec![sandbox], containers: records };
    let node = NodeFacts { addresses: vec!["192.168.0.1".parse().unwrap()], ..NodeFacts::default() };
    compute(&StatusInput {
        pod,
        view: &view,
        previous,
        waiting,
        messages: &HashMap::new(),
        readiness: &AllReady,
        node: &node,
        runtime: "containerd",
        actuated: &Given::default(),
        restarting_all,
        resize: &[],
        started: Timestamp::UNIX_EPOCH,
        now: Timestamp::UNIX_EPOCH,
        ready_to_start: true,
        terminal,
        verdict: None,
    })
}

fn condition<'a>(status: &'a PodStatus, type_: &str) -> (&'a str, &'a str, &'a str) {
    let found = status.conditions.iter().flatten().find(|condition| condition.type_ == type_).unwrap();
    (&found.status, found.reason.as_deref().unwrap_or(""), found.message.as_deref().unwrap_or(""))
}

#[test]
fn initializing() {
    let got = status(&pod("Always"), vec![record("i", RecordState::Running, 0)], false, &HashMap::new());
    assert_eq!(got.phase.as_deref(), Some("Pending"));
    assert_eq!(
        condition(&got, "Initialized"),
        ("False", "ContainersNotInitialized", "containers with incomplete status: [i]")
    );
    assert_eq!(condition(&got, "Ready"), ("False", "ContainersNotReady", "containers with unready status: [c]"));
    assert_eq!(condition(&got, "PodReadyToStartContainers").0, "True");
    let waiting = got.container_statuses.unwrap()[0].state.clone().unwrap().waiting.unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"));
    assert_eq!(got.pod_ip.as_deref(), Some("10.0.0.5"));
}

#[test]
fn running() {
    let records = vec![record("c", RecordState::Running, 0), record("i", RecordState::Exited, 0)];
    let got = status(&pod("Always"), records, false, &HashMap::new());
    assert_eq!(got.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&got, "Ready").0, "True");
    assert_eq!(got.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(got.observed_generation, Some(3));
    let container = &got.container_statuses.unwrap()[0];
    assert_eq!(container.container_id.as_deref(), Some("containerd://c1"));
    assert!(container.ready && container.started == Some(true));
}

#[test]
fn ends() {
    let records = |code| vec![record("c", RecordState::Exited, code), record("i", RecordState::Exited, 0)];
    let done = status(&pod("Never"), records(0), false, &HashMap::new());
    assert_eq!(done.phase.as_deref(), Some("Succeeded"));
    assert_eq!(condition(&done, "ContainersReady"), ("False", "PodCompleted", ""));
    assert_eq!(condition(&done, "Initialized"), ("True", "PodCompleted", ""));
    assert_eq!(status(&pod("Never"), records(1), false, &HashMap::new()).phase.as_deref(), Some("Failed"));
    assert_eq!(status(&pod("Always"), records(0), false, &HashMap::new()).phase.as_deref(), Some("Running"));
    assert_eq!(status(&pod("Always"), records(0), true, &HashMap::new()).phase.as_deref(), Some("Succeeded"));
}

#[test]
fn crash_loops_show_why_and_what_was() {
    let waiting =
        HashMap::from([("c".to_owned(), Waiting { reason: "CrashLoopBackOff".into(), message: "back-off".into() })]);
    let records = vec![record("c", RecordState::Exited, 1), record("i", RecordState::Exited, 0)];
    let got = status(&pod("Always"), records, false, &waiting);
    assert_eq!(got.phase.as_deref(), Some("Running"));
    let container = &got.container_statuses.unwrap()[0];
    assert_eq!(container.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let got = status(&pod("Never"), vec![record("i", RecordState::Exited, 2)], false, &HashMap::new());
    assert_eq!(got.phase.as_deref(), Some("Failed"));
    let ended = status(&pod("Never"), vec![record("i", RecordState::Exited, 2)], true, &HashMap::new());
    let container = &ended.container_statuses.unwrap()[0];
    assert!(container.state.as_ref().unwrap().waiting.is_some(), "a container that never ran is not terminated");
}

#[test]
fn merging_keeps_what_others_own() {
    let mut api = PodStatus { phase: Some("Running".into()), ..PodStatus::default() };
    api.conditions = serde_json::from_value(
        json!([{ "type": "example.com/gate", "status": "True" }, { "type": "Ready", "status": "True" }]),
    )
    .unwrap();
    let own = status(
        &pod("Never"),
        vec![record("c", RecordState::Exited, 0), record("i", RecordState::Exited, 0)],
        true,
        &HashMap::new(),
    );
    let sent = merge(&api, &own, false);
    assert_eq!(sent.phase.as_deref(), Some("Succeeded"));
    assert!(sent.conditions.as_ref().unwrap().iter().any(|condition| condition.type_ == "example.com/gate"));
    let held = merge(&api, &own, true);
    assert_eq!(held.phase.as_deref(), Some("Running"), "not terminal while containers may run");
}

#[test]
fn removed_containers_wait_and_count_as_restarted() {
    let mut pod = pod("Never");
    let rules = json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }]);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.restart_policy = Some("Never".into());
    container.restart_policy_rules = serde_json::from_value(rules).unwrap();
    let none = HashMap::new();
    let records = || vec![record("c", RecordState::Exited, 42), record("i", RecordState::Exited, 0)];
    let before = following(&pod, records(), false, &none, (None, true));
    assert_eq!(
        condition(&before, "AllContainersRestarting"),
        ("True", "RestartAllContainersStarted", "container exited with restart policy rule")
    );
    let removed = following(&pod, Vec::new(), false, &none, (Some(&before), true));
    let again = following(&pod, Vec::new(), false, &none, (Some(&removed), true));
    let after = following(&pod, Vec::new(), false, &none, (Some(&again), false));
    for status in [&removed, &again, &after] {
        assert_eq!(status.phase.as_deref(), Some("Pending"));
        assert_eq!(condition(status, "Initialized").0, "True");
        for found in status.container_statuses.iter().chain(&status.init_container_statuses).flatten() {
            assert!(found.state.as_ref().unwrap().waiting.is_some());
            let last = found.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
            assert_eq!((last.reason.as_deref(), last.exit_code), (Some("RestartingAllContainers"), 137));
            assert_eq!(found.restart_count, 1);
        }
    }
    assert_eq!(condition(&after, "AllContainersRestarting"), ("False", "", ""));
}

#[test]
fn the_wait_for_the_api_ends_with_the_last_change() {
    let store = StatusStore::default();
    let pod = std::sync::Arc::new(pod("Always"));
    let status = |phase: &str| PodStatus { phase: Some(phase.to_owned()), ..PodStatus::default() };
    store.set(&pod, status("Pending"));
    let first = store.all(|_| true).remove(0);
    store.set(&pod, status("Running"));
    assert_eq!(store.written(&first), None, "it is another one meanwhile");
    let second = store.all(|_| true).remove(0);
    assert!(store.written(&second).is_some());
    assert_eq!(store.written(&second), None, "it was written already");
}
