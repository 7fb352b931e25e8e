use std::time::{Duration, SystemTime};

use http::Method;
use runtime::clock::FakeClock;
use serde_json::{Value, json};

use super::{
    queues::{Finished, Phase, Queues, Queuing, deal},
    *,
};

const QUEUING: Queuing = Queuing { queues: 4, hand: 1, length: 3 };

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn work(seats: u32) -> Work {
    Work { initial_seats: seats, ..Work::ONE }
}

fn arrive(queues: &mut Queues, now: u64, seats: u32, hash: u64) -> Arrival {
    queues.arrive(at(now), work(seats), hash, |_| {})
}

fn runs(arrival: Arrival) -> usize {
    match arrival {
        Arrival::Runs(slot) => slot,
        other => panic!("{other:?}"),
    }
}

fn waits(arrival: Arrival) -> (usize, tokio::sync::oneshot::Receiver<()>) {
    match arrival {
        Arrival::Waits(slot, woken) => (slot, woken),
        other => panic!("{other:?}"),
    }
}

#[test]
fn hands_are_dealt_without_doubles() {
    for hash in [0, 1, 7, 1 << 40, u64::MAX, 0x1234_5678_9abc_def0] {
        let mut hand = Vec::new();
        deal(hash, 16, 6, |card| hand.push(card));
        let mut again = Vec::new();
        deal(hash, 16, 6, |card| again.push(card));
        assert_eq!(hand, again);
        hand.sort_unstable();
        hand.dedup();
        assert!(hand.len() == 6 && hand.iter().all(|card| *card < 16), "{hand:?}");
    }
    let mut all = Vec::new();
    deal(5, 3, 8, |card| all.push(card));
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2], "not more cards than there are");
}

#[test]
fn requests_wait_in_their_queue_until_it_is_full() {
    let mut queues = Queues::new(at(0), Some(1), QUEUING);
    let first = runs(arrive(&mut queues, 0, 1, 0));
    let mut waiting: Vec<_> = (0..3).map(|_| waits(arrive(&mut queues, 1, 1, 0))).collect();
    assert!(matches!(arrive(&mut queues, 1, 1, 0), Arrival::Refused(Refusal::QueueFull)));
    let (_, mut other) = waits(arrive(&mut queues, 1, 1, 1));
    assert_eq!((queues.waiting, queues.running), (4, 1));
    queues.finish(first, at(2));
    let told = |woken: &mut tokio::sync::oneshot::Receiver<()>| woken.try_recv().is_ok();
    assert!(told(&mut other), "a queue that has had nothing comes before one that had its turn");
    assert!(!told(&mut waiting[0].1));
}

#[test]
fn flows_share_seats_whatever_they_ask_for() {
    let mut queues = Queues::new(at(0), Some(4), Queuing { queues: 4, hand: 1, length: 1000 });
    let mut running = Vec::new();
    let mut waiting = Vec::new();
    // One flow asks for much, the other for little; both always have something that waits.
    for n in 0..400 {
        let flow = u64::from(n % 10 == 0);
        match arrive(&mut queues, 0, 1, flow) {
            Arrival::Runs(slot) => running.push((slot, flow)),
            Arrival::Waits(slot, woken) => waiting.push((slot, flow, woken)),
            Arrival::Refused(why) => panic!("{why:?}"),
        }
    }
    let mut served = [0, 0];
    for round in 1..=18 {
        for (slot, flow) in std::mem::take(&mut running) {
            served[flow as usize] += 1;
            queues.finish(slot, at(round * 10));
        }
        waiting.retain_mut(|(slot, flow, woken)| {
            let told = woken.try_recv().is_ok();
            if told {
                running.push((*slot, *flow));
            }
            !told
        });
        assert_eq!(running.len(), 4, "no seat is left free");
    }
    assert!(served[1] >= 30, "the modest flow has its half: {served:?}");
}

#[test]
fn a_large_request_is_not_overtaken_for_ever() {
    let mut queues = Queues::new(at(0), Some(4), QUEUING);
    let small: Vec<usize> = (0..4).map(|_| runs(arrive(&mut queues, 0, 1, 0))).collect();
    let (large, mut woken) = waits(arrive(&mut queues, 1, 4, 1));
    let (_, mut late) = waits(arrive(&mut queues, 1, 1, 2));
    for slot in &small[..3] {
        queues.finish(*slot, at(2));
    }
    // The small one that waits is served first, for it ends first; the large one is next then.
    let late_runs = late.try_recv().is_ok();
    assert!(woken.try_recv().is_err(), "there are not enough seats yet");
    queues.finish(small[3], at(3));
    if late_runs {
        assert_eq!(queues.entries[large].phase, Phase::Waits);
        let slot = queues.entries.iter().position(|entry| entry.phase == Phase::Runs).expect("it runs");
        queues.finish(slot, at(4));
    }
    assert!(woken.try_recv().is_ok());
    assert_eq!(queues.seats, 4);
    let wide = Queues::new(at(0), Some(2), QUEUING).arrive(at(0), work(10), 0, |_| {});
    assert!(matches!(wide, Arrival::Runs(_)), "more seats than there are: it runs alone");
}

