//! API aggregation: a real API server in front of another one, in a network namespace of their own: addresses of
//! EndpointSlices cannot be loopback.
//!
//! Processes, because the meeting of TLS, identities, discovery and routing is tested; decisions are unit tests.

use std::{process::Command, sync::Arc, time::Duration};

use axum::{body::Body, http::Request, response::Response};
use harness::{
    ApiServer,
    server::{ADMIN_TOKEN, NOBODY_TOKEN, http_get},
    wait_until,
};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::{
    Api, Client, Config,
    api::{DeleteParams, Patch, PatchParams},
    config::KubeConfigOptions,
};
use rcgen::{CertificateParams, KeyPair};
use runtime::{serving, tls};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const ADDRESS: &str = "10.62.0.1";
const HOST: &str = "things.default.svc";

/// Runs a test on a network of its own.
fn on_a_network<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace; the tests need root");
    for arguments in [&["link", "set", "lo", "up"][..], &["address", "add", "10.62.0.1/32", "dev", "lo"]] {
        assert!(Command::new("ip").args(arguments).status().expect("ip").success());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test());
}

/// The other server: tells what it was asked with.
async fn answer(request: Request<Body>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let proven = request.extensions().get::<serving::Connection>().is_some_and(|c| !c.certificates.is_empty());
    let headers = request.headers();
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let (code, body) = match path.as_str() {
        "/apis/things.example.com/v1" => (
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "things.example.com/v1", "resources": [
                {"name": "things", "singularName": "thing", "namespaced": true, "kind": "Thing", "verbs": ["get", "list"]},
            ]}),
        ),
        "/openapi/v3/apis/things.example.com/v1" => {
            (200, json!({"openapi": "3.0.0", "info": {"title": "things"}, "paths": {}}))
        }
        "/apis/things.example.com/v1/namespaces/default/things/away" => (302, json!({})),
        path if path.starts_with("/apis/things.example.com/v1/") => (
            200,
            json!({
                "kind": "Thing", "apiVersion": "things.example.com/v1", "path": path, "proven": proven,
                "query": request.uri().query(), "user": all("x-remote-user"), "groups": all("x-remote-group"),
                "authorization": all("authorization"), "host": all("host"),
            }),
        ),
        _ => (404, json!({})),
    };
    let mut response = Response::builder().status(code).header("content-type", "application/json");
    if code == 302 {
        response = response.header("location", "https://elsewhere/");
    }
    response.body(Body::from(body.to_string())).expect("an answer")
}

