//! Against the in-process server, with a clock moved by hand.

use std::time::SystemTime;

use runtime::clock::FakeClock;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Shared, server};

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler";

struct Case {
    server: Shared,
    clock: Arc<FakeClock>,
    elector: LeaderElector,
    log: crate::events::EventLog,
    requests: tokio::sync::mpsc::UnboundedReceiver<String>,
    health: HealthChecks,
}

fn case(release: bool) -> Case {
    let (server, client) = server();
    let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
    server.lock().on_request = Some(Box::new(move |line| {
        let _gone = sender.send(line.to_owned()).is_err();
    }));
    let clock = FakeClock::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let (recorder, log) = EventRecorder::to_channel(clock.clone());
    let config = LeaderConfig {
        namespace: "kube-system".into(),
        name: "kube-scheduler".into(),
        identity: "host_me".into(),
        lease: Duration::from_secs(15),
        renew: Duration::from_secs(10),
        retry: Duration::from_secs(2),
        release,
    };
    let registry = Registry::new();
    let elector = LeaderElector::new(client, config, clock.clone(), recorder, Some(&registry)).unwrap();
    let health = HealthChecks::new();
    elector.add_health_check(&health, Scope::NOT_LIVE);
    Case { server, clock, elector, log, requests, health }
}

fn lease(holder: &str, transitions: i32) -> Value {
    json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": "kube-scheduler", "namespace": "kube-system"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": transitions,
            "renewTime": "2001-01-01T00:00:00.000000Z"}})
}

impl Case {
    fn spec(&self) -> Value {
        self.server.lock().objects[PATH]["spec"].clone()
    }

    /// Waits until the candidate sleeps, then moves the clock.
    async fn pass(&self, time: Duration) {
        while self.clock.sleepers() == 0 {
            tokio::task::yield_now().await;
        }
        self.clock.advance(time);
    }

    fn start(&self, stop: &CancellationToken) -> tokio::task::JoinHandle<Result<(), LeaderError>> {
        let (elector, stop) = (self.elector.clone(), stop.clone());
        tokio::spawn(async move { elector.run(&stop, |token| async move { token.cancelled().await }).await })
    }
}

#[tokio::test]
async fn takes_a_free_lease_and_hands_it_back() {
    let mut case = case(true);
    let stop = CancellationToken::new();
    let running = case.start(&stop);
    for expected in ["GET", "POST"] {
        assert!(case.requests.recv().await.unwrap().starts_with(expected));
    }
    // The first renewal shows that it leads.
    assert!(case.requests.recv().await.unwrap().starts_with("PUT"));
    assert!(case.elector.is_leader());
    assert_eq!(case.elector.leader().as_deref(), Some("host_me"));
    let spec = case.spec();
    assert_eq!((spec["holderIdentity"].as_str(), spec["leaseTransitions"].as_i64()), (Some("host_me"), Some(0)));
    assert_eq!(spec["acquireTime"], "1970-01-12T13:46:40.000000Z");
    stop.cancel();
    running.await.unwrap().unwrap();
    let spec = case.spec();
    assert_eq!((spec["holderIdentity"].as_str(), spec["leaseDurationSeconds"].as_i64()), (Some(""), Some(1)));
    let events = ["Normal LeaderElection host_me became leader", "Normal LeaderElection host_me stopped leading"];
    assert_eq!(case.log.drain(), events);
}

#[tokio::test]
async fn waits_for_the_holder_by_its_own_clock() {
    let mut case = case(false);
    case.server.lock().put(PATH, lease("host_other", 3));
    let stop = CancellationToken::new();
    let running = case.start(&stop);
    // Renewed once by its holder: the time starts anew, whatever renewTime says.
    assert!(case.requests.recv().await.unwrap().starts_with("GET"));
    case.pass(Duration::from_secs(10)).await;
    assert!(case.requests.recv().await.unwrap().starts_with("GET"));
    case.server.lock().put(PATH, lease("host_other", 3));
    case.pass(Duration::from_secs(10)).await;
    assert!(case.requests.recv().await.unwrap().starts_with("GET"));
    case.pass(Duration::from_secs(14)).await;
    assert!(case.requests.recv().await.unwrap().starts_with("GET"));
    assert!(!case.elector.is_leader());
    case.pass(Duration::from_secs(5)).await;
    assert!(case.requests.recv().await.unwrap().starts_with("GET"));
    assert!(case.requests.recv().await.unwrap().starts_with("PUT"));
    assert!(case.requests.recv().await.unwrap().starts_with("PUT"));
    assert!(case.elector.is_leader());
    assert_eq!(case.spec()["leaseTransitions"], 4);
    stop.cancel();
    running.await.unwrap().unwrap();
    // Not released: the next one has to wait.
    assert_eq!(case.spec()["holderIdentity"], "host_me");
}

#[tokio::test]
async fn a_leader_that_cannot_renew_gives_up() {
    let mut case = case(true);
    let running = case.start(&CancellationToken::new());
    for _ in 0..3 {
        case.requests.recv().await.unwrap();
    }
    case.server.lock().failing = Some(500);
    assert!(case.health.is_ready());
    let mut passed = 0;
    while !running.is_finished() {
        if case.clock.sleepers() > 0 {
            case.clock.advance(Duration::from_secs(1));
            passed += 1;
        }
        assert!(passed < 60, "gives up in time");
        tokio::task::yield_now().await;
    }
    assert!(matches!(running.await.unwrap(), Err(LeaderError::Lost)));
    assert!(!case.elector.is_leader());
    assert!(case.log.drain().last().unwrap().ends_with("stopped leading"));
}

#[tokio::test]
async fn an_empty_holder_is_replaced_at_once() {
    let mut case = case(false);
    case.server.lock().put(PATH, lease("", 7));
    let stop = CancellationToken::new();
    let running = case.start(&stop);
    assert!(case.requests.recv().await.unwrap().starts_with("GET"));
    assert!(case.requests.recv().await.unwrap().starts_with("PUT"));
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(case.spec()["leaseTransitions"], 8);
}

#[tokio::test]
async fn a_lease_that_others_touched_is_looked_at_before_it_is_renewed() {
    let mut case = case(false);
    let stop = CancellationToken::new();
    let running = case.start(&stop);
    for expected in ["GET", "POST", "PUT"] {
        assert!(case.requests.recv().await.unwrap().starts_with(expected));
    }
    // A write of somebody who leaves the holder as it is.
    while case.clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    let touched = case.server.lock().objects[PATH].clone();
    case.server.lock().put(PATH, touched);
    case.pass(Duration::from_secs(2)).await;
    for expected in ["PUT", "GET", "PUT"] {
        assert!(case.requests.recv().await.unwrap().starts_with(expected));
    }
    assert!(case.elector.is_leader());
    assert_eq!(case.spec()["leaseTransitions"], 0);
    stop.cancel();
    running.await.unwrap().unwrap();
}
