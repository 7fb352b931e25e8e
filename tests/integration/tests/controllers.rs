//! kube-controller-manager and kube-apiserver as processes: what the control loops make of objects, also when the
//! process is killed in the middle.
//!
//! Processes, because watches, writes and restarts are tested; decisions are unit tests of the controllers.

use std::collections::{BTreeMap, BTreeSet};

use harness::{
    ApiServer,
    process::{Process, binary, free_port},
    server::ADMIN_TOKEN,
    wait_until,
};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{
        ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service,
        ServiceAccount,
    },
    discovery::v1::EndpointSlice,
    resource::v1::{ResourceClaim, ResourceClaimTemplate, ResourceSlice},
    storage::v1::VolumeAttachment,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

struct Scene {
    server: ApiServer,
    client: Client,
    manager: Process,
}

fn start(server: &ApiServer) -> Process {
    start_with(server, "controller-manager", &["--leader-elect=false"])
}

/// One of several, of which one leads.
fn start_candidate(server: &ApiServer, name: &str) -> Process {
    // Short, but long enough for a busy machine: who cannot renew ends.
    let short =
        ["--leader-elect-lease-duration=9s", "--leader-elect-renew-deadline=7s", "--leader-elect-retry-period=500ms"];
    start_with(server, name, &short)
}

fn start_with(server: &ApiServer, name: &str, more: &[&str]) -> Process {
    let arguments = [
        format!("--kubeconfig={}", server.kubeconfig_file(ADMIN_TOKEN).display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", free_port()),
        // A node that nobody runs is not to be evicted from meanwhile.
        "--controllers=*,-node-lifecycle-controller,-taint-eviction-controller".to_owned(),
    ];
    let arguments: Vec<String> = arguments.into_iter().chain(more.iter().map(|flag| (*flag).to_owned())).collect();
    Process::start(&binary("kube-controller-manager"), &arguments, server.path().join(format!("{name}.log")))
}

impl Scene {
    async fn new() -> Self {
        Self::run_by(start).await
    }

    async fn run_by(manager: impl FnOnce(&ApiServer) -> Process) -> Self {
        let server = ApiServer::start().await;
        let client = server.admin().await;
        let manager = manager(&server);
        let scene = Self { server, client, manager };
        let accounts: Api<ServiceAccount> = scene.api();
        wait_until("the default service account", || async {
            accounts.get("default").await.map_err(|e| e.to_string())
        })
        .await;
        scene
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("valid");
        self.api::<K>().create(&PostParams::default(), &object).await.expect("created")
    }

    async fn pods(&self, app: &str) -> Vec<Pod> {
        let params = ListParams::default().labels(&format!("app={app}"));
        self.api::<Pod>().list(&params).await.expect("Pods").items
    }

    /// Stands in for kubelets: all Pods of an app run and are ready, or end.
    async fn advance(&self, app: &str, phase: &str) {
        for (number, pod) in self.pods(app).await.into_iter().enumerate() {
            let ip = format!("10.1.0.{}", number + 1);
            let status = json!({"status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}});
            // It may be gone meanwhile.
            let _gone = self
                .api::<Pod>()
                .patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status))
                .await
                .is_err();
        }
    }
}

fn template(app: &str, image: &str, policy: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}},
        "spec": {"restartPolicy": policy, "terminationGracePeriodSeconds": 0, "nodeName": "n1",
            "containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]}})
}

fn deployment(image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 4,
        "selector": {"matchLabels": {"app": "web"}}, "template": template("web", image, "Always")}})
}

