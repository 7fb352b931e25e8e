//! kube-scheduler and kube-apiserver as processes: bindings, what is told of Pods that do not fit, preemption, a
//! successor after a kill.
//!
//! Processes, because what the two say to each other is tested; decisions are unit tests of the scheduler.

use harness::{
    ApiServer,
    process::{Process, binary, free_port},
    server::ADMIN_TOKEN,
    wait_until,
};
use http::Request;
use k8s_openapi::api::{
    core::v1::{Node, Pod, ServiceAccount},
    resource::v1::{DeviceClass, ResourceClaim, ResourceSlice},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

struct Scene {
    server: ApiServer,
    client: Client,
    pods: Api<Pod>,
    scheduler: Process,
}

fn start(server: &ApiServer) -> Process {
    start_with(server, Vec::new())
}

fn start_with(server: &ApiServer, more: Vec<String>) -> Process {
    let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN);
    let kubeconfig = kubeconfig.display();
    let arguments = vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", free_port()),
        "--leader-elect-lease-duration=3s".to_owned(),
        "--leader-elect-renew-deadline=2s".to_owned(),
        "--leader-elect-retry-period=500ms".to_owned(),
    ];
    let arguments: Vec<String> = arguments.into_iter().chain(more).collect();
    Process::start(&binary("kube-scheduler"), &arguments, server.path().join("scheduler.log"))
}

impl Scene {
    async fn new() -> Self {
        let server = ApiServer::start().await;
        let client = server.admin().await;
        let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("valid");
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        accounts.create(&PostParams::default(), &account).await.expect("created");
        let scheduler = start(&server);
        Self { pods: Api::namespaced(client.clone(), "default"), server, client, scheduler }
    }

    async fn node(&self, name: &str, cpu: &str) {
        let amounts = json!({"cpu": cpu, "memory": "8Gi", "pods": "110"});
        let node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"allocatable": amounts, "capacity": amounts},
        });
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.create(&PostParams::default(), &serde_json::from_value(node).expect("valid")).await.expect("created");
        let untainted = Patch::Merge(json!({"spec": {"taints": null}}));
        nodes.patch(name, &PatchParams::default(), &untainted).await.expect("patched");
    }

    /// Two nodes, of which `n2` has a device, and the class of such devices.
    async fn devices(&self, class: Value) {
        self.node("n1", "2").await;
        self.node("n2", "2").await;
        let classes: Api<DeviceClass> = Api::all(self.client.clone());
        let mut spec = json!({"selectors": [{"cel": {"expression": "device.driver == 'gpu.example.com'"}}]});
        spec.as_object_mut().expect("a map").extend(class.as_object().cloned().unwrap_or_default());
        let class = json!({"metadata": {"name": "gpu"}, "spec": spec});
        classes.create(&PostParams::default(), &serde_json::from_value(class).expect("valid")).await.expect("created");
        let slices: Api<ResourceSlice> = Api::all(self.client.clone());
        let slice = json!({"metadata": {"name": "n2-gpus"}, "spec": {"driver": "gpu.example.com", "nodeName": "n2",
            "pool": {"name": "n2", "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "a"}}}]}});
        slices.create(&PostParams::default(), &serde_json::from_value(slice).expect("valid")).await.expect("created");
    }

    async fn pod(&self, name: &str, cpu: &str, more: Value) {
        let mut pod = json!({"metadata": {"name": name}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}],
        }});
        let spec = pod["spec"].as_object_mut().expect("a map");
        spec.extend(more.as_object().cloned().unwrap_or_default());
        let pod = serde_json::from_value(pod).expect("valid");
        self.pods.create(&PostParams::default(), &pod).await.expect("created");
    }

    async fn node_of(&self, name: &str) -> String {
        wait_until(&format!("{name} to be bound"), || async {
            let pod = self.pods.get(name).await.map_err(|e| e.to_string())?;
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone());
            node.ok_or_else(|| format!("{:?}\n{}", pod.status, self.scheduler.output()))
        })
        .await
    }

    /// The message of the condition PodScheduled, once it is False.
    async fn refusal(&self, name: &str) -> String {
        wait_until(&format!("{name} to be refused"), || async {
            let pod = self.pods.get(name).await.map_err(|e| e.to_string())?;
            let conditions = pod.status.and_then(|s| s.conditions).unwrap_or_default();
            let refused = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
            refused.and_then(|c| c.message).ok_or_else(|| "no condition".to_owned())
        })
        .await
    }

    /// Notes of the events about a Pod.
    async fn notes(&self, pod: &str) -> Vec<String> {
        let path = "/apis/events.k8s.io/v1/namespaces/default/events";
        let request = Request::get(path).body(Vec::new()).expect("a request");
        let list: Value = self.client.request(request).await.expect("listed");
        let all = list["items"].as_array().cloned().unwrap_or_default();
        let about = all.iter().filter(|e| e["regarding"]["name"] == pod);
        about.map(|e| format!("{} {}", e["reason"].as_str().unwrap_or(""), e["note"].as_str().unwrap_or(""))).collect()
    }
}