/// Starts it; the authority of its certificate.
async fn other_server(stop: &CancellationToken) -> (u16, String) {
    let (certificate, key) = tls::self_signed(HOST, &[HOST.to_owned()], &[]).expect("a certificate");
    let serving = tls::ServingCertificate::new(certificate.as_bytes(), key.as_bytes()).expect("a serving certificate");
    let config = tls::server_config(Arc::new(serving)).expect("TLS");
    let listener = TcpListener::bind((ADDRESS, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(serving::serve(listener, Some(config), answer, stop.clone(), Duration::ZERO));
    (port, certificate)
}

/// A client that takes an error for an answer.
async fn client_of(server: &ApiServer, token: &str) -> Client {
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(server.kubeconfig(token), &options).await;
    let mut config = config.expect("configuration");
    config.default_retry = false;
    Client::try_from(config).expect("client")
}

async fn apply(client: &Client, path: &str, object: Value) {
    let name = object["metadata"]["name"].as_str().expect("a name");
    let request = http::Request::patch(format!("{path}/{name}?fieldManager=test&force=true"))
        .header("content-type", "application/apply-patch+yaml")
        .body(object.to_string().into_bytes())
        .expect("a request");
    client.request::<Value>(request).await.expect("applied");
}

async fn raw(client: &Client, path: &str) -> Result<Value, String> {
    client.request::<Value>(http_get(path)).await.map_err(|error| error.to_string())
}

fn available(service: &APIService) -> String {
    let conditions = service.status.as_ref().and_then(|status| status.conditions.as_ref());
    let Some(first) = conditions.and_then(|all| all.first()) else { return String::new() };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{} {} {}", first.status, text(&first.reason), text(&first.message))
}

async fn wait_available(client: &Client, name: &str, wanted: &str) {
    let services: Api<APIService> = Api::all(client.clone());
    wait_until(&format!("{name} to be {wanted}"), || {
        let services = services.clone();
        async move {
            let text = services.get(name).await.map(|s| available(&s)).unwrap_or_else(|e| e.to_string());
            if text.starts_with(wanted) { Ok(()) } else { Err(text) }
        }
    })
    .await;
}

#[test]
fn another_server_answers_for_a_group() {
    on_a_network(|| async {
        let stop = CancellationToken::new();
        let (port, authority) = other_server(&stop).await;
        let identity = tempfile::tempdir().expect("a directory");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["front-proxy-client".to_owned()]).expect("parameters");
        let certificate = params.self_signed(&key).expect("a certificate");
        let (crt, pem) = (identity.path().join("proxy.crt"), identity.path().join("proxy.key"));
        std::fs::write(&crt, certificate.pem()).expect("a file");
        std::fs::write(&pem, key.serialize_pem()).expect("a file");
        let server = ApiServer::start_with(&[
            "--enable-aggregator-routing=true",
            &format!("--proxy-client-cert-file={}", crt.display()),
            &format!("--proxy-client-key-file={}", pem.display()),
        ])
        .await;
        let client = client_of(&server, ADMIN_TOKEN).await;
        let name = "v1.things.example.com";
        let bundle = {
            use std::fmt::Write;
            // Base64 by the API's own type.
            let mut text = String::new();
            let value = serde_json::to_value(k8s_openapi::ByteString(authority.into_bytes())).expect("base64");
            write!(text, "{}", value.as_str().unwrap_or_default()).expect("text");
            text
        };
        apply(
            &client,
            "/apis/apiregistration.k8s.io/v1/apiservices",
            json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name},
                "spec": {"group": "things.example.com", "version": "v1", "caBundle": bundle,
                    "groupPriorityMinimum": 100, "versionPriority": 10,
                    "service": {"namespace": "default", "name": "things"}}}),
        )
        .await;
        wait_available(&client, name, "False ServiceNotFound service/things in \"default\" is not present").await;
        assert!(raw(&client, "/apis/things.example.com/v1/things").await.is_err());

        apply(
            &client,
            "/api/v1/namespaces/default/services",
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "things"},
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]}}),
        )
        .await;
        wait_available(&client, name, "False EndpointsNotFound").await;
        apply(
            &client,
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": {"name": "things-1", "labels": {"kubernetes.io/service-name": "things"}},
                "endpoints": [{"addresses": [ADDRESS]}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}),
        )
        .await;
        wait_available(&client, name, "True Passed all checks passed").await;

        let path = "/apis/things.example.com/v1/namespaces/default/things";
        let thing = raw(&client, &format!("{path}/one?a=b")).await.expect("a thing");
        assert_eq!(thing["path"], format!("{path}/one"));
        assert_eq!((&thing["query"], &thing["proven"]), (&json!("a=b"), &json!(true)));
        assert_eq!(thing["user"], json!(["admin"]));
        assert_eq!(thing["groups"], json!(["system:masters", "system:authenticated"]));
        assert_eq!(thing["authorization"], json!([]), "the token stays here");
        assert_eq!(thing["host"], json!([format!("{HOST}:443")]));
        let away = raw(&client, &format!("{path}/away")).await.unwrap_err();
        assert!(away.contains("redirect") || away.contains("502"), "CVE-2022-3172: {away}");

        let groups = raw(&client, "/apis").await.expect("groups");
        let own = groups["groups"].as_array().expect("a list").iter().find(|g| g["name"] == "things.example.com");
        assert_eq!(own.expect("the group")["preferredVersion"]["version"], "v1");
        let document = raw(&client, "/openapi/v3/apis/things.example.com/v1").await.expect("OpenAPI");
        assert_eq!(document["info"]["title"], "things");
        let nobody = client_of(&server, NOBODY_TOKEN).await;
        assert!(raw(&nobody, path).await.unwrap_err().contains("forbidden"), "authorized before it is passed on");

        let services: Api<APIService> = Api::all(client.clone());
        services.delete(name, &DeleteParams::default()).await.expect("deleted");
        wait_until("the group to be gone", || async {
            match raw(&client, "/apis/things.example.com").await {
                Err(_) => Ok(()),
                Ok(group) => Err(group.to_string()),
            }
        })
        .await;
        stop.cancel();
    });
}

#[tokio::test]
async fn local_services_come_back() {
    let server = ApiServer::start().await;
    let client = client_of(&server, ADMIN_TOKEN).await;
    wait_available(&client, "v1.apps", "True Local").await;
    let services: Api<APIService> = Api::all(client.clone());
    services.delete("v1.apps", &DeleteParams::default()).await.expect("deleted");
    wait_available(&client, "v1.apps", "True Local").await;
    let changed = json!({"spec": {"groupPriorityMinimum": 1}});
    services.patch("v1.batch", &PatchParams::default(), &Patch::Merge(&changed)).await.expect("patched");
    wait_until("the priority to be right again", || {
        let services = services.clone();
        async move {
            let spec = services.get("v1.batch").await.map_err(|e| e.to_string())?.spec;
            match spec.map(|spec| spec.group_priority_minimum) {
                Some(17_400) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
    let map = raw(&client, "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication").await;
    assert!(map.expect("a ConfigMap")["metadata"]["name"].is_string());
}