#[tokio::test]
async fn rollouts_survive_a_kill_and_owners_take_their_dependents() {
    let mut scene = Scene::new().await;
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).expect("valid");
    nodes.create(&PostParams::default(), &node).await.expect("created");
    scene.create::<Deployment>(deployment("one")).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": "http"}]}});
    scene.create::<Service>(service).await;
    let done = |generation: i64, updated: i32| {
        let scene = &scene;
        async move {
            scene.advance("web", "Running").await;
            let status = scene.api::<Deployment>().get("web").await.map_err(|e| e.to_string())?.status;
            let status = status.unwrap_or_default();
            let counts =
                (status.observed_generation, status.available_replicas, status.updated_replicas, status.replicas);
            let all = Some(updated);
            if counts == (Some(generation), all, all, all) { Ok(()) } else { Err(format!("{counts:?}")) }
        }
    };
    wait_until("the first rollout", || done(1, 4)).await;
    wait_until("endpoints", || async {
        let slices =
            scene.api::<EndpointSlice>().list(&ListParams::default().labels("kubernetes.io/service-name=web")).await;
        let slices = slices.map_err(|e| e.to_string())?.items;
        let ready = slices.iter().flat_map(|s| s.endpoints.iter().flatten()).count();
        let legacy = scene.api::<Endpoints>().get("web").await.map_err(|e| e.to_string())?;
        let addresses = legacy.subsets.iter().flatten().filter_map(|s| s.addresses.as_ref()).flatten().count();
        if (ready, addresses) == (4, 4) { Ok(()) } else { Err(format!("{ready} {addresses}")) }
    })
    .await;
    let image = Patch::Strategic(json!({"spec": {"template": template("web", "two", "Always")}}));
    let api = scene.api::<Deployment>();
    api.patch("web", &PatchParams::default(), &image).await.expect("patched");
    wait_until("the second ReplicaSet", || async {
        let sets = scene.api::<ReplicaSet>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        if sets.items.len() == 2 { Ok(()) } else { Err(format!("{}", sets.items.len())) }
    })
    .await;
    scene.manager.kill();
    scene.manager = start(&scene.server);
    let scene = &scene;
    wait_until("the second rollout", || async {
        scene.advance("web", "Running").await;
        let found = scene.api::<Deployment>().get("web").await.map_err(|e| e.to_string())?;
        let status = found.status.unwrap_or_default();
        let counts = (status.available_replicas, status.updated_replicas, status.replicas);
        if counts == (Some(4), Some(4), Some(4)) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    api.delete("web", &foreground).await.expect("deleted");
    wait_until("the Deployment and all it owned to be gone", || async {
        let gone = api.get_opt("web").await.map_err(|e| e.to_string())?.is_none();
        let pods = scene.pods("web").await.len();
        if gone && pods == 0 { Ok(()) } else { Err(format!("gone: {gone}, Pods: {pods}")) }
    })
    .await;
}

#[tokio::test]
async fn jobs_count_and_sets_keep_their_order() {
    let scene = Scene::new().await;
    let job = json!({"metadata": {"name": "sum"}, "spec": {"completions": 3, "parallelism": 2,
        "template": template("sum", "i", "Never")}});
    scene.create::<Job>(job).await;
    wait_until("the Job to complete", || async {
        scene.advance("sum", "Succeeded").await;
        let status = scene.api::<Job>().get("sum").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        let complete = status.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
        if complete && status.succeeded == Some(3) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(scene.pods("sum").await.len(), 3);
    let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}}, "template": template("db", "i", "Always")}});
    scene.create::<StatefulSet>(set).await;
    wait_until("the first Pod", || async {
        let names: Vec<String> = scene.pods("db").await.iter().map(ResourceExt::name_any).collect();
        if names == ["db-0"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    wait_until("the second Pod once the first is ready", || async {
        scene.advance("db", "Running").await;
        let status = scene.api::<StatefulSet>().get("db").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        if status.ready_replicas == Some(2) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_new_leader_loses_and_doubles_nothing() {
    const SETS: usize = 8;
    const REPLICAS: usize = 25;
    let mut scene = Scene::run_by(|server| start_candidate(server, "first")).await;
    // The first leads by now: it has made the service account.
    let _second = start_candidate(&scene.server, "second");
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1"}})).expect("valid");
    nodes.create(&PostParams::default(), &node).await.expect("created");
    let job = json!({"metadata": {"name": "sum"}, "spec": {"completions": 30, "parallelism": 30,
        "completionMode": "Indexed", "template": template("sum", "i", "Never")}});
    scene.create::<Job>(job).await;
    wait_until("the Pods of the Job", || async {
        let count = scene.pods("sum").await.len();
        if count == 30 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    for number in 0..SETS {
        let app = format!("web-{number}");
        let object = json!({"metadata": {"name": app}, "spec": {"replicas": REPLICAS,
            "selector": {"matchLabels": {"app": app}}, "template": template(&app, "i", "Always")}});
        scene.create::<Deployment>(object).await;
    }
    // It is counting one thing and making others when it ends.
    scene.advance("sum", "Succeeded").await;
    wait_until("some Pods of the Deployments", || async {
        let all = scene.api::<Pod>().list_metadata(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
        if all.len() > 30 { Ok(()) } else { Err(all.len().to_string()) }
    })
    .await;
    scene.manager.kill();
    let scene = &scene;
    wait_until("everything to be there", || async {
        for number in 0..SETS {
            let pods = scene.pods(&format!("web-{number}")).await.len();
            if pods != REPLICAS {
                return Err(format!("web-{number}: {pods}"));
            }
            let name = format!("web-{number}");
            let status = scene.api::<Deployment>().get(&name).await.map_err(|e| e.to_string())?.status;
            let told = status.and_then(|s| s.replicas);
            if told != i32::try_from(REPLICAS).ok() {
                return Err(format!("{name}: {told:?}"));
            }
        }
        let status = scene.api::<Job>().get("sum").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        let complete = status.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
        let counted = (status.succeeded, status.failed.unwrap_or(0), status.completed_indexes.as_deref());
        if complete && counted == (Some(30), 0, Some("0-29")) { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    assert_eq!(scene.pods("sum").await.len(), 30);
    let held = scene.pods("sum").await.into_iter().filter(|pod| !pod.finalizers().is_empty()).count();
    assert_eq!(held, 0, "finalizers of Pods that were counted");
    let sets = scene.api::<ReplicaSet>().list(&ListParams::default()).await.expect("listed").items.len();
    assert_eq!(sets, SETS);
    let events = scene.api::<Event>().list(&ListParams::default()).await.expect("listed").items;
    let deleted: Vec<_> =
        events.iter().filter(|e| e.reason.as_deref() == Some("SuccessfulDelete")).map(|e| &e.message).collect();
    assert!(deleted.is_empty(), "there were too many Pods: {deleted:?}");
}

/// How many Pods of each app there are, in all and by name.
async fn pods_by_app(scene: &Scene) -> BTreeMap<String, Vec<String>> {
    let mut counts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in scene.api::<Pod>().list_metadata(&ListParams::default()).await.expect("Pods").items {
        let app = pod.labels().get("app").cloned().unwrap_or_default();
        counts.entry(app).or_default().push(pod.name_any());
    }
    counts
}

#[tokio::test]
async fn sets_jobs_and_daemons_outlive_two_leaders() {
    const NODES: usize = 25;
    const EACH: usize = 3;
    const REPLICAS: usize = 20;
    const COMPLETIONS: usize = 40;
    let mut scene = Scene::run_by(|server| start_candidate(server, "first")).await;
    let mut second = start_candidate(&scene.server, "second");
    let nodes: Api<Node> = Api::all(scene.client.clone());
    for number in 1..=NODES {
        let node = json!({"metadata": {"name": format!("n{number}")}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node).expect("valid")).await.expect("created");
    }
    for number in 0..EACH {
        let (set, daemon, job) = (format!("set-{number}"), format!("daemon-{number}"), format!("job-{number}"));
        scene
            .create::<StatefulSet>(json!({"metadata": {"name": set}, "spec": {"replicas": REPLICAS, "serviceName": "s",
                "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": set}},
                "template": template(&set, "i", "Always")}}))
            .await;
        let mut anywhere = template(&daemon, "i", "Always");
        anywhere["spec"].as_object_mut().expect("a spec").remove("nodeName");
        // Nobody says that the nodes are ready.
        anywhere["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        let selector = json!({"matchLabels": {"app": daemon}});
        scene
            .create::<DaemonSet>(
                json!({"metadata": {"name": daemon}, "spec": {"selector": selector, "template": anywhere}}),
            )
            .await;
        scene
            .create::<Job>(json!({"metadata": {"name": job}, "spec": {"completions": COMPLETIONS, "parallelism": 15,
                "template": template(&job, "i", "Never")}}))
            .await;
    }
    // The one that leads goes while it makes Pods, and its successor while it counts those that ended.
    wait_until("some Pods", || async {
        let pods: usize = pods_by_app(&scene).await.values().map(Vec::len).sum();
        if pods > 20 { Ok(()) } else { Err(pods.to_string()) }
    })
    .await;
    scene.manager.kill();
    let _third = start_candidate(&scene.server, "third");
    let finish = async || {
        for number in 0..EACH {
            scene.advance(&format!("job-{number}"), "Succeeded").await;
        }
        pods_by_app(&scene).await
    };
    wait_until("the successor to go on with the Jobs", || async {
        let pods = finish().await;
        let most = pods.iter().filter(|(app, _)| app.starts_with("job-")).map(|(_, pods)| pods.len()).max();
        if most.is_some_and(|most| most > 20) { Ok(()) } else { Err(format!("{most:?}")) }
    })
    .await;
    second.kill();
    wait_until("everything to be there", || async {
        let pods = finish().await;
        for number in 0..EACH {
            for (app, wanted) in [("set", REPLICAS), ("daemon", NODES), ("job", COMPLETIONS)] {
                let app = format!("{app}-{number}");
                let there = pods.get(&app).map_or(0, Vec::len);
                assert!(there <= wanted, "{app} has {there} Pods: {pods:?}");
                if there < wanted {
                    return Err(format!("{app}: {there} of {wanted}"));
                }
            }
            let (name, known) = (format!("job-{number}"), |error: kube::Error| error.to_string());
            let job = scene.api::<Job>().get(&name).await.map_err(known)?.status.unwrap_or_default();
            let is_complete = job.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
            let counted = (job.succeeded, job.failed.unwrap_or(0));
            if !is_complete || counted != (i32::try_from(COMPLETIONS).ok(), 0) {
                return Err(format!("{name}: {job:?}"));
            }
            let name = format!("set-{number}");
            let set = scene.api::<StatefulSet>().get(&name).await.map_err(known)?.status.unwrap_or_default();
            let name = format!("daemon-{number}");
            let daemon = scene.api::<DaemonSet>().get(&name).await.map_err(known)?.status.unwrap_or_default();
            let told = (usize::try_from(set.replicas), usize::try_from(daemon.current_number_scheduled));
            if told != (Ok(REPLICAS), Ok(NODES)) {
                return Err(format!("{number}: {told:?}"));
            }
        }
        Ok(())
    })
    .await;
    for number in 0..EACH {
        let mut names = pods_by_app(&scene).await.remove(&format!("set-{number}")).expect("Pods");
        let mut wanted: Vec<String> = (0..REPLICAS).map(|ordinal| format!("set-{number}-{ordinal}")).collect();
        names.sort();
        wanted.sort();
        assert_eq!(names, wanted);
        let daemons = scene.pods(&format!("daemon-{number}")).await;
        let places: BTreeSet<String> = daemons.iter().filter_map(affine_node).collect();
        assert_eq!((daemons.len(), places.len()), (NODES, NODES), "one on each node");
        let held = scene.pods(&format!("job-{number}")).await.into_iter().filter(|pod| !pod.finalizers().is_empty());
        assert_eq!(held.count(), 0, "finalizers of Pods that were counted");
    }
    let revisions = scene.api::<ControllerRevision>().list(&ListParams::default()).await.expect("listed").items;
    assert_eq!(revisions.len(), 2 * EACH);
    let events = scene.api::<Event>().list(&ListParams::default()).await.expect("listed").items;
    let deleted = events.iter().filter(|e| e.reason.as_deref() == Some("SuccessfulDelete")).map(|e| &e.message);
    assert_eq!(deleted.collect::<Vec<_>>(), Vec::<&Option<String>>::new(), "there were too many Pods");
}

/// The node that a DaemonSet made a Pod for.
fn affine_node(pod: &Pod) -> Option<String> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.first()?.match_fields.as_ref()?;
    fields.first()?.values.as_ref()?.first().cloned()
}

#[tokio::test]
async fn namespaces_are_emptied_before_they_go() {
    let scene = Scene::new().await;
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "short"}})).expect("valid");
    namespaces.create(&PostParams::default(), &namespace).await.expect("created");
    let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), "short");
    let held: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "held", "finalizers": ["example.com/keep"]}}))
            .expect("valid");
    maps.create(&PostParams::default(), &held).await.expect("created");
    namespaces.delete("short", &DeleteParams::default()).await.expect("deleted");
    wait_until("the namespace to say what holds it", || async {
        let status = namespaces.get("short").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let held = conditions.iter().find(|c| c.type_ == "NamespaceFinalizersRemaining" && c.status == "True");
        let text = held.and_then(|c| c.message.clone()).unwrap_or_default();
        if text.contains("example.com/keep in 1 resource instances") { Ok(()) } else { Err(format!("{conditions:?}")) }
    })
    .await;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &free).await.expect("patched");
    wait_until("the namespace to be gone", || async {
        let found = namespaces.get_opt("short").await.map_err(|e| e.to_string())?;
        if found.is_none() { Ok(()) } else { Err("it is there".into()) }
    })
    .await;
}

