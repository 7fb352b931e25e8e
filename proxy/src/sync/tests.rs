//! The loop with a back end that records what it is asked for. Nothing depends on how long anything takes.

use controller::{Cached, EventRecorder};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use parking_lot::Mutex;
use prometheus::Registry;
use runtime::{clock::RealClock, tasks::TaskGroup};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::{
    config::settings::NodePortAddresses,
    metrics::Metrics,
    node::Home,
    view::{SLICE_INDICES, ServiceView, SliceView},
};

/// What the back end does next.
#[derive(Clone, Copy, Debug, Default)]
struct Mood {
    fails: bool,
    gone: bool,
}

/// A synchronization: whether it was full, the names of changed Services, and the number of all.
type Seen = (bool, Vec<String>, usize);

struct Recorder {
    seen: mpsc::UnboundedSender<Seen>,
    mood: Arc<Mutex<Mood>>,
}

#[async_trait::async_trait]
impl Backend for Recorder {
    async fn sync(&mut self, work: &Work<'_>) -> Result<Applied, BackendError> {
        let names = work.changed.iter().map(|changed| changed.key.name.clone()).collect();
        let told = self.seen.send((work.full, names, work.model.keys().len()));
        assert!(told.is_ok(), "the test is gone");
        let fails = std::mem::take(&mut self.mood.lock().fails);
        if fails { Err(BackendError::Cancelled) } else { Ok(Applied::default()) }
    }

    async fn intact(&mut self) -> bool {
        !std::mem::take(&mut self.mood.lock().gone)
    }

    fn full_period(&self) -> Duration {
        Duration::from_secs(3600)
    }
}

struct Bench {
    watched: Watched,
    mood: Arc<Mutex<Mood>>,
    seen: mpsc::UnboundedReceiver<Seen>,
    health: Health,
    tasks: TaskGroup,
    version: u64,
}

fn cached<V>(name: &str, version: u64, view: V) -> Cached<V> {
    Cached { key: ObjectKey::new("n", name), uid: name.to_owned(), resource_version: version.to_string(), view }
}

fn service_view(ip: &str) -> ServiceView {
    let object: Service =
        serde_json::from_value(json!({"spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}})).unwrap();
    ServiceView::project(object)
}

fn slice_view(service: &str, endpoints: Value) -> SliceView {
    let object: EndpointSlice = serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"labels": {"kubernetes.io/service-name": service}}, "ports": [{"name": "http", "port": 8080}]}))
    .unwrap();
    SliceView::project(object, "node")
}

impl Bench {
    fn start(sync: Duration) -> Self {
        let clock = RealClock::shared();
        let tasks = TaskGroup::new("test");
        let watched = Watched { services: Informer::new(&[]), slices: Informer::new(SLICE_INDICES) };
        let (sender, seen) = mpsc::unbounded_channel();
        let mood = Arc::<Mutex<Mood>>::default();
        let health = Health::new(&[Family::V4], Duration::from_secs(3600), clock.now());
        let metrics = Metrics::new(&Registry::new()).unwrap().of(Family::V4);
        let tracker = Tracker::new(Family::V4);
        tracker.follow(&watched.services, &watched.slices, clock.now(), |_, _| {});
        let home = Home::of(None, "0.0.0.0".parse().unwrap());
        let (events, _) = EventRecorder::to_channel(Arc::clone(&clock));
        let proxier = Proxier {
            family: Family::V4,
            backend: Box::new(Recorder { seen: sender, mood: Arc::clone(&mood) }),
            tracker,
            watched: watched.clone(),
            nodes: Informer::new(&[]),
            node: ObjectKey::cluster("node"),
            node_ports: NodePorts::of(&NodePortAddresses::In(Vec::new()), &home, Family::V4),
            health_ports: HealthPorts::new(health.clone(), Arc::clone(&clock), events, &tasks),
            periods: Periods { sync, least: Duration::from_millis(1) },
            metrics,
            health: health.clone(),
            clock,
        };
        tasks.spawn("proxier", proxier.run(tasks.token().clone()));
        Self { watched, mood, seen, health, tasks, version: 1 }
    }

    fn service(&mut self, name: &str, ip: &str) {
        self.version += 1;
        self.watched.services.apply(cached(name, self.version, service_view(ip)));
    }

    fn slice(&mut self, service: &str, endpoints: Value) {
        self.version += 1;
        self.watched.slices.apply(cached(&format!("{service}-1"), self.version, slice_view(service, endpoints)));
    }

    async fn next(&mut self) -> Seen {
        let next = tokio::time::timeout(Duration::from_secs(60), self.seen.recv()).await;
        next.expect("a synchronization").expect("the proxier runs")
    }

    async fn end(self) {
        assert!(self.tasks.stop(Duration::from_secs(60)).await.is_empty());
    }
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn the_first_is_full_and_waits_for_both_kinds() {
    let mut bench = Bench::start(LONG);
    bench
        .watched
        .services
        .replace(vec![cached("a", 1, service_view("10.0.0.1")), cached("b", 1, service_view("10.0.0.2"))]);
    tokio::task::yield_now().await;
    assert!(bench.seen.try_recv().is_err(), "EndpointSlices are not listed yet");
    bench.watched.slices.replace(Vec::new());
    assert_eq!(bench.next().await, (true, vec!["a".into(), "b".into()], 2));
    assert!(bench.health.is_healthy(SystemTime::now()));
    bench.slice("b", json!([{"addresses": ["10.1.0.1"]}]));
    assert_eq!(bench.next().await, (false, vec!["b".into()], 2), "only what changed");
    // What changes nothing for rules is no synchronization: the next one is of the other Service.
    bench.slice("b", json!([{"addresses": ["10.1.0.1"], "nodeName": "another"}]));
    bench.service("a", "10.0.0.3");
    assert_eq!(bench.next().await, (false, vec!["a".into()], 2));
    bench.watched.services.delete(&ObjectKey::new("n", "a"), "99");
    assert_eq!(bench.next().await, (false, vec!["a".into()], 1));
    bench.end().await;
}

#[tokio::test]
async fn after_a_failure_everything_is_written() {
    let mut bench = Bench::start(Duration::from_millis(5));
    bench.watched.services.replace(vec![cached("a", 1, service_view("10.0.0.1"))]);
    bench.watched.slices.replace(Vec::new());
    assert!(bench.next().await.0);
    bench.mood.lock().fails = true;
    bench.slice("a", json!([{"addresses": ["10.1.0.1"]}]));
    assert_eq!(bench.next().await, (false, vec!["a".into()], 1));
    assert!(bench.next().await.0, "tried again after the sync period, as a whole");
    bench.slice("a", json!([]));
    assert_eq!(bench.next().await, (false, vec!["a".into()], 1));
    bench.end().await;
}

#[tokio::test]
async fn rules_that_somebody_removed_are_written_again() {
    let mut bench = Bench::start(Duration::from_millis(5));
    bench.watched.services.replace(vec![cached("a", 1, service_view("10.0.0.1"))]);
    bench.watched.slices.replace(Vec::new());
    assert!(bench.next().await.0);
    bench.mood.lock().gone = true;
    assert_eq!(bench.next().await, (true, Vec::new(), 1));
    bench.end().await;
}
