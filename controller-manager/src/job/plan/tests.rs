use ::controller::{Cached, ObjectKey, Viewed};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{
    super::account::{account, announce, finish, settle},
    *,
};
use crate::views::PodView;

fn job(spec: Value, status: Value) -> Job {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"containers": [], "restartPolicy": "Never"}});
    serde_json::from_value(
        json!({"metadata": {"name": "j", "namespace": "n", "uid": "j"}, "spec": spec, "status": status}),
    )
    .unwrap()
}

fn indexed(extra: Value) -> Value {
    let mut spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3, "backoffLimit": 6});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

/// A Pod `name`, of a phase; `index` below 0 for none; `failures` of its index before it.
fn pod(name: &str, phase: &str, index: i32, failures: i32) -> JobPod {
    let mut annotations = json!({});
    if index >= 0 {
        annotations = json!({"batch.kubernetes.io/job-completion-index": index.to_string(),
            "batch.kubernetes.io/job-index-failure-count": failures.to_string()});
    }
    let mut pod = json!({"metadata": {"name": name, "namespace": "n", "annotations": annotations, "finalizers": [pods::TRACKING],
        "creationTimestamp": "2001-01-01T00:00:00Z"}, "spec": {"containers": []}, "status": {"phase": phase}});
    if phase == "Deleting" {
        pod["metadata"]["deletionTimestamp"] = json!("2001-01-01T00:00:00Z");
        pod["status"]["phase"] = json!("Running");
    }
    let view = PodView::project(serde_json::from_value(pod).unwrap());
    Arc::new(Cached { key: ObjectKey::new("n", name), uid: name.into(), resource_version: "1".into(), view })
}

fn now() -> Timestamp {
    "2001-01-01T01:00:00Z".parse().unwrap()
}

fn world<'a>(job: &'a Job, pods: &'a [JobPod]) -> World<'a> {
    World::new(job, pods, now(), Streak::default())
}

#[test]
fn how_many_pods() {
    let cases: [(Value, &[&str], usize, usize); 8] = [
        (json!({"completions": 1, "parallelism": 1}), &[], 1, 0),
        (json!({"completions": 5, "parallelism": 2}), &["Running"], 1, 0),
        (json!({"completions": 2, "parallelism": 5}), &["Succeeded"], 1, 0),
        (json!({"completions": 1, "parallelism": 1}), &["Succeeded"], 0, 0),
        (json!({"parallelism": 3}), &["Running"], 2, 0),
        (json!({"parallelism": 3}), &["Running", "Succeeded"], 0, 0),
        (json!({"completions": 5, "parallelism": 1}), &["Running", "Running", "Pending"], 0, 2),
        (json!({"completions": 5, "parallelism": 2, "suspend": true}), &["Running"], 0, 1),
    ];
    for (spec, phases, create, delete) in cases {
        let job = job(spec.clone(), json!({}));
        let pods: Vec<JobPod> = phases.iter().enumerate().map(|(n, p)| pod(&format!("p{n}"), p, -1, 0)).collect();
        let step = world(&job, &pods).step();
        assert_eq!((step.create.len(), step.delete.len()), (create, delete), "{spec} {phases:?}");
    }
}

#[test]
fn terminating_pods_are_waited_for_only_when_asked() {
    let of = |policy: &str| {
        let job = job(
            json!({"completions": 1, "parallelism": 1, "podReplacementPolicy": policy, "backoffLimit": 6}),
            json!({}),
        );
        let pods = [pod("a", "Deleting", -1, 0)];
        let mut step = world(&job, &pods);
        step.streak = Streak::default();
        step.step().create.len()
    };
    assert_eq!((of("TerminatingOrFailed"), of("Failed")), (1, 0));
}

#[test]
fn indexes_are_filled_from_below() {
    let job = job(indexed(json!({})), json!({"completedIndexes": "0"}));
    let pods = [pod("a", "Running", 2, 0), pod("b", "Running", 2, 0), pod("c", "Running", -1, 0)];
    let step = world(&job, &pods).step();
    let mut gone: Vec<&str> = step.delete.iter().map(|p| p.uid.as_str()).collect();
    gone.sort_unstable();
    assert_eq!(gone.len(), 2);
    assert!(gone.contains(&"c"));
    let pods = [pod("a", "Running", 2, 0)];
    let step = world(&job, &pods).step();
    assert_eq!(step.create, [Creation { index: Some(1), before: None }]);
}

#[test]
fn failures_back_off() {
    let job = job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 6}), json!({}));
    let mut failed = PodView::clone(&pod("a", "Failed", -1, 0));
    failed.created = Some(Timestamp::from_second(now().as_second() - 4).unwrap());
    let pods = [Arc::new(Cached {
        key: ObjectKey::new("n", "a"),
        uid: "a".into(),
        resource_version: "1".into(),
        view: failed,
    })];
    let step = world(&job, &pods).step();
    assert_eq!((step.create.len(), step.again), (0, Some(Duration::from_secs(6))));
}

