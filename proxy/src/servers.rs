//! The health and the metrics server.

use std::net::SocketAddr;
use std::time::Duration;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::get,
};
use controller::{EventRecorder, EventType};
use http::StatusCode;
use k8s_openapi::api::core::v1::ObjectReference;
use prometheus::IntCounterVec;
use runtime::{Runtime, profiling, zpages};
use serde_json::Value;

use crate::{
    ProxyError,
    config::{API_VERSION, settings::Settings},
    health::{Health, Page},
    metrics::Metrics,
};

/// Grace for running requests.
const GRACE: Duration = Duration::from_secs(1);
/// Pause between tries to listen.
const BIND_RETRY: Duration = Duration::from_secs(5);
/// Paths of the metrics server.
const PATHS: &[&str] = &["/configz", "/debug", "/healthz", "/metrics", "/proxyMode"];

fn answer(health: &Health, page: Page, codes: &IntCounterVec, now: std::time::SystemTime) -> Response {
    let (fine, body) = health.page(page, now);
    let code = if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    codes.with_label_values(&[code.as_str()]).inc();
    let headers = [("content-type", "application/json"), ("x-content-type-options", "nosniff")];
    (code, headers, body.to_string()).into_response()
}

/// What the servers work with.
pub(crate) struct Servers<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) runtime: &'a Runtime,
    pub(crate) health: &'a Health,
    pub(crate) metrics: &'a Metrics,
    pub(crate) events: &'a EventRecorder,
    pub(crate) node: &'a ObjectReference,
    pub(crate) document: Value,
}

impl Servers<'_> {
    /// Listens and serves; an address that is taken is tried again, unless that is to be fatal.
    async fn listen(
        &self,
        address: SocketAddr,
        router: Router,
        name: &'static str,
        reason: &'static str,
    ) -> Result<(), ProxyError> {
        let stop = self.runtime.tasks.token().clone();
        let first = runtime::serving::listen(address);
        if let Err(source) = first {
            let what = if name == "metrics server" { "metrics" } else { "proxy healthz" };
            let text = format!("starting {what} server failed: {source}");
            self.events.event(self.node, EventType::Warning, reason, text);
            if self.settings.hard_fail {
                return Err(ProxyError::Listen { address, source });
            }
            tracing::error!(error = %source, %address, "cannot listen, trying again");
            self.runtime.tasks.spawn(name, async move {
                let listener = loop {
                    if stop.run_until_cancelled(tokio::time::sleep(BIND_RETRY)).await.is_none() {
                        return;
                    }
                    match runtime::serving::listen(address) {
                        Ok(listener) => break listener,
                        Err(error) => tracing::error!(%error, %address, "cannot listen, trying again"),
                    }
                };
                runtime::serving::serve_router(listener, None, router, stop, GRACE).await;
            });
            return Ok(());
        }
        if let Ok(listener) = first {
            self.runtime.tasks.spawn(name, async move {
                runtime::serving::serve_router(listener, None, router, stop, GRACE).await;
            });
        }
        Ok(())
    }

    /// Starts both servers.
    pub(crate) async fn start(self) -> Result<(), ProxyError> {
        let page = |page: Page, codes: &IntCounterVec| {
            let (health, codes, clock) = (self.health.clone(), codes.clone(), self.runtime.clock.clone());
            get(move || async move { answer(&health, page, &codes, clock.now()) })
        };
        if let Some(address) = self.settings.healthz {
            let router = Router::new()
                .route("/healthz", page(Page::Healthz, &self.metrics.healthz))
                .route("/livez", page(Page::Livez, &self.metrics.livez));
            self.listen(address, router, "health server", "FailedToStartProxierHealthcheck").await?;
        }
        let Some(address) = self.settings.metrics else { return Ok(()) };
        let (mode, document) = (self.settings.mode.name(), self.document.clone());
        let router = Router::new()
            .route("/healthz", get(|| async { "ok" }))
            .route("/proxyMode", get(move || async move { mode }))
            .merge(runtime::metrics::resettable_router(self.runtime.registry.clone(), &self.runtime.health))
            .merge(zpages::router(self.runtime, PATHS))
            .merge(zpages::configz(key(), move || document.clone()));
        let router =
            if self.settings.profiling { router.merge(profiling::router(&self.runtime.tasks)) } else { router };
        self.listen(address, router, "metrics server", "FailedToStartMetricServer").await
    }
}

/// Key of the configuration in `/configz`: the group of its API.
fn key() -> &'static str {
    API_VERSION.split('/').next().unwrap_or(API_VERSION)
}
