//! What operators see of the server: flags, headers, metrics, the way it stops, what it keeps.

use std::process::Command;

use harness::{
    ApiServer,
    process::{binary, free_port},
    server::{ADMIN_TOKEN, NOBODY_TOKEN, http_get},
    wait_until,
};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use kube::Client;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{send, status};

#[tokio::test]
async fn settings_that_cannot_be_are_told_before_anything_is_served() {
    for (argument, text) in [
        ("--emulated-version=1.30", "emulation version 1.30 is not between [1.33, 1.36]"),
        ("--emulated-version=kube=1.35.1", "patch version not allowed, got: kube=1.35.1"),
        ("--goaway-chance=0.5", "--goaway-chance can not be less than 0 or greater than 0.02"),
        ("--strict-transport-security-directives=always", "--strict-transport-security-directives invalid"),
        ("--cors-allowed-origins=example", "regular expression does not pin to start/end of host"),
        ("--endpoint-reconciler-type=guess", "--endpoint-reconciler-type must be one of"),
        ("--service-account-max-token-expiration=1m", "must be between 1 hour and 2^32 seconds"),
        ("--authorization-mode=ABAC", "authorization-mode ABAC's authorization policy file not passed"),
        ("--runtime-config=nobody.example/v1", "unknown api groups nobody.example"),
        ("--storage-backend=etcd2", "--storage-backend invalid, allowed values: etcd3"),
        ("--show-hidden-metrics-for-version=1.34", "Only the previous minor version is allowed"),
        ("--allow-metric-labels=nothing=x", "metricName,labelName"),
        ("--kubernetes-service-node-port=80", "doesn't contain 80"),
        ("--address=0.0.0.0", "Error: unknown flag: --address"),
        ("--insecure-port=8080", "Error: unknown flag: --insecure-port\n"),
        ("--feature-gates=NoSuch=true", "unrecognized feature gate: NoSuch"),
        ("--authorization-mode=RBAC,RBAC", "has mode specified more than once"),
        ("--storage-media-type=text/plain", "--storage-media-type \\\"text/plain\\\" invalid, allowed values: "),
        ("--etcd-servers-overrides=events#http://a:1", "must be of format: group/resource#servers"),
        ("--watch-cache-sizes=pods#-1", "watch cache size cannot be negative: pods#-1"),
        ("--peer-ca-file=/x", "--peer-ca-file requires UnknownVersionInteroperabilityProxy feature to be turned on"),
        ("--coordinated-leadership-renew-deadline=20s", "must be greater than --coordinated-leadership-renew-deadline"),
        ("--enable-admission-plugins=NoSuch", "admission plugin \\\"NoSuch\\\" is unknown (known: AlwaysAdmit, "),
        ("--enable-admission-plugins=EventRateLimit", "couldn't init admission plugin \\\"EventRateLimit\\\""),
        (
            "--etcd-servers=http://127.0.0.1:1",
            "--service-account-signing-key-file and --service-account-issuer are required",
        ),
        ("--tls-min-version=VersionTLS99", "unknown tls version \\\"VersionTLS99\\\""),
    ] {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let places = ["cert-dir", "embedded-store-dir"].map(|flag| format!("--{flag}={}", directory.path().display()));
        let port = format!("--secure-port={}", free_port());
        let output = Command::new(binary("kube-apiserver")).args(places).args([&port, argument]).output();
        let output = output.expect("kube-apiserver");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), told.contains(text)), (Some(1), true), "{argument}: {told}");
    }
}

