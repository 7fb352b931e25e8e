//! Decisions about resizes, and what follows from them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::*;
use crate::admission::{Allowlist, Situation, Support};
use crate::config::KubeletConfiguration;
use crate::node::NodeFacts;
use crate::node::status::Pressure;
use crate::platform::CgroupDriver;
use crate::spec::Settings;

fn amounts(cpu: &str, memory: &str) -> Value {
    json!({ "cpu": cpu, "memory": memory })
}

fn pod(uid: &str, resources: Value, generation: i64) -> Arc<Pod> {
    let value = json!({
        "metadata": { "name": uid, "namespace": "n", "uid": uid, "generation": generation },
        "spec": { "containers": [{ "name": "c", "resources": resources }] },
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn node() -> NodeFacts {
    let allocatable = serde_json::from_value(json!({ "cpu": "4", "memory": "4Gi", "pods": "10" })).unwrap();
    NodeFacts { name: "node".into(), allocatable, object: Some(Arc::new(Node::default())), ..NodeFacts::default() }
}

fn config(set: Value) -> KubeletConfiguration {
    serde_json::from_value(set).unwrap()
}

#[test]
fn what_does_not_fit_waits_and_what_can_never_be_is_told() {
    let facts = node();
    let other = pod("other", json!({ "requests": amounts("2", "1Gi") }), 1);
    let has = pod("p", json!({ "requests": amounts("1", "1Gi") }), 1);
    let exact = |cpu: &str| json!({ "requests": amounts(cpu, "1Gi"), "limits": amounts(cpu, "1Gi") });
    let free = json!({});
    let statics = json!({ "cpuManagerPolicy": "static" });
    let memory = json!({ "memoryManagerPolicy": "Static" });
    let swap = json!({ "memorySwap": { "swapBehavior": "LimitedSwap" } });
    for (set, wanted, expected) in [
        (&free, json!({ "requests": amounts("2", "1Gi") }), None),
        (
            &free,
            json!({ "requests": amounts("3", "1Gi") }),
            Some(("OutOfcpu", "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000")),
        ),
        (
            &statics,
            exact("2"),
            Some(("Infeasible", "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"")),
        ),
        (
            &memory,
            exact("2"),
            Some(("Infeasible", "Resize is infeasible for Guaranteed Pods alongside Memory Manager policy \"Static\"")),
        ),
        (&statics, json!({ "requests": amounts("2", "1Gi") }), None),
        (
            &swap,
            json!({ "requests": amounts("1", "2Gi") }),
            Some(("Infeasible", "In-place resize of containers with swap is not supported.")),
        ),
        (&swap, json!({ "requests": amounts("2", "1Gi") }), None),
    ] {
        let config = config(set.clone());
        let settings = Settings::new(&config, CgroupDriver::Cgroupfs, true);
        let (sysctls, others) = (Allowlist::new(&[]), [Arc::clone(&other)]);
        let situation = Situation {
            node: &facts,
            pressure: Pressure::default(),
            support: Support::default(),
            shutting_down: false,
            declared: None,
            sysctls: &sysctls,
            others: &others,
        };
        let decided = decide(&pod("p", wanted.clone(), 2), &has, &config, &settings, &situation);
        let told = decided.as_ref().err().map(|refusal| (refusal.reason.as_str(), refusal.message.as_str()));
        assert_eq!(told, expected, "{wanted} {set}");
    }
}

#[test]
fn smaller_pods_come_first_then_important_ones() {
    let has = pod("p", json!({ "requests": amounts("1", "1Gi") }), 1);
    let wants = |cpu: &str, priority: i32| {
        let mut wanted = (*pod("p", json!({ "requests": amounts(cpu, "1Gi") }), 2)).clone();
        wanted.spec.as_mut().unwrap().priority = Some(priority);
        wanted
    };
    let guaranteed = pod("p", json!({ "limits": amounts("2", "1Gi") }), 2);
    let of = |wanted: &Pod, since: i64| precedence(wanted, &has, since);
    assert!(of(&wants("500m", 0), 9) < of(&wants("2", 100), 1));
    assert!(of(&wants("2", 100), 9) < of(&wants("2", 0), 1));
    assert!(of(&guaranteed, 9) < of(&wants("2", 0), 1));
    assert!(of(&wants("2", 0), 1) < of(&wants("2", 0), 9));
}

#[test]
fn a_pod_shows_what_it_was_given_until_it_gets_more() {
    let dir = tempfile::tempdir().unwrap();
    let resizes = Resizes::open(dir.path()).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let first = pod("p", json!({ "requests": amounts("1", "1Gi") }), 1);
    resizes.take(&first, false);
    assert!(resizes.conditions("p").is_empty());
    let wanted = pod("p", json!({ "requests": amounts("2", "1Gi") }), 2);
    let seen = resizes.allocated(&wanted);
    assert_eq!((seen.metadata.generation, &seen.spec), (Some(2), &first.spec));

    let refusal = Refusal::new("OutOfcpu", "no room");
    assert!(resizes.refuse(&wanted, &refusal, now));
    assert!(!resizes.refuse(&wanted, &refusal, now), "told once");
    let [pending] = <[PodCondition; 1]>::try_from(resizes.conditions("p")).unwrap();
    assert_eq!((pending.type_.as_str(), pending.reason.as_deref()), (PENDING, Some("Deferred")));
    assert_eq!((pending.message.as_deref(), pending.observed_generation), (Some("no room"), Some(2)));

    resizes.give(&wanted, now);
    assert_eq!(resizes.allocated(&wanted).spec, wanted.spec);
    let [running] = <[PodCondition; 1]>::try_from(resizes.conditions("p")).unwrap();
    assert_eq!((running.type_.as_str(), running.reason.as_deref()), (IN_PROGRESS, None));
    assert!(resizes.failed(&wanted, "cannot", now));
    assert!(!resizes.failed(&wanted, "cannot", now));
    assert_eq!(resizes.conditions("p")[0].reason.as_deref(), Some(ERROR));
    assert!(resizes.completed("p") && !resizes.completed("p"));
    resizes.retain(|_| false);
    assert_eq!(resizes.allocated(&first).spec, first.spec);
}

#[test]
fn events_tell_amounts_in_one_order() {
    let wanted = pod("p", json!({ "requests": { "cpu": "2" } }), 7);
    assert_eq!(
        details(&wanted, "no \"room\""),
        r#"{"containers":[{"name":"c","resources":{"requests":{"cpu":"2"}}}],"generation":7,"error":"no \"room\""}"#
    );
    assert_eq!(
        requested(&wanted, &pod("p", json!({ "requests": { "cpu": "1" }, "limits": { "memory": "1Gi" } }), 6)),
        [["cpu", "requests", "increase"], ["memory", "requests", "remove"], ["memory", "limits", "remove"]]
    );
}
