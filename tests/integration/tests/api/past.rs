//! Faults that API servers have had, tried on this one. Each test is named after what it tries.

use harness::{ApiServer, server::http_get};
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// As whom, in which groups.
type As<'a> = (&'a str, &'a [&'a str]);
const NOBODY_ELSE: As<'_> = ("", &[]);
const NODE: As<'_> = ("system:node:n1", &["system:nodes", "system:authenticated"]);

/// Status code and text of the answer.
async fn send(client: &Client, (user, groups): As<'_>, method: &str, path: &str, body: (&str, &str)) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(path).header("content-type", body.0);
    if !user.is_empty() {
        request = request.header("impersonate-user", user);
    }
    for group in groups {
        request = request.header("impersonate-group", *group);
    }
    let request = request.body(body.1.as_bytes().to_vec()).expect("a request");
    match client.request_text(request).await {
        Ok(text) => (200, text),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("{method} {path}: {error}"),
    }
}

async fn post(client: &Client, user: As<'_>, path: &str, object: &Value) -> (u16, String) {
    send(client, user, "POST", path, ("application/json", &object.to_string())).await
}

#[tokio::test]
async fn cve_2022_3162_and_cve_2015_5305_names_stay_in_their_place() {
    let server = ApiServer::start().await;
    let admin = server.admin().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    post(&admin, NOBODY_ELSE, "/api/v1/namespaces/default/secrets", &secret).await;
    for path in [
        "/api/v1/namespaces/default/configmaps/..%2f..%2fsecrets%2fdefault%2fs",
        "/api/v1/namespaces/..%2fsecrets%2fdefault/configmaps/s",
        "/api/v1/namespaces/default/configmaps/%2e%2e",
        "/api/v1/namespaces/default/configmaps/.",
        "/api/v1/namespaces/default%2fs/configmaps",
        "/api/v1/namespaces/%2e%2e/secrets",
        "/api/v1/nodes/..%2fsecrets%2fdefault%2fs",
        "/api/v1/namespaces/default/configmaps/a%00b",
    ] {
        let (code, text) = send(&admin, NOBODY_ELSE, "GET", path, ("application/json", "")).await;
        let found = code == 200 && text.contains("\"Secret\"");
        assert!(
            !found && (code != 200 || text.contains("\"items\": []") || text.contains("\"items\":[]")),
            "{path}: {code} {text}"
        );
    }
    for name in ["../x", "a/b", "..", ".", "a%2fb"] {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let (code, text) = post(&admin, NOBODY_ELSE, "/api/v1/namespaces/default/configmaps", &object).await;
        assert!(matches!(code, 400 | 422), "{name}: {code} {text}");
    }
}

#[tokio::test]
async fn cve_2019_11247_cluster_scoped_objects_are_in_no_namespace() {
    let server = ApiServer::start().await;
    let admin = server.admin().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(post(&admin, NOBODY_ELSE, definitions, &definition).await.0, 200);
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}});
    harness::wait_until("things to be served", || {
        let (admin, thing) = (admin.clone(), thing.clone());
        async move {
            let (code, text) = post(&admin, NOBODY_ELSE, "/apis/example.com/v1/things", &thing).await;
            if matches!(code, 200 | 409) { Ok(()) } else { Err(text) }
        }
    })
    .await;
    let inside = "/apis/example.com/v1/namespaces/default/things";
    for (method, path) in
        [("GET", inside.to_owned()), ("GET", format!("{inside}/t")), ("DELETE", format!("{inside}/t"))]
    {
        let (code, text) = send(&admin, NOBODY_ELSE, method, &path, ("application/json", "")).await;
        assert_eq!(code, 404, "{method} {path}: {text}");
    }
    assert_eq!(admin.request_text(http_get("/apis/example.com/v1/things/t")).await.map(drop).map_err(drop), Ok(()));
}

#[tokio::test]
async fn cve_2019_11253_and_cve_2019_1002100_small_bodies_cost_little() {
    let server = ApiServer::start().await;
    let admin = server.admin().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let mut bomb =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata:\n  a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (of, name) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        bomb.push_str(&format!("  {name}: &{name} [{}]\n", vec![format!("*{of}"); 9].join(",")));
    }
    let (code, text) = send(&admin, NOBODY_ELSE, "POST", maps, ("application/yaml", &bomb)).await;
    assert!(matches!(code, 400 | 413 | 422), "{code} {text}");
    let deep = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"x\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let (code, text) = send(&admin, NOBODY_ELSE, "POST", maps, ("application/json", &deep)).await;
    assert!(matches!(code, 400 | 413 | 422), "{code} {text}");
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    assert_eq!(post(&admin, NOBODY_ELSE, maps, &map).await.0, 200);
    let patch = format!("[{}]", vec!["{\"op\":\"test\",\"path\":\"/kind\",\"value\":\"ConfigMap\"}"; 10_001].join(","));
    let path = format!("{maps}/m");
    let (code, text) = send(&admin, NOBODY_ELSE, "PATCH", &path, ("application/json-patch+json", &patch)).await;
    assert_eq!(code, 413, "{text}");
    assert!(text.contains("The allowed maximum operations in a JSON patch is 10000, got 10001"), "{text}");
    let grows = json!([{"op": "add", "path": "/data", "value": {"k": "x".repeat(1 << 16)}}]);
    let mut copies = grows.as_array().cloned().unwrap_or_default();
    copies.extend((0..40).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/c{n}")})));
    let (code, text) =
        send(&admin, NOBODY_ELSE, "PATCH", &path, ("application/json-patch+json", &json!(copies).to_string())).await;
    assert!(matches!(code, 400 | 413 | 422), "{code} {text}");
    assert_eq!(admin.request_text(http_get("/livez")).await.expect("alive"), "ok");
}

