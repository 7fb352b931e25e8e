//! Admission webhooks: a real API server asks a real TLS server, which says what it was asked.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, http::Request, response::Response};
use base64::{Engine, prelude::BASE64_STANDARD};
use harness::{ApiServer, Kubectl, process::free_port, server::ADMIN_TOKEN};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use runtime::{serving, tls};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Reviews that a server got, with the path and query they were posted to.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

struct Hook {
    port: u16,
    authority: String,
    asked: Asked,
    stop: CancellationToken,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Hook {
    async fn start() -> Self {
        let (certificate, key) = tls::self_signed("localhost", &["localhost".into()], &[]).expect("a certificate");
        let pair = tls::ServingCertificate::new(certificate.as_bytes(), key.as_bytes()).expect("a pair");
        let config = tls::server_config(Arc::new(pair)).expect("TLS");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (asked, stop) = (Asked::default(), CancellationToken::new());
        let told = Arc::clone(&asked);
        let handler = move |request| answer(request, Arc::clone(&told));
        tokio::spawn(serving::serve(listener, Some(config), handler, stop.clone(), Duration::ZERO));
        Self { port, authority: BASE64_STANDARD.encode(certificate), asked, stop }
    }

    /// A configuration with one webhook; `more` replaces fields of it.
    fn configuration(&self, kind: &str, name: &str, more: &Value) -> String {
        let mut webhook = json!({
            "name": format!("{name}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://localhost:{}/{name}", self.port), "caBundle": self.authority},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        });
        for (field, value) in more.as_object().expect("fields") {
            webhook[field] = value.clone();
        }
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
            "metadata": {"name": name}, "webhooks": [webhook]})
        .to_string()
    }

    fn asked(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock();
        let of = |(at, _): &&(String, Value)| at.split('?').next() == Some(path);
        asked.iter().filter(of).map(|(_, review)| review.clone()).collect()
    }
}

async fn answer(request: Request<Body>, asked: Asked) -> Response<Body> {
    let path = request.uri().to_string();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("a review");
    asked.lock().push((path.clone(), review.clone()));
    let object = &review["request"]["object"];
    let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
    let patch = match path.split('?').next().unwrap_or_default() {
        "/adds" => json!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": "added", "image": "i"}]}]),
        "/labels" if object.pointer("/metadata/labels/seen").is_none() => {
            json!([{"op": "add", "path": "/metadata/labels", "value": {"seen": "yes"}}])
        }
        "/denies" if object.pointer("/metadata/name").is_some_and(|name| name == "bad") => {
            response["allowed"] = json!(false);
            response["status"] = json!({"message": "bad is no name", "code": 403, "reason": "Forbidden"});
            response["warnings"] = json!(["names matter"]);
            Value::Null
        }
        "/all" => {
            response["allowed"] = json!(false);
            Value::Null
        }
        "/hangs" => std::future::pending().await,
        _ => Value::Null,
    };
    if patch.is_array() {
        response["patch"] = json!(BASE64_STANDARD.encode(patch.to_string()));
        response["patchType"] = json!("JSONPatch");
    }
    let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    Response::new(Body::from(review.to_string()))
}

fn pod(name: &str) -> String {
    format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: a, image: i}}]}}}}")
}

async fn with_hook(test: impl FnOnce(&Hook, &Kubectl)) {
    let binary = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
    let (server, hook) = (ApiServer::start().await, Hook::start().await);
    let kubectl = Kubectl::new(&binary, &server.kubeconfig_file(ADMIN_TOKEN));
    tokio::task::block_in_place(|| {
        kubectl.ok("create serviceaccount default");
        test(&hook, &kubectl);
    });
}

