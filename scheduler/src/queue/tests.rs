use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::plugins::testing::{pod_view, set};

/// A judge with one plugin that takes every event for helpful, and gates for Pods that have some.
struct Simple {
    helps: bool,
}

impl Judge for Simple {
    fn gate(&self, pod: &PodView) -> Option<PluginId> {
        (!pod.template.gates.is_empty()).then_some(PluginId::SchedulingGates)
    }

    fn may_help(&self, plugin: PluginId, _pod: &PodView, _event: &ClusterEvent<'_>) -> bool {
        self.helps && plugin == PluginId::NodeResourcesFit
    }
}

const YES: Simple = Simple { helps: true };
const NO: Simple = Simple { helps: false };

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn queue() -> PodQueue {
    let times = BackoffTimes { initial: at(1.0), max: at(10.0) };
    PodQueue::new(times, at(300.0), Box::new(|_, _| {}))
}

fn pod(name: &str, priority: i32) -> Arc<PodView> {
    pod_view(name, |p| p.priority(priority))
}

fn popped(queue: &mut PodQueue, now: f64) -> Option<String> {
    queue.pop(at(now)).map(|w| w.pod.name.to_string())
}

fn fit() -> PluginSet {
    set(&[PluginId::NodeResourcesFit])
}

#[test]
fn priority_first_then_age() {
    let mut queue = queue();
    for (name, priority, now) in [("old", 0, 1.0), ("new", 0, 2.0), ("high", 9, 3.0)] {
        queue.set(&pod(name, priority), &YES, at(now));
    }
    let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, 4.0)).collect();
    assert_eq!(order, ["high", "old", "new"]);
}

#[test]
fn rejected_pods_wait_for_what_helps() {
    let mut queue = queue();
    let p = pod("p", 0);
    queue.set(&p, &YES, at(0.0));
    queue.pop(at(0.0));
    queue.reject(&p.uid, fit(), at(0.0));
    assert_eq!(popped(&mut queue, 100.0), None);
    queue.happened(&ClusterEvent::PodDeleted(&pod("gone", 0)), &NO, at(100.0));
    assert_eq!(popped(&mut queue, 100.0), None);
    queue.happened(&ClusterEvent::NamespaceChanged, &YES, at(100.0));
    assert_eq!(popped(&mut queue, 100.0), None);
    queue.happened(&ClusterEvent::PodDeleted(&pod("gone", 0)), &YES, at(100.0));
    assert_eq!(popped(&mut queue, 100.0).as_deref(), Some("p"));
}

#[test]
fn back_off_is_cut_short_when_nothing_else_is_to_do() {
    let mut queue = queue();
    let (p, other) = (pod("p", 5), pod("other", 0));
    queue.set(&p, &YES, at(0.0));
    queue.pop(at(0.0));
    queue.reject(&p.uid, fit(), at(0.0));
    queue.happened(&ClusterEvent::PodDeleted(&pod("gone", 0)), &YES, at(0.5));
    assert_eq!(queue.get(&p.uid).unwrap().place, Place::Backoff);
    queue.set(&other, &YES, at(0.5));
    assert_eq!(popped(&mut queue, 0.6).as_deref(), Some("other"));
    assert_eq!(popped(&mut queue, 0.6).as_deref(), Some("p"));
}

#[test]
fn errors_wait_until_the_end() {
    let mut queue = queue();
    let p = pod("p", 0);
    queue.set(&p, &YES, at(0.0));
    queue.pop(at(0.0));
    queue.fail(&p.uid, at(0.0));
    assert_eq!(popped(&mut queue, 0.9), None);
    assert_eq!(queue.next_due(), Some(at(1.0)));
    assert_eq!(popped(&mut queue, 1.0).as_deref(), Some("p"));
    queue.fail(&p.uid, at(1.0));
    assert_eq!(queue.next_due(), Some(at(3.0)));
}