#[test]
fn endings() {
    let policy = json!({"rules": [{"action": "FailJob", "onPodConditions": [{"type": "X"}]}]});
    let started = json!({"startTime": "2001-01-01T00:00:00Z"});
    type Case = (&'static str, Value, Value, Vec<JobPod>, Option<&'static str>);
    let cases: Vec<Case> = vec![
        ("runs", json!({"completions": 2, "backoffLimit": 1}), json!({}), vec![pod("a", "Failed", -1, 0)], None),
        (
            "limit",
            json!({"completions": 2, "backoffLimit": 0}),
            json!({}),
            vec![pod("a", "Failed", -1, 0)],
            Some("BackoffLimitExceeded"),
        ),
        (
            "deadline",
            json!({"activeDeadlineSeconds": 60, "backoffLimit": 1}),
            started.clone(),
            vec![],
            Some("DeadlineExceeded"),
        ),
        ("suspended", json!({"activeDeadlineSeconds": 60, "backoffLimit": 1, "suspend": true}), started, vec![], None),
        (
            "unmatched policy",
            json!({"podFailurePolicy": policy, "backoffLimit": 1}),
            json!({}),
            vec![pod("a", "Failed", -1, 0)],
            None,
        ),
        (
            "index",
            indexed(json!({"backoffLimitPerIndex": 0, "maxFailedIndexes": 0})),
            json!({}),
            vec![pod("a", "Failed", 0, 0)],
            Some("MaxFailedIndexesExceeded"),
        ),
        (
            "index again",
            indexed(json!({"backoffLimitPerIndex": 1, "maxFailedIndexes": 0})),
            json!({}),
            vec![pod("a", "Failed", 0, 0)],
            None,
        ),
        (
            "all indexes",
            indexed(json!({"backoffLimitPerIndex": 0})),
            json!({"completedIndexes": "1,2"}),
            vec![pod("a", "Failed", 0, 0)],
            Some("FailedIndexes"),
        ),
        (
            "enough",
            indexed(json!({"successPolicy": {"rules": [{"succeededCount": 1}]}})),
            json!({}),
            vec![pod("a", "Succeeded", 2, 0)],
            Some("SuccessPolicy"),
        ),
        (
            "known",
            json!({"backoffLimit": 6}),
            json!({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "R"}]}),
            vec![],
            Some("R"),
        ),
    ];
    for (what, spec, status, pods, expected) in cases {
        let job = job(spec, status);
        let ending = world(&job, &pods).ending();
        assert_eq!(ending.map(|e| e.reason).as_deref(), expected, "{what}");
    }
}

#[test]
fn counts_live_until_the_replacement_exists() {
    let job = job(indexed(json!({"backoffLimitPerIndex": 2, "backoffLimit": 100})), json!({}));
    let pods = [pod("a", "Failed", 0, 1)];
    let before = world(&job, &pods);
    assert_eq!(before.kept_for_count().into_iter().collect::<Vec<_>>(), ["a"]);
    assert_eq!(before.step().create[0], Creation { index: Some(0), before: Some((2, 0)) });
    let with_next = [pod("a", "Failed", 0, 1), pod("b", "Running", 0, 2)];
    assert!(world(&job, &with_next).kept_for_count().is_empty());
}

#[test]
fn nothing_is_counted_twice() {
    let job = job(
        json!({"completions": 3, "backoffLimit": 6}),
        json!({"succeeded": 1, "uncountedTerminatedPods": {"failed": ["gone", "b"]}}),
    );
    let pods = [pod("a", "Succeeded", -1, 0), pod("b", "Failed", -1, 0), pod("c", "Running", -1, 0)];
    let world = world(&job, &pods);
    assert_eq!((world.succeeded(), world.fresh(true).len()), (2, 0));
    let mut done = account(&world, None, world.status.clone());
    // What has no finalizer any more is a number; the others wait for theirs to go.
    assert_eq!(done.status.failed, Some(1));
    let lists = done.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!((lists.succeeded, lists.failed), (Some(vec!["a".to_owned()]), Some(vec!["b".to_owned()])));
    assert_eq!(done.release.iter().map(|p| p.uid.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(settle(&mut done.status, |_| true));
    assert_eq!((done.status.succeeded, done.status.failed), (Some(2), Some(2)));
    assert!(!settle(&mut done.status, |_| true));
}

#[test]
fn ends_are_announced_and_then_come() {
    let job = job(json!({"completions": 1, "backoffLimit": 0}), json!({}));
    let pods = [pod("a", "Failed", -1, 0), pod("b", "Running", -1, 0)];
    let world = world(&job, &pods);
    let ending = world.ending().unwrap();
    let mut done = account(&world, Some(&ending), world.status.clone());
    assert_eq!(done.release.len(), 2);
    let at = Time(now());
    announce(&mut done.status, &ending, &at);
    done.status.active = Some(0);
    assert!(!finish(&mut done.status, &ending, &at));
    settle(&mut done.status, |_| true);
    assert!(finish(&mut done.status, &ending, &at));
    let kinds: Vec<&str> = done.status.conditions.iter().flatten().map(|c| c.type_.as_str()).collect();
    assert_eq!(
        (kinds, done.status.failed, done.status.completion_time),
        (vec!["FailureTarget", "Failed"], Some(2), None)
    );
}

#[test]
fn indexed_jobs_count_indexes() {
    let job = job(indexed(json!({})), json!({"completedIndexes": "0"}));
    let pods = [pod("a", "Succeeded", 0, 0), pod("b", "Succeeded", 1, 0), pod("c", "Succeeded", 7, 0)];
    let world = world(&job, &pods);
    let done = account(&world, None, world.status.clone());
    assert_eq!((done.status.completed_indexes.as_deref(), done.status.succeeded), (Some("0,1"), Some(2)));
    assert_eq!(done.release.len(), 3);
}