#[test]
fn seats_linger_after_writes() {
    let mut queues = Queues::new(at(0), Some(10), QUEUING);
    let write = Work { initial_seats: 1, final_seats: 10, after: at(5) };
    let slot = runs(queues.arrive(at(0), write, 0, |_| {}));
    assert_eq!(queues.seats, 10, "its seats are there from the start");
    let (_, mut woken) = waits(arrive(&mut queues, 1, 1, 1));
    assert_eq!(queues.finish(slot, at(2)), Finished { ran: at(2), lingers: Some(at(5)) });
    assert!(woken.try_recv().is_err());
    queues.release(slot, at(7));
    assert!(woken.try_recv().is_ok());
    assert_eq!(queues.seats, 1);
}

#[test]
fn who_leaves_the_queue_makes_room() {
    let mut queues = Queues::new(at(0), Some(1), Queuing { queues: 1, hand: 1, length: 1 });
    let first = runs(arrive(&mut queues, 0, 1, 0));
    let (second, _gone) = waits(arrive(&mut queues, 0, 1, 0));
    assert!(matches!(arrive(&mut queues, 0, 1, 0), Arrival::Refused(Refusal::QueueFull)));
    assert!(queues.withdraw(second, at(1), None));
    let (third, mut woken) = waits(arrive(&mut queues, 1, 1, 0));
    queues.finish(first, at(2));
    assert!(woken.try_recv().is_ok());
    assert!(!queues.withdraw(third, at(2), None), "it runs");
    queues.finish(third, at(3));
    assert!(queues.is_idle());
    assert_eq!((queues.totals.cancelled, queues.totals.rejected, queues.totals.dispatched), (1, 1, 2));
}

#[test]
fn levels_without_queues_refuse() {
    let mut queues = Queues::new(at(0), Some(1), Queuing::default());
    let slot = runs(arrive(&mut queues, 0, 1, 0));
    assert!(matches!(arrive(&mut queues, 0, 1, 0), Arrival::Refused(Refusal::NoSeat)));
    queues.finish(slot, at(1));
    runs(arrive(&mut queues, 1, 1, 0));
    let mut exempt = Queues::new(at(0), None, Queuing::default());
    assert!((0..1000).all(|_| matches!(arrive(&mut exempt, 0, 10, 0), Arrival::Runs(_))));
    let mut none = Queues::new(at(0), Some(0), QUEUING);
    waits(arrive(&mut none, 0, 1, 0));
}

#[test]
fn fewer_queues_and_more_seats() {
    let mut queues = Queues::new(at(0), Some(1), QUEUING);
    let slot = runs(arrive(&mut queues, 0, 1, 3));
    let (_, mut woken) = waits(arrive(&mut queues, 0, 1, 3));
    queues.set_queuing(Queuing { queues: 1, hand: 1, length: 3 });
    assert_eq!(queues.queues.len(), 4, "a queue in use stays");
    queues.set_limit(at(1), Some(2));
    assert!(woken.try_recv().is_ok());
    queues.finish(slot, at(2));
    let last = queues.entries.iter().position(|entry| entry.phase == Phase::Runs).expect("it runs");
    queues.finish(last, at(3));
    assert_eq!(queues.queues.len(), 1);
}

fn info(method: Method, path: &str) -> RequestInfo {
    RequestInfo::parse(&method, path, &Query::parse(""))
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..User::default() }
}

fn control(seats: u32) -> (Arc<FlowControl>, Arc<FakeClock>) {
    let clock = FakeClock::new(SystemTime::UNIX_EPOCH);
    let dynamic: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
    let flow = FlowControl::new(seats, at(15_000), dynamic, &Registry::new()).expect("metrics");
    let views = |kind: &str| -> Vec<Value> {
        let all = rules::bootstrap::flow::mandatory().into_iter().chain(rules::bootstrap::flow::suggested());
        all.filter(|object| object["kind"] == kind).collect()
    };
    flow.configure(
        views("FlowSchema").into_iter().map(|v| Arc::new(serde_json::from_value(v).expect("a schema"))).collect(),
        views("PriorityLevelConfiguration")
            .into_iter()
            .map(|v| Arc::new(serde_json::from_value(v).expect("a level")))
            .collect(),
    );
    (flow, clock)
}

async fn matched(flow: &FlowControl, info: &RequestInfo, user: &User) -> String {
    let found = Found::default();
    let ticket = flow.admit(info, &Query::parse(""), user, None, &found).await;
    assert!(ticket.is_ok_and(|ticket| ticket.is_some()));
    found.schema.get().map(|schema| schema.view.metadata.name.clone()).unwrap_or_default()
}