/// Configurations take effect when the server's watch of them has brought them.
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !look() {
        assert!(std::time::Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn configure(kubectl: &Kubectl, configuration: &str) {
    let applied = kubectl.run_with("apply -f -", configuration);
    assert_eq!(applied.code, 0, "{configuration}: {}", applied.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_change_objects_and_see_each_others_changes() {
    with_hook(|hook, kubectl| {
        configure(kubectl, &hook.configuration("Mutating", "labels", &json!({"reinvocationPolicy": "IfNeeded"})));
        configure(kubectl, &hook.configuration("Mutating", "sees", &json!({})));
        configure(kubectl, &hook.configuration("Mutating", "adds", &json!({})));
        let dry = || kubectl.run_with("create --dry-run=server -f - -o jsonpath={.metadata.labels}", &pod("x"));
        until("the last configuration", || {
            dry();
            !hook.asked("/sees").is_empty() && !hook.asked("/adds").is_empty() && !hook.asked("/labels").is_empty()
        });
        hook.asked.lock().clear();
        let created = kubectl.run_with("create -f -", &pod("p"));
        assert_eq!(created.code, 0, "{}", created.err);
        let spec = kubectl.ok("get pod p -o json");
        let object: Value = serde_json::from_str(&spec).expect("a Pod");
        assert_eq!(object["metadata"]["labels"], json!({"seen": "yes"}));
        let added = &object["spec"]["initContainers"][0];
        assert_eq!((&added["name"], &added["terminationMessagePolicy"]), (&json!("added"), &json!("File")));
        assert_eq!(added["volumeMounts"][0]["readOnly"], true, "the built-in plugins are asked again");
        let reviews = hook.asked("/labels");
        // `adds` comes first by name, so that nothing changes after `labels` in the first round; in the second, the
        // ServiceAccount plugin mounts the token in the container that `adds` has brought.
        assert_eq!(reviews.len(), 2, "a webhook is asked once more when the object has changed since");
        assert_eq!(hook.asked("/sees").len(), 1);
        let review = &hook.asked("/sees")[0]["request"];
        assert_eq!(review["object"]["metadata"]["labels"], json!({"seen": "yes"}));
        assert_eq!(review["kind"], json!({"group": "", "version": "v1", "kind": "Pod"}));
        assert_eq!(review["operation"], "CREATE");
        assert_eq!((&review["name"], &review["namespace"]), (&json!("p"), &json!("default")));
        assert_eq!((&review["oldObject"], &review["dryRun"]), (&Value::Null, &json!(false)));
        assert_eq!(review["userInfo"]["username"], "admin");
        assert_eq!(review["options"]["kind"], "CreateOptions");
        assert_eq!(review["options"]["fieldManager"], "kubectl-create");
        let posted = hook.asked.lock().iter().any(|(path, _)| path == "/sees?timeout=10s");
        assert!(posted, "{:?}", hook.asked.lock());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_refuse_and_fail_as_their_policy_says() {
    with_hook(|hook, kubectl| {
        configure(kubectl, &hook.configuration("Validating", "denies", &json!({})));
        let create = |name: &str| kubectl.run_with("create --dry-run=server -f -", &pod(name));
        until("a refusal", || create("bad").code != 0);
        assert_eq!(
            create("bad").err,
            "Warning: names matter\nError from server (Forbidden): error when creating \"STDIN\": admission webhook \
             \"denies.example.com\" denied the request: bad is no name\n"
        );
        assert_eq!(create("good").code, 0);

        let dead = json!({"timeoutSeconds": 1, "clientConfig": {"url": format!("https://localhost:{}/", free_port())}});
        configure(kubectl, &hook.configuration("Validating", "dead", &dead));
        until("a failure", || create("good").code != 0);
        let failure = create("good").err;
        assert!(
            failure.starts_with(
                "Error from server (InternalError): error when creating \"STDIN\": Internal error occurred: failed calling \
                 webhook \"dead.example.com\": failed to call webhook: Post \"https://localhost:"
            ) && failure.ends_with(": connect: connection refused\n"),
            "{failure}"
        );
        let mut open = dead.clone();
        open["failurePolicy"] = json!("Ignore");
        configure(kubectl, &hook.configuration("Validating", "dead", &open));
        until("the policy", || create("good").code == 0);

        configure(kubectl, &hook.configuration("Mutating", "hangs", &json!({"timeoutSeconds": 1})));
        until("a time-out", || create("good").code != 0);
        let late = create("good").err;
        assert!(late.contains("/hangs?timeout=1s\": context deadline exceeded"), "{late}");
        kubectl.ok("delete mutatingwebhookconfiguration hangs");
        until("its end", || create("good").code == 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_asked_about_what_they_select() {
    with_hook(|hook, kubectl| {
        let rules = json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]);
        let chosen = json!({"rules": rules, "namespaceSelector": {"matchLabels": {"guarded": "yes"}},
            "objectSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]}});
        kubectl.ok("create namespace guarded");
        kubectl.ok("label namespace guarded guarded=yes");
        configure(kubectl, &hook.configuration("Validating", "all", &chosen));
        let create = |namespace: &str| kubectl.run(&format!("create configmap c -n {namespace} --dry-run=server"));
        until("a refusal", || create("guarded").code != 0);
        assert_eq!(create("default").code, 0);
        let free = "{apiVersion: v1, kind: ConfigMap, metadata: {name: f, namespace: guarded, labels: {free: ''}}}";
        assert_eq!(kubectl.run_with("create -f -", free).code, 0);
        let text = create("guarded").err;
        assert!(
            text.ends_with("admission webhook \"all.example.com\" denied the request without explanation\n"),
            "{text}"
        );
        assert_ne!(kubectl.run("label configmap f -n guarded free-").code, 0, "one of the two objects is selected");

        configure(kubectl, &hook.configuration("Validating", "all", &json!({"rules": rules})));
        until("a refusal elsewhere", || create("default").code != 0);
        kubectl.ok("delete validatingwebhookconfiguration all");
        until("the end", || create("default").code == 0);

        let narrow = json!({"rules": rules, "matchConditions": [
            {"name": "maps", "expression": "request.resource.resource == 'configmaps'"},
            {"name": "named", "expression": "object.metadata.name.startsWith('c')"}]});
        configure(kubectl, &hook.configuration("Validating", "all", &narrow));
        until("a refusal of what the conditions name", || create("default").code != 0);
        assert_eq!(kubectl.run("create configmap d --dry-run=server").code, 0);
        assert_eq!(kubectl.run("create secret generic c --dry-run=server").code, 0);
        let wrong = json!({"matchConditions": [{"name": "x", "expression": "object.a +"}]});
        let refused = kubectl.run_with("apply -f -", &hook.configuration("Validating", "wrong", &wrong));
        let start =
            "webhooks[0].matchConditions[0].expression: Invalid value: \"object.a +\": compilation failed: ERROR: ";
        assert!(refused.code != 0 && refused.err.contains(start), "{}", refused.err);
        kubectl.ok("delete validatingwebhookconfiguration all");
        until("the end of it", || create("default").code == 0);

        let scaler = json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["autoscaling"], "apiVersions": ["v1"],
            "resources": ["horizontalpodautoscalers"]}]});
        configure(kubectl, &hook.configuration("Validating", "sees", &scaler));
        kubectl.ok("create deployment d --image=i");
        until("a question about another version", || {
            kubectl.ok("autoscale deployment d --max=3 --cpu=50% --dry-run=server");
            !hook.asked("/sees").is_empty()
        });
        let review = &hook.asked("/sees")[0]["request"];
        assert_eq!(review["kind"]["version"], "v1");
        assert_eq!(review["requestKind"]["version"], "v2");
        assert_eq!(review["object"]["apiVersion"], "autoscaling/v1");
        assert_eq!(review["object"]["spec"]["targetCPUUtilizationPercentage"], 50);
    })
    .await;
}
