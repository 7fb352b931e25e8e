//! `/healthz`, `/livez`, `/readyz`: named checks, each with its own path, `?verbose` and `?exclude=`.

use std::sync::Arc;

use axum::{Router, extract::{Path, RawQuery, State}, response::{IntoResponse, Response}, routing::get};
use http::StatusCode;
use parking_lot::RwLock;

type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

#[derive(Clone)]
struct Check {
    name: String,
    live: bool,
    probe: Probe,
}

/// The checks of a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct HealthChecks(Arc<RwLock<Vec<Check>>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Healthz,
    Livez,
    Readyz,
}

impl HealthChecks {
    /// Checks with the `ping` that always passes.
    pub fn new() -> Self {
        let checks = Self::default();
        checks.add_live("ping", || Ok(()));
        checks
    }

    /// Adds a check of readiness (and health).
    pub fn add(&self, name: &str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.0.write().push(Check { name: name.to_owned(), live: false, probe: Arc::new(probe) });
    }

    /// Adds a check of liveness too.
    pub fn add_live(&self, name: &str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.0.write().push(Check { name: name.to_owned(), live: true, probe: Arc::new(probe) });
    }

    /// Whether all checks pass.
    pub fn is_ready(&self) -> bool {
        self.0.read().iter().all(|c| (c.probe)().is_ok())
    }

    fn of(&self, kind: Kind) -> Vec<Check> {
        self.0.read().iter().filter(|c| kind != Kind::Livez || c.live).cloned().collect()
    }

    /// Routes of the three endpoints and of each check.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for (name, kind) in [("healthz", Kind::Healthz), ("livez", Kind::Livez), ("readyz", Kind::Readyz)] {
            let whole = get(move |State(checks): State<Self>, RawQuery(query): RawQuery| async move {
                checks.answer(name, kind, query.as_deref().unwrap_or(""))
            });
            let single = get(move |State(checks): State<Self>, Path(check): Path<String>| async move {
                checks.answer_one(name, kind, &check)
            });
            router = router
                .route(&format!("/{name}"), whole.clone())
                .route(&format!("/{name}/"), whole)
                .route(&format!("/{name}/{{*check}}"), single);
        }
        router.with_state(self.clone())
    }

    fn answer(&self, name: &str, kind: Kind, query: &str) -> Response {
        let excluded: Vec<&str> = query.split('&').filter_map(|p| p.strip_prefix("exclude=")).collect();
        let verbose = query.split('&').any(|p| p == "verbose" || p.starts_with("verbose="));
        let mut lines = String::new();
        let mut failed = Vec::new();
        for check in self.of(kind) {
            if excluded.contains(&check.name.as_str()) {
                lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
                continue;
            }
            match (check.probe)() {
                Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
                Err(reason) => {
                    tracing::debug!(check = %check.name, %reason, "health check failed");
                    lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
                    failed.push(check.name);
                }
            }
        }
        if failed.is_empty() {
            let body = if verbose { format!("{lines}{name} check passed\n") } else { "ok".to_owned() };
            return text(StatusCode::OK, body);
        }
        text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n"))
    }

    fn answer_one(&self, name: &str, kind: Kind, check: &str) -> Response {
        match self.of(kind).iter().find(|c| c.name == check).map(|c| (c.probe)()) {
            None => text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
            Some(Ok(())) => text(StatusCode::OK, "ok".into()),
            Some(Err(_)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {name} check failed\n")),
        }
    }
}

fn text(code: StatusCode, body: String) -> Response {
    let headers = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")];
    (code, headers, body).into_response()
}
