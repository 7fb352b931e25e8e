//! Priority and fairness of a real server.

use harness::{
    ApiServer,
    server::{NOBODY_TOKEN, http_get},
    wait_until,
};
use http::{Request, StatusCode};
use kube::{Client, Config, client::Body, config::KubeConfigOptions};
use serde_json::{Value, json};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    client.request(request.body(body.to_string().into_bytes()).expect("a request")).await
}

async fn get(client: &Client, path: &str) -> Value {
    client.request(http_get(path)).await.unwrap_or_default()
}

/// A client of nobody that does not try again by itself.
async fn impatient(server: &ApiServer) -> Client {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(server.kubeconfig(NOBODY_TOKEN), &options).await;
    let mut config = config.expect("configuration");
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

/// Status, uids of schema and level, `Retry-After`.
async fn head(client: &Client, path: &str) -> (StatusCode, String, String, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = client.send(request).await.expect("an answer");
    let text = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("none").to_owned();
    (
        answer.status(),
        text("x-kubernetes-pf-flowschema-uid"),
        text("x-kubernetes-pf-prioritylevel-uid"),
        text("retry-after"),
    )
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or("none").to_owned()
}

#[tokio::test]
async fn answers_name_schema_and_level() {
    let server = ApiServer::start().await;
    let (admin, nobody) = (server.admin().await, server.client(NOBODY_TOKEN).await);
    for (client, path, status, schema, level) in [
        (&admin, "/api/v1/namespaces", StatusCode::OK, "exempt", "exempt"),
        (&admin, "/version", StatusCode::OK, "exempt", "exempt"),
        (&nobody, "/api/v1/namespaces", StatusCode::FORBIDDEN, "global-default", "global-default"),
        (&nobody, "/api/v1/namespaces?watch=1", StatusCode::FORBIDDEN, "global-default", "global-default"),
    ] {
        let schema = uid(&get(&admin, &format!("{GROUP}/flowschemas/{schema}")).await);
        let level = uid(&get(&admin, &format!("{GROUP}/prioritylevelconfigurations/{level}")).await);
        assert_eq!(head(client, path).await, (status, schema, level, "none".to_owned()), "{path}");
    }
    let log = head(&admin, "/api/v1/namespaces/default/pods/none/log").await;
    assert_eq!((log.0, log.1.as_str()), (StatusCode::NOT_FOUND, "none"), "streams are not counted");
    let metrics = admin.request_text(http_get("/metrics")).await.expect("metrics");
    let counted = "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245"));
    for (page, begin) in [
        ("dump_priority_levels", "PriorityLevelName, "),
        ("dump_queues", "PriorityLevelName, "),
        ("dump_requests?includeRequestDetails=1", "PriorityLevelName, "),
    ] {
        let path = format!("/debug/api_priority_and_fairness/{page}");
        let text = admin.request_text(http_get(&path)).await.expect("a dump");
        assert!(text.starts_with(begin), "{text}");
        assert!(!page.starts_with("dump_requests") || text.contains("/debug/api_priority_and_fairness/dump_requests"));
        nobody.request_text(http_get(&path)).await.expect_err("forbidden");
    }
    let off = ApiServer::start_with(&["--enable-priority-and-fairness=false"]).await;
    let answer = head(&off.admin().await, "/api/v1/namespaces").await;
    assert_eq!((answer.0, answer.1.as_str()), (StatusCode::OK, "none"));
}