#[tokio::test]
async fn pods_get_nodes_and_are_told_why_not() {
    let scene = Scene::new().await;
    scene.pod("early", "1", json!({})).await;
    assert_eq!(scene.refusal("early").await, "no nodes available to schedule pods");
    scene.node("n1", "2").await;
    assert_eq!(scene.node_of("early").await, "n1");
    wait_until("the event", || async {
        let notes = scene.notes("early").await;
        let wanted = "Scheduled Successfully assigned default/early to n1";
        if notes.iter().any(|n| n == wanted) { Ok(()) } else { Err(notes.join("\n")) }
    })
    .await;
    scene.pod("large", "1500m", json!({})).await;
    let told = scene.refusal("large").await;
    assert!(told.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{told}");
    scene.pods.delete("early", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    assert_eq!(scene.node_of("large").await, "n1");
}

#[tokio::test]
async fn who_matters_more_takes_the_room() {
    let scene = Scene::new().await;
    scene.node("n1", "2").await;
    let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 100});
    let request =
        Request::post("/apis/scheduling.k8s.io/v1/priorityclasses").header("content-type", "application/json");
    let request = request.body(class.to_string().into_bytes()).expect("a request");
    scene.client.request::<Value>(request).await.expect("created");
    scene.pod("low", "2", json!({})).await;
    scene.node_of("low").await;
    scene.pod("high", "2", json!({"priorityClassName": "high"})).await;
    assert_eq!(scene.node_of("high").await, "n1");
    assert!(scene.pods.get_opt("low").await.expect("asked").is_none());
}

#[tokio::test]
async fn a_successor_goes_on_after_a_kill() {
    let mut scene = Scene::new().await;
    scene.node("n1", "2").await;
    scene.pod("before", "1", json!({})).await;
    scene.node_of("before").await;
    scene.scheduler.kill();
    scene.pod("between", "1", json!({})).await;
    scene.pod("too-much", "1", json!({})).await;
    scene.scheduler = start(&scene.server);
    let first = tokio::select! {
        _ = scene.node_of("between") => "too-much",
        _ = scene.node_of("too-much") => "between",
    };
    // What was bound before counts.
    let told = scene.refusal(first).await;
    assert!(told.starts_with("0/1 nodes are available: 1 Insufficient cpu."), "{told}");
}

