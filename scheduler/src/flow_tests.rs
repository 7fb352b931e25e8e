//! From watch to binding, with an API server that is a function: what is asked of it is read from a channel.

use std::{convert::Infallible, sync::Arc, time::SystemTime};

use bytes::Bytes;
use controller::{Cached, Informer, ObjectKey};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use kube::client::Body;
use parking_lot::Mutex;
use prometheus::Registry;
use runtime::{
    clock::{Clock, FakeClock},
    tasks::TaskGroup,
};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use crate::{
    api::Api,
    config::{Settings, Sources},
    devices::Devices,
    extenders::Extenders,
    metrics::Metrics,
    objects::{NamespaceView, NodeView, PodView, SharedPod},
    plugins::{
        testing::{PodDraft, node_view, pod_view},
        volumes::Storage,
    },
    queue::{BackoffTimes, PodQueue},
    record::Recorder,
    scheduler::{Profiles, Scheduler, Shared, State},
    watch::{Watched, devices_changed},
};

/// A request that changes something: method, path, body.
type Asked = (Method, String, Value);

struct Scene {
    watched: Watched,
    shared: Arc<Shared>,
    clock: Arc<FakeClock>,
    asked: mpsc::Receiver<Asked>,
    /// Code of the next answers to bindings.
    bindings: Arc<Mutex<Vec<u16>>>,
    version: u64,
    devices: Arc<Devices>,
}

fn client(asked: mpsc::Sender<Asked>, bindings: Arc<Mutex<Vec<u16>>>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (asked, bindings) = (asked.clone(), Arc::clone(&bindings));
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let code = if path.ends_with("/binding") { bindings.lock().pop().unwrap_or(201) } else { 201 };
            asked.send((method, path, body)).await.expect("the test reads");
            let status = if code < 300 { "Success" } else { "Failure" };
            let text = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": status, "code": code,
                "reason": "Conflict", "message": "no",
            });
            let answer = Response::builder().status(code).body(Full::new(Bytes::from(text.to_string())));
            Ok::<_, Infallible>(answer.expect("an answer"))
        }
    });
    kube::Client::new(service, "default")
}

impl Scene {
    fn new() -> Self {
        let (sender, asked) = mpsc::channel(100);
        let bindings = Arc::default();
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH);
        let tasks = TaskGroup::new("test");
        let api = Api::new(client(sender, Arc::clone(&bindings)));
        let shared_clock: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let selector: crate::plugins::topology_spread::DefaultSelector =
            Arc::new(|_| machinery::selector::LabelSelector::default());
        let devices = Devices::empty();
        let sources = Sources { selector, storage: Storage::empty(), devices: Arc::clone(&devices) };
        let metrics = Metrics::new(&Registry::new()).expect("a new registry");
        let second = std::time::Duration::from_secs(1);
        let queue =
            PodQueue::new(BackoffTimes { initial: second, max: 10 * second }, 300 * second, Box::new(|_, _| {}));
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(queue)),
            wake: Notify::new(),
            profiles: Profiles::new(
                Settings::defaults().profiles(&sources).expect("defaults are right"),
                metrics.clone(),
            ),
            recorder: Recorder::new(api.clone(), "host", Arc::clone(&shared_clock), &tasks),
            api,
            metrics,
            clock: shared_clock,
            budgets: Informer::new(&[]),
            tasks: tasks.clone(),
            extenders: Extenders::default(),
        });
        let watched = Watched {
            pods: Informer::<SharedPod>::new(&[]),
            nodes: Informer::<NodeView>::new(&[]),
            namespaces: Informer::<NamespaceView>::new(&[]),
        };
        watched.feed(&shared);
        let to = Arc::clone(&shared);
        devices.on_change(move |change| devices_changed(&to, change));
        let scheduler = Scheduler::new(Arc::clone(&shared));
        let stop = tasks.token().clone();
        tasks.spawn("scheduler", async move { scheduler.run(stop).await });
        Self { watched, shared, clock, asked, bindings, version: 0, devices }
    }

    fn node(&mut self, name: &str) {
        self.version += 1;
        self.watched.nodes.apply(Cached {
            key: ObjectKey::cluster(name),
            uid: name.into(),
            resource_version: self.version.to_string(),
            view: node_view(name, |n| n),
        });
    }

    fn pod(&mut self, name: &str, edit: impl FnOnce(PodDraft) -> PodDraft) -> Arc<PodView> {
        self.version += 1;
        let pod = pod_view(name, edit);
        self.watched.pods.apply(Cached {
            key: ObjectKey::new("default", name),
            uid: pod.uid.to_string(),
            resource_version: self.version.to_string(),
            view: SharedPod(Arc::clone(&pod)),
        });
        pod
    }

    /// The next request to this kind of path.
    async fn next(&mut self, path: &str) -> Asked {
        loop {
            let asked = self.asked.recv().await.expect("a request");
            if asked.1.contains(path) {
                return asked;
            }
        }
    }
}

