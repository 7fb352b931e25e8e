//! Other servers that decide who asks and what they may do.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{body::Body, http::Request as HttpRequest, response::Response};
use harness::{
    ApiServer,
    server::{NOBODY_TOKEN, http_get},
    wait_until,
};
use http_body_util::BodyExt;
use kube::Client;
use parking_lot::Mutex;
use runtime::{serving, tls};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What a server got: path and body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A TLS server that answers reviews.
struct Judge {
    directory: TempDir,
    asked: Asked,
    _stop: tokio_util::sync::DropGuard,
}

impl Judge {
    async fn start(answer: fn(&str, &Value) -> Value) -> Self {
        let directory = TempDir::new().expect("a directory");
        let (certificate, key) = tls::self_signed("localhost", &["localhost".into()], &[]).expect("a certificate");
        let pair = tls::ServingCertificate::new(certificate.as_bytes(), key.as_bytes()).expect("a pair");
        let config = tls::server_config(Arc::new(pair)).expect("TLS");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Asked::default();
        let told = Arc::clone(&asked);
        let handler = move |request: HttpRequest<Body>| {
            let told = Arc::clone(&told);
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap_or_default();
                let status = answer(&path, &review);
                told.lock().push((path, review.clone()));
                let mut answered = review;
                answered["status"] = status;
                Response::new(Body::from(answered.to_string()))
            }
        };
        let stop = CancellationToken::new();
        tokio::spawn(serving::serve(listener, Some(config), handler, stop.clone(), Duration::ZERO));
        std::fs::write(directory.path().join("ca.crt"), certificate).expect("a file");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://localhost:{port}/review"),
                "certificate-authority": directory.path().join("ca.crt"),
            }}],
            "users": [{"name": "u", "user": {"token": "of-the-server"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig.to_string()).expect("a file");
        Self { directory, asked, _stop: stop.drop_guard() }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    fn file(&self, name: &str, value: &Value) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, value.to_string()).expect("a file");
        path.display().to_string()
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

async fn code(client: &Client, path: &str) -> u16 {
    match client.request_text(http_get(path)).await {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{path}: {error}"),
    }
}

#[tokio::test]
async fn a_webhook_knows_tokens() {
    let judge = Judge::start(|_, review| match review["spec"]["token"].as_str() {
        Some("good") => json!({"authenticated": true, "user": {"username": "eve", "groups": ["g"]}}),
        Some("broken") => json!({"authenticated": false, "error": "no such thing"}),
        _ => json!({"authenticated": false}),
    })
    .await;
    let file = format!("--authentication-token-webhook-config-file={}", judge.kubeconfig().display());
    let server = ApiServer::start_with(&[&file, "--authentication-token-webhook-version=v1"]).await;
    let eve = server.client("good").await;
    let denied = eve.request_text(http_get("/api/v1/pods")).await.expect_err("without rights").to_string();
    assert!(denied.contains("User \"eve\" cannot list resource"), "{denied}");
    code(&eve, "/api/v1/pods").await;
    assert_eq!(judge.asked(), 1, "answers are kept");
    let (path, review) = judge.asked.lock()[0].clone();
    assert_eq!(
        (path.as_str(), &review["kind"], &review["apiVersion"]),
        ("/review", &json!("TokenReview"), &json!("authentication.k8s.io/v1"))
    );
    assert_eq!(code(&server.client("bad").await, "/api/v1/pods").await, 401);
    assert_eq!(code(&server.client("broken").await, "/api/v1/pods").await, 401);
    assert_eq!(code(&server.client(NOBODY_TOKEN).await, "/api/v1/pods").await, 403);
    assert_eq!(judge.asked(), 3, "what others know is not asked");
}

fn authorizers(judge: &Judge, condition: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "Webhook", "name": "judge", "webhook": {
                "timeout": "3s", "subjectAccessReviewVersion": "v1", "authorizedTTL": "5m", "unauthorizedTTL": "1s",
                "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": policy,
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": judge.kubeconfig()},
                "matchConditions": [{"expression": condition}],
            }},
            {"type": "Node", "name": "node"}, {"type": "RBAC", "name": "rbac"},
        ],
    })
}

