//! Pages about the process: configuration, status, flags, metrics, profiles.

use axum::Router;
use axum::body::Body;
use http::{Request, Response};
use runtime::Runtime;
use runtime::{profiling, zpages};
use serde_json::json;
use tower::ServiceExt;

use crate::config::KubeletConfiguration;

/// What `/statusz` lists.
const PATHS: [&str; 12] = [
    "/attach",
    "/configz",
    "/containerLogs",
    "/debug",
    "/exec",
    "/flagz",
    "/healthz",
    "/metrics",
    "/pods",
    "/portForward",
    "/stats",
    "/statusz",
];

/// The pages, and whether the verbosity may be changed.
pub struct Pages(Router, bool);

impl Pages {
    /// Of a process with its configuration.
    pub fn new(runtime: &Runtime, config: &KubeletConfiguration) -> Self {
        let shown = json!(config);
        let mut router = zpages::router(runtime, &PATHS)
            .merge(zpages::configz("kubeletconfig", move || shown.clone()))
            .merge(runtime::metrics::router(runtime.registry.clone()));
        if config.enable_profiling_handler {
            router = router.merge(profiling::router(&runtime.tasks));
        }
        Self(router, config.enable_debug_flags_handler)
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if request.uri().path() == "/debug/flags/v" && !self.1 {
            return super::text(http::StatusCode::NOT_FOUND, "404 page not found\n");
        }
        match self.0.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}
