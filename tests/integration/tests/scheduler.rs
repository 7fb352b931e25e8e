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
    Api, Client,
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
    let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN);
    let kubeconfig = kubeconfig.display();
    let arguments = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", free_port()),
        "--leader-elect-lease-duration=3s".to_owned(),
        "--leader-elect-renew-deadline=2s".to_owned(),
        "--leader-elect-retry-period=500ms".to_owned(),
    ];
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
    scene.node("n1", "2").await;
    scene.node("n2", "2").await;
    let classes: Api<DeviceClass> = Api::all(scene.client.clone());
    let selector = "device.driver == 'gpu.example.com'";
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": selector}}]}});
    classes.create(&PostParams::default(), &serde_json::from_value(class).expect("valid")).await.expect("created");
    let slices: Api<ResourceSlice> = Api::all(scene.client.clone());
    let slice = json!({"metadata": {"name": "n2-gpus"}, "spec": {"driver": "gpu.example.com", "nodeName": "n2",
        "pool": {"name": "n2", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "gpu-0", "attributes": {"model": {"string": "a"}}}]}});
    slices.create(&PostParams::default(), &serde_json::from_value(slice).expect("valid")).await.expect("created");
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