#[tokio::test]
async fn a_webhook_decides_about_access() {
    let judge = Judge::start(|_, review| {
        let resource = review["spec"]["resourceAttributes"]["resource"].as_str().unwrap_or_default();
        match resource {
            "configmaps" => json!({"allowed": true, "reason": "the judge allows"}),
            "secrets" => json!({"allowed": false, "denied": true, "reason": "the judge denies"}),
            _ => json!({"allowed": false}),
        }
    })
    .await;
    let condition = "has(request.resourceAttributes) && request.user == 'nobody'";
    let file = judge.file("authorization.json", &authorizers(&judge, condition, "Deny"));
    let server = ApiServer::start_with(&[&format!("--authorization-config={file}")]).await;
    let nobody = server.client(NOBODY_TOKEN).await;
    assert_eq!(code(&nobody, "/api/v1/configmaps").await, 200);
    assert_eq!(code(&nobody, "/api/v1/configmaps").await, 200);
    assert_eq!(judge.asked(), 1, "answers are kept");
    let denied = nobody.request_text(http_get("/api/v1/secrets")).await.expect_err("denied").to_string();
    assert!(denied.contains("the judge denies"), "{denied}");
    assert_eq!(code(&nobody, "/api/v1/pods").await, 403);
    let before = judge.asked();
    assert_eq!(code(&nobody, "/metrics").await, 403);
    assert_eq!(judge.asked(), before, "the condition does not hold");
    let admin = server.admin().await;
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": "default"}});
    let request = http::Request::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews")
        .header("content-type", "application/json")
        .body(review.to_string().into_bytes())
        .expect("a request");
    let rules: Value = admin.request(request).await.expect("answered");
    assert_eq!(
        rules["status"]["evaluationError"],
        "webhook authorizer does not support user rule resolution, node authorizer does not support user rule resolution"
    );
    let metrics = admin.request_text(http_get("/metrics")).await.expect("metrics");
    for wanted in [
        "apiserver_authorization_decisions_total{decision=\"allowed\",name=\"judge\",type=\"Webhook\"}",
        "apiserver_authorization_webhook_evaluations_total{name=\"judge\",result=\"success\"}",
        "apiserver_authorization_match_condition_exclusions_total{name=\"judge\",type=\"Webhook\"}",
        "authorization_attempts_total{result=\"denied\"}",
    ] {
        assert!(metrics.contains(wanted), "{wanted}");
    }

    // A file that is wrong is ignored, one that is right takes effect.
    let mut wrong = authorizers(&judge, condition, "Deny");
    wrong["authorizers"][0]["type"] = json!("Oracle");
    judge.file("authorization.json", &wrong);
    let reloads = async |status: &str| {
        wait_until("the file to be read", || {
            let (admin, status) = (admin.clone(), format!("status=\"{status}\"}} "));
            async move {
                let metrics = admin.request_text(http_get("/metrics")).await.map_err(|error| error.to_string())?;
                let name = "apiserver_authorization_config_controller_automatic_reloads_total";
                let found = metrics.lines().any(|line| line.starts_with(name) && line.contains(&status));
                if found { Ok(()) } else { Err("it has not been read".to_owned()) }
            }
        })
        .await;
    };
    reloads("failure").await;
    assert_eq!(code(&nobody, "/api/v1/configmaps").await, 200);
    judge.file("authorization.json", &authorizers(&judge, "request.user == 'somebody else'", "Deny"));
    reloads("success").await;
    assert_eq!(code(&nobody, "/api/v1/configmaps").await, 403);
}

#[tokio::test]
async fn a_file_says_where_credentials_are_not_needed() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("authentication.json");
    let config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
    });
    std::fs::write(&file, config.to_string()).expect("a file");
    let server = ApiServer::start_with(&[&format!("--authentication-config={}", file.display())]).await;
    let options = kube::config::KubeConfigOptions::default();
    let mut kubeconfig = server.kubeconfig("none");
    kubeconfig.auth_infos.clear();
    kubeconfig.contexts.iter_mut().for_each(|context| {
        if let Some(context) = &mut context.context {
            context.user = None;
        }
    });
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
    let anonymous = Client::try_from(config).expect("a client");
    assert_eq!(code(&anonymous, "/livez").await, 200);
    assert_eq!(code(&anonymous, "/readyz").await, 401);
    assert_eq!(code(&anonymous, "/version").await, 401);
}
