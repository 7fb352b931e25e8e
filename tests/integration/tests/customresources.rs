//! CustomResourceDefinitions and their objects over a real server process, and what controllers make of them.
//!
//! Processes, because watches, restarts, discovery and the control loops are tested; schemas are unit tests.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{StreamExt, TryStreamExt};
use harness::{
    ApiServer,
    process::{Process, binary, free_port},
    server::{ADMIN_TOKEN, http_get},
    wait_until,
};
use http::Request;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
    core::GroupVersionKind,
};
use runtime::{serving, tls};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

async fn ask(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, Value> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    ask_as(client, method, path, kind, body).await
}

async fn ask_as(client: &Client, method: &str, path: &str, kind: &str, body: &Value) -> Result<Value, Value> {
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    client.request::<Value>(request.body(body).expect("a request")).await.map_err(|error| match error {
        kube::Error::Api(status) => serde_json::to_value(&*status).expect("a Status"),
        other => panic!("not a Status: {other}"),
    })
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true,
                 "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                    "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                 "selectableFields": [{"jsonPath": ".spec.color"}],
                 "additionalPrinterColumns": [
                    {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
                    {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1}],
                 "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "required": ["color"], "properties": {
                        "color": {"type": "string", "enum": ["red", "blue"]},
                        "replicas": {"type": "integer", "minimum": 0, "default": 2},
                        "parts": {"type": "array", "x-kubernetes-list-type": "map",
                            "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object", "required": ["name"],
                            "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}}}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"},
                        "selector": {"type": "string"}}}}}}},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                 "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
    })
}

fn widget(name: &str, color: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"color": color}})
}

fn condition<'a>(definition: &'a Value, kind: &str) -> Option<&'a Value> {
    definition["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind)
}

