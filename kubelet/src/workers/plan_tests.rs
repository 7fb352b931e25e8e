//! Table of rounds.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::plan::*;
use crate::cri::{ContainerRecord, PodView, RecordState, SandboxRecord};
use crate::pods;

struct Fixed {
    dead: Vec<&'static str>,
    starting: Vec<&'static str>,
}

impl Verdicts for Fixed {
    fn liveness(&self, id: &str) -> Verdict {
        if self.dead.contains(&id) { Verdict::Failure } else { Verdict::Success }
    }

    fn startup(&self, id: &str) -> Verdict {
        if self.starting.contains(&id) { Verdict::Unknown } else { Verdict::Success }
    }
}

const CALM: Fixed = Fixed { dead: Vec::new(), starting: Vec::new() };

fn pod(policy: &str, init: &[(&str, bool)], regular: &[&str]) -> Pod {
    let init: Vec<_> = init
        .iter()
        .map(|(name, sidecar)| {
            let mut container = json!({ "name": name, "image": "i" });
            if *sidecar {
                container["restartPolicy"] = json!("Always");
            }
            container
        })
        .collect();
    let regular: Vec<_> = regular.iter().map(|name| json!({ "name": name, "image": "i" })).collect();
    serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "n", "uid": "u" },
        "spec": { "restartPolicy": policy, "initContainers": init, "containers": regular } }))
    .unwrap()
}

fn record(pod: &Pod, name: &str, state: RecordState, exit_code: i32) -> ContainerRecord {
    let container = pods::find_container(pod, name).unwrap().0;
    ContainerRecord {
        id: format!("{name}-id"),
        name: name.to_owned(),
        state,
        sandbox_id: "s".into(),
        created_at: 1,
        started_at: 1,
        finished_at: 2,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "i".into(),
        image_ref: "i".into(),
        restart_count: 0,
        hash: pods::container_hash(&container),
        log_path: String::new(),
        annotations: Default::default(),
        resources: None,
        user: None,
        mounts: Vec::new(),
    }
}

fn view(containers: Vec<ContainerRecord>) -> PodView {
    let sandbox = SandboxRecord {
        id: "s".into(),
        attempt: 0,
        ready: true,
        created_at: 1,
        host_network: false,
        ips: vec!["10.0.0.2".into()],
        handler: String::new(),
    };
    PodView { sandboxes: vec![sandbox], containers }
}

use RecordState::{Exited, Running};

#[test]
fn fresh_pods_get_a_sandbox_and_their_first_containers() {
    let plain = plan(&pod("Always", &[], &["a", "b"]), &PodView::default(), &CALM);
    assert!(plain.create_sandbox && plain.attempt == 0);
    assert_eq!(plain.start, [0, 1]);
    let with_init = plan(&pod("Always", &[("i", false)], &["a"]), &PodView::default(), &CALM);
    assert_eq!((with_init.start_init, with_init.start), (vec![0], vec![]));
}

