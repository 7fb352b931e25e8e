//! The audit log of a real server.

use std::{fs, path::Path, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use harness::{
    ApiServer,
    server::{ADMIN_TOKEN, NOBODY_TOKEN, http_get},
    wait_until,
};
use http::Request;
use http_body_util::BodyExt;
use kube::Client;
use parking_lot::Mutex;
use runtime::{serving, tls};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ['/readyz*', '/livez*']
- level: Metadata
  resources: [{group: '', resources: [secrets]}]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: '', resources: [configmaps]}]
- level: Metadata
";

fn events(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    client.request(request.body(body.to_string().into_bytes()).expect("a request")).await
}

#[tokio::test]
async fn requests_are_on_record_as_the_policy_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let (policy, log) = (directory.path().join("policy.yaml"), directory.path().join("logs/audit.log"));
    fs::write(&policy, POLICY).expect("the policy");
    let flags = [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    let server = ApiServer::start_with(&[&flags[0], &flags[1]]).await;
    let (admin, nobody) = (server.client(ADMIN_TOKEN).await, server.client(NOBODY_TOKEN).await);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "seen"}});
    send(&admin, "POST", "/api/v1/namespaces/default/configmaps", &map).await.expect("created");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "aGlkZGVu"}});
    send(&admin, "POST", "/api/v1/namespaces/default/secrets", &secret).await.expect("created");
    nobody.request_text(http_get("/api/v1/namespaces/default/secrets/s")).await.expect_err("forbidden");

    let find = |uri: &str, verb: &str, user: &str| {
        events(&log).into_iter().find(|event| {
            event["requestURI"].as_str().is_some_and(|text| text.starts_with(uri))
                && event["verb"] == verb
                && event["user"]["username"] == user
        })
    };
    let created = find("/api/v1/namespaces/default/configmaps", "create", "admin").expect("on record");
    assert_eq!((&created["level"], &created["stage"]), (&json!("RequestResponse"), &json!("ResponseComplete")));
    assert_eq!(created["requestObject"]["data"], json!({"k": "seen"}));
    assert_eq!(created["responseObject"]["data"], json!({"k": "seen"}));
    assert!(created["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(created["responseStatus"]["code"], 201);
    assert_eq!(
        created["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1"})
    );
    assert_eq!(created["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(created["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!((&created["kind"], &created["apiVersion"]), (&json!("Event"), &json!("audit.k8s.io/v1")));
    assert!(!created["auditID"].as_str().unwrap_or_default().is_empty());

    let hidden = find("/api/v1/namespaces/default/secrets", "create", "admin").expect("on record");
    assert!(hidden.get("requestObject").is_none() && hidden.get("responseObject").is_none());
    let text = fs::read_to_string(&log).expect("the log");
    assert!(!text.contains("aGlkZGVu"), "no secret is in the log");
    assert!(!text.contains("/readyz"), "health is not recorded");
    let refused = find("/api/v1/namespaces/default/secrets/s", "get", "nobody").expect("on record");
    assert_eq!(refused["responseStatus"]["code"], 403);
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");

    let watch = "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1";
    admin.request_text(http_get(watch)).await.expect("watched");
    wait_until("the end of the watch on record", || {
        let stages: Vec<String> = events(&log)
            .into_iter()
            .filter(|event| event["verb"] == "watch" && event["user"]["username"] == "admin")
            .map(|event| event["stage"].as_str().unwrap_or_default().to_owned())
            .collect();
        async move { if stages == ["ResponseStarted", "ResponseComplete"] { Ok(()) } else { Err(format!("{stages:?}")) } }
    })
    .await;
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&log).expect("the log").permissions().mode() & 0o777, 0o600);
}

/// A server that takes events, and the kubeconfig that leads to it.
async fn taker(directory: &Path) -> (Arc<Mutex<Vec<Value>>>, DropGuard) {
    let (certificate, key) = tls::self_signed("localhost", &["localhost".into()], &[]).expect("a certificate");
    let pair = tls::ServingCertificate::new(certificate.as_bytes(), key.as_bytes()).expect("a pair");
    let config = tls::server_config(Arc::new(pair)).expect("TLS");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let taken = Arc::new(Mutex::new(Vec::new()));
    let lists = Arc::clone(&taken);
    let handler = move |request: Request<Body>| {
        let lists = Arc::clone(&lists);
        async move {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            lists.lock().push(serde_json::from_slice(&body).expect("a list"));
            Response::new(Body::empty())
        }
    };
    let stop = CancellationToken::new();
    tokio::spawn(serving::serve(listener, Some(config), handler, stop.clone(), Duration::ZERO));
    fs::write(directory.join("ca.crt"), certificate).expect("a file");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://localhost:{port}/events"), "certificate-authority": directory.join("ca.crt"),
        }}],
        "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(directory.join("kubeconfig"), kubeconfig.to_string()).expect("a file");
    (taken, stop.drop_guard())
}

#[tokio::test]
async fn events_are_posted_and_cut_down() {
    let directory = tempfile::tempdir().expect("a directory");
    let policy = directory.path().join("policy.yaml");
    fs::write(&policy, POLICY).expect("the policy");
    let (taken, _stop) = taker(directory.path()).await;
    let flags = [
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-webhook-config-file={}", directory.path().join("kubeconfig").display()),
    ];
    let more = ["--audit-webhook-mode=blocking", "--audit-webhook-truncate-enabled"];
    let small = "--audit-webhook-truncate-max-event-size=2000";
    let server = ApiServer::start_with(&[&flags[0], &flags[1], more[0], more[1], small]).await;
    let admin = server.admin().await;
    let map = |name: &str, size: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "x".repeat(size)}});
    for (name, size) in [("small", 1), ("large", 3000)] {
        send(&admin, "POST", "/api/v1/namespaces/default/configmaps", &map(name, size)).await.expect("created");
        let lists = taken.lock().clone();
        let event = lists.iter().flat_map(|list| list["items"].as_array().cloned().unwrap_or_default());
        let event = event.last().expect("it was posted before the answer");
        assert_eq!(event["objectRef"]["name"], name);
        assert_eq!(event.get("requestObject").is_some(), name == "small");
        assert_eq!(event["annotations"].get("audit.k8s.io/truncated").is_some(), name == "large");
        assert_eq!((&lists[0]["kind"], &lists[0]["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
    }
}

#[tokio::test]
async fn requests_do_not_go_on_without_a_record_where_that_is_strict() {
    let directory = tempfile::tempdir().expect("a directory");
    let policy = directory.path().join("policy.yaml");
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Metadata, users: [nobody]}\n";
    fs::write(&policy, text).expect("the policy");
    let (_, stop) = taker(directory.path()).await;
    drop(stop);
    let flags = [
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-webhook-config-file={}", directory.path().join("kubeconfig").display()),
    ];
    let more = ["--audit-webhook-mode=blocking-strict", "--audit-webhook-initial-backoff=1ms"];
    let server = ApiServer::start_with(&[&flags[0], &flags[1], more[0], more[1]]).await;
    let text = "failed to store audit event";
    let error = server.client(NOBODY_TOKEN).await.request_text(http_get("/version")).await.expect_err("refused");
    assert!(error.to_string().contains(text), "{error}");
}
