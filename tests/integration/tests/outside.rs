//! What operators put beside the API server: who signs tokens, who collects traces, who judges images; and the plugins
//! that they turn on.

use std::sync::Arc;

use axum::{Router, extract::State, routing::post};
use harness::{
    ApiServer,
    collector::Collector,
    server::{ADMIN_TOKEN, NOBODY_TOKEN, http_get},
    signer::TokenSigner,
    wait_until,
};
use http::Request;
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};

async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, (u16, String)> {
    let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(body.to_string().into_bytes()).expect("a request");
    client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) => (status.code, status.message.clone()),
        other => panic!("{method} {path}: {other}"),
    })
}

async fn create(client: &Client, path: &str, body: &Value) {
    send(client, "POST", path, body).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
}

/// The series of a metric, as text.
async fn metrics(client: &Client, name: &str) -> String {
    let text = client.request_text(http_get("/metrics")).await.expect("metrics");
    text.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn tokens_are_signed_outside() {
    let signer = TokenSigner::start();
    let endpoint = format!("--service-account-signing-endpoint={}", signer.socket().display());
    let server = ApiServer::start_with(&[&endpoint]).await;
    let admin = server.admin().await;
    let path = "/api/v1/namespaces/kube-system/serviceaccounts";
    create(&admin, path, &json!({"metadata": {"name": "robot"}})).await;
    let token = async || {
        let request = json!({"spec": {"expirationSeconds": 86400}});
        let answer = send(&admin, "POST", &format!("{path}/robot/token"), &request).await.expect("a token");
        // Longer than the signer allows.
        assert_eq!(answer["spec"]["expirationSeconds"], 7200);
        answer["status"]["token"].as_str().expect("a token").to_owned()
    };
    let who = async |token: &str| {
        let client = server.client(token).await;
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let found = send(&client, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await;
        found.map(|review| review["status"]["userInfo"]["username"].clone())
    };
    let robot = Ok(json!("system:serviceaccount:kube-system:robot"));
    let old = token().await;
    assert_eq!(who(&old).await, robot);
    // The server has never heard of the next key.
    signer.rotate();
    let new = token().await;
    assert_eq!((who(&new).await, who(&old).await), (robot.clone(), robot));
    let keys: Value = admin.request(http_get("/openid/v1/jwks")).await.expect("keys");
    let ids: Vec<&Value> = keys["keys"].as_array().into_iter().flatten().map(|key| &key["kid"]).collect();
    assert_eq!(ids, ["key-2"]);
    let signed = metrics(&admin, "apiserver_externaljwt_sign_request_total").await;
    assert_eq!(signed, "apiserver_externaljwt_sign_request_total{code=\"OK\"} 2");
}

#[tokio::test]
async fn requests_are_traced_to_the_store() {
    let collector = Collector::start();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("tracing.yaml");
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nendpoint: unix://{}\n\
         samplingRatePerMillion: 0\n",
        collector.socket().display()
    );
    std::fs::write(&file, text).expect("a file");
    let server = ApiServer::start_with(&[&format!("--tracing-config-file={}", file.display())]).await;
    let asks = async |token: &str, trace: &str| {
        let client = server.client(token).await;
        let request = Request::post("/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
            .body(json!({"metadata": {"generateName": "m-"}}).to_string().into_bytes());
        client.request::<Value>(request.expect("a request")).await
    };
    let (trusted, other) = ("4bf92f3577b34da6a3ce929d0e0e4736", "5bf92f3577b34da6a3ce929d0e0e4736");
    asks(NOBODY_TOKEN, other).await.expect_err("forbidden");
    asks(ADMIN_TOKEN, trusted).await.expect("created");
    let bytes = |text: &str| u128::from_str_radix(text, 16).expect("a number").to_be_bytes();
    let pair = |name: &str, parent: &str| (name.to_owned(), parent.to_owned());
    let request = "POST /api/v1/namespaces/{:namespace}/configmaps";
    let wanted = [pair(request, ""), pair("Create", request), pair("Create etcd3", "Create")];
    wait_until("the trace", || {
        let found = collector.trace(&bytes(trusted));
        let all = wanted.iter().all(|span| found.contains(span));
        async move { if all { Ok(()) } else { Err(format!("{found:?}")) } }
    })
    .await;
    // Nobody's wish to be traced is not heard.
    assert_eq!(collector.trace(&bytes(other)), []);
}

/// Judges images, and keeps what it was asked.
async fn judge(State(asked): State<Arc<Mutex<Vec<Value>>>>, review: String) -> String {
    let review: Value = serde_json::from_str(&review).expect("a review");
    let spec = review["spec"].clone();
    let bad = spec.to_string().contains("bad");
    asked.lock().push(spec);
    let status = if bad { json!({"allowed": false, "reason": "it is bad"}) } else { json!({"allowed": true}) };
    json!({"apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview", "status": status}).to_string()
}

#[tokio::test]
async fn plugins_restrict_where_and_what_pods_run() {
    let asked = Arc::<Mutex<Vec<Value>>>::default();
    let router = Router::new().route("/judge", post(judge)).with_state(Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{port}/judge")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}],
    });
    std::fs::write(directory.path().join("judge.yaml"), kubeconfig.to_string()).expect("a file");
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n\
                - name: ImagePolicyWebhook\n  configuration:\n    imagePolicy: {kubeConfigFile: judge.yaml}\n\
                - name: PodNodeSelector\n  configuration:\n    podNodeSelectorPluginConfig:\n      \
                clusterDefaultNodeSelector: region=west\n      default: region=west,zone=a\n\
                - name: PodTolerationRestriction\n  configuration:\n    \
                apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1\n    kind: Configuration\n    \
                default: [{key: dedicated, operator: Exists}]\n";
    let file = directory.path().join("admission.yaml");
    std::fs::write(&file, text).expect("a file");
    let server = ApiServer::start_with(&[
        &format!("--admission-control-config-file={}", file.display()),
        "--enable-admission-plugins=ImagePolicyWebhook,PodNodeSelector,PodTolerationRestriction",
    ])
    .await;
    let admin = server.admin().await;
    create(&admin, "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = |name: &str, image: &str, selector: Value| json!({"metadata": {"name": name}, "spec": {"nodeSelector": selector, "containers": [{"name": "c", "image": image}]}});
    let pods = "/api/v1/namespaces/default/pods";
    let made = send(&admin, "POST", pods, &pod("good", "good:1", json!({"zone": "a"}))).await.expect("admitted");
    assert_eq!(made["spec"]["nodeSelector"], json!({"region": "west", "zone": "a"}));
    assert_eq!(made["spec"]["tolerations"][0], json!({"key": "dedicated", "operator": "Exists"}));
    assert_eq!(asked.lock()[0], json!({"containers": [{"image": "good:1"}], "namespace": "default"}));
    let refused = async |pod: Value| send(&admin, "POST", pods, &pod).await.expect_err("refused");
    let denied = "pods \"p\" is forbidden: image policy webhook backend denied one or more images: it is bad";
    assert_eq!(refused(pod("p", "bad:1", json!({}))).await, (403, denied.into()));
    for (selector, why) in [
        (json!({"region": "east"}), "pod node label selector conflicts with its namespace node label selector"),
        (json!({"zone": "b"}), "pod node label selector labels conflict with its namespace whitelist"),
    ] {
        assert_eq!(refused(pod("p", "good:1", selector)).await, (403, format!("pods \"p\" is forbidden: {why}")));
    }
    let annotations = json!({"scheduler.alpha.kubernetes.io/tolerationsWhitelist": "[{\"key\":\"other\"}]"});
    let patch = json!({"metadata": {"annotations": annotations}});
    send(&admin, "PATCH", "/api/v1/namespaces/default", &patch).await.expect("patched");
    let conflict = "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace \
                    whitelist";
    assert_eq!(refused(pod("p", "good:1", json!({}))).await, (500, conflict.into()));
}

#[tokio::test]
async fn owners_are_held_up_by_those_who_may() {
    let flag = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement";
    let server = ApiServer::start_with(&[flag]).await;
    let (admin, nobody) = (server.admin().await, server.plain_client(NOBODY_TOKEN).await);
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "patch"]},
    ]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    create(&admin, &format!("{rbac}/clusterroles"), &json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "nobody"}],
    });
    create(&admin, &format!("{rbac}/clusterrolebindings"), &binding).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let owned = |name: &str, kind: &str, blocks: bool| {
        json!({"metadata": {"name": name, "ownerReferences": [
            {"apiVersion": "v1", "kind": kind, "name": "o", "uid": "1", "blockOwnerDeletion": blocks}]}})
    };
    wait_until("the role to count", || async {
        send(&nobody, "POST", maps, &json!({"metadata": {"name": "m"}})).await.map_err(|error| format!("{error:?}"))
    })
    .await;
    create(&nobody, maps, &owned("free", "Secret", false)).await;
    for (method, path, body, why) in [
        ("POST", maps, owned("p", "Secret", true), "refers to a resource you can't set finalizers on: , <nil>"),
        ("POST", maps, owned("p", "Nothing", true), "cannot find RESTMapping for APIVersion v1 Kind Nothing"),
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/m",
            owned("m", "Secret", false),
            "cannot set an ownerRef on a resource you can't delete: , <nil>",
        ),
    ] {
        let (code, told) = send(&nobody, method, path, &body).await.expect_err("refused");
        assert_eq!((code, told.contains(why)), (403, true), "{told}");
    }
}
