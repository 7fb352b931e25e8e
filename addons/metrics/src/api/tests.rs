use std::time::Duration;

use axum::body::Body;
use controller::Cached;
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Node;
use tower::ServiceExt;

use super::*;
use crate::exposition;

fn cached<V: Viewed>(value: Value) -> Cached<V> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let key = ObjectKey::new(text("/metadata/namespace"), text("/metadata/name"));
    let object: V::Object = serde_json::from_value(value).unwrap();
    Cached { key, uid: "u".into(), resource_version: "1".into(), view: V::project(object) }
}

fn served() -> Served {
    let (nodes, pods) = (Informer::new(&[]), Informer::new(&[]));
    let node = json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}});
    let _typed: Node = serde_json::from_value(node.clone()).unwrap();
    nodes.apply(cached(node));
    for (name, app) in [("web", "x"), ("db", "y")] {
        let labels = json!({"app": app});
        pods.apply(cached(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": labels}})));
    }
    let mut book = Book::new(Duration::from_secs(15));
    for (at, cpu) in [(0i64, 10.0), (15, 11.5)] {
        let at = 1_700_000_000_000 + at * 1000;
        let mut text = format!("node_cpu_usage_seconds_total {cpu} {at}\nnode_memory_working_set_bytes 2097152 {at}\n");
        for pod in ["web", "db", "gone"] {
            let labels = format!("{{container=\"main\",namespace=\"default\",pod=\"{pod}\"}}");
            text += &format!("container_cpu_usage_seconds_total{labels} {cpu} {at}\n");
            text += &format!("container_memory_working_set_bytes{labels} 1048999 {at}\n");
        }
        book.take("n1", exposition::read(&text, at));
    }
    Served { nodes, pods, book: Arc::new(RwLock::new(book)) }
}

async fn ask(path: &str, accept: &str) -> (u16, Value) {
    let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
    let response = router(served()).oneshot(request).await.unwrap();
    let code = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn nodes_and_pods() {
    let (_, list) = ask("/apis/metrics.k8s.io/v1beta1/nodes", "application/json").await;
    assert_eq!(list["kind"], "NodeMetricsList");
    assert_eq!(
        list["items"][0],
        json!({
            "kind": "NodeMetrics", "apiVersion": "metrics.k8s.io/v1beta1",
            "metadata": {"name": "n1", "creationTimestamp": "2023-11-14T22:13:35Z", "labels": {"zone": "a"}},
            "timestamp": "2023-11-14T22:13:35Z", "window": "15s", "usage": {"cpu": "100m", "memory": "2Mi"},
        })
    );
    let root = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";
    let (_, pod) = ask(&format!("{root}/web"), "application/json").await;
    assert_eq!(pod["containers"], json!([{"name": "main", "usage": {"cpu": "100m", "memory": "1Mi"}}]));
    let (code, status) = ask(&format!("{root}/gone"), "application/json").await;
    assert_eq!((code, status["message"].as_str()), (404, Some("pods.metrics.k8s.io \"gone\" not found")));
}

#[tokio::test]
async fn lists_are_narrowed() {
    let cases = [
        ("/apis/metrics.k8s.io/v1beta1/pods", 2),
        ("/apis/metrics.k8s.io/v1beta1/pods?labelSelector=app%3Dx", 1),
        ("/apis/metrics.k8s.io/v1beta1/pods?fieldSelector=metadata.name%3Ddb", 1),
        ("/apis/metrics.k8s.io/v1beta1/namespaces/other/pods", 0),
        ("/apis/metrics.k8s.io/v1beta1/nodes?labelSelector=zone%3Db", 0),
    ];
    for (path, count) in cases {
        assert_eq!(ask(path, "*/*").await.1["items"].as_array().map(Vec::len), Some(count), "{path}");
    }
    assert_eq!(ask("/apis/metrics.k8s.io/v1beta1/pods?labelSelector=%21%21", "*/*").await.0, 400);
}

#[tokio::test]
async fn tables_and_discovery() {
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, table) = ask("/apis/metrics.k8s.io/v1beta1/pods", accept).await;
    assert_eq!(table["rows"][0]["cells"], json!(["db", "100m", "1Mi", "15s"]));
    let (_, list) = ask("/apis/metrics.k8s.io/v1beta1", "*/*").await;
    assert_eq!(list["resources"][1]["kind"], "PodMetrics");
    assert_eq!(ask("/apis/metrics.k8s.io", "*/*").await.1["preferredVersion"]["version"], "v1beta1");
}