#[tokio::test]
async fn requests_find_their_schema() {
    let (flow, _clock) = control(600);
    let everyone = "system:authenticated";
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x";
    for (method, path, name, groups, wanted) in [
        (Method::GET, "/api/v1/pods", "admin", vec!["system:masters", everyone], "exempt"),
        (Method::GET, "/readyz", "system:anonymous", vec!["system:unauthenticated"], "probes"),
        (Method::GET, lease, "system:kube-scheduler", vec![everyone], "system-leader-election"),
        (Method::GET, "/api/v1/pods", "system:kube-scheduler", vec![everyone], "kube-scheduler"),
        (Method::PATCH, "/api/v1/nodes/n/status", "system:node:n", vec!["system:nodes", everyone], "system-node-high"),
        (Method::GET, "/api/v1/pods", "system:node:n", vec!["system:nodes", everyone], "system-nodes"),
        (
            Method::GET,
            "/api/v1/pods",
            "system:serviceaccount:kube-system:x",
            vec![everyone],
            "kube-system-service-accounts",
        ),
        (
            Method::GET,
            "/api/v1/pods",
            "system:serviceaccount:a:x",
            vec!["system:serviceaccounts", everyone],
            "service-accounts",
        ),
        (Method::GET, "/apis/x/v1/y", "somebody", vec![everyone], "global-default"),
        (Method::GET, "/metrics", "somebody", vec![everyone], "global-default"),
    ] {
        assert_eq!(matched(&flow, &info(method, path), &user(name, &groups)).await, wanted, "{name} {path}");
    }
}

#[tokio::test]
async fn waiting_ends_with_a_seat_with_time_or_with_the_client() {
    // Six seats are one for each level.
    let (flow, clock) = control(6);
    let (info, query) = (info(Method::GET, "/api/v1/pods/x"), Query::parse(""));
    let somebody = user("somebody", &["system:authenticated"]);
    let admit = || {
        let (flow, info, query, user) = (Arc::clone(&flow), info.clone(), query.clone(), somebody.clone());
        async move { flow.admit(&info, &query, &user, None, &Found::default()).await }
    };
    let level = Arc::clone(&flow.config.load().levels["global-default"]);
    let waiting = || level.queues.lock().waiting;
    let first = admit().await.expect("a seat").expect("a ticket");
    let second = tokio::spawn(admit());
    while waiting() != 1 {
        tokio::task::yield_now().await;
    }
    drop(first);
    let second = second.await.expect("it ran").expect("a seat").expect("a ticket");
    let third = tokio::spawn(admit());
    while clock.sleepers() != 1 {
        tokio::task::yield_now().await;
    }
    clock.advance(at(15_000));
    assert_eq!(third.await.expect("it ran").err(), Some(Refused { retry_after: 1 }));
    assert_eq!((waiting(), level.queues.lock().totals.timed_out), (0, 1));
    let fourth = tokio::spawn(admit());
    while waiting() != 1 {
        tokio::task::yield_now().await;
    }
    fourth.abort();
    assert!(fourth.await.is_err());
    assert_eq!((waiting(), level.queues.lock().totals.cancelled), (0, 1));
    drop(second);
    assert!(level.queues.lock().is_idle());
}

#[tokio::test]
async fn idle_levels_lend_what_busy_ones_want() {
    let (flow, clock) = control(600);
    let info = info(Method::GET, "/api/v1/namespaces/a/pods/x");
    let account = user("system:serviceaccount:a:x", &["system:serviceaccounts", "system:authenticated"]);
    let level = Arc::clone(&flow.config.load().levels["workload-low"]);
    let nominal = level.queues.lock().limit().expect("a limit");
    let mut tickets = Vec::new();
    for _ in 0..nominal {
        let ticket = flow.admit(&info, &Query::parse(""), &account, None, &Found::default()).await;
        tickets.push(ticket.expect("a seat"));
    }
    clock.advance(PERIOD);
    flow.divide();
    assert!(level.queues.lock().limit() > Some(nominal), "it borrows");
    let given = |flow: &FlowControl| -> u32 {
        flow.config.load().levels.values().filter_map(|level| level.queues.lock().limit()).sum()
    };
    assert!(given(&flow) <= 610, "{}", given(&flow));
    drop(tickets);
}

#[test]
fn dangling_schemas_are_told() {
    let schema = json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}});
    let told = FlowControl::dangling(std::slice::from_ref(&schema), &[]);
    assert_eq!((told[0].status, told[0].reason), ("True", "NotFound"));
    let message = "This FlowSchema references the PriorityLevelConfiguration object named \"l\"";
    assert_eq!(told[0].message, format!("{message} but there is no such object"));
    let mut right = schema;
    right["status"] = json!({"conditions": [
        {"type": "Dangling", "status": "False", "message": format!("{message} and it exists")}]});
    assert!(FlowControl::dangling(std::slice::from_ref(&right), &["l".into()]).is_empty());
    assert_eq!(FlowControl::dangling(&[right], &["other".into()]).len(), 1);
}