#[tokio::test]
async fn claims_get_volumes_and_give_them_back() {
    let scene = Scene::new().await;
    let volumes: Api<PersistentVolume> = Api::all(scene.client.clone());
    let volume = |name: &str, size: &str, policy: &str| {
        let object = json!({"metadata": {"name": name}, "spec": {"capacity": {"storage": size}, "storageClassName": "",
            "persistentVolumeReclaimPolicy": policy, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": format!("/tmp/timonel-test-{}-{name}", std::process::id())}}});
        serde_json::from_value::<PersistentVolume>(object).expect("valid")
    };
    for volume in [volume("large", "10Gi", "Retain"), volume("small", "2Gi", "Delete")] {
        volumes.create(&PostParams::default(), &volume).await.expect("created");
    }
    let phase = async |name: &str, wanted: &str| {
        let found = volumes.get(name).await.map_err(|e| e.to_string())?.status.and_then(|s| s.phase);
        if found.as_deref() == Some(wanted) { Ok(()) } else { Err(format!("{name}: {found:?}")) }
    };
    wait_until("available volumes", || async {
        phase("large", "Available").await.and(phase("small", "Available").await)
    })
    .await;
    let claim = |name: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {"storageClassName": "", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}})
    };
    scene.create::<PersistentVolumeClaim>(claim("one", "1Gi")).await;
    let claims = scene.api::<PersistentVolumeClaim>();
    let bound = async |name: &str, to: &str| {
        let claim = claims.get(name).await.map_err(|e| e.to_string())?;
        let (spec, status) = (claim.spec.unwrap_or_default(), claim.status.unwrap_or_default());
        let found = (spec.volume_name.as_deref().unwrap_or(""), status.phase.as_deref().unwrap_or(""));
        if found == (to, "Bound") { Ok(()) } else { Err(format!("{found:?}")) }
    };
    wait_until("the smaller volume", || bound("one", "small")).await;
    phase("small", "Bound").await.expect("the volume is bound first");
    // A claim in use stays until its Pod is gone.
    let pod = json!({"metadata": {"name": "user"}, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "one"}}]}});
    scene.create::<Pod>(pod).await;
    claims.delete("one", &DeleteParams::default()).await.expect("deleted");
    let claim_is = claims.get("one").await.expect("it is protected");
    assert!(claim_is.metadata.deletion_timestamp.is_some());
    scene.api::<Pod>().delete("user", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    wait_until("the claim to go", || async {
        match claims.get_opt("one").await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(claim) => Err(format!("{:?}", claim.metadata.finalizers)),
        }
    })
    .await;
    wait_until("the volume to go with its claim", || async {
        match volumes.get_opt("small").await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(volume) => Err(format!("{:?}", volume.status)),
        }
    })
    .await;
    scene.create::<PersistentVolumeClaim>(claim("two", "1Gi")).await;
    wait_until("the volume that is left", || bound("two", "large")).await;
    claims.delete("two", &DeleteParams::default()).await.expect("deleted");
    wait_until("a retained volume", || phase("large", "Released")).await;
}