#[tokio::test]
async fn the_objects_of_every_cluster_are_kept() {
    let server = ApiServer::start().await;
    let admin = server.admin().await;
    let has = async |path: &str, check: &dyn Fn(&Value) -> bool| {
        wait_until(path, || {
            let (admin, path) = (admin.clone(), format!("{GROUP}/{path}"));
            async move {
                let object = get(&admin, &path).await;
                if check(&object) { Ok(()) } else { Err(object.to_string()) }
            }
        })
        .await;
    };
    for path in ["flowschemas/catch-all", "prioritylevelconfigurations/exempt", "flowschemas/service-accounts"] {
        let before = uid(&get(&admin, &format!("{GROUP}/{path}")).await);
        send(&admin, "DELETE", &format!("{GROUP}/{path}"), &json!({})).await.expect("deleted");
        has(path, &|object| !matches!(uid(object).as_str(), "none") && uid(object) != before).await;
    }
    let other = json!({"spec": {"matchingPrecedence": 9}});
    let error = send(&admin, "PATCH", &format!("{GROUP}/flowschemas/catch-all"), &other).await;
    let text = error.expect_err("refused").to_string();
    assert!(text.contains("spec of 'catch-all' must equal the fixed value"), "{text}");

    let path = "prioritylevelconfigurations/system";
    let shares = |n: u32| json!({"spec": {"limited": {"nominalConcurrencyShares": n}}});
    send(&admin, "PATCH", &format!("{GROUP}/{path}"), &shares(7)).await.expect("changed");
    has(path, &|object| object["spec"]["limited"]["nominalConcurrencyShares"] == 30).await;
    let mut own = shares(7);
    own["metadata"] = json!({"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}});
    send(&admin, "PATCH", &format!("{GROUP}/{path}"), &own).await.expect("changed");
    // A round of the keeper is over when it has made this one anew.
    send(&admin, "DELETE", &format!("{GROUP}/flowschemas/system-nodes"), &json!({})).await.expect("deleted");
    has("flowschemas/system-nodes", &|object| uid(object) != "none").await;
    assert_eq!(get(&admin, &format!("{GROUP}/{path}")).await["spec"]["limited"]["nominalConcurrencyShares"], 7);
}

fn schema(name: &str, level: &str) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 10,
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "nobody"}}],
                "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": [format!("/{name}")]}],
            }],
        },
    })
}

fn level(name: &str, response: &Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0, "limitResponse": response}},
    })
}

#[tokio::test]
async fn who_finds_no_seat_is_sent_away() {
    let server = ApiServer::start_with(&["--request-timeout=4s"]).await;
    let (admin, nobody) = (server.admin().await, impatient(&server).await);
    let dangles = async |name: &str, wanted: &str| {
        wait_until("condition Dangling", || {
            let (admin, path) = (admin.clone(), format!("{GROUP}/flowschemas/{name}"));
            async move {
                let object = get(&admin, &path).await;
                let condition = object["status"]["conditions"][0].clone();
                if condition["type"] == "Dangling" && condition["status"] == wanted {
                    Ok(())
                } else {
                    Err(object.to_string())
                }
            }
        })
        .await;
    };
    let queue = json!({"type": "Queue", "queuing": {"queues": 2, "handSize": 1, "queueLengthLimit": 5}});
    for (name, response) in [("rejects", json!({"type": "Reject"})), ("queues", queue)] {
        send(&admin, "POST", &format!("{GROUP}/flowschemas"), &schema(name, name)).await.expect("made");
        dangles(name, "True").await;
        let path = format!("{GROUP}/prioritylevelconfigurations");
        let made = send(&admin, "POST", &path, &level(name, &response)).await.expect("made");
        dangles(name, "False").await;
        wait_until("the level to be in effect", || {
            let (nobody, path, level) = (nobody.clone(), format!("/{name}"), uid(&made));
            async move {
                let answer = head(&nobody, &path).await;
                let retry = answer.3.parse::<u32>().unwrap_or(0);
                if answer.0 == StatusCode::TOO_MANY_REQUESTS && answer.2 == level && retry > 0 {
                    Ok(())
                } else {
                    Err(format!("{answer:?}"))
                }
            }
        })
        .await;
    }
    let request = Request::get("/rejects").body(Body::empty()).expect("a request");
    let answer = nobody.send(request).await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    let metrics = admin.request_text(http_get("/metrics")).await.expect("metrics");
    for (name, reason) in [("rejects", "concurrency-limit"), ("queues", "time-out")] {
        let counted = format!(
            "apiserver_flowcontrol_rejected_requests_total{{flow_schema=\"{name}\",priority_level=\"{name}\",reason=\"{reason}\"}}"
        );
        assert!(metrics.contains(&counted), "{metrics}");
    }
    assert_eq!(head(&nobody, "/other").await.0, StatusCode::FORBIDDEN, "other flows are not held up");
}
