use std::{collections::BTreeMap, sync::Arc};

use ::controller::ObjectKey;

use super::*;
use crate::views::Condition;

const NOW: i64 = 1_000_000;

fn at(seconds_ago: i64) -> Timestamp {
    Timestamp::from_second(NOW - seconds_ago).unwrap()
}

fn pod(name: &str, view: PodView) -> Arc<Cached<PodView>> {
    Arc::new(Cached {
        key: ObjectKey::new("ns", name),
        uid: name.to_owned(),
        resource_version: "1".into(),
        view: PodView { created: view.created.or(Some(at(10_000))), ..view },
    })
}

fn ready(since: Option<i64>) -> Vec<Condition> {
    let text = String::new;
    vec![Condition {
        kind: "Ready".into(),
        status: "True".into(),
        reason: text(),
        message: text(),
        since: since.map(at),
    }]
}

fn running(node: &str) -> PodView {
    PodView { node: node.into(), phase: Phase::Running, conditions: ready(Some(100)), ..PodView::default() }
}

#[test]
fn steps() {
    assert_eq!(step(3, 1), Step::Create(2));
    assert_eq!(step(3, 5), Step::Delete(2));
    assert_eq!(step(3, 3), Step::Rest);
    assert_eq!(step(2000, 0), Step::Create(500));
    assert_eq!(step(0, 2000), Step::Delete(500));
}

/// The first Pod of each pair goes before the second.
#[test]
fn ranking() {
    let cost = |text: &str| BTreeMap::from([(DELETION_COST.to_owned(), text.to_owned())]);
    let pairs: Vec<(&str, PodView, PodView)> = vec![
        ("unassigned", running(""), running("n")),
        (
            "pending",
            PodView { phase: Phase::Pending, ..running("n") },
            PodView { phase: Phase::Unknown, ..running("n") },
        ),
        ("unknown", PodView { phase: Phase::Unknown, ..running("n") }, running("n")),
        ("not ready", PodView { conditions: Vec::new(), ..running("n") }, running("n")),
        ("cost", PodView { annotations: cost("-5"), ..running("n") }, running("n")),
        ("cost above", running("n"), PodView { annotations: cost("1"), ..running("n") }),
        (
            "invalid cost is none",
            PodView { annotations: cost("-1"), ..running("n") },
            PodView { annotations: cost("-9999999999"), ..running("n") },
        ),
        ("ready for less time", PodView { conditions: ready(Some(10)), ..running("n") }, running("n")),
        ("ready since when?", PodView { conditions: ready(None), ..running("n") }, running("n")),
        ("restarts", PodView { restarts: (4, 0), ..running("n") }, PodView { restarts: (3, 9), ..running("n") }),
        (
            "sidecar restarts",
            PodView { restarts: (3, 1), ..running("n") },
            PodView { restarts: (3, 0), ..running("n") },
        ),
        ("created later", PodView { created: Some(at(100)), ..running("n") }, running("n")),
    ];
    for (what, first, second) in pairs {
        for names in [("a", "b"), ("b", "a")] {
            let pods = [pod(names.0, first.clone()), pod(names.1, second.clone())];
            let gone = victims(&pods, &[], 1, at(0));
            assert_eq!(gone[0].uid, names.0, "{what}");
        }
    }
}

#[test]
fn ages_of_one_magnitude_go_by_uid() {
    let pods = [
        pod("b", PodView { conditions: ready(Some(100)), ..running("n") }),
        pod("a", PodView { conditions: ready(Some(101)), ..running("n") }),
    ];
    assert_eq!(victims(&pods, &[], 1, at(0))[0].uid, "a");
}

#[test]
fn crowded_nodes_first() {
    let pods = [pod("a", running("n1")), pod("b", running("n2"))];
    let related = [pods[0].clone(), pods[1].clone(), pod("c", running("n2"))];
    assert_eq!(victims(&pods, &related, 1, at(0))[0].uid, "b");
    assert_eq!(victims(&pods, &related, 2, at(0)).len(), 2);
}

#[test]
fn status_counts() {
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let one = PodView { labels: labels.clone(), ..running("n") };
    let two = PodView { conditions: ready(Some(5)), ..running("n") };
    let three = PodView { conditions: Vec::new(), labels: labels.clone(), ..running("n") };
    let active = [&one, &two, &three];
    let observed = Observed {
        active: &active,
        terminating: Some(1),
        replicas: 3,
        min_ready_seconds: 10,
        generation: 4,
        template_labels: &labels,
        error: None,
        now: at(0),
    };
    let got = status(&observed, &SetStatus::default());
    let expected = SetStatus {
        replicas: 3,
        fully_labeled: 2,
        ready: 2,
        available: 1,
        terminating: Some(1),
        observed_generation: 4,
        failure: None,
    };
    assert_eq!(got, expected);
    assert_eq!(next_available(&active, 10, at(0)), Some(5));
    assert_eq!(next_available(&active, 0, at(0)), None);
}

#[test]
fn failures_come_and_go() {
    let labels = BTreeMap::new();
    let observed = |replicas, error| Observed {
        active: &[],
        terminating: None,
        replicas,
        min_ready_seconds: 0,
        generation: 1,
        template_labels: &labels,
        error,
        now: at(0),
    };
    let failed = status(&observed(1, Some("quota")), &SetStatus::default());
    let failure = failed.failure.clone().unwrap();
    assert_eq!((failure.reason.as_str(), failure.message.as_str()), ("FailedCreate", "quota"));
    let again = status(&observed(1, Some("other text")), &failed);
    assert_eq!(again.failure, failed.failure);
    assert_eq!(status(&observed(0, Some("stuck")), &SetStatus::default()).failure.unwrap().reason, "FailedDelete");
    assert_eq!(status(&observed(1, None), &failed).failure, None);
}