#[tokio::test]
async fn claims_of_devices_come_and_go_with_their_pods() {
    let scene = Scene::new().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "i", "resources": {"claims": [{"name": "gpu"}]}}],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one"}]}});
    scene.create::<Pod>(pod).await;
    let template = json!({"metadata": {"name": "one"}, "spec": {"metadata": {"labels": {"app": "p"}},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}});
    scene.create::<ResourceClaimTemplate>(template).await;
    let (pods, claims) = (scene.api::<Pod>(), scene.api::<ResourceClaim>());
    let name = wait_until("the claim's name", || async {
        let pod = pods.get("p").await.map_err(|e| e.to_string())?;
        let made = pod.status.and_then(|s| s.resource_claim_statuses).unwrap_or_default();
        made.into_iter().find_map(|m| m.resource_claim_name).ok_or_else(|| scene.manager.output())
    })
    .await;
    assert!(name.starts_with("p-gpu-"), "{name}");
    let mut claim = claims.get(&name).await.expect("made");
    assert_eq!(claim.annotations()["resource.kubernetes.io/pod-claim-name"], "gpu");
    assert_eq!(claim.labels()["app"], "p");
    assert_eq!(claims.list(&ListParams::default()).await.expect("claims").items.len(), 1);
    // Stands in for the scheduler.
    claim.finalizers_mut().push("resource.kubernetes.io/delete-protection".into());
    let mut claim = claims.replace(&name, &PostParams::default(), &claim).await.expect("kept");
    let uid = pods.get("p").await.expect("there").uid();
    let status = json!({"allocation": {"devices": {"results": [
            {"request": "r", "driver": "d.example.com", "pool": "pool", "device": "a"}]}},
        "reservedFor": [{"resource": "pods", "name": "p", "uid": uid}]});
    claim.status = serde_json::from_value(status).expect("a status");
    claims.replace_status(&name, &PostParams::default(), &claim).await.expect("allocated");
    // The Pod ends: its claim is given up and goes.
    let ended = json!({"status": {"phase": "Succeeded"}});
    pods.patch_status("p", &PatchParams::default(), &Patch::Merge(&ended)).await.expect("ended");
    wait_until("the claim to go", || async {
        match claims.get_opt(&name).await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(claim) => Err(format!("{claim:?}\n{}", scene.manager.output())),
        }
    })
    .await;
}

