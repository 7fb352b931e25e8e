//! The API over a real server process and the embedded store, through kube-rs and plain requests.
//!
//! Processes, because restarts, TLS and the wire are what is tested; rules of single kinds are unit tests.

#[path = "api/components.rs"]
mod components;
#[path = "api/daemons.rs"]
mod daemons;
#[path = "api/enumeration/mod.rs"]
mod enumeration;
#[path = "api/others.rs"]
mod others;
#[path = "api/past.rs"]
mod past;

use std::process::Command;

use futures::{StreamExt, TryStreamExt};
use harness::{
    ApiServer,
    process::binary,
    server::{ADMIN_TOKEN, NOBODY_TOKEN, http_get},
    wait_until,
};
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": value}})).expect("a ConfigMap")
}

async fn send(client: &Client, method: &str, path: &str, content_type: &str, body: &str) -> Result<Value, kube::Error> {
    let request = Request::builder().method(method).uri(path).header("content-type", content_type);
    client.request::<Value>(request.body(body.as_bytes().to_vec()).expect("a request")).await
}

/// The Status of a failed request.
fn status(error: kube::Error) -> Value {
    match error {
        kube::Error::Api(status) => serde_json::to_value(&*status).expect("a Status"),
        other => panic!("not a Status: {other}"),
    }
}

#[tokio::test]
async fn objects_live_through_a_kill() {
    let mut server = ApiServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    let created = maps.create(&PostParams::default(), &config_map("kept", "1")).await.expect("create");
    server.restart().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    let found = maps.get("kept").await.expect("get");
    assert_eq!(found.metadata.uid, created.metadata.uid);
    assert_eq!(found.metadata.resource_version, created.metadata.resource_version);
}

#[tokio::test]
async fn updates_are_compared_with_what_is_stored() {
    let server = ApiServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    let first = maps.create(&PostParams::default(), &config_map("a", "1")).await.expect("create");
    let mut second = first.clone();
    second.data = Some([("key".to_owned(), "2".to_owned())].into());
    let second = maps.replace("a", &PostParams::default(), &second).await.expect("update");
    assert_ne!(first.metadata.resource_version, second.metadata.resource_version);
    let stale = maps.replace("a", &PostParams::default(), &first).await.map_err(status).expect_err("stale");
    assert_eq!((stale["code"].as_u64(), stale["reason"].as_str()), (Some(409), Some("Conflict")));
    let idle = maps.replace("a", &PostParams::default(), &second).await.expect("idle update");
    assert_eq!(idle.metadata.resource_version, second.metadata.resource_version);
    let again = maps.create(&PostParams::default(), &config_map("a", "1")).await.map_err(status).expect_err("exists");
    assert_eq!(again["message"], "configmaps \"a\" already exists");
}

#[tokio::test]
async fn watches_see_every_change_in_order() {
    let server = ApiServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    let start = maps.list(&ListParams::default()).await.expect("list").metadata.resource_version.expect("version");
    let mut watch = maps.watch(&WatchParams::default(), &start).await.expect("watch").boxed();
    let created = maps.create(&PostParams::default(), &config_map("w", "1")).await.expect("create");
    maps.patch("w", &PatchParams::default(), &Patch::Merge(json!({"data": {"key": "2"}}))).await.expect("patch");
    maps.delete("w", &DeleteParams::default()).await.expect("delete");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = watch.try_next().await.expect("event").expect("the watch goes on");
        let (kind, object) = match event {
            WatchEvent::Added(o) => ("ADDED", o),
            WatchEvent::Modified(o) => ("MODIFIED", o),
            WatchEvent::Deleted(o) => ("DELETED", o),
            other => panic!("unexpected {other:?}"),
        };
        let version: i64 = object.metadata.resource_version.expect("version").parse().expect("a number");
        assert_eq!(object.metadata.uid, created.metadata.uid);
        seen.push((kind, version));
    }
    assert_eq!(seen.iter().map(|(k, _)| *k).collect::<Vec<_>>(), ["ADDED", "MODIFIED", "DELETED"]);
    assert!(seen.is_sorted_by(|a, b| a.1 < b.1), "{seen:?}");
}

