//! The audit log of a real server.

use std::{fs, path::Path};

use harness::{
    ApiServer,
    server::{ADMIN_TOKEN, NOBODY_TOKEN, http_get},
    wait_until,
};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

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
