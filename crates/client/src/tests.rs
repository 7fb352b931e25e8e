//! Against an in-process server made of a closure.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client, client::Body};
use prometheus::Registry;
use serde_json::{Value, json};
use tower::ServiceBuilder;

use crate::*;

fn answer(code: u16, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).unwrap()
}

fn status(code: u16, reason: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code,
        "message": format!("it is {reason}")});
    answer(code, &body)
}

fn client(
    serve: impl Fn(&Request<Body>) -> Response<Body> + Clone + Send + Sync + 'static,
    metrics: ClientMetrics,
) -> Client {
    let layer =
        TransportLayer { limit: RateLimit::new(0.0, 1), backoff: None, metrics: Some(metrics), host: "test:1".into() };
    let service = ServiceBuilder::new().layer(layer).service_fn(move |request: Request<Body>| {
        let response = serve(&request);
        async move { Ok::<_, tower::BoxError>(response) }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn conflicts_are_retried_and_counted() {
    let registry = Registry::new();
    let metrics = ClientMetrics::new(&registry).unwrap();
    let puts = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&puts);
    let client = client(
        move |request| {
            if request.method() == http::Method::PUT && seen.fetch_add(1, Ordering::SeqCst) < 2 {
                return status(409, "Conflict");
            }
            answer(200, &json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "d"}}))
        },
        metrics,
    );
    let api: Api<ConfigMap> = Api::namespaced(client, "d");
    let set = |object: &mut ConfigMap| object.data.get_or_insert_default().insert("k".into(), "v".into()).is_none();
    modify(&api, "a", set).await.unwrap();
    assert_eq!(puts.load(Ordering::SeqCst), 3);
    let text = runtime::metrics::expose(&registry);
    let conflicts = "rest_client_requests_total{code=\"409\",host=\"test:1\",method=\"PUT\"} 2";
    assert!(text.contains(conflicts), "{text}");
    let unchanged = modify(&api, "a", |_| false).await.unwrap();
    assert_eq!((object_name(&unchanged), puts.load(Ordering::SeqCst)), ("d/a".into(), 3));
}

#[tokio::test]
async fn errors_answer_questions() {
    let metrics = ClientMetrics::new(&Registry::new()).unwrap();
    let api: Api<ConfigMap> = Api::namespaced(client(|_| status(404, "NotFound"), metrics), "d");
    let error = modify(&api, "a", |_| true).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_conflict() && !error.is_transient());
    assert_eq!(error.to_string(), "update a: it is NotFound");
}

#[tokio::test]
async fn discovery_prefers_and_reports_stale_groups() {
    let metrics = ClientMetrics::new(&Registry::new()).unwrap();
    let resource = |name: &str, kind: &str| {
        json!({"resource": name, "responseKind": {"group": "", "version": "", "kind": kind}, "scope": "Namespaced",
            "singularResource": "x", "verbs": ["get"]})
    };
    let group = move |name: &str, versions: Value| json!({"metadata": {"name": name}, "versions": versions});
    let client = client(
        move |request| {
            let items = if request.uri().path() == "/api" {
                json!([group("", json!([{"version": "v1", "resources": [resource("pods", "Pod")]}]))])
            } else {
                json!([
                    group(
                        "apps",
                        json!([
                            {"version": "v1", "resources": [resource("deployments", "Deployment")]},
                            {"version": "v1beta1", "resources": [resource("deployments", "Deployment")]},
                        ])
                    ),
                    group("down.io", json!([{"version": "v1", "freshness": "Stale", "resources": []}]))
                ])
            };
            answer(
                200,
                &json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2",
                "metadata": {}, "items": items}),
            )
        },
        metrics,
    );
    let snapshot = Discovery::new(client).snapshot().await.unwrap();
    assert_eq!(snapshot.failed, ["down.io/v1"]);
    assert_eq!((snapshot.resources.len(), snapshot.preferred().len()), (3, 2));
    assert_eq!(snapshot.preferred_kind("apps", "Deployment").map(|r| r.gvr.version.as_str()), Some("v1"));
}

#[tokio::test]
async fn a_kubeconfig_makes_a_client() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: k, cluster: {server: 'http://127.0.0.1:1'}}]\n\
         contexts: [{name: c, context: {cluster: k, user: u, namespace: n}}]\nusers: [{name: u, user: {token: t}}]\n",
    )
    .unwrap();
    let args = runtime::flags::ClientArgs { kubeconfig: Some(file.path().into()), ..Default::default() };
    let client = connect(&args, &Connection::of("kube-scheduler", "leader-election", &args, None)).await.unwrap();
    assert_eq!(client.default_namespace(), "n");
    let bad = runtime::flags::ClientArgs { master: Some("::".into()), ..Default::default() };
    assert!(connect(&bad, &Connection::of("x", "", &bad, None)).await.is_err());
}
