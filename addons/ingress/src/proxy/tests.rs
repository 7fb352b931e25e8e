//! The data path against back ends on loopback.

use std::{collections::HashMap, net::SocketAddr};

use axum::{Router, extract::Request as AxumRequest, routing::any};
use bytes::Bytes;
use controller::ObjectKey;
use http::HeaderMap;
use runtime::tasks::TaskGroup;
use tokio::net::TcpListener;

use super::*;
use crate::{
    backends::{BackendKey, Endpoints, Port, Slot},
    path::Matcher,
    table::Host,
};

struct Scene {
    proxy: Arc<Proxy>,
    tasks: TaskGroup,
}

impl Scene {
    fn new() -> Self {
        let tasks = TaskGroup::new("test");
        let metrics = Arc::new(IngressMetrics::new(&runtime::Registry::new()).expect("metrics"));
        let proxy = Arc::new(Proxy::new(metrics, &tasks, (80, 443)).expect("a proxy"));
        Self { proxy, tasks }
    }

    /// A back end that tells what it got.
    async fn backend(&self) -> SocketAddr {
        async fn echo(request: AxumRequest) -> String {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.map_or(0, |bytes| bytes.len());
            let mut lines = vec![format!("{} {} {body}", parts.method, parts.uri)];
            lines.extend(parts.headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().unwrap_or("?"))));
            lines.join("\n")
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(any(echo));
        let stop = self.tasks.token().clone();
        let serve = runtime::serving::serve_router(listener, None, router, stop, Duration::from_millis(100));
        self.tasks.spawn("backend", serve);
        address
    }

    fn route(&self, matcher: Matcher, policy: Policy, endpoints: Endpoints, tls: bool) {
        let key = BackendKey { service: ObjectKey::new("ns", "web"), port: Port::First };
        let route = Route {
            host: "a.b".into(),
            path: "/".into(),
            matcher,
            policy: Arc::new(policy),
            backend: Arc::new(Slot::new(key, endpoints)),
            namespace: "ns".into(),
            ingress: "i".into(),
        };
        let host = Host { routes: vec![Arc::new(route)], default: None, tls };
        let table = Table { hosts: HashMap::from([("a.b".to_owned(), host)]), ..Table::default() };
        self.proxy.table.store(Arc::new(table));
    }

    async fn ask(
        &self,
        scheme: Scheme,
        request: http::request::Builder,
        body: Body,
    ) -> (StatusCode, HeaderMap, String) {
        let mut request = request.header("host", "a.b").body(body).expect("a request");
        let peer = SocketAddr::from(([192, 0, 2, 7], 1234));
        request.extensions_mut().insert(Connection { peer, certificates: Arc::from(Vec::new()) });
        let (parts, body) = Arc::clone(&self.proxy).handle(scheme, request).await.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
        (parts.status, parts.headers, String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn get(&self, path: &str) -> (StatusCode, HeaderMap, String) {
        self.ask(Scheme::Http, Request::get(path), Body::empty()).await
    }
}

/// An address that nobody listens on.
async fn dead() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address")
}

fn at(addresses: &[SocketAddr]) -> Endpoints {
    Endpoints::Addresses(addresses.to_vec())
}

#[tokio::test]
async fn headers_tell_who_came() {
    let scene = Scene::new();
    let web = scene.backend().await;
    scene.route(Matcher::prefix("/"), Policy::default(), at(&[web]), false);
    let request = Request::get("/p%20q?x=1")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-real-ip", "1.2.3.4")
        .header("x-forwarded-proto", "https")
        .header("proxy", "http://evil")
        .header("connection", "x-private, host")
        .header("x-private", "1")
        .header("te", "gzip")
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let (status, _, text) = scene.ask(Scheme::Http, request, Body::empty()).await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        "GET /p%20q?x=1 0",
        "host: a.b",
        "x-forwarded-for: 192.0.2.7",
        "x-real-ip: 192.0.2.7",
        "x-original-forwarded-for: 1.2.3.4",
        "x-forwarded-proto: http",
        "x-forwarded-port: 80",
        "x-forwarded-host: a.b",
        "x-scheme: http",
        "cookie: a=1; b=2",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("x-request-id: "), "{text}");
    for name in ["proxy:", "x-private:", "te:", "connection:"] {
        assert!(!text.lines().any(|l| l.starts_with(name)), "{name} in\n{text}");
    }
}

