use std::{sync::Arc, time::Duration};

use k8s_openapi::api::resource::v1::AllocationResult;
use serde_json::{Value, json};

use super::*;
use crate::{
    framework::Plugin,
    plugins::{
        dynamic_resources::DynamicResources,
        node_resources_fit::NodeResourcesFit,
        testing::{Fixture, pod_view},
    },
};

struct Scene {
    fixture: Fixture,
    devices: Arc<Devices>,
    plugin: DynamicResources,
}

impl Scene {
    fn new() -> Self {
        let mut fixture = Fixture::new();
        fixture.node("a", |n| n.label("zone", "east"));
        fixture.node("b", |n| n.label("zone", "west"));
        let devices = Devices::empty();
        devices.class("gpu", json!({"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]}));
        let plugin = DynamicResources { devices: Arc::clone(&devices), timeout: Duration::ZERO };
        Self { fixture, devices, plugin }
    }

    /// Nodes on which a Pod with a claim of the spec fits.
    fn fitting(&mut self, claim: Value) -> Vec<String> {
        self.devices.claim("c", claim, Value::Null);
        self.fixture.passing(&self.plugin, &user("c"))
    }

    fn told(&mut self, claim: Value) -> String {
        self.devices.claim("c", claim, Value::Null);
        self.fixture.filter(&self.plugin, &user("c")).remove(0).1
    }

    /// The devices that a claim gets on a node, set aside.
    fn take(&mut self, name: &str, claim: Value, node: &str) -> Option<AllocationResult> {
        self.devices.claim(name, claim, Value::Null);
        let node = self.fixture.cluster.nodes.find(node).unwrap();
        let demand = self.devices.demand(&user(name)).unwrap();
        let found = with_place(&self.fixture.cluster, node, |place| demand.allocations(&self.devices, place))?;
        self.devices.reserve(&user(name), &self.fixture.cluster, node)?;
        found.claims.into_iter().next().map(|(_, _, allocation)| allocation)
    }
}

fn user(claim: &str) -> Arc<PodView> {
    pod_view("p", |p| p.spec("resourceClaims", json!([{"name": "own", "resourceClaimName": claim}])))
}

fn request(more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu"});
    exactly.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    json!({"requests": [{"name": "r", "exactly": exactly}]})
}

fn names(allocation: &AllocationResult) -> Vec<String> {
    let results = allocation.devices.as_ref().unwrap().results.as_ref().unwrap();
    results.iter().map(|r| format!("{}={}", r.request, r.device)).collect()
}

fn gpus(scene: &Scene, node: &str, devices: Value) {
    scene.devices.offer(node, node, json!({"nodeName": node, "devices": devices}));
}

#[test]
fn nodes_need_the_devices() {
    let mut scene = Scene::new();
    gpus(&scene, "a", json!([{"name": "0"}, {"name": "1"}]));
    gpus(&scene, "b", json!([{"name": "0", "attributes": {"big": {"bool": true}}}]));
    assert_eq!(scene.fitting(request(json!({}))), ["a", "b"]);
    assert_eq!(scene.fitting(request(json!({"count": 2}))), ["a"]);
    assert_eq!(scene.told(request(json!({"count": 3}))), "!cannot allocate all claims");
    let big = json!({"selectors": [{"cel": {"expression":
        "has(device.attributes['gpu.example.com'].big) && device.attributes['gpu.example.com'].big"}}]});
    assert_eq!(scene.fitting(request(big)), ["b"]);
    assert_eq!(scene.fitting(request(json!({"allocationMode": "All"}))), ["a", "b"]);
    let broken = json!({"selectors": [{"cel": {"expression": "device.attributes['gpu.example.com'].missing"}}]});
    let text = scene.told(request(broken));
    assert!(text.starts_with("!claim default/c: selector #0: CEL runtime error: "), "{text}");
    let unknown = json!({"requests": [{"name": "r", "exactly": {"deviceClassName": "nothing"}}]});
    assert_eq!(scene.told(unknown), "request r: device class nothing does not exist");
}

#[test]
fn what_is_taken_is_gone_until_it_is_given_back() {
    let mut scene = Scene::new();
    gpus(&scene, "a", json!([{"name": "0"}, {"name": "1"}]));
    let first = scene.take("first", request(json!({})), "a").unwrap();
    assert_eq!(names(&first), ["r=0"]);
    let selector = serde_json::to_value(first.node_selector.unwrap()).unwrap();
    assert_eq!(selector["nodeSelectorTerms"][0]["matchFields"][0]["values"], json!(["a"]));
    assert_eq!(names(&scene.take("second", request(json!({})), "a").unwrap()), ["r=1"]);
    assert_eq!(scene.take("third", request(json!({})), "a"), None);
    assert_eq!(scene.told(request(json!({"allocationMode": "All"}))), "!cannot allocate all claims");
    assert_eq!(scene.fitting(request(json!({"allocationMode": "All", "adminAccess": true}))), ["a"]);
    // The binding of one fails.
    scene.devices.ledger.lock().drop_choice("uid-first");
    assert_eq!(names(&scene.take("third", request(json!({})), "a").unwrap()), ["r=0"]);
}

#[test]
fn the_search_goes_back() {
    let mut scene = Scene::new();
    let numa = |name: &str, node: i64| json!({"name": name, "attributes": {"numa": {"int": node}}});
    gpus(&scene, "a", json!([numa("0", 0), numa("1", 1), numa("2", 1), {"name": "3"}]));
    let mut two = request(json!({"count": 2}));
    two["constraints"] = json!([{"matchAttribute": "gpu.example.com/numa"}]);
    assert_eq!(names(&scene.take("near", two.clone(), "a").unwrap()), ["r=1", "r=2"]);
    scene.devices.ledger.lock().drop_choice("uid-near");
    two["constraints"] = json!([{"distinctAttribute": "gpu.example.com/numa"}]);
    assert_eq!(names(&scene.take("far", two.clone(), "a").unwrap()), ["r=0", "r=1"]);
    scene.devices.ledger.lock().drop_choice("uid-far");
    // The first request takes what only the second can use, and has to give it back.
    let of = |numa: &str| format!("device.attributes['gpu.example.com'].?numa.orValue(9) {numa}");
    let each = |name: &str, numa: &str| json!({"name": name, "exactly": {"deviceClassName": "gpu", "selectors": [{"cel": {"expression": of(numa)}}]}});
    let both = json!({"requests": [each("any", "< 2"), each("zero", "== 0")]});
    assert_eq!(names(&scene.take("both", both, "a").unwrap()), ["any=1", "zero=0"]);
}

#[test]
fn the_first_alternative_that_is_there() {
    let mut scene = Scene::new();
    gpus(&scene, "a", json!([{"name": "small"}]));
    gpus(&scene, "b", json!([{"name": "large", "attributes": {"large": {"bool": true}}}]));
    let large = json!([{"cel": {"expression": "'large' in device.attributes['gpu.example.com']"}}]);
    let claim = json!({"requests": [{"name": "r", "firstAvailable": [
        {"name": "good", "deviceClassName": "gpu", "selectors": large},
        {"name": "bad", "deviceClassName": "gpu"}]}],
        "config": [
            {"requests": ["r/good"], "opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}},
            {"requests": ["r/bad"], "opaque": {"driver": "gpu.example.com", "parameters": {"b": 1}}}]});
    assert_eq!(scene.fitting(claim.clone()), ["a", "b"]);
    assert_eq!(scene.fixture.scores(&scene.plugin, &user("c")), [("a", 87), ("b", 100)]);
    let got = scene.take("x", claim.clone(), "b").unwrap();
    assert_eq!(names(&got), ["r/good=large"]);
    let config = got.devices.unwrap().config.unwrap();
    assert_eq!((config.len(), config[0].requests.as_ref().unwrap()[0].as_str()), (1, "r/good"));
    assert_eq!(names(&scene.take("y", claim, "a").unwrap()), ["r/bad=small"]);
}

#[test]
fn taints_have_to_be_tolerated() {
    let mut scene = Scene::new();
    let taint = |effect: &str| json!([{"key": "sick", "value": "yes", "effect": effect}]);
    gpus(&scene, "a", json!([{"name": "0", "taints": taint("NoSchedule")}]));
    gpus(&scene, "b", json!([{"name": "0", "taints": taint("None")}]));
    assert_eq!(scene.fitting(request(json!({}))), ["b"]);
    let tolerating = request(json!({"tolerations": [{"key": "sick", "operator": "Exists"}]}));
    assert_eq!(scene.fitting(tolerating.clone()), ["a", "b"]);
    let got = scene.take("x", tolerating, "a").unwrap().devices.unwrap().results.unwrap();
    assert_eq!(got[0].tolerations.as_ref().unwrap()[0].key.as_deref(), Some("sick"));
    assert!(scene.fitting(request(json!({"tolerations": [{"key": "sick", "value": "no"}]}))) == ["b"]);
}

#[test]
fn partitions_share_counters() {
    let mut scene = Scene::new();
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "card", "counters": {"memory": {"value": memory}}}]});
    scene.devices.offer(
        "a",
        "a",
        json!({"nodeName": "a",
            "sharedCounters": [{"name": "card", "counters": {"memory": {"value": "40Gi"}}}],
            "devices": [part("half-0", "20Gi"), part("half-1", "20Gi"), part("whole", "40Gi"), part("quarter", "10Gi")]}),
    );
    assert_eq!(scene.fitting(request(json!({"count": 3}))), Vec::<String>::new());
    assert_eq!(names(&scene.take("x", request(json!({})), "a").unwrap()), ["r=half-0"]);
    assert_eq!(names(&scene.take("y", request(json!({})), "a").unwrap()), ["r=half-1"]);
    assert_eq!(scene.take("z", request(json!({})), "a"), None);
    scene.devices.ledger.lock().drop_choice("uid-y");
    let whole = json!({"selectors": [{"cel": {"expression": "true"}}], "count": 1});
    assert_eq!(names(&scene.take("w", request(whole), "a").unwrap()), ["r=half-1"]);
}