/// Headers and body of an answer.
async fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> (HeaderMap, String) {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send(request.body(kube::client::Body::empty()).expect("a request")).await.expect("an answer");
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    (parts.headers, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn answers_and_metrics_are_as_the_flags_want_them() {
    let server = ApiServer::start_with(&[
        "--emulated-version=1.35",
        "--strict-transport-security-directives=max-age=60,preload",
        "--cors-allowed-origins=^https://a\\.example$",
        "--external-hostname=api.example",
        "--service-account-jwks-uri=https://keys.example/jwks",
        "--disabled-metrics=go_threads",
        "--runtime-config=api/all=true,batch/v1/jobs=false",
        "--allow-metric-labels=apiserver_request_total,verb='GET,WATCH'",
    ])
    .await;
    let admin = server.admin().await;
    let (headers, body) = get(&admin, "/version", &[("origin", "https://a.example")]).await;
    assert_eq!(headers["strict-transport-security"], "max-age=60; preload");
    assert_eq!(headers["cache-control"], "no-cache, private");
    assert_eq!(headers["access-control-allow-origin"], "https://a.example");
    let version: Value = serde_json::from_str(&body).expect("a version");
    assert_eq!((&version["minor"], &version["emulationMinor"]), (&json!("36"), &json!("35")));
    assert_eq!(version["minCompatibilityMinor"], "34");
    let (_, found) = get(&admin, "/.well-known/openid-configuration", &[]).await;
    assert!(found.contains("https://keys.example/jwks"), "{found}");
    let (_, api) = get(&admin, "/api", &[("accept", "application/json")]).await;
    assert!(api.contains("api.example:"), "{api}");

    let gone = admin.request::<Value>(http_get("/apis/batch/v1/jobs")).await.map_err(status).expect_err("not served");
    assert_eq!(gone["code"], 404);
    let (_, batch) = get(&admin, "/apis/batch/v1", &[]).await;
    assert!(batch.contains("\"cronjobs\"") && !batch.contains("\"jobs\""), "{batch}");

    let (_, document) = get(&admin, "/openapi/v3/apis/batch/v1", &[]).await;
    assert!(document.contains("/cronjobs") && !document.contains("/jobs\""), "{document}");
    let (_, young) = get(&admin, "/apis/admissionregistration.k8s.io/v1", &[]).await;
    let has = |name: &str| young.contains(&format!("\"{name}\""));
    assert!(has("validatingadmissionpolicies") && !has("mutatingadmissionpolicies"), "{young}");

    get(&admin, "/api/v1/namespaces", &[]).await;
    let map = r#"{"metadata":{"name":"m"}}"#;
    let maps = "/api/v1/namespaces/default/configmaps";
    send(&admin, "POST", maps, "application/json", map).await.expect("created");
    let (headers, text) = get(&admin, "/metrics", &[]).await;
    assert_eq!(headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for wanted in [
        "version_info{binary=\"1.36\",component=\"kube\",emulation=\"1.35\",min_compat=\"1.34\"} 1",
        "verb=\"unexpected\"",
        "# HELP apiserver_request_sli_duration_seconds [ALPHA] ",
        "# HELP apiserver_request_total [STABLE] ",
        "etcd_request_duration_seconds_bucket{group=\"\"",
        "apiserver_admission_step_admission_duration_seconds",
        "apiserver_current_inqueue_requests{request_kind=\"mutating\"} ",
        "registered_metrics_total{",
        "disabled_metrics_total 1",
    ] {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    let lists = text.lines().filter(|line| line.starts_with("apiserver_request_total{") && line.contains("\"LIST\""));
    assert!(!text.contains("go_threads") && lists.count() == 0, "{text}");
    let (headers, text) = get(&admin, "/metrics", &[("accept", "application/openmetrics-text;version=1.0.0")]).await;
    assert_eq!(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("# EOF\n") && text.contains("# TYPE apiserver_request counter\n"), "{text}");
    let reset = Request::delete("/metrics/slis").body(Vec::new()).expect("a request");
    assert_eq!(admin.request_text(reset).await.expect("reset"), "metrics reset\n");
    let (_, checks) = get(&admin, "/livez?verbose", &[]).await;
    for hook in [
        "poststarthook/crd-informer-synced",
        "poststarthook/rbac/bootstrap-roles",
        "poststarthook/storage-readiness",
        "poststarthook/start-legacy-token-tracking-controller",
        "poststarthook/apiservice-wait-for-first-sync",
        "autoregister-completion",
    ] {
        assert!(checks.contains(&format!("[+]{hook} ok\n")), "{checks}");
    }
}

fn terminate(server: &ApiServer) {
    let id = i32::try_from(server.id()).expect("a process id");
    kill(Pid::from_raw(id), Signal::SIGTERM).expect("a signal");
}

#[tokio::test]
async fn a_stopping_server_is_unready_first_and_ends_at_once_when_told_again() {
    let mut server = ApiServer::start_with(&["--shutdown-delay-duration=10m"]).await;
    let admin = server.admin().await;
    terminate(&server);
    wait_until("the server to be unready", || async {
        let (_, checks) = get(&admin, "/readyz?verbose", &[]).await;
        if checks.contains("[-]shutdown failed: reason withheld") { Ok(()) } else { Err(checks) }
    })
    .await;
    let (_, alive) = get(&admin, "/livez", &[]).await;
    assert_eq!(alive, "ok");
    admin.request::<Value>(http_get("/api/v1/namespaces/default")).await.expect("requests are served still");
    terminate(&server);
    let code = wait_until_ended(&mut server).await;
    assert_eq!(code, 1);
}

async fn wait_until_ended(server: &mut ApiServer) -> i32 {
    let mut look = || server.ended();
    wait_until("the server to end", move || std::future::ready(look().ok_or_else(|| "it runs".to_owned()))).await
}

#[tokio::test]
async fn watches_of_a_stopping_server_end_without_an_error() {
    let mut server = ApiServer::start().await;
    let admin = server.admin().await;
    let request = Request::get("/api/v1/namespaces?watch=true").body(kube::client::Body::empty()).expect("a request");
    let mut watch = admin.send(request).await.expect("a watch").into_body();
    let first = watch.frame().await.expect("a frame").expect("an event");
    assert!(first.data_ref().is_some_and(|data| data.starts_with(b"{\"type\":\"ADDED\"")), "{first:?}");
    terminate(&server);
    while let Some(frame) = watch.frame().await {
        let frame = frame.expect("a clean end");
        let text = String::from_utf8_lossy(frame.data_ref().map_or(&[][..], |data| &data[..])).into_owned();
        assert!(!text.contains("ERROR"), "{text}");
    }
    assert_eq!(wait_until_ended(&mut server).await, 0);
}

#[tokio::test]
async fn namespaces_of_the_system_come_back() {
    let server = ApiServer::start().await;
    let admin = server.admin().await;
    let path = "/api/v1/namespaces/kube-node-lease";
    let old = admin.request::<Value>(http_get(path)).await.expect("there from the start");
    send(&admin, "DELETE", path, "application/json", "").await.expect("deleted");
    let mut empty = admin.request::<Value>(http_get(path)).await.expect("there until it is empty");
    empty["spec"]["finalizers"] = json!([]);
    send(&admin, "PUT", &format!("{path}/finalize"), "application/json", &empty.to_string()).await.expect("finalized");
    wait_until("the namespace to be made again", || async {
        let now = admin.request::<Value>(http_get(path)).await.map_err(|error| error.to_string())?;
        let again = now["metadata"]["uid"] != old["metadata"]["uid"] && now["status"]["phase"] == "Active";
        if again { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn reviews_take_selectors() {
    let server = ApiServer::start().await;
    let admin = server.admin().await;
    let review = |selector: Value| {
        let (admin, body) = (
            admin.clone(),
            json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {"user": "system:node:n", "groups": ["system:nodes"],
                    "resourceAttributes": {"verb": "list", "resource": "pods", "version": "v1", "fieldSelector": selector}},
            }),
        );
        async move {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            send(&admin, "POST", path, "application/json", &body.to_string()).await
        }
    };
    let own = json!({"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n"]}]});
    assert_eq!(review(own).await.expect("an answer")["status"]["allowed"], true);
    assert_eq!(review(json!({"rawSelector": "spec.nodeName=n"})).await.expect("an answer")["status"]["allowed"], true);
    let other = review(json!({"rawSelector": "spec.nodeName=other"})).await.expect("an answer");
    assert_eq!(other["status"]["allowed"], false, "{other}");
    let unknown = review(json!({"rawSelector": "spec.nodeName"})).await.expect("an answer");
    let told = unknown["status"]["evaluationError"].as_str().unwrap_or_default();
    assert!(told.contains("fieldSelector ignored due to"), "{unknown}");
    let both = review(json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]})).await;
    let refused = both.map_err(status).expect_err("invalid");
    assert_eq!(refused["code"], 422);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("may not specified at the same time")), "{refused}");
}