#[tokio::test]
async fn pods_get_the_devices_that_they_claim() {
    let scene = Scene::new().await;
    scene.devices(json!({})).await;
    let claims: Api<ResourceClaim> = Api::namespaced(scene.client.clone(), "default");
    for name in ["first", "second"] {
        let of = json!([{"name": "gpu", "resourceClaimName": name}]);
        scene.pod(name, "1", json!({"resourceClaims": of})).await;
        let claim = json!({"metadata": {"name": name}, "spec": {"devices": {
            "requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}});
        claims.create(&PostParams::default(), &serde_json::from_value(claim).expect("valid")).await.expect("created");
        if name == "first" {
            assert_eq!(scene.node_of("first").await, "n2");
        }
    }
    let claim = claims.get("first").await.expect("there");
    assert_eq!(claim.metadata.finalizers, Some(vec!["resource.kubernetes.io/delete-protection".to_owned()]));
    let status = claim.status.clone().expect("a status");
    assert_eq!(status.reserved_for.as_ref().map(|users| users[0].name.as_str()), Some("first"));
    let results = status.allocation.and_then(|a| a.devices?.results).expect("devices");
    assert_eq!((results[0].device.as_str(), results[0].request.as_str()), ("gpu-0", "r"));
    let told = scene.refusal("second").await;
    assert!(
        told.starts_with("0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, "),
        "{told}"
    );
    // The device is given back, as controllers do it.
    let mut claim = claim;
    claim.status = None;
    claims.replace_status("first", &PostParams::default(), &claim).await.expect("given back");
    assert_eq!(scene.node_of("second").await, "n2");
}

#[tokio::test]
async fn devices_stand_for_extended_resources() {
    let scene = Scene::new().await;
    scene.devices(json!({"extendedResourceName": "example.com/gpu"})).await;
    let wanting = |resource: &str| {
        let amounts = json!({resource: "1"});
        let resources = json!({"requests": amounts, "limits": amounts});
        json!({"containers": [{"name": "c", "image": "i", "resources": resources}]})
    };
    scene.pod("first", "1", wanting("example.com/gpu")).await;
    assert_eq!(scene.node_of("first").await, "n2");
    let pod = scene.pods.get("first").await.expect("there");
    let told = pod.status.and_then(|s| s.extended_resource_claim_status).expect("the Pod is told of its claim");
    let mapping = &told.request_mappings[0];
    assert_eq!(
        (mapping.container_name.as_str(), mapping.resource_name.as_str(), mapping.request_name.as_str()),
        ("c", "example.com/gpu", "container-0-request-0")
    );
    let claims: Api<ResourceClaim> = Api::namespaced(scene.client.clone(), "default");
    let claim = claims.get(&told.resource_claim_name).await.expect("there");
    assert!(claim.metadata.name.as_deref().is_some_and(|n| n.starts_with("first-extended-resources-")));
    let annotations = claim.metadata.annotations.clone().unwrap_or_default();
    assert_eq!(annotations.get("resource.kubernetes.io/extended-resource-claim").map(String::as_str), Some("true"));
    let status = claim.status.clone().expect("a status");
    assert_eq!(status.reserved_for.as_ref().map(|users| users[0].name.as_str()), Some("first"));
    let results = status.allocation.and_then(|a| a.devices?.results).expect("devices");
    assert_eq!((results[0].device.as_str(), results[0].request.as_str()), ("gpu-0", "container-0-request-0"));

    scene.pod("second", "1", wanting("deviceclass.resource.kubernetes.io/gpu")).await;
    let told = scene.refusal("second").await;
    assert!(
        told.starts_with("0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, "),
        "{told}"
    );
    scene.pod("third", "1", wanting("example.com/nic")).await;
    let told = scene.refusal("third").await;
    assert!(told.starts_with("0/2 nodes are available: 2 Insufficient example.com/nic. "), "{told}");
    // A class makes devices what the third wants; the device becomes free.
    let classes: Api<DeviceClass> = Api::all(scene.client.clone());
    let class = json!({"metadata": {"name": "nic"}, "spec": {"extendedResourceName": "example.com/nic"}});
    classes.create(&PostParams::default(), &serde_json::from_value(class).expect("valid")).await.expect("created");
    wait_until("the third to be refused for want of devices", || async {
        let told = scene.refusal("third").await;
        if told.contains("2 cannot allocate all claims") { Ok(()) } else { Err(told) }
    })
    .await;
    let mut claim = claim;
    claim.status = None;
    claims.replace_status(&claim.name_any(), &PostParams::default(), &claim).await.expect("given back");
    let bound = wait_until("one of them to be bound", || async {
        for name in ["second", "third"] {
            let pod = scene.pods.get(name).await.map_err(|e| e.to_string())?;
            if let Some(node) = pod.spec.and_then(|s| s.node_name) {
                return Ok(node);
            }
        }
        Err("none is".to_owned())
    })
    .await;
    assert_eq!(bound, "n2");
}

/// An extender that knows nodes by name: `n1` is not for anybody, `n3` is better than `n2`, and it binds.
async fn extender(client: Client) -> String {
    let filter = |question: String| async move {
        let question: Value = serde_json::from_str(&question).expect("a question");
        let names = question["NodeNames"].as_array().cloned().unwrap_or_default();
        let left: Vec<Value> =
            names.into_iter().filter(|name| name != "n1" && question["Pod"]["metadata"]["name"] != "never").collect();
        json!({"nodenames": left, "failedNodes": {"n1": "kept free"}}).to_string()
    };
    let prioritize = |question: String| async move {
        let question: Value = serde_json::from_str(&question).expect("a question");
        let names = question["NodeNames"].as_array().cloned().unwrap_or_default();
        let score = |name: &Value| json!({"Host": name, "Score": if name == "n3" { 10 } else { 0 }});
        Value::Array(names.iter().map(score).collect()).to_string()
    };
    let bind = move |question: String| async move {
        let question: Value = serde_json::from_str(&question).expect("a question");
        let binding = json!({"apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": question["PodName"], "namespace": question["PodNamespace"], "uid": question["PodUID"],
                "annotations": {"bound-by": "extender"}},
            "target": {"kind": "Node", "name": question["Node"]}});
        let path = format!("/api/v1/namespaces/default/pods/{}/binding", question["PodName"].as_str().unwrap_or(""));
        let request = Request::post(path).header("content-type", "application/json");
        let request = request.body(binding.to_string().into_bytes()).expect("a request");
        let error = client.request_text(request).await.err().map(|e| e.to_string()).unwrap_or_default();
        json!({"Error": error}).to_string()
    };
    let router = axum::Router::new()
        .route("/scheduler/filter", axum::routing::post(filter))
        .route("/scheduler/prioritize", axum::routing::post(prioritize))
        .route("/scheduler/bind", axum::routing::post(bind));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/scheduler")
}

#[tokio::test]
async fn extenders_have_a_say() {
    let mut scene = Scene::new().await;
    let url = extender(scene.client.clone()).await;
    scene.scheduler.kill();
    let config = scene.server.path().join("scheduler.yaml");
    let kubeconfig = scene.server.kubeconfig_file(ADMIN_TOKEN);
    let text = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "extenders": [
            {"urlPrefix": "http://127.0.0.1:1/", "filterVerb": "filter", "ignorable": true, "httpTimeout": "1s"},
            {"urlPrefix": url, "filterVerb": "filter", "prioritizeVerb": "prioritize", "bindVerb": "bind",
                "weight": 100, "nodeCacheCapable": true}]});
    std::fs::write(&config, text.to_string()).expect("written");
    scene.scheduler = start_with(&scene.server, vec![format!("--config={}", config.display())]);
    for name in ["n1", "n2", "n3"] {
        scene.node(name, "4").await;
    }
    scene.pod("p", "1", json!({})).await;
    assert_eq!(scene.node_of("p").await, "n3");
    let pod = scene.pods.get("p").await.expect("there");
    assert_eq!(pod.metadata.annotations.and_then(|mut all| all.remove("bound-by")).as_deref(), Some("extender"));
    scene.pod("never", "1", json!({})).await;
    let told = scene.refusal("never").await;
    assert!(told.starts_with("0/3 nodes are available: 1 kept free."), "{told}");
}
