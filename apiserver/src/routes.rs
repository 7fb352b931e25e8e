//! Paths that name no resource: discovery, version, health, metrics, token discovery.

use api::discovery::{AGGREGATED, Discovery, api_versions};
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use generic::{authn::service_account::VerifyingKey, chain::plain_not_found, nonresource};
use http::{HeaderMap, StatusCode, header};
use prometheus::Registry;
use runtime::{health::HealthChecks, metrics, version};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use std::sync::Arc;

/// A document that never changes while the server runs, with its ETag.
struct Document {
    bytes: bytes::Bytes,
    etag: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let mut bytes = value.to_string().into_bytes();
        bytes.push(b'\n');
        let hash: String = Sha512::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
        Self { bytes: bytes.into(), etag: format!("\"{hash}\"") }
    }

    fn answer(&self, headers: &HeaderMap, content_type: &'static str) -> Response {
        let common = [
            (header::ETAG, self.etag.clone()),
            (header::VARY, "Accept".to_owned()),
            (header::CACHE_CONTROL, "public".to_owned()),
        ];
        if headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == self.etag.as_bytes()) {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        (common, [(header::CONTENT_TYPE, content_type)], self.bytes.clone()).into_response()
    }
}

fn json_answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

/// Whether the client asks for the aggregated form.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    accept.split(',').any(|clause| {
        let has = |part: &str| clause.split(';').any(|p| p.trim() == part);
        has("as=APIGroupDiscoveryList") && has("v=v2") && has("g=apidiscovery.k8s.io")
    })
}

/// Token discovery documents (OpenID Connect Discovery 1.0).
fn token_discovery(issuer: &str, keys: &[VerifyingKey], address: &str) -> (Value, Value) {
    let mut algorithms: Vec<&str> = keys.iter().map(VerifyingKey::algorithm_name).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let configuration = json!({
        "issuer": issuer,
        "jwks_uri": format!("https://{address}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    });
    (configuration, json!({"keys": keys.iter().map(VerifyingKey::jwk).collect::<Vec<_>>()}))
}

/// Settings of the routes.
pub(crate) struct Routes {
    pub(crate) health: HealthChecks,
    pub(crate) registry: Registry,
    /// `host:port` that clients reach the server at.
    pub(crate) address: String,
    pub(crate) issuer: String,
    pub(crate) keys: Vec<VerifyingKey>,
}

/// The router.
pub(crate) fn router(routes: Routes) -> Router {
    let (configuration, jwks) = token_discovery(&routes.issuer, &routes.keys, &routes.address);
    let cached = |value: Value, kind: &'static str| {
        move || {
            let body = value.to_string();
            async move { ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=3600")], body) }
        }
    };
    nonresource::router()
        .merge(routes.health.router())
        .merge(metrics::router(routes.registry))
        .merge(discovery(routes.address))
        .merge(crate::openapi::router())
        .route("/version", get(|| async { json_answer(&version::info()) }))
        .route("/version/", get(|| async { json_answer(&version::info()) }))
        .route("/.well-known/openid-configuration", get(cached(configuration, "application/json")))
        .route("/openid/v1/jwks", get(cached(jwks, "application/jwk-set+json")))
        .route("/", get(|| async { json_answer(&json!({"paths": root_paths()})) }))
}

fn root_paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .iter()
    .map(|p| (*p).to_owned())
    .collect();
    for kind in api::api().kinds().iter().filter(|k| !k.gvk.group.is_empty()) {
        paths.push(format!("/apis/{}", kind.gvk.group));
        paths.push(format!("/apis/{}", kind.gvk.group_version()));
    }
    paths.sort();
    paths.dedup();
    paths
}

struct Documents {
    discovery: Discovery,
    core: Document,
    groups: Document,
    address: String,
}

fn discovery(address: String) -> Router {
    let discovery = Discovery::built_in();
    let state = Arc::new(Documents {
        core: Document::new(&discovery.aggregated(true)),
        groups: Document::new(&discovery.aggregated(false)),
        discovery,
        address,
    });
    let core = get(|State(state): State<Arc<Documents>>, headers: HeaderMap| async move {
        match wants_aggregated(&headers) {
            true => state.core.answer(&headers, AGGREGATED),
            false => json_answer(&api_versions(&state.address)),
        }
    });
    let groups = get(|State(state): State<Arc<Documents>>, headers: HeaderMap| async move {
        match wants_aggregated(&headers) {
            true => state.groups.answer(&headers, AGGREGATED),
            false => json_answer(&state.discovery.group_list()),
        }
    });
    type Shared = State<Arc<Documents>>;
    let group =
        get(|State(state): Shared, Path(group): Path<String>| async move { found(state.discovery.group(&group)) });
    let version = get(|State(state): Shared, Path((group, version)): Path<(String, String)>| async move {
        found(state.discovery.resource_list(&group, &version))
    });
    let core_version = get(|State(state): Shared, Path(version): Path<String>| async move {
        found(state.discovery.resource_list("", &version))
    });
    let mut router = Router::new();
    for (path, route) in [("/api", core), ("/apis", groups)] {
        router = router.route(path, route.clone()).route(&format!("{path}/"), route);
    }
    router
        .route("/api/{version}", core_version.clone())
        .route("/api/{version}/", core_version)
        .route("/apis/{group}", group.clone())
        .route("/apis/{group}/", group)
        .route("/apis/{group}/{version}", version.clone())
        .route("/apis/{group}/{version}/", version)
        .with_state(state)
}

fn found(document: Option<Value>) -> Response<Body> {
    document.map_or_else(plain_not_found, |d| json_answer(&d))
}