#[tokio::test]
async fn without_a_mode_everybody_may_do_everything_but_nobody_is_nobody() {
    let server = ApiServer::start_with(&["--authorization-webhook-version=v1"]).await;
    let nobody = server.client(NOBODY_TOKEN).await;
    let map = r#"{"metadata":{"name":"m"}}"#;
    send(&nobody, "POST", "/api/v1/namespaces/default/configmaps", "application/json", map).await.expect("created");
    let anonymous = server.client("").await;
    let refused = anonymous.request::<Value>(http_get("/version")).await.map_err(status).expect_err("no credentials");
    assert_eq!(refused["code"], 401);
}

#[tokio::test]
async fn objects_are_kept_as_the_flags_want() {
    let mut server = ApiServer::start_with(&[
        "--storage-media-type=application/vnd.kubernetes.protobuf",
        "--watch-cache=false",
        "--enable-garbage-collector=false",
        "--delete-collection-workers=4",
        "--enable-logs-handler",
    ])
    .await;
    let admin = server.admin().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    for n in 0..10 {
        let map =
            json!({"metadata": {"name": format!("m{n}"), "labels": {"of": "test"}}, "data": {"n": n.to_string()}});
        send(&admin, "POST", maps, "application/json", &map.to_string()).await.expect("created");
    }
    let page =
        admin.request::<Value>(http_get(&format!("{maps}?labelSelector=of=test&limit=3&resourceVersion=0"))).await;
    assert_eq!(page.expect("a page")["items"].as_array().map(Vec::len), Some(3));
    server.restart().await;
    let admin = server.admin().await;
    let kept = admin.request::<Value>(http_get(&format!("{maps}/m7"))).await.expect("kept");
    assert_eq!((&kept["data"]["n"], &kept["metadata"]["labels"]["of"]), (&json!("7"), &json!("test")));
    let options = r#"{"propagationPolicy":"Foreground"}"#;
    send(&admin, "DELETE", &format!("{maps}/m7"), "application/json", options).await.expect("deleted");
    let gone = admin.request::<Value>(http_get(&format!("{maps}/m7"))).await.map_err(status).expect_err("gone at once");
    assert_eq!(gone["code"], 404);
    let all = format!("{maps}?labelSelector=of=test");
    send(&admin, "DELETE", &all, "application/json", "").await.expect("deleted");
    let left = admin.request::<Value>(http_get(&all)).await.expect("a list");
    assert_eq!(left["items"], json!([]));
    let (headers, listing) = get(&admin, "/logs/", &[]).await;
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert!(listing.starts_with("<pre>\n"), "{listing}");
}