#[tokio::test]
async fn a_pod_is_bound_and_told_of() {
    let mut scene = Scene::new();
    scene.node("n1");
    scene.pod("p", |p| p);
    let (method, path, body) = scene.next("/binding").await;
    assert_eq!((method, path.as_str()), (Method::POST, "/api/v1/namespaces/default/pods/p/binding"));
    assert_eq!((&body["target"]["name"], &body["metadata"]["uid"]), (&"n1".into(), &"uid-p".into()));
    let (_, _, event) = scene.next("/events").await;
    assert_eq!(event["note"], "Successfully assigned default/p to n1");
    assert_eq!(event["reportingInstance"], "default-scheduler-host");
    assert!(scene.shared.state.lock().cluster.is_assumed("uid-p"));
    scene.pod("p", |p| p.spec("nodeName", "n1".into()));
    assert!(!scene.shared.state.lock().cluster.is_assumed("uid-p"));
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_waits_for_a_node() {
    let mut scene = Scene::new();
    scene.node("n1");
    scene.pod("p", |p| p.spec("nodeSelector", serde_json::json!({"kubernetes.io/hostname": "n2"})));
    let (method, path, body) = scene.next("/status").await;
    assert_eq!((method, path.as_str()), (Method::PATCH, "/api/v1/namespaces/default/pods/p/status"));
    let condition = &body["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["status"]), (&"Unschedulable".into(), &"False".into()));
    assert_eq!(
        condition["message"],
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    scene.node("n2");
    let (_, _, body) = scene.next("/binding").await;
    assert_eq!(body["target"]["name"], "n2");
}

#[tokio::test]
async fn without_nodes_a_pod_waits_for_one() {
    let mut scene = Scene::new();
    scene.pod("p", |p| p);
    let (_, _, body) = scene.next("/status").await;
    assert_eq!(body["status"]["conditions"][0]["message"], "no nodes available to schedule pods");
    assert_eq!(scene.shared.state.lock().queue.sizes()[2], ("unschedulable", 1));
    scene.pod("p", |p| p.condition("Unschedulable", "no nodes available to schedule pods"));
    assert_eq!(scene.shared.state.lock().queue.sizes()[2], ("unschedulable", 1), "its own status does not help");
    scene.clock.advance(std::time::Duration::from_secs(2));
    scene.node("n1");
    scene.next("/binding").await;
}

#[tokio::test]
async fn a_refused_binding_is_tried_again() {
    let mut scene = Scene::new();
    scene.bindings.lock().push(409);
    scene.node("n1");
    scene.pod("p", |p| p);
    scene.next("/binding").await;
    let (_, _, body) = scene.next("/status").await;
    assert_eq!(body["status"]["conditions"][0]["reason"], "SchedulerError");
    assert!(!scene.shared.state.lock().cluster.is_assumed("uid-p"));
    scene.clock.advance(std::time::Duration::from_secs(2));
    scene.next("/binding").await;
}

#[tokio::test]
async fn others_pods_are_left_alone() {
    let mut scene = Scene::new();
    scene.node("n1");
    scene.pod("other", |p| p.spec("schedulerName", "other".into()));
    scene.pod("going", PodDraft::terminating);
    let (_, _, event) = scene.next("/events").await;
    assert_eq!(event["note"], "skip schedule deleting pod: default/going");
    scene.pod("own", |p| p);
    let (_, path, _) = scene.next("/pods/").await;
    assert_eq!(path, "/api/v1/namespaces/default/pods/own/binding");
}

#[tokio::test]
async fn victims_are_marked_and_deleted() {
    let mut scene = Scene::new();
    scene.node("n1");
    scene.pod("low", |p| p.requests("3", "1Gi").spec("nodeName", "n1".into()));
    scene.pod("high", |p| p.requests("2", "1Gi").priority(9));
    let (_, path, body) = scene.next("/high/status").await;
    assert_eq!((path.ends_with("/high/status"), &body["status"]["nominatedNodeName"]), (true, &"n1".into()));
    let (_, _, body) = scene.next("/low/status").await;
    assert_eq!(body["status"]["conditions"][0]["reason"], "PreemptionByScheduler");
    let (method, _, body) = scene.next("/pods/low").await;
    assert_eq!((method, &body["preconditions"]["uid"]), (Method::DELETE, &"uid-low".into()));
    // Room that is kept is not given to one that matters less.
    scene.watched.pods.delete(&ObjectKey::new("default", "low"), "100");
    let (_, path, _) = scene.next("/binding").await;
    assert!(path.contains("/high/"), "{path}");
}

#[tokio::test]
async fn claims_are_written_before_the_pod_is_bound() {
    let mut scene = Scene::new();
    scene.node("n1");
    let claims = serde_json::json!([{"name": "own", "resourceClaimName": "c"}]);
    let pod = scene.pod("p", |p| p.spec("resourceClaims", claims));
    assert_eq!(&*pod.template.device_claims[0].name, "own");
    scene.devices.class("gpu", serde_json::json!({}));
    let devices = serde_json::json!({"nodeName": "n1", "devices": [{"name": "0"}]});
    scene.devices.offer("n1", "n1", devices);
    // The claim comes last, and opens the gate.
    let wanted = serde_json::json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]});
    scene.devices.claim("c", wanted, Value::Null);
    let (_, _, body) = scene.next("/p/status").await;
    assert_eq!(body["status"]["nominatedNodeName"], "n1");
    let (method, path, _) = scene.next("/resourceclaims/c").await;
    assert_eq!((method, path.as_str()), (Method::GET, "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/c"));
}