async fn until_condition(client: &Client, name: &str, kind: &str, status: &str) -> Value {
    wait_until(&format!("{name}: {kind}={status}"), || async {
        let definition = ask(client, "GET", &format!("{DEFINITIONS}/{name}"), &Value::Null).await;
        let definition = definition.map_err(|e| e.to_string())?;
        match condition(&definition, kind) {
            Some(found) if found["status"] == status => Ok(definition),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn defined(server: &ApiServer) -> Client {
    let client = server.admin().await;
    ask(&client, "POST", DEFINITIONS, &definition()).await.expect("a definition");
    until_condition(&client, "widgets.example.com", "Established", "True").await;
    client
}

fn widgets(client: &Client) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1", "Widget"), "widgets");
    Api::namespaced_with(client.clone(), "default", &kind)
}

#[tokio::test]
async fn a_definition_is_served_as_soon_as_it_is_established() {
    let server = ApiServer::start().await;
    let client = defined(&server).await;
    let list = client.request::<Value>(http_get("/apis/example.com/v1")).await.expect("discovery");
    let names: Vec<&str> =
        list["resources"].as_array().expect("list").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    let made = ask(&client, "POST", WIDGETS, &widget("a", "red")).await.expect("an object");
    assert_eq!(made["spec"], json!({"color": "red", "replicas": 2}));
    assert_eq!(made["metadata"]["generation"], 1);

    let request = Request::get(WIDGETS).header("accept", "application/json;as=Table;g=meta.k8s.io;v=v1");
    let table = client.request::<Value>(request.body(Vec::new()).expect("request")).await.expect("a table");
    let columns: Vec<&Value> =
        table["columnDefinitions"].as_array().expect("columns").iter().map(|c| &c["name"]).collect();
    assert_eq!(columns, ["Name", "Color", "Replicas"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", "red", 2]));

    let swagger = client.request::<Value>(http_get("/openapi/v3/apis/example.com/v1")).await.expect("OpenAPI");
    assert_eq!(
        swagger["components"]["schemas"]["com.example.v1.Widget"]["properties"]["spec"]["required"],
        json!(["color"])
    );
    let list = client.request::<Value>(http_get(WIDGETS)).await.expect("list");
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("WidgetList"), &json!("Widget")));
}

#[tokio::test]
async fn objects_are_checked_by_their_schema() {
    let server = ApiServer::start().await;
    let client = defined(&server).await;
    let refused = ask(&client, "POST", WIDGETS, &widget("a", "green")).await.expect_err("no such color");
    assert_eq!(
        refused["message"],
        "Widget.example.com \"a\" is invalid: spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\""
    );
    let mut odd = widget("a", "red");
    odd["spec"]["odd"] = json!(1);
    odd["metadata"]["odd"] = json!(1);
    let strict = format!("{WIDGETS}?fieldValidation=Strict");
    let refused = ask(&client, "POST", &strict, &odd).await.expect_err("unknown fields");
    assert_eq!(
        refused["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"metadata.odd\", \
         unknown field \"spec.odd\""
    );
    let made = ask(&client, "POST", WIDGETS, &odd).await.expect("pruned");
    assert!(made["spec"].get("odd").is_none() && made["metadata"].get("odd").is_none());
    let mut blind = widget("a", "blue");
    let refused = ask(&client, "PUT", &format!("{WIDGETS}/a"), &blind).await.expect_err("no version");
    assert!(refused["message"].as_str().expect("text").ends_with("must be specified for an update"), "{refused}");
    blind["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    let updated = ask(&client, "PUT", &format!("{WIDGETS}/a"), &blind).await.expect("update");
    assert_eq!(updated["metadata"]["generation"], 2);
    let kind = "application/strategic-merge-patch+json";
    let refused = ask_as(&client, "PATCH", &format!("{WIDGETS}/a"), kind, &json!({})).await.expect_err("strategic");
    assert_eq!(refused["code"], 415);
    let selected = ask(&client, "GET", &format!("{WIDGETS}?fieldSelector=spec.color%3Dred"), &Value::Null).await;
    assert_eq!(selected.expect("list")["items"], json!([]));
}

#[tokio::test]
async fn rules_are_checked() {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    let mut definition = definition();
    let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let rules = |rule: &str| {
        json!([{"rule": rule, "messageExpression": "'%s is not enough'.format([string(self.replicas)])"},
               {"rule": "self.color == oldSelf.color", "message": "color is for ever", "fieldPath": ".color"}])
    };
    spec["x-kubernetes-validations"] = rules("self.replica > 0");
    let refused = ask(&client, "POST", DEFINITIONS, &definition).await.expect_err("a rule over a field that is none");
    assert!(refused["message"].as_str().expect("text").contains("undefined field 'replica'"), "{refused}");
    let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = rules("self.color != 'red' || self.replicas > 1");
    ask(&client, "POST", DEFINITIONS, &definition).await.expect("a definition");
    until_condition(&client, "widgets.example.com", "Established", "True").await;
    let mut poor = widget("a", "red");
    poor["spec"]["replicas"] = json!(1);
    let refused = ask(&client, "POST", WIDGETS, &poor).await.expect_err("too few");
    assert_eq!(refused["message"], "Widget.example.com \"a\" is invalid: spec: Invalid value: 1 is not enough");
    poor["spec"]["color"] = json!("green");
    let refused = ask(&client, "POST", WIDGETS, &poor).await.expect_err("no such color");
    assert!(refused["message"].as_str().expect("text").contains("<nil>: Invalid value: null: some validation rules"));
    ask(&client, "POST", WIDGETS, &widget("a", "red")).await.expect("an object");
    let patch = json!({"spec": {"color": "blue"}});
    let refused = ask(&client, "PATCH", &format!("{WIDGETS}/a"), &patch).await.expect_err("another color");
    assert_eq!(refused["message"], "Widget.example.com \"a\" is invalid: spec.color: Invalid value: color is for ever");
}

#[tokio::test]
async fn status_and_scale_are_apart_from_the_rest() {
    let server = ApiServer::start().await;
    let client = defined(&server).await;
    let mut object = widget("a", "red");
    object["status"] = json!({"replicas": 7});
    let made = ask(&client, "POST", WIDGETS, &object).await.expect("an object");
    assert!(made.get("status").is_none());
    let patch = json!({"spec": {"color": "blue"}, "status": {"replicas": 1, "selector": "a=b"}});
    let patched = ask(&client, "PATCH", &format!("{WIDGETS}/a/status"), &patch).await.expect("status");
    assert_eq!((&patched["spec"]["color"], &patched["metadata"]["generation"]), (&json!("red"), &json!(1)));
    let scaled = ask(&client, "PATCH", &format!("{WIDGETS}/a/scale"), &json!({"spec": {"replicas": 5}})).await;
    let scaled = scaled.expect("scale");
    assert_eq!(
        (&scaled["spec"]["replicas"], &scaled["status"]),
        (&json!(5), &json!({"replicas": 1, "selector": "a=b"}))
    );
    let beta = "/apis/example.com/v1beta1/namespaces/default/widgets/a";
    let missing = ask(&client, "GET", &format!("{beta}/status"), &Value::Null).await.expect_err("no status in v1beta1");
    assert_eq!(missing["message"], "widgets.example.com \"a\" not found");
    let beta = ask(&client, "GET", beta, &Value::Null).await.expect("the other version");
    assert_eq!((&beta["apiVersion"], &beta["spec"]["replicas"]), (&json!("example.com/v1beta1"), &json!(5)));
}

#[tokio::test]
async fn fields_have_owners() {
    let server = ApiServer::start().await;
    let client = defined(&server).await;
    let api = widgets(&client);
    let apply = |manager: &str| PatchParams::apply(manager);
    let mut first = widget("a", "red");
    first["spec"]["parts"] = json!([{"name": "x", "size": 1}]);
    api.patch("a", &apply("one"), &Patch::Apply(&first)).await.expect("apply");
    let mut second = widget("a", "red");
    second["spec"]["parts"] = json!([{"name": "y", "size": 2}]);
    let both = api.patch("a", &apply("two"), &Patch::Apply(&second)).await.expect("apply");
    assert_eq!(both.data["spec"]["parts"].as_array().map(Vec::len), Some(2));
    second["spec"]["color"] = json!("blue");
    let refused = api.patch("a", &apply("two"), &Patch::Apply(&second)).await.expect_err("a conflict");
    assert!(refused.to_string().contains("conflict with \"one\": .spec.color"), "{refused}");
}

#[tokio::test]
async fn names_are_given_once() {
    let server = ApiServer::start().await;
    let client = defined(&server).await;
    let mut rival = definition();
    rival["metadata"]["name"] = json!("gadgets.example.com");
    rival["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"]});
    ask(&client, "POST", DEFINITIONS, &rival).await.expect("a definition");
    let refused = until_condition(&client, "gadgets.example.com", "NamesAccepted", "False").await;
    let accepted = condition(&refused, "NamesAccepted").expect("condition");
    assert_eq!(
        (&accepted["reason"], &accepted["message"]),
        (&json!("ShortNamesConflict"), &json!("\"wd\" is already in use"))
    );
    ask(&client, "DELETE", &format!("{DEFINITIONS}/widgets.example.com"), &Value::Null).await.expect("deleted");
    until_condition(&client, "gadgets.example.com", "Established", "True").await;
}

#[tokio::test]
async fn objects_go_before_their_definition() {
    let server = ApiServer::start().await;
    let client = defined(&server).await;
    let api = widgets(&client);
    let mut held = widget("held", "red");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    ask(&client, "POST", WIDGETS, &held).await.expect("an object");
    ask(&client, "POST", WIDGETS, &widget("free", "red")).await.expect("an object");
    let mut watch = api.watch(&WatchParams::default(), "0").await.expect("watch").boxed();
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let marked = ask(&client, "DELETE", &path, &Value::Null).await.expect("marked");
    assert_eq!(marked["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    assert_eq!(condition(&marked, "Terminating").expect("condition")["reason"], "InstanceDeletionPending");
    wait_until("only the held object is left", || async {
        let list = ask(&client, "GET", WIDGETS, &Value::Null).await.map_err(|e| e.to_string())?;
        if list["items"].as_array().map(Vec::len) == Some(1) { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    let refused = ask(&client, "POST", WIDGETS, &widget("late", "red")).await.expect_err("too late");
    assert_eq!(
        refused["message"],
        "widgets.example.com \"late\" is forbidden: create not allowed while custom resource definition is terminating"
    );
    let resources = client.request::<Value>(http_get("/apis/example.com/v1")).await.expect("discovery");
    assert_eq!(resources["resources"][0]["verbs"], json!(["delete", "deletecollection", "get", "list", "watch"]));
    ask(&client, "PATCH", &format!("{WIDGETS}/held"), &json!({"metadata": {"finalizers": null}}))
        .await
        .expect("let go");
    wait_until("the definition is gone", || async {
        match ask(&client, "GET", &path, &Value::Null).await {
            Err(status) if status["code"] == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let mut deleted = Vec::new();
    while let Some(event) = watch.try_next().await.expect("the watch ends without error") {
        if let WatchEvent::Deleted(object) = event {
            deleted.push(object.metadata.name.unwrap_or_default());
        }
    }
    assert_eq!(deleted, ["free", "held"]);
    wait_until("nothing is served any more", || async {
        match ask(&client, "GET", "/apis/example.com/v1", &Value::Null).await {
            Err(status) if status["code"] == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn changes_of_a_definition_apply_to_what_is_stored() {
    let mut server = ApiServer::start().await;
    let client = defined(&server).await;
    ask(&client, "POST", WIDGETS, &widget("a", "red")).await.expect("an object");
    let mut watch = widgets(&client).watch(&WatchParams::default(), "0").await.expect("watch").boxed();
    let mut changed = definition();
    let properties =
        &mut changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    properties["shape"] = json!({"type": "string", "default": "round"});
    let patch = json!({"spec": {"versions": changed["spec"]["versions"]}});
    ask(&client, "PATCH", &format!("{DEFINITIONS}/widgets.example.com"), &patch).await.expect("patch");
    let shaped = || async {
        let object = ask(&client, "GET", &format!("{WIDGETS}/a"), &Value::Null).await.map_err(|e| e.to_string())?;
        if object["spec"]["shape"] == "round" { Ok(()) } else { Err(object.to_string()) }
    };
    wait_until("the new default shows", shaped).await;
    while watch.try_next().await.expect("the watch of the old form ends").is_some() {}

    changed["spec"]["versions"][0]["storage"] = json!(false);
    changed["spec"]["versions"][1]["storage"] = json!(true);
    let patch = json!({"spec": {"versions": changed["spec"]["versions"]}});
    let patched = ask(&client, "PATCH", &format!("{DEFINITIONS}/widgets.example.com"), &patch).await.expect("patch");
    assert_eq!(patched["status"]["storedVersions"], json!(["v1", "v1beta1"]));
    server.restart().await;
    let client = server.admin().await;
    wait_until("the object is served after a restart, in both versions", || async {
        for version in ["v1", "v1beta1"] {
            let path = format!("/apis/example.com/{version}/namespaces/default/widgets/a");
            let object = ask(&client, "GET", &path, &Value::Null).await.map_err(|e| e.to_string())?;
            assert_eq!(object["apiVersion"], format!("example.com/{version}"));
        }
        Ok::<_, String>(())
    })
    .await;
    let unknown = ask(&client, "GET", "/apis/example.com/v2/widgets", &Value::Null).await.expect_err("no such version");
    assert_eq!(unknown["code"], 404);
    ask(&client, "POST", WIDGETS, &widget("b", "blue")).await.expect("stored in the other version");
    let list = widgets(&client).list(&ListParams::default()).await.expect("list");
    assert_eq!(list.items.len(), 2);
}

#[tokio::test]
async fn controllers_follow_kinds_that_come_and_go() {
    let server = ApiServer::start().await;
    let arguments = [
        format!("--kubeconfig={}", server.kubeconfig_file(ADMIN_TOKEN).display()),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--secure-port={}", free_port()),
        "--leader-elect=false".to_owned(),
        "--controllers=namespace-controller,garbage-collector-controller,resourcequota-controller".to_owned(),
    ];
    let log = server.path().join("controller-manager.log");
    let _manager = Process::start(&binary("kube-controller-manager"), &arguments, log);
    let client = defined(&server).await;
    let namespaces = "/api/v1/namespaces";
    ask(&client, "POST", namespaces, &json!({"metadata": {"name": "n"}})).await.expect("a namespace");
    let place = "/apis/example.com/v1/namespaces/n/widgets";
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/widgets.example.com": "1"}}});
    ask(&client, "POST", "/api/v1/namespaces/n/resourcequotas", &quota).await.expect("a quota");
    wait_until("the quota is counted", || async {
        let quota = ask(&client, "GET", "/api/v1/namespaces/n/resourcequotas/q", &Value::Null).await;
        let quota = quota.map_err(|e| e.to_string())?;
        if quota["status"]["used"]["count/widgets.example.com"] == "0" { Ok(()) } else { Err(quota.to_string()) }
    })
    .await;
    let owner = ask(&client, "POST", place, &widget("owner", "red")).await.expect("an object");
    let refused = ask(&client, "POST", place, &widget("second", "red")).await.expect_err("one is allowed");
    assert!(refused["message"].as_str().expect("text").contains("exceeded quota: q"), "{refused}");

    let reference =
        json!({"apiVersion": "example.com/v1", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"]});
    let owned = json!({"metadata": {"name": "owned", "ownerReferences": [reference]}});
    ask(&client, "POST", "/api/v1/namespaces/n/configmaps", &owned).await.expect("a ConfigMap");
    ask(&client, "DELETE", &format!("{place}/owner"), &Value::Null).await.expect("deleted");
    wait_until("what it owned is collected", || async {
        match ask(&client, "GET", "/api/v1/namespaces/n/configmaps/owned", &Value::Null).await {
            Err(status) if status["code"] == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    wait_until("there is room again", || async {
        ask(&client, "POST", place, &widget("third", "red")).await.map_err(|e| e.to_string())
    })
    .await;
    ask(&client, "DELETE", &format!("{namespaces}/n"), &Value::Null).await.expect("deleted");
    wait_until("the namespace is gone with all in it", || async {
        match ask(&client, "GET", &format!("{namespaces}/n"), &Value::Null).await {
            Err(status) if status["code"] == 404 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let everywhere = ask(&client, "GET", "/apis/example.com/v1/widgets", &Value::Null).await.expect("list");
    assert_eq!(everywhere["items"], json!([]));
}

#[tokio::test]
async fn definitions_are_checked() {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 4] = [
        (|d| d["spec"]["versions"][0]["schema"] = json!({}), "schemas are required"),
        (
            |d| d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({}),
            "must not be empty for specified object fields",
        ),
        (|d| d["metadata"]["name"] = json!("x.example.com"), "must be spec.names.plural+\".\"+spec.group"),
        (|d| d["spec"]["preserveUnknownFields"] = json!(true), "cannot set to true"),
    ];
    for (change, text) in cases {
        let mut wrong = definition();
        change(&mut wrong);
        let refused = ask(&client, "POST", DEFINITIONS, &wrong).await.expect_err("not valid");
        assert!(refused["message"].as_str().expect("text").contains(text), "{refused}");
    }
}

/// A webhook that moves `spec.color` to `spec.colour` and back, and refuses objects named `odd`.
async fn convert(request: axum::http::Request<axum::body::Body>) -> axum::response::Response<axum::body::Body> {
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.expect("a body");
    let review: Value = serde_json::from_slice(&body).expect("JSON");
    let wanted = &review["request"]["desiredAPIVersion"];
    let mut objects = review["request"]["objects"].as_array().cloned().unwrap_or_default();
    let is_odd = objects.iter().any(|o| o["metadata"]["name"] == "odd");
    for object in &mut objects {
        let (from, to) = if wanted == "example.com/v1" { ("colour", "color") } else { ("color", "colour") };
        let value = object["spec"][from].take();
        object["spec"] = json!({(to): value});
        object["apiVersion"] = wanted.clone();
    }
    let result = if is_odd { json!({"status": "Failure", "message": "too odd"}) } else { json!({"status": "Success"}) };
    let answer = json!({"kind": "ConversionReview", "apiVersion": review["apiVersion"], "response": {
        "uid": review["request"]["uid"], "result": result, "convertedObjects": objects}});
    axum::response::Response::builder()
        .header("content-type", "application/json")
        .body(axum::body::Body::from(answer.to_string()))
        .expect("an answer")
}

#[tokio::test]
async fn a_webhook_converts() {
    let stop = CancellationToken::new();
    let _end = stop.clone().drop_guard();
    let (certificate, key) = tls::self_signed("localhost", &["localhost".to_owned()], &[]).expect("a certificate");
    let serving = tls::ServingCertificate::new(certificate.as_bytes(), key.as_bytes()).expect("a serving certificate");
    let config = tls::server_config(Arc::new(serving)).expect("TLS");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(serving::serve(listener, Some(config), convert, stop, Duration::ZERO));

    let server = ApiServer::start().await;
    let client = server.admin().await;
    let mut definition = definition();
    definition["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://localhost:{port}/convert"), "caBundle": BASE64_STANDARD.encode(certificate)},
    }});
    ask(&client, "POST", DEFINITIONS, &definition).await.expect("a definition");
    until_condition(&client, "widgets.example.com", "Established", "True").await;
    ask(&client, "POST", WIDGETS, &widget("a", "red")).await.expect("an object");
    let beta = "/apis/example.com/v1beta1/namespaces/default/widgets";
    let converted = ask(&client, "GET", &format!("{beta}/a"), &Value::Null).await.expect("converted");
    assert_eq!(converted["spec"], json!({"colour": "red"}));
    let patched = ask(&client, "PATCH", &format!("{beta}/a"), &json!({"spec": {"colour": "blue"}})).await;
    assert_eq!(patched.expect("patch")["spec"], json!({"colour": "blue"}));
    let stored = ask(&client, "GET", &format!("{WIDGETS}/a"), &Value::Null).await.expect("stored");
    assert_eq!(stored["spec"]["color"], "blue");
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", "v1beta1", "Widget"), "widgets");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &kind);
    let mut watch = api.watch(&WatchParams::default(), "0").await.expect("watch").boxed();
    match watch.try_next().await.expect("event") {
        Some(WatchEvent::Added(object)) => assert_eq!(object.data["spec"], json!({"colour": "blue"})),
        other => panic!("not an addition: {other:?}"),
    }
    ask(&client, "POST", WIDGETS, &widget("odd", "red")).await.expect("stored as it is");
    let refused = ask(&client, "GET", beta, &Value::Null).await.expect_err("one of them is not converted");
    assert_eq!(refused["message"], "conversion webhook for example.com/v1, Kind=Widget failed: too odd");
    assert_eq!(refused["code"], 500);
}