#[test]
fn who_nobody_rejected_rests_too() {
    let mut queue = queue();
    let p = pod("p", 0);
    queue.set(&p, &YES, at(0.0));
    queue.pop(at(0.0));
    queue.reject(&p.uid, PluginSet::default(), at(0.0));
    assert_eq!((popped(&mut queue, 0.5), queue.next_due()), (None, Some(at(1.0))));
}

#[test]
fn nothing_waits_for_ever() {
    let mut queue = queue();
    let p = pod("p", 0);
    queue.set(&p, &YES, at(0.0));
    queue.pop(at(0.0));
    queue.reject(&p.uid, fit(), at(0.0));
    queue.flush(&NO, at(300.0));
    assert_eq!(popped(&mut queue, 300.0), None);
    queue.flush(&NO, at(301.0));
    assert_eq!(popped(&mut queue, 301.0).as_deref(), Some("p"));
}

#[test]
fn gates_hold_pods_back() {
    let mut queue = queue();
    let gated = pod_view("p", |p| p.spec("schedulingGates", json!([{"name": "x"}])));
    queue.set(&gated, &YES, at(0.0));
    assert_eq!(queue.sizes()[3], ("gated", 1));
    assert_eq!(popped(&mut queue, 1.0), None);
    queue.set(&pod("p", 0), &YES, at(2.0));
    assert_eq!(popped(&mut queue, 2.0).as_deref(), Some("p"));
}

#[test]
fn a_preemptor_waits_for_its_preemption() {
    let mut queue = queue();
    let p = pod("p", 0);
    queue.set(&p, &YES, at(0.0));
    queue.pop(at(0.0));
    queue.reject(&p.uid, fit(), at(0.0));
    queue.preemption_began(&p.uid);
    queue.happened(&ClusterEvent::PodDeleted(&pod("gone", 0)), &YES, at(20.0));
    assert_eq!(popped(&mut queue, 20.0), None);
    queue.preemption_ended(&p.uid, false, &YES, at(21.0));
    assert_eq!(popped(&mut queue, 21.0).as_deref(), Some("p"));
}

#[test]
fn what_is_removed_is_gone_from_everywhere() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&log);
    let times = BackoffTimes { initial: at(1.0), max: at(10.0) };
    let incoming = move |queue: &'static str, event: &str| sink.lock().unwrap().push(format!("{queue} {event}"));
    let mut queue = PodQueue::new(times, at(300.0), Box::new(incoming));
    let p = pod("p", 0);
    queue.set(&p, &YES, at(0.0));
    queue.pop(at(0.0));
    queue.fail(&p.uid, at(0.0));
    queue.remove(&p.uid);
    assert_eq!(popped(&mut queue, 10.0), None);
    assert!(queue.sizes().iter().all(|(_, n)| *n == 0));
    queue.set(&p, &YES, at(11.0));
    queue.remove(&p.uid);
    assert_eq!(popped(&mut queue, 12.0), None);
    assert_eq!(*log.lock().unwrap(), ["active PodAdd", "backoff ScheduleAttemptFailure", "active PodAdd"]);
}

#[test]
fn what_happens_while_others_are_asked_is_remembered() {
    for (judge, asks, waits) in [(&YES, true, "backoff"), (&NO, true, "unschedulable"), (&YES, false, "unschedulable")]
    {
        let mut queue = queue();
        let waiting = pod("p", 0);
        queue.set(&waiting, judge, at(0.0));
        assert!(queue.pop(at(0.0)).is_some() && queue.in_flight() == 1);
        if asks {
            queue.asks_others(&waiting.uid);
        }
        queue.happened(&ClusterEvent::Own { old: &waiting, new: &waiting }, judge, at(0.5));
        queue.reject(&waiting.uid, fit(), at(1.0));
        let filled: Vec<_> = queue.sizes().iter().filter(|(_, pods)| *pods > 0).map(|(name, _)| *name).collect();
        assert_eq!((filled, queue.in_flight()), (vec![waits], 0));
    }
}