#[tokio::test]
async fn the_path_is_rewritten() {
    let scene = Scene::new();
    let web = scene.backend().await;
    let policy = Policy { rewrite_target: Some("/admin/$1".into()), ..Policy::default() };
    scene.route(Matcher::regex("/foo/(.*)").expect("valid"), policy, at(&[web]), false);
    let (_, _, text) = scene.get("/foo/a/b?c").await;
    assert!(text.starts_with("GET /admin/a/b?c 0"), "{text}");
    assert_eq!(scene.get("/bar").await.0, StatusCode::NOT_FOUND);
    assert_eq!(scene.get("/foo/../../x").await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let scene = Scene::new();
    let (web, dead) = (scene.backend().await, dead().await);
    scene.route(Matcher::prefix("/"), Policy::default(), at(&[dead, web]), false);
    for _ in 0..4 {
        let body = Body::from("x".repeat(1000));
        let (status, _, text) = scene.ask(Scheme::Http, Request::post("/"), body).await;
        assert_eq!((status, text.starts_with("POST / 1000")), (StatusCode::OK, true), "{text}");
    }
    scene.route(Matcher::prefix("/"), Policy::default(), at(&[dead]), false);
    assert_eq!(scene.get("/").await.0, StatusCode::BAD_GATEWAY);
    scene.route(Matcher::prefix("/"), Policy::default(), Endpoints::None, false);
    assert_eq!(scene.get("/").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn bodies_are_bounded_whether_declared_or_not() {
    let scene = Scene::new();
    let web = scene.backend().await;
    let policy = Policy { body_limit: Some(100), ..Policy::default() };
    scene.route(Matcher::prefix("/"), policy, at(&[web]), false);
    let declared = Request::post("/").header("content-length", "101");
    let (status, ..) = scene.ask(Scheme::Http, declared, Body::from("x".repeat(101))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let pieces = || (0..11).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789")));
    let stream = Body::from_stream(futures::stream::iter(pieces()));
    assert_eq!(scene.ask(Scheme::Http, Request::post("/"), stream).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let stream = Body::from_stream(futures::stream::iter(pieces().take(10)));
    assert_eq!(scene.ask(Scheme::Http, Request::post("/"), stream).await.0, StatusCode::OK);
}

#[tokio::test]
async fn redirects_and_refusals() {
    let scene = Scene::new();
    let web = scene.backend().await;
    let location = |headers: &HeaderMap| headers.get("location").map(|l| l.to_str().unwrap_or_default().to_owned());
    scene.route(Matcher::prefix("/"), Policy::default(), at(&[web]), true);
    let (status, headers, _) = scene.get("/a?b").await;
    assert_eq!((status.as_u16(), location(&headers).as_deref()), (308, Some("https://a.b/a?b")));
    let (status, headers, _) = scene.ask(Scheme::Https, Request::get("/"), Body::empty()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers.get("strict-transport-security").expect("HSTS"), "max-age=31536000; includeSubDomains");
    scene.route(Matcher::prefix("/"), Policy { ssl_redirect: false, ..Policy::default() }, at(&[web]), true);
    assert_eq!(scene.get("/").await.0, StatusCode::OK);
    scene.route(Matcher::prefix("/"), Policy { force_ssl_redirect: true, ..Policy::default() }, at(&[web]), false);
    assert_eq!(scene.get("/").await.0.as_u16(), 308);
    let denied = Policy { denied: vec!["192.0.2.0/24".parse().expect("a range")], ..Policy::default() };
    scene.route(Matcher::prefix("/"), denied, at(&[web]), false);
    assert_eq!(scene.get("/").await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn sessions_stay() {
    let scene = Scene::new();
    let (one, two) = (scene.backend().await, scene.backend().await);
    let policy = Policy { affinity: Some(crate::policy::Affinity::default()), ..Policy::default() };
    scene.route(Matcher::prefix("/"), policy.clone(), at(&[one, two]), false);
    let (_, headers, _) = scene.get("/").await;
    let cookie = headers.get("set-cookie").expect("a cookie").to_str().expect("text").to_owned();
    let pair = cookie.split(';').next().expect("a pair").to_owned();
    for _ in 0..4 {
        let (_, headers, text) =
            scene.ask(Scheme::Http, Request::get("/").header("cookie", &pair), Body::empty()).await;
        assert!(!headers.contains_key("set-cookie") && text.contains(&pair), "{text}");
    }
    scene.route(Matcher::prefix("/"), policy, at(&[dead().await, one]), false);
    let (status, ..) = scene.ask(Scheme::Http, Request::get("/").header("cookie", &pair), Body::empty()).await;
    assert_eq!(status, StatusCode::OK);
}
