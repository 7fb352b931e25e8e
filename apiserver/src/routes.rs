//! Paths that name no resource: discovery, version, health, metrics, token discovery.

use std::sync::Arc;

use axum::{Router, routing::get};
use generic::{
    authn::service_account::{TokenKeys, VerifyingKey},
    flowcontrol::{self, FlowControl},
    nonresource,
    published::{self, Published},
};
use http::header;
use runtime::{Runtime, metrics, profiling, zpages};
use serde_json::{Value, json};

use crate::system_logs;

/// Served paths, for `/statusz`.
const PATHS: &[&str] = &["/debug", "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"];

/// Token discovery documents (OpenID Connect Discovery 1.0).
fn token_discovery(issuer: &str, keys: &[VerifyingKey], jwks_uri: &str) -> (Value, Value) {
    let mut algorithms: Vec<&str> = keys.iter().map(VerifyingKey::algorithm_name).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let configuration = json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    });
    (configuration, json!({"keys": keys.iter().map(VerifyingKey::jwk).collect::<Vec<_>>()}))
}

/// Settings of the routes.
pub(crate) struct Routes {
    pub(crate) runtime: Runtime,
    /// Whether `/debug/pprof` is served.
    pub(crate) profiling: bool,
    /// Whether `/logs` is served.
    pub(crate) logs: bool,
    pub(crate) published: Arc<Published>,
    pub(crate) flow: Option<Arc<FlowControl>>,
    /// `host:port` that clients reach the server at.
    pub(crate) address: String,
    /// Where the keys are; at `address` if empty.
    pub(crate) jwks_uri: String,
    pub(crate) issuer: String,
    pub(crate) keys: Arc<dyn TokenKeys>,
}

/// The router.
pub(crate) fn router(routes: Routes) -> Router {
    let uri = match routes.jwks_uri.as_str() {
        "" => format!("https://{}/openid/v1/jwks", routes.address),
        uri => uri.to_owned(),
    };
    let (issuer, keys) = (routes.issuer, routes.keys);
    let document = move |of: fn((Value, Value)) -> Value, kind: &'static str| {
        let (issuer, keys, uri) = (issuer.clone(), Arc::clone(&keys), uri.clone());
        move || {
            let known = keys.published();
            let body = of(token_discovery(&issuer, &known.keys, &uri)).to_string();
            let kept = format!("public, max-age={}", known.max_age);
            async move { ([(header::CONTENT_TYPE, kind.to_owned()), (header::CACHE_CONTROL, kept)], body) }
        }
    };
    let runtime = &routes.runtime;
    let mut router = nonresource::router()
        .merge(runtime.health.router())
        .merge(metrics::resettable_router(runtime.registry.clone(), &runtime.health))
        .merge(zpages::router(runtime, PATHS))
        .merge(published::router(routes.published))
        .route("/.well-known/openid-configuration", get(document(|both| both.0, "application/json")))
        .route("/openid/v1/jwks", get(document(|both| both.1, "application/jwk-set+json")));
    if let Some(flow) = &routes.flow {
        router = router.merge(flowcontrol::router(flow));
    }
    if routes.logs {
        router = router.merge(system_logs::router());
    }
    if routes.profiling {
        router = router.merge(profiling::router(&runtime.tasks));
    }
    router
}
