use runtime::clock::FakeClock;

use super::*;
use crate::testing::server;

fn about() -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: Some("ns".into()),
        name: Some("web".into()),
        uid: Some("u".into()),
        ..ObjectReference::default()
    }
}

fn told(message: &str, at: SystemTime) -> Told {
    Told { about: about(), kind: EventType::Normal, reason: "R".into(), message: message.into(), annotations: None, at }
}

fn written(correlator: &mut Correlator, event: &Told) -> Option<(String, i32, Option<String>)> {
    match correlator.decide(&EventSource::default(), event) {
        Decision::Drop => None,
        Decision::Write(w) => {
            correlator.wrote(&w.key, format!("name of {}", w.message));
            Some((w.message, w.count, w.update))
        }
    }
}

#[test]
fn equal_events_are_counted() {
    let mut correlator = Correlator::default();
    let at = SystemTime::UNIX_EPOCH;
    assert_eq!(written(&mut correlator, &told("m", at)), Some(("m".into(), 1, None)));
    assert_eq!(written(&mut correlator, &told("m", at)), Some(("m".into(), 2, Some("name of m".into()))));
}

#[test]
fn similar_events_are_combined_from_the_eleventh_on() {
    let mut correlator = Correlator::default();
    let at = SystemTime::UNIX_EPOCH;
    for i in 1..=10 {
        assert_eq!(written(&mut correlator, &told(&format!("m{i}"), at)), Some((format!("m{i}"), 1, None)));
    }
    let combined = "(combined from similar events): m11";
    assert_eq!(written(&mut correlator, &told("m11", at)), Some((combined.into(), 1, None)));
    let next = written(&mut correlator, &told("m12", at));
    let name = format!("name of {combined}");
    assert_eq!(next, Some(("(combined from similar events): m12".into(), 2, Some(name))));
    let later = at + Duration::from_secs(601);
    assert_eq!(written(&mut correlator, &told("m13", later)).map(|w| w.0), Some("m13".into()));
}

#[test]
fn spam_is_dropped_until_tokens_come_back() {
    let mut correlator = Correlator::default();
    let at = SystemTime::UNIX_EPOCH;
    for _ in 0..25 {
        assert!(written(&mut correlator, &told("m", at)).is_some());
    }
    assert_eq!(written(&mut correlator, &told("m", at)), None);
    assert!(written(&mut correlator, &told("m", at + Duration::from_secs(300))).is_some());
    assert_eq!(written(&mut correlator, &told("m", at + Duration::from_secs(300))), None);
}

#[tokio::test]
async fn events_are_created_then_patched() {
    let (server, client) = server();
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    server.lock().on_request = Some(Box::new(move |line| assert!(sender.send(line.to_owned()).is_ok())));
    let clock = FakeClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    let tasks = TaskGroup::new("test");
    let recorder = EventRecorder::new(client, "kube-scheduler", "", clock.clone(), &tasks);
    recorder.event(&about(), EventType::Warning, "FailedScheduling", "no nodes");
    recorder.event(&about(), EventType::Warning, "FailedScheduling", "no nodes");
    assert_eq!(requests.recv().await.as_deref(), Some("POST /api/v1/namespaces/ns/events"));
    let patch = requests.recv().await.unwrap();
    assert!(patch.starts_with("PATCH /api/v1/namespaces/ns/events/web.3b9aca00"), "{patch}");
    // The second event is in the server once the recorder has ended.
    drop(recorder);
    assert!(tasks.stop(Duration::from_secs(5)).await.is_empty());
    let server = server.lock();
    assert_eq!(server.bodies[0]["type"], "Warning");
    assert_eq!(server.bodies[0]["reportingComponent"], "kube-scheduler");
    assert_eq!(server.bodies[0]["firstTimestamp"], "1970-01-01T00:00:01Z");
    assert_eq!(server.bodies[1]["count"], 2);
}