#[tokio::test]
async fn tainted_devices_drive_pods_away() {
    let scene = Scene::new().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "i"}], "resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]}});
    let pod = scene.create::<Pod>(pod).await;
    let request = json!([{"name": "r", "exactly": {"deviceClassName": "gpu"}}]);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": request}}});
    let mut claim = scene.create::<ResourceClaim>(claim).await;
    let result = json!({"request": "r", "driver": "d.example.com", "pool": "n1", "device": "a"});
    claim.status = serde_json::from_value(json!({"allocation": {"devices": {"results": [result]}}})).expect("a status");
    let claims = scene.api::<ResourceClaim>();
    claims.replace_status("c", &PostParams::default(), &claim).await.expect("allocated");
    // Nobody scheduled the Pod: the claim is reserved for it here.
    wait_until("the reservation", || async {
        let claim = claims.get("c").await.map_err(|e| e.to_string())?;
        let users = claim.status.and_then(|s| s.reserved_for).unwrap_or_default();
        if users.iter().any(|user| Some(&user.uid) == pod.uid().as_ref()) { Ok(()) } else { Err(format!("{users:?}")) }
    })
    .await;
    let taint = json!({"key": "sick", "effect": "NoExecute"});
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "nodeName": "n1",
        "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "a", "taints": [taint]}]}});
    let slices: Api<ResourceSlice> = Api::all(scene.client.clone());
    slices.create(&PostParams::default(), &serde_json::from_value(slice).expect("valid")).await.expect("created");
    let pods = scene.api::<Pod>();
    wait_until("the Pod to go", || async {
        match pods.get_opt("p").await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(pod) => Err(format!("{:?}\n{}", pod.status, scene.manager.output())),
        }
    })
    .await;
}