#[test]
fn several_claims_have_parts_of_a_device() {
    let mut scene = Scene::new();
    gpus(
        &scene,
        "a",
        json!([{"name": "0", "allowMultipleAllocations": true,
        "capacity": {"memory": {"value": "40Gi"}}}]),
    );
    let some = |memory: &str| request(json!({"capacity": {"requests": {"memory": memory}}}));
    let got = scene.take("x", some("30Gi"), "a").unwrap().devices.unwrap().results.unwrap();
    assert_eq!(got[0].consumed_capacity.as_ref().unwrap()["memory"].0, "30Gi");
    assert!(got[0].share_id.as_ref().is_some_and(|id| id.len() == 36));
    assert_eq!(scene.take("y", some("11Gi"), "a"), None);
    assert!(scene.take("z", some("10Gi"), "a").is_some());
    assert_eq!(scene.take("w", request(json!({})), "a"), None, "all of it is wanted");
}

#[test]
fn claims_tie_pods_to_where_their_devices_are() {
    let mut scene = Scene::new();
    let allocation = |zone: &str| {
        json!({"devices": {"results": [{"request": "r", "driver": "gpu.example.com", "pool": "net", "device": "0"}]},
            "nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "zone", "operator": "In", "values": [zone]}]}]}})
    };
    scene.devices.claim("c", request(json!({})), json!({"allocation": allocation("west")}));
    assert_eq!(scene.fixture.passing(&scene.plugin, &user("c")), ["b"]);
    assert_eq!(scene.fixture.filter(&scene.plugin, &user("c"))[0].1, "!resourceclaim not available on the node");
    let demand = scene.devices.demand(&user("c")).unwrap();
    assert_eq!(demand.idle().map(|release| release.key.name), Some("c".to_owned()));
    let others: Vec<Value> = (0..256).map(|n| json!({"resource": "pods", "name": "x", "uid": n.to_string()})).collect();
    scene.devices.claim("c", request(json!({})), json!({"allocation": allocation("west"), "reservedFor": others}));
    assert_eq!(scene.fixture.filter(&scene.plugin, &user("c"))[0].1, "resourceclaim in use");
}

#[test]
fn pods_wait_for_their_claims() {
    let scene = Scene::new();
    let gate = scene.plugin.as_gate().unwrap();
    let made = json!([{"name": "own", "resourceClaimTemplateName": "t"}]);
    let waiting = pod_view("p", |p| p.spec("resourceClaims", made.clone()));
    assert!(!gate.is_open(&waiting));
    let statuses = json!([{"name": "own", "resourceClaimName": "c"}]);
    let told = pod_view("p", |p| p.spec("resourceClaims", made).with("/status/resourceClaimStatuses", statuses));
    let text = scene.devices.claims_of(&told).unwrap_err();
    assert_eq!(text, "resourceclaim.resource.k8s.io \"c\" not found");
    scene.devices.claim("c", request(json!({})), Value::Null);
    let text = scene.devices.claims_of(&told).unwrap_err();
    assert_eq!(text, "ResourceClaim default/c was not created for Pod default/p (Pod is not owner)");
    assert!(gate.is_open(&user("c")));
    scene.devices.ledger.lock().choose("uid-c", &AllocationResult::default());
    assert!(scene.devices.demand(&user("c")).is_err_and(|text| text.contains("in the process")));
}

#[test]
fn devices_stand_for_extended_resources() {
    let mut scene = Scene::new();
    scene.devices.class("big", json!({"extendedResourceName": "example.com/gpu"}));
    scene.fixture.node("kubelet", |n| n.resource("example.com/gpu", "1"));
    gpus(&scene, "a", json!([{"name": "0"}, {"name": "1"}]));
    gpus(&scene, "b", json!([{"name": "0"}]));
    let fit = NodeResourcesFit { devices: Some(Arc::clone(&scene.devices)), ..NodeResourcesFit::default() };
    let wanting = |name: &str, resource: &str, amount: &str| {
        let requests = json!({"requests": {resource: amount}, "limits": {resource: amount}});
        pod_view(name, |p| p.with("/spec/containers/0/resources", requests))
    };
    let one = wanting("one", "example.com/gpu", "1");
    assert_eq!(scene.fixture.passing(&fit, &one), ["a", "b", "kubelet"]);
    assert_eq!(scene.fixture.passing(&scene.plugin, &one), ["a", "b", "kubelet"]);
    let two = wanting("two", "example.com/gpu", "2");
    assert_eq!(scene.fixture.passing(&fit, &two), ["a", "b"], "the kubelet has only one");
    assert_eq!(scene.fixture.passing(&scene.plugin, &two), ["a", "kubelet"]);
    let unknown = wanting("unknown", "example.com/nic", "1");
    assert_eq!(scene.fixture.filter(&fit, &unknown)[0].1, "!Insufficient example.com/nic");
    let by_class = wanting("by-class", "deviceclass.resource.kubernetes.io/gpu", "1");
    assert_eq!(scene.fixture.passing(&fit, &by_class), ["a", "b", "kubelet"]);
    assert_eq!(scene.fixture.passing(&scene.plugin, &by_class), ["a", "b"]);

    // What was chosen counts at once, and is free again when it is dropped.
    let node = scene.fixture.cluster.nodes.find("b").unwrap();
    let plan = scene.devices.reserve(&one, &scene.fixture.cluster, node).unwrap();
    assert!(!plan.is_empty());
    assert_eq!(scene.fixture.passing(&scene.plugin, &by_class), ["a"]);
    scene.devices.release(&plan);
    assert_eq!(scene.fixture.passing(&scene.plugin, &by_class), ["a", "b"]);
    let node = scene.fixture.cluster.nodes.find("kubelet").unwrap();
    assert!(scene.devices.reserve(&one, &scene.fixture.cluster, node).unwrap().is_empty());
}

#[test]
fn a_claim_of_an_earlier_attempt_is_used_or_goes() {
    let mut scene = Scene::new();
    gpus(&scene, "a", json!([{"name": "0"}]));
    gpus(&scene, "b", json!([{"name": "0"}]));
    scene.devices.class("big", json!({"extendedResourceName": "example.com/gpu"}));
    let pod = pod_view("p", |p| p.with("/spec/containers/0/resources", json!({"requests": {"example.com/gpu": "1"}})));
    let requests = json!({"requests": [{"name": "container-0-request-0", "exactly":
        {"deviceClassName": "big", "allocationMode": "ExactCount", "count": 1}}]});
    let only = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]});
    let results =
        json!([{"request": "container-0-request-0", "driver": "gpu.example.com", "pool": "b", "device": "0"}]);
    let status = json!({"allocation": {"devices": {"results": results}, "nodeSelector": only}});
    scene.devices.extended_claim("left", &pod.uid, requests, status);
    assert_eq!(scene.fixture.passing(&scene.plugin, &pod), ["b"]);
    assert_eq!(scene.fixture.filter(&scene.plugin, &pod)[0].1, "!resourceclaim not available on the node");
    let release = scene.devices.demand(&pod).unwrap().idle().unwrap();
    assert!(release.delete && release.key.name == "left");
}
