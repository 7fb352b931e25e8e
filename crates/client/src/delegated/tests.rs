use std::sync::Mutex;

use axum::routing::get;
use bytes::Bytes;
use http::{Request as HttpRequest, Response as HttpResponse};
use http_body_util::{BodyExt, Full};
use kube::client::Body as KubeBody;
use runtime::clock::RealClock;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::delegated::callers::Callers;

/// Answers reviews: the token `good` is jane's, who may get `/metrics`. Logs what was asked.
fn server(log: &Arc<Mutex<Vec<String>>>) -> kube::Client {
    let log = Arc::clone(log);
    let service = tower::service_fn(move |request: HttpRequest<KubeBody>| {
        let log = Arc::clone(&log);
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut review: Value = serde_json::from_slice(&body).unwrap_or_default();
            let status = if path.ends_with("tokenreviews") {
                let good = review["spec"]["token"] == "good";
                log.lock().unwrap().push(format!("token {good}"));
                json!({"authenticated": good, "user": {"username": "jane", "groups": ["system:authenticated"]}})
            } else {
                let wanted = review["spec"]["nonResourceAttributes"]["path"].as_str().unwrap_or_default().to_owned();
                log.lock().unwrap().push(format!("{} {wanted}", review["spec"]["user"].as_str().unwrap_or_default()));
                json!({"allowed": review["spec"]["user"] == "jane" && wanted == "/metrics", "reason": ""})
            };
            review["status"] = status;
            let answer = HttpResponse::builder().status(201).body(Full::new(Bytes::from(review.to_string())));
            Ok::<_, std::convert::Infallible>(answer.unwrap())
        }
    });
    kube::Client::new(service, "default")
}

fn flags() -> DelegatedAuthArgs {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        auth: DelegatedAuthArgs,
    }
    let line: Line = clap::Parser::parse_from(["x", "--authentication-skip-lookup"]);
    line.auth
}

async fn auth(log: &Arc<Mutex<Vec<String>>>) -> DelegatedAuth {
    let mut runtime = Runtime::new("test", Vec::new()).unwrap();
    runtime.clock = RealClock::shared();
    let client = server(log);
    let args = flags();
    let callers = Callers::new(&args, Some(client.clone()), &runtime).await.unwrap();
    let metrics = AuthMetrics::new(&runtime.registry, "authz").unwrap();
    let reviews = Some(Reviews::new(client, &args, metrics, &runtime));
    DelegatedAuth(Arc::new(Inner { callers, reviews, always_allowed: args.authorization_always_allow_paths }))
}

async fn ask(auth: &DelegatedAuth, path: &str, token: Option<&str>) -> (u16, String) {
    let ok = || get(|| async { "ok" });
    let router = Router::new().route("/healthz", ok()).route("/metrics", ok()).route("/configz", ok());
    let mut request = HttpRequest::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = auth.protect(router).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let code = answer.status().as_u16();
    let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let message = serde_json::from_str::<Value>(&text).ok().and_then(|v| v["message"].as_str().map(str::to_owned));
    (code, message.unwrap_or(text))
}

#[tokio::test]
async fn health_is_for_all_and_the_rest_for_those_who_may() {
    let log = Arc::default();
    let auth = auth(&log).await;
    assert_eq!(ask(&auth, "/healthz", None).await, (200, "ok".into()));
    assert!(log.lock().unwrap().is_empty(), "health asks nobody");
    let no = r#"forbidden: User "system:anonymous" cannot get path "/metrics""#;
    assert_eq!(ask(&auth, "/metrics", None).await, (403, no.into()));
    assert_eq!(ask(&auth, "/metrics", Some("good")).await.0, 200);
    assert_eq!(ask(&auth, "/metrics", Some("good")).await.0, 200);
    let no = r#"forbidden: User "jane" cannot get path "/configz""#;
    assert_eq!(ask(&auth, "/configz", Some("good")).await, (403, no.into()));
    assert_eq!(ask(&auth, "/metrics", Some("bad")).await, (401, "Unauthorized".into()));
    let asked = log.lock().unwrap().clone();
    assert_eq!(asked, ["system:anonymous /metrics", "token true", "jane /metrics", "jane /configz", "token false"]);
}

#[test]
fn listed_paths() {
    let listed = ["/healthz".to_owned(), "/debug/*".to_owned()];
    assert!(is_listed(&listed, "/healthz") && is_listed(&listed, "/debug/pprof"));
    assert!(!is_listed(&listed, "/healthz/ping") && !is_listed(&listed, "/metrics"));
}