#[tokio::test]
async fn plugins_are_configured_by_a_file() {
    let directory = tempfile::TempDir::new().expect("temporary directory");
    let file = directory.path().join("admission.yaml");
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
                - name: EventRateLimit\n  path: rates.yaml\n\
                - name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    \
                kind: PodSecurityConfiguration\n    defaults: {enforce: baseline}\n    \
                exemptions: {namespaces: [exempt]}\n\
                - name: ResourceQuota\n  configuration:\n    apiVersion: apiserver.config.k8s.io/v1\n    \
                kind: ResourceQuotaConfiguration\n    limitedResources:\n    \
                - {resource: configmaps, matchContains: [configmaps]}\n";
    std::fs::write(&file, text).expect("a file");
    let rates = "apiVersion: eventratelimit.admission.k8s.io/v1alpha1\nkind: Configuration\n\
                 limits: [{type: User, qps: 1, burst: 1}]\n";
    std::fs::write(directory.path().join("rates.yaml"), rates).expect("a file");
    let flag = format!("--admission-control-config-file={}", file.display());
    let server =
        ApiServer::start_with(&[&flag, "--enable-admission-plugins=EventRateLimit", "--allow-privileged"]).await;
    let admin = server.admin().await;
    let namespace = r#"{"metadata":{"name":"exempt"}}"#;
    send(&admin, "POST", "/api/v1/namespaces", "application/json", namespace).await.expect("created");
    let account = r#"{"metadata":{"name":"default"}}"#;
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}});
    for (namespace, refused) in [("default", true), ("exempt", false)] {
        let path = |what: &str| format!("/api/v1/namespaces/{namespace}/{what}");
        send(&admin, "POST", &path("serviceaccounts"), "application/json", account).await.expect("created");
        let outcome = send(&admin, "POST", &path("pods"), "application/json", &pod.to_string()).await.map_err(status);
        assert_eq!(outcome.is_err(), refused, "{outcome:?}");
        if let Err(told) = outcome {
            let message = told["message"].as_str().unwrap_or_default();
            assert!(message.contains("violates PodSecurity \"baseline:latest\": host namespaces"), "{told}");
        }
    }
    let map = r#"{"metadata":{"name":"m"}}"#;
    let maps = "/api/v1/namespaces/default/configmaps";
    let refused = send(&admin, "POST", maps, "application/json", map).await.map_err(status).expect_err("not covered");
    let told = refused["message"].as_str().unwrap_or_default();
    assert!(told.contains("insufficient quota to consume: configmaps,count/configmaps"), "{refused}");
    let plain = server.plain_client(ADMIN_TOKEN).await;
    let mut limited = Value::Null;
    for n in 0..20 {
        let event = json!({"metadata": {"name": format!("e{n}")}, "type": "Normal", "reason": "r", "message": "m",
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}});
        let path = "/api/v1/namespaces/default/events";
        if let Err(error) = send(&plain, "POST", path, "application/json", &event.to_string()).await {
            limited = status(error);
            break;
        }
    }
    assert_eq!((&limited["code"], &limited["reason"]), (&json!(429), &json!("TooManyRequests")));
    assert_eq!(limited["message"], "limit reached on type User for key admin");
}