#[tokio::test]
async fn cve_2016_1905_and_cve_2023_2728_what_patches_and_subresources_make_is_admitted() {
    let plugins = "--enable-admission-plugins=DenyServiceExternalIPs";
    let server = ApiServer::start_with(&[plugins, "--allow-privileged=true"]).await;
    let admin = server.admin().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 1}]}});
    assert_eq!(post(&admin, NOBODY_ELSE, "/api/v1/namespaces/default/services", &service).await.0, 200);
    let patch = json!({"spec": {"externalIPs": ["192.0.2.1"]}}).to_string();
    for kind in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        let path = "/api/v1/namespaces/default/services/s";
        let (code, text) = send(&admin, NOBODY_ELSE, "PATCH", path, (kind, &patch)).await;
        assert_eq!(code, 403, "CVE-2016-1905: {text}");
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "held",
        "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    post(&admin, NOBODY_ELSE, "/api/v1/namespaces", &namespace).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    post(&admin, NOBODY_ELSE, "/api/v1/namespaces/held/serviceaccounts", &account).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "image": "i"}]}});
    assert_eq!(post(&admin, NOBODY_ELSE, "/api/v1/namespaces/held/pods", &pod).await.0, 200);
    let debugger = json!({"spec": {"ephemeralContainers": [
        {"name": "d", "image": "i", "securityContext": {"privileged": true}}]}});
    let path = "/api/v1/namespaces/held/pods/p/ephemeralcontainers";
    let kind = "application/strategic-merge-patch+json";
    let (code, text) = send(&admin, NOBODY_ELSE, "PATCH", path, (kind, &debugger.to_string())).await;
    assert_eq!(code, 403, "CVE-2023-2728: {text}");
    assert!(text.contains("violates PodSecurity"), "{text}");
}

#[tokio::test]
async fn cve_2025_5187_and_cve_2025_4563_nodes_keep_to_themselves() {
    let server = ApiServer::start_with(&["--enable-admission-plugins=NodeRestriction"]).await;
    let admin = server.admin().await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    let (code, text) = post(&admin, NODE, "/api/v1/nodes", &node).await;
    assert_eq!(code, 200, "{text}");
    let merge = "application/merge-patch+json";
    let owned = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "u"}]}});
    let (code, text) = send(&admin, NODE, "PATCH", "/api/v1/nodes/n1", (merge, &owned.to_string())).await;
    assert_eq!(code, 403, "CVE-2025-5187: {text}");
    let (code, text) = send(&admin, NODE, "DELETE", "/api/v1/nodes/n1", ("application/json", "")).await;
    assert_eq!(code, 403, "CVE-2025-5187: {text}");
    let mirror = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "m-n1", "annotations": {"kubernetes.io/config.mirror": "h"}, "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u", "controller": true}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "i"}],
            "resourceClaims": [{"name": "c", "resourceClaimName": "of-somebody"}]},
    });
    let (code, text) = post(&admin, NODE, "/api/v1/namespaces/default/pods", &mirror).await;
    assert_eq!(code, 403, "CVE-2025-4563: {text}");
}

#[tokio::test]
async fn cve_2020_8562_and_cve_2022_3294_proxies_do_not_lead_into_the_server() {
    let server = ApiServer::start().await;
    let admin = server.admin().await;
    let inside = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = inside.local_addr().expect("an address").port();
    let reached = tokio::spawn(async move { inside.accept().await.map(drop) });
    for (name, kind, address) in [("by-ip", "InternalIP", "127.0.0.1"), ("by-name", "Hostname", "localhost")] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {
            "addresses": [{"type": kind, "address": address}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}});
        assert_eq!(post(&admin, NOBODY_ELSE, "/api/v1/nodes", &node).await.0, 200);
        for scheme in ["", "http:", "https:"] {
            let path = format!("/api/v1/nodes/{scheme}{name}:{port}/proxy/");
            let (code, text) = send(&admin, NOBODY_ELSE, "GET", &path, ("application/json", "")).await;
            assert_eq!((code, text.contains("address not allowed")), (400, true), "{path}: {text}");
        }
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    post(&admin, NOBODY_ELSE, "/api/v1/namespaces/default/serviceaccounts", &account).await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "image": "i"}]}});
    assert_eq!(post(&admin, NOBODY_ELSE, "/api/v1/namespaces/default/pods", &pod).await.0, 200);
    for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "224.0.0.1"] {
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}}).to_string();
        let path = "/api/v1/namespaces/default/pods/p";
        let kind = "application/merge-patch+json";
        send(&admin, NOBODY_ELSE, "PATCH", &format!("{path}/status"), (kind, &status)).await;
        let (code, text) = send(&admin, NOBODY_ELSE, "GET", &format!("{path}:{port}/proxy/"), ("", "")).await;
        assert_ne!(code, 200, "{address}: {text}");
    }
    assert!(!reached.is_finished(), "nobody came through");
    reached.abort();
}