#[tokio::test]
async fn lists_are_paged_at_one_revision() {
    let server = ApiServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.admin().await, "default");
    for n in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("p{n}"), "x")).await.expect("create");
    }
    let first = maps.list(&ListParams::default().limit(2)).await.expect("first page");
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    maps.delete("p4", &DeleteParams::default()).await.expect("delete");
    let token = first.metadata.continue_.clone().expect("a token");
    let second = maps.list(&ListParams::default().limit(10).continue_token(&token)).await.expect("second page");
    let names: Vec<_> = second.items.iter().filter_map(|m| m.metadata.name.clone()).collect();
    assert_eq!(names, ["p2", "p3", "p4"], "the pages show one state");
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
}

#[tokio::test]
async fn requests_without_rights_are_refused() {
    let server = ApiServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(NOBODY_TOKEN).await, "default");
    let refused = maps.list(&ListParams::default()).await.map_err(status).expect_err("forbidden");
    assert_eq!(
        refused["message"],
        "configmaps is forbidden: User \"nobody\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let wrong = server.client("wrong-token").await.request_text(http_get("/api")).await.expect_err("unauthorized");
    assert_eq!(status(wrong)["code"], 401);
    server.client(NOBODY_TOKEN).await.request_text(http_get("/version")).await.expect("version is for everybody");
}

