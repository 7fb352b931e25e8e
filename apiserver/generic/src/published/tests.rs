use axum::body::Body;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use machinery::GroupVersionKind;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use super::*;

struct Widgets;

impl Describe for Widgets {
    fn v3(&self) -> v3::Part {
        v3::Part {
            paths: Map::new(),
            schemas: Map::from_iter([("com.example.v1.Widget".into(), json!({"type": "object"}))]),
        }
    }

    fn v2(&self) -> v2::Part {
        v2::Part {
            paths: Map::new(),
            definitions: Map::from_iter([("com.example.v1.Widget".into(), json!({"type": "object"}))]),
        }
    }
}

fn widgets() -> Offer {
    let kind = Kind {
        gvk: GroupVersionKind::new("example.com", "v1", "Widget"),
        plural: "widgets".into(),
        singular: "widget".into(),
        short_names: vec!["wd".into()],
        categories: Vec::new(),
        namespaced: true,
        verbs: vec!["get".into(), "list".into()],
        subresources: Vec::new(),
        storage_version_hash: String::new(),
    };
    Offer {
        group: "example.com".into(),
        version: "v1".into(),
        group_priority: 1000,
        version_priority: 100,
        resources: vec![kind],
        is_stale: false,
        openapi: OpenApi::Described(Arc::new(Widgets)),
    }
}

async fn ask(published: &Arc<Published>, path: &str, accept: &str) -> (StatusCode, String, Value) {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).expect("request");
    let response: Response<Body> = router(Arc::clone(published)).oneshot(request).await.expect("answer");
    let status = response.status();
    let etag = response.headers().get(header::ETAG).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let body = response.into_body().collect().await.expect("body").to_bytes();
    (status, etag, serde_json::from_slice(&body).unwrap_or_default())
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

#[tokio::test]
async fn groups_come_and_go() {
    let published = Arc::new(Published::with_built_in("127.0.0.1:6443".into(), Arc::new(|_| true)));
    assert_eq!(ask(&published, "/apis/example.com/v1", "*/*").await.0, StatusCode::NOT_FOUND);
    let (_, before, _) = ask(&published, "/apis", AGGREGATED).await;

    published.publish("crd/widgets.example.com", vec![widgets()]);
    let (_, after, document) = ask(&published, "/apis", AGGREGATED).await;
    assert_ne!(before, after);
    let items = document["items"].as_array().expect("items");
    let own = items.iter().find(|g| g["metadata"]["name"] == "example.com").expect("group");
    assert_eq!(own["versions"][0]["resources"][0]["shortNames"], json!(["wd"]));
    let (_, _, list) = ask(&published, "/apis/example.com/v1/", "*/*").await;
    assert_eq!(list["resources"][0]["name"], "widgets");

    published.withdraw("crd/widgets.example.com");
    assert_eq!(ask(&published, "/apis", AGGREGATED).await.1, before);
    assert_eq!(ask(&published, "/openapi/v3/apis/example.com/v1", "*/*").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn documents_of_other_groups_stay() {
    let published = Arc::new(Published::with_built_in("127.0.0.1:6443".into(), Arc::new(|_| true)));
    let (_, apps, _) = ask(&published, "/openapi/v3/apis/apps/v1", "*/*").await;
    published.publish("crd/widgets.example.com", vec![widgets()]);
    let kept = published.now();
    assert!(kept.v3["apis/apps/v1"].get().is_some());
    assert_eq!(ask(&published, "/openapi/v3/apis/apps/v1", "*/*").await.1, apps);
    let (_, _, index) = ask(&published, "/openapi/v3", "*/*").await;
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().expect("url").to_owned();
    let (status, _, document) = ask(&published, &url, "*/*").await;
    assert_eq!(status, StatusCode::OK);
    assert!(document["components"]["schemas"]["com.example.v1.Widget"].is_object());
    let (status, ..) = ask(&published, "/openapi/v3/apis/example.com/v1?hash=0", "*/*").await;
    assert_eq!(status, StatusCode::MOVED_PERMANENTLY);
    let (_, _, swagger) = ask(&published, "/openapi/v2", "*/*").await;
    assert!(swagger["definitions"]["com.example.v1.Widget"].is_object());
    assert!(swagger["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    assert!(swagger["paths"]["/api/v1/pods"].is_object());
}

#[tokio::test]
async fn a_document_of_another_server_is_passed_on_as_it_is() {
    let published = Arc::new(Published::with_built_in("127.0.0.1:6443".into(), Arc::new(|_| true)));
    let ready = OpenApi::Ready { v3: Some(Bytes::from_static(b"{\"openapi\":\"3.0.0\"}")), v2: None };
    let offer = Offer { is_stale: true, openapi: ready, ..widgets() };
    published.publish("apiservice/v1.example.com", vec![offer]);
    let (_, _, document) = ask(&published, "/openapi/v3/apis/example.com/v1", "*/*").await;
    assert_eq!(document, json!({"openapi": "3.0.0"}));
    let (_, _, groups) = ask(&published, "/apis", AGGREGATED).await;
    let own = groups["items"].as_array().expect("items").iter().find(|g| g["metadata"]["name"] == "example.com");
    assert_eq!(own.expect("group")["versions"][0]["freshness"], "Stale");
}

#[test]
fn what_is_not_served_is_not_told() {
    let published = Published::with_built_in(
        "127.0.0.1:6443".into(),
        Arc::new(|kind| kind.gvk.group != "apps" && kind.plural != "jobs"),
    );
    assert!(!published.has_version("apps", "v1") && published.has_version("batch", "v1"));
    let discovery = published.discovery();
    assert!(discovery.group("apps").is_none());
    let batch = discovery.resource_list("batch", "v1").expect("a list").to_string();
    assert!(batch.contains("\"cronjobs\"") && !batch.contains("\"jobs\""), "{batch}");
}