#[tokio::test]
async fn volumes_are_attached_where_pods_are() {
    let scene = Scene::new().await;
    let nodes: Api<Node> = Api::all(scene.client.clone());
    let managed = json!({"volumes.kubernetes.io/controller-managed-attach-detach": "true"});
    for name in ["n1", "n2"] {
        let node = json!({"metadata": {"name": name, "annotations": managed}});
        nodes.create(&PostParams::default(), &serde_json::from_value(node).expect("valid")).await.expect("created");
    }
    let volumes: Api<PersistentVolume> = Api::all(scene.client.clone());
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "csi": {"driver": "d.example.com", "volumeHandle": "h1"}}});
    volumes.create(&PostParams::default(), &serde_json::from_value(volume).expect("valid")).await.expect("created");
    let claim = json!({"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "", "volumeName": "pv", "resources": {"requests": {"storage": "1Gi"}}}});
    scene.create::<PersistentVolumeClaim>(claim).await;
    let user = |name: &str, node: &str| {
        json!({"metadata": {"name": name}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}})
    };
    scene.create::<Pod>(user("first", "n1")).await;
    let attachments: Api<VolumeAttachment> = Api::all(scene.client.clone());
    let on = async |node: &str| {
        let all = attachments.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
        Ok::<_, String>(all.into_iter().find(|a| a.spec.node_name == node))
    };
    let attachment =
        wait_until("the attachment", || async { on("n1").await?.ok_or_else(|| scene.manager.output()) }).await;
    assert_eq!(attachment.spec.attacher, "d.example.com");
    // Stands in for the driver.
    let attached = json!({"status": {"attached": true}});
    let params = PatchParams::default();
    attachments.patch_status(&attachment.name_any(), &params, &Patch::Merge(&attached)).await.expect("attached");
    let reported = async |node: &str| {
        let node = nodes.get(node).await.map_err(|e| e.to_string())?;
        let list = node.status.and_then(|s| s.volumes_attached).unwrap_or_default();
        Ok::<_, String>(list.into_iter().map(|v| v.name).collect::<Vec<_>>())
    };
    let unique = "kubernetes.io/csi/d.example.com^h1";
    wait_until("the report", || async {
        let list = reported("n1").await?;
        if list == [unique] { Ok(()) } else { Err(format!("{list:?}")) }
    })
    .await;
    let in_use = json!({"status": {"volumesInUse": [unique]}});
    nodes.patch_status("n1", &params, &Patch::Merge(&in_use)).await.expect("in use");
    scene.create::<Pod>(user("second", "n2")).await;
    let events = scene.api::<Event>();
    wait_until("the refusal", || async {
        let all = events.list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
        let wanted = "Multi-Attach error for volume \"pv\" Volume is already used by pod(s) first";
        let texts: Vec<String> = all.into_iter().filter_map(|e| e.message).collect();
        if texts.iter().any(|text| text == wanted) { Ok(()) } else { Err(texts.join("\n")) }
    })
    .await;
    // The first Pod goes; the node lets go of the volume only afterwards.
    scene.api::<Pod>().delete("first", &DeleteParams::default().grace_period(0)).await.expect("deleted");
    assert!(on("n1").await.expect("listed").is_some(), "it is used");
    let unused = json!({"status": {"volumesInUse": null}});
    nodes.patch_status("n1", &params, &Patch::Merge(&unused)).await.expect("not in use");
    wait_until("the other attachment", || async {
        match (on("n1").await?, on("n2").await?) {
            (None, Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(reported("n1").await.expect("read"), Vec::<String>::new());
}