#[test]
fn init_containers_run_one_after_another() {
    let pod = pod("Always", &[("i", false), ("j", false)], &["a"]);
    let running = plan(&pod, &view(vec![record(&pod, "i", Running, 0)]), &CALM);
    assert_eq!((running.start_init, running.start.len(), running.kill_pod), (vec![], 0, false));
    let done = plan(&pod, &view(vec![record(&pod, "i", Exited, 0)]), &CALM);
    assert_eq!(done.start_init, [1]);
    let both = plan(&pod, &view(vec![record(&pod, "j", Exited, 0), record(&pod, "i", Exited, 0)]), &CALM);
    assert_eq!((both.start_init, both.start), (vec![], vec![0]));
    let failed = plan(&pod, &view(vec![record(&pod, "i", Exited, 3)]), &CALM);
    assert_eq!(failed.start_init, [0]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = pod("Never", &[("i", false)], &["a"]);
    let failed = plan(&pod, &view(vec![record(&pod, "i", Exited, 1)]), &CALM);
    assert!(failed.ends());
    let mut killed = record(&pod, "i", Exited, 0);
    killed.reason = "OOMKilled".into();
    assert!(plan(&pod, &view(vec![killed]), &CALM).ends());
}

#[test]
fn sidecars_hold_back_the_next_until_started() {
    let pod = pod("Never", &[("s", true), ("j", false)], &["a"]);
    let starting = Fixed { dead: vec![], starting: vec!["s-id"] };
    assert!(plan(&pod, &view(vec![record(&pod, "s", Running, 0)]), &starting).start_init.is_empty());
    assert_eq!(plan(&pod, &view(vec![record(&pod, "s", Running, 0)]), &CALM).start_init, [1]);
    let sidecar_died = view(vec![record(&pod, "j", Running, 0), record(&pod, "s", Exited, 1)]);
    assert_eq!(plan(&pod, &sidecar_died, &CALM).start_init, [0]);
    let over = view(vec![record(&pod, "a", Exited, 0), record(&pod, "s", Running, 0)]);
    assert!(plan(&pod, &over, &CALM).ends(), "sidecars do not keep a finished Pod alive");
}

#[test]
fn sidecars_are_restarted_after_initialization_too() {
    let pod = pod("Always", &[("s", true)], &["a"]);
    let plan = plan(&pod, &view(vec![record(&pod, "a", Running, 0), record(&pod, "s", Exited, 0)]), &CALM);
    assert_eq!((plan.start_init, plan.start), (vec![0], vec![]));
}

#[test]
fn policies_decide_on_dead_containers() {
    for (policy, code, restarts) in
        [("Always", 0, true), ("Always", 1, true), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Never", 1, false)]
    {
        let pod = pod(policy, &[], &["a"]);
        let plan = plan(&pod, &view(vec![record(&pod, "a", Exited, code)]), &CALM);
        assert_eq!(!plan.start.is_empty(), restarts, "{policy} {code}");
        assert_eq!(plan.ends(), !restarts, "{policy} {code}");
    }
}

#[test]
fn liveness_and_changes_kill_and_restart() {
    let mut pod = pod("Always", &[], &["a"]);
    let dead = Fixed { dead: vec!["a-id"], starting: vec![] };
    let records = view(vec![record(&pod, "a", Running, 0)]);
    let killed = plan(&pod, &records, &dead);
    assert_eq!(killed.kill[0].message, "Container a failed liveness probe, will be restarted");
    assert_eq!(killed.start, [0]);
    pod.spec.as_mut().unwrap().containers[0].image = Some("other".into());
    let changed = plan(&pod, &records, &CALM);
    assert_eq!(changed.kill[0].message, "Container a definition changed, will be restarted");
    pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    assert_eq!(plan(&pod, &records, &CALM).start, [0], "a changed definition restarts whatever the policy");
}

#[test]
fn a_lost_sandbox_is_replaced_unless_the_pod_is_done() {
    let always = pod("Always", &[], &["a"]);
    let mut lost = view(vec![record(&always, "a", Exited, 0)]);
    lost.sandboxes[0].ready = false;
    let again = plan(&always, &lost, &CALM);
    assert!(again.kill_pod && again.create_sandbox && again.attempt == 1);
    let never = pod("Never", &[], &["a"]);
    assert!(plan(&never, &lost, &CALM).ends());
    let on_failure = pod("OnFailure", &[], &["a"]);
    assert!(plan(&on_failure, &lost, &CALM).ends());
}

#[test]
fn container_rules_come_first() {
    let mut pod = pod("Never", &[], &["a"]);
    let container = &mut pod.spec.as_mut().unwrap().containers[0];
    container.restart_policy = Some("Never".into());
    container.restart_policy_rules =
        serde_json::from_value(json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]))
            .unwrap();
    let container = pod.spec.as_ref().unwrap().containers[0].clone();
    assert!(restarts_after(&pod, &container, 42));
    assert!(!restarts_after(&pod, &container, 1));
}

#[test]
fn a_rule_has_everything_start_from_the_beginning() {
    let mut pod = pod("Never", &[("i", false), ("s", true)], &["a", "b"]);
    let rules = json!([{ "action": "RestartAllContainers", "exitCodes": { "operator": "In", "values": [42] } }]);
    let b = &mut pod.spec.as_mut().unwrap().containers[1];
    b.restart_policy = Some("Never".into());
    b.restart_policy_rules = serde_json::from_value(rules).unwrap();
    let records = |code: i32| {
        vec![
            record(&pod, "b", Exited, code),
            record(&pod, "a", Running, 0),
            record(&pod, "s", Running, 0),
            record(&pod, "i", Exited, 0),
        ]
    };
    assert_eq!(plan(&pod, &view(records(1)), &CALM).restart_all, [] as [String; 0]);
    let all = plan(&pod, &view(records(42)), &CALM);
    assert_eq!(all.restart_all, ["a-id", "i-id", "s-id", "b-id"]);
    assert!(all.start.is_empty() && all.start_init.is_empty() && !all.ends());
    let after = plan(&pod, &view(Vec::new()), &CALM);
    assert_eq!((after.start_init, after.start), (vec![0], Vec::new()));
}