#[tokio::test]
async fn bad_bodies_get_upstreams_answers() {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    let path = "/api/v1/namespaces/default/configmaps";
    let json_type = "application/json";
    let post = async |query: &str, body: &str| {
        send(&client, "POST", &format!("{path}{query}"), json_type, body).await.map_err(status)
    };
    let unknown = r#"{"metadata":{"name":"a"},"foo":1}"#;
    let strict = post("?fieldValidation=Strict", unknown).await.expect_err("strict");
    assert_eq!(
        strict["message"],
        "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"foo\""
    );
    post("?fieldValidation=Ignore", unknown).await.expect("ignored");
    let kind =
        post("", r#"{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"b"}}"#).await.expect_err("version");
    assert_eq!(kind["code"], 400);
    let name = post("", r#"{"metadata":{"name":"Not_Valid"}}"#).await.expect_err("name");
    assert_eq!((name["code"].as_u64(), name["reason"].as_str()), (Some(422), Some("Invalid")));
    assert!(post("", "{").await.expect_err("syntax")["code"] == 400);
    let large = format!(r#"{{"metadata":{{"name":"l"}},"data":{{"k":"{}"}}}}"#, "x".repeat(4 << 20));
    let large = post("", &large).await.expect_err("too large");
    assert_eq!(large["message"], "Request entity too large: limit is 3145728");
    let media = send(&client, "POST", path, "text/plain", "{}").await.map_err(status).expect_err("media type");
    assert_eq!(media["code"], 415);
}

#[tokio::test]
async fn apply_tracks_owners_and_conflicts() {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let body = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": {"key": value}});
    maps.patch("s", &PatchParams::apply("one"), &Patch::Apply(body("1"))).await.expect("apply creates");
    let conflict = maps.patch("s", &PatchParams::apply("two"), &Patch::Apply(body("2"))).await.map_err(status);
    let conflict = conflict.expect_err("conflict");
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"one\": .data.key");
    let forced = maps.patch("s", &PatchParams::apply("two").force(), &Patch::Apply(body("2"))).await.expect("forced");
    let managers = forced.metadata.managed_fields.expect("managers");
    assert_eq!(managers.iter().filter_map(|m| m.manager.as_deref()).collect::<Vec<_>>(), ["two"]);
}

#[tokio::test]
async fn services_get_addresses_and_ports_of_their_own() {
    let server = ApiServer::start().await;
    let services: Api<Service> = Api::namespaced(server.admin().await, "default");
    let service = |name: &str, extra: Value| -> Service {
        let mut spec = json!({"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]});
        if let (Some(spec), Value::Object(extra)) = (spec.as_object_mut(), extra) {
            spec.extend(extra);
        }
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("a Service")
    };
    let first = services.create(&PostParams::default(), &service("a", json!({}))).await.expect("create");
    let spec = first.spec.expect("spec");
    let address = spec.cluster_ip.expect("an address");
    assert!(address.starts_with("10.0.0."), "{address}");
    let port = spec.ports.expect("ports")[0].node_port.expect("a node port");
    assert!((30000..=32767).contains(&port));
    let taken =
        services.create(&PostParams::default(), &service("b", json!({"clusterIP": address}))).await.map_err(status);
    let taken = taken.expect_err("taken");
    assert!(taken["message"].as_str().is_some_and(|m| m.contains("provided IP is already allocated")), "{taken}");
    services.delete("a", &DeleteParams::default()).await.expect("delete");
    wait_until("the address to be free again", || {
        let (services, wanted) = (services.clone(), service("c", json!({"clusterIP": address})));
        async move { services.create(&PostParams::default(), &wanted).await.map_err(|e| e.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn pods_are_deleted_gracefully_and_namespaces_hold_their_content() {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> = Api::namespaced(client.clone(), "default");
    let account = serde_json::from_value(json!({"metadata": {"name": "default"}})).expect("an account");
    accounts.create(&PostParams::default(), &account).await.expect("account");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = serde_json::from_value(json!({"metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}))
    .expect("a Pod");
    let created = pods.create(&PostParams::default(), &pod).await.expect("create");
    let spec = created.spec.expect("spec");
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert!(spec.volumes.expect("volumes")[0].name.starts_with("kube-api-access-"));
    pods.delete("p", &DeleteParams::default()).await.expect("delete");
    let going = pods.get("p").await.expect("the Pod stays for its grace period");
    assert_eq!(going.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.expect("forced");
    assert!(pods.get("p").await.is_err());

    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "going"}})).expect("a Namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("namespace");
    namespaces.delete("going", &DeleteParams::default()).await.expect("delete");
    let maps: Api<ConfigMap> = Api::namespaced(client, "going");
    let refused =
        maps.create(&PostParams::default(), &config_map("x", "1")).await.map_err(status).expect_err("terminating");
    assert_eq!(refused["code"], 403);
    let immortal =
        namespaces.delete("kube-system", &DeleteParams::default()).await.map_err(status).expect_err("immortal");
    assert_eq!(immortal["message"], "namespaces \"kube-system\" is forbidden: this namespace may not be deleted");
}

#[tokio::test]
async fn service_account_tokens_authenticate_until_their_account_goes() {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    send(
        &client,
        "POST",
        "/api/v1/namespaces/default/serviceaccounts",
        "application/json",
        r#"{"metadata":{"name":"bob"}}"#,
    )
    .await
    .expect("account");
    let path = "/api/v1/namespaces/default/serviceaccounts/bob/token";
    let answer = send(&client, "POST", path, "application/json", r#"{"spec":{"audiences":[]}}"#).await.expect("token");
    let token = answer["status"]["token"].as_str().expect("a token").to_owned();
    let bob = server.client(&token).await;
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = send(&bob, "POST", path, "application/json", review).await.expect("who am I");
    assert_eq!(me["status"]["userInfo"]["username"], "system:serviceaccount:default:bob");
    send(&client, "DELETE", "/api/v1/namespaces/default/serviceaccounts/bob", "application/json", "")
        .await
        .expect("gone");
    let refused = send(&bob, "POST", path, "application/json", review).await.map_err(status).expect_err("revoked");
    assert_eq!(refused["code"], 401);
}

#[tokio::test]
async fn discovery_and_openapi_are_served() {
    let server = ApiServer::start().await;
    let client = server.client(ADMIN_TOKEN).await;
    let groups = client.list_api_groups().await.expect("groups");
    assert!(groups.groups.iter().any(|g| g.name == "apps"));
    let core = client.list_core_api_resources("v1").await.expect("resources");
    assert!(core.resources.iter().any(|r| r.name == "pods/eviction"));
    let index: Value = client.request(http_get("/openapi/v3")).await.expect("index");
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL");
    let apps: Value = client.request(http_get(url)).await.expect("document");
    assert!(apps["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
}

#[tokio::test]
async fn flags_and_pages_are_those_of_every_component() {
    let version = Command::new(binary("kube-apiserver")).arg("--version").output().expect("kube-apiserver");
    assert!(version.status.success() && version.stdout.starts_with(b"Kubernetes v1.36."), "{version:?}");
    let server = ApiServer::start_with(&["--request-timeout=30s", "-v=2"]).await;
    let admin = server.admin().await;
    let flags = admin.request_text(http_get("/flagz")).await.expect("flagz");
    assert!(flags.contains("request-timeout"), "{flags}");
    let page = admin.request_text(http_get("/statusz")).await.expect("statusz");
    assert!(page.contains("kube-apiserver statusz"), "{page}");
    let verbosity = http::Request::put("/debug/flags/v").body(b"4".to_vec()).expect("a request");
    let answer = admin.request_text(verbosity).await.expect("verbosity");
    assert_eq!(answer, "successfully set klog.logging.verbosity to 4");
    let nobody = server.client(NOBODY_TOKEN).await.request_text(http_get("/flagz")).await.map_err(status);
    assert_eq!(nobody.expect_err("forbidden")["code"], 403);
}

/// Asks for protobuf and nothing else.
async fn protobuf(client: &Client, path: &str) -> Result<(String, Vec<u8>), kube::Error> {
    let request = Request::get(path).header("accept", "application/vnd.kubernetes.protobuf");
    let answer = client.send(request.body(kube::client::Body::empty()).expect("a request")).await?;
    let kind = answer.headers()["content-type"].to_str().expect("a text").to_owned();
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    let watch = path.contains("watch=true");
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(frame.expect("a frame").data_ref().expect("data"));
        if watch && bytes.len() > 4 {
            break;
        }
    }
    Ok((kind, bytes))
}

#[tokio::test]
async fn protobuf_is_spoken_by_those_who_want_it() {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}, "data": {"k": "v"}});
    let body = api::encode::encode(&map).expect("encoded");
    let maps = "/api/v1/namespaces/default/configmaps";
    let request = Request::post(maps).header("content-type", "application/vnd.kubernetes.protobuf");
    client.request::<Value>(request.body(body).expect("a request")).await.expect("created");

    let (kind, bytes) = protobuf(&client, &format!("{maps}/p")).await.expect("got");
    assert_eq!(kind, "application/vnd.kubernetes.protobuf");
    let (gvk, object) = api::decode::decode(&bytes).expect("an object");
    assert_eq!((gvk.kind.as_str(), &object["data"]), ("ConfigMap", &json!({"k": "v"})));
    let known: Value = client.request(http_get(&format!("{maps}/p"))).await.expect("got");
    assert_eq!(object["metadata"], known["metadata"], "both forms say the same");

    let (_, bytes) = protobuf(&client, maps).await.expect("listed");
    let (gvk, list) = api::decode::decode(&bytes).expect("a list");
    assert_eq!(gvk.kind, "ConfigMapList");
    let items = list["items"].as_array().expect("items");
    assert!(items.iter().any(|item| item["metadata"]["name"] == "p"), "{list}");
    assert!(!list["metadata"]["resourceVersion"].as_str().unwrap_or_default().is_empty());

    let path = format!("{maps}?watch=true&fieldSelector=metadata.name%3Dp&timeoutSeconds=30");
    let (kind, frame) = protobuf(&client, &path).await.expect("watched");
    assert_eq!(kind, "application/vnd.kubernetes.protobuf;stream=watch");
    let length = u32::from_be_bytes(frame[..4].try_into().expect("four bytes")) as usize;
    assert!(frame.len() >= 4 + length);
    assert_eq!(&frame[4..11], b"\x0a\x05ADDED");
    let at = frame.windows(4).position(|window| window == api::decode::MAGIC).expect("an object");
    assert_eq!(api::decode::decode(&frame[at..4 + length]).expect("an object").1, object);

    let missing = protobuf(&client, &format!("{maps}/none")).await.expect("an answer");
    assert_eq!(missing.0, "application/vnd.kubernetes.protobuf");
    let (_, status) = api::decode::decode(&missing.1).expect("a Status");
    assert_eq!((&status["reason"], &status["code"]), (&json!("NotFound"), &json!(404)));
    let (kind, _) = protobuf(&client, "/apis/autoscaling/v1/horizontalpodautoscalers").await.expect("another version");
    assert_eq!(kind, "application/vnd.kubernetes.protobuf");
}
