//! `/healthz`, `/livez`, `/readyz`: named checks, each with its own path, `?verbose` and `?exclude=`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::StatusCode;
use parking_lot::RwLock;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use crate::metrics::{self, Stability};

type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Endpoints that a check is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `/healthz`.
    pub healthz: bool,
    /// `/livez`.
    pub livez: bool,
    /// `/readyz`.
    pub readyz: bool,
}

impl Scope {
    /// All three endpoints.
    pub const ALL: Self = Self { healthz: true, livez: true, readyz: true };
    /// Readiness and health: not a reason to restart the process.
    pub const NOT_LIVE: Self = Self { healthz: true, livez: false, readyz: true };
    /// Liveness and health: no reason to take the process out of service.
    pub const NOT_READY: Self = Self { healthz: true, livez: true, readyz: false };
    /// Readiness only.
    pub const READY: Self = Self { healthz: false, livez: false, readyz: true };
    /// `/healthz` only.
    pub const HEALTHZ: Self = Self { healthz: true, livez: false, readyz: false };
}

#[derive(Clone)]
struct Check {
    name: String,
    /// Name under which several checks can be excluded at once.
    group: Option<String>,
    scope: Scope,
    probe: Probe,
    /// Until then a failure is no sign that the process is not alive.
    lives_until: Option<Instant>,
}

impl Check {
    fn run(&self, endpoint: Endpoint) -> Result<(), String> {
        let outcome = (self.probe)();
        let excused = endpoint == Endpoint::Livez && self.lives_until.is_some_and(|until| Instant::now() < until);
        if excused { Ok(()) } else { outcome }
    }
}

/// The checks of a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct HealthChecks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    checks: RwLock<Vec<Check>>,
    metrics: RwLock<Option<(IntGaugeVec, IntCounterVec)>>,
}

/// An endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/healthz`.
    Healthz,
    /// `/livez`.
    Livez,
    /// `/readyz`.
    Readyz,
}

impl Endpoint {
    /// Its path without the slash.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }

    fn covers(self, scope: Scope) -> bool {
        match self {
            Self::Healthz => scope.healthz,
            Self::Livez => scope.livez,
            Self::Readyz => scope.readyz,
        }
    }
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
        self.add_to(Scope::NOT_LIVE, name, probe);
    }

    /// Adds a check of liveness too.
    pub fn add_live(&self, name: &str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.add_to(Scope::ALL, name, probe);
    }

    /// Adds a check to the endpoints of `scope`. A check of the same name is replaced.
    pub fn add_to(&self, scope: Scope, name: &str, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.insert(Check { name: name.to_owned(), group: None, scope, probe: Arc::new(probe), lives_until: None });
    }

    /// Adds the check of a hook that runs after the start, to all endpoints. That it has not finished counts against
    /// liveness only after `grace`.
    pub fn add_hook(&self, name: &str, grace: Duration, finished: impl Fn() -> bool + Send + Sync + 'static) {
        let probe = move || if finished() { Ok(()) } else { Err("not finished".to_owned()) };
        self.insert(Check {
            name: format!("poststarthook/{name}"),
            group: None,
            scope: Scope::ALL,
            probe: Arc::new(probe),
            lives_until: Instant::now().checked_add(grace),
        });
    }

    /// Adds a check that is excluded together with others, by the name of the group.
    pub fn add_grouped(
        &self,
        scope: Scope,
        group: &str,
        name: &str,
        probe: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.insert(Check {
            name: name.to_owned(),
            group: Some(group.to_owned()),
            scope,
            probe: Arc::new(probe),
            lives_until: None,
        });
    }

    fn insert(&self, check: Check) {
        let mut checks = self.0.checks.write();
        match checks.iter_mut().find(|c| c.name == check.name) {
            Some(old) => *old = check,
            None => checks.push(check),
        }
    }

    /// Takes a check away.
    pub fn remove(&self, name: &str) {
        self.0.checks.write().retain(|c| c.name != name);
    }

    /// Registers `kubernetes_healthcheck` and `kubernetes_healthchecks_total`.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let gauge = metrics::gauge_vec(
            registry,
            Stability::Stable,
            "kubernetes_healthcheck",
            "This metric records the result of a single healthcheck.",
            &["name", "type"],
        )?;
        let counter = metrics::counter_vec(
            registry,
            Stability::Stable,
            "kubernetes_healthchecks_total",
            "This metric records the results of all healthcheck.",
            &["name", "type", "status"],
        )?;
        *self.0.metrics.write() = Some((gauge, counter));
        Ok(())
    }

    /// Forgets what the metrics of the checks have counted.
    pub fn reset_metrics(&self) {
        if let Some((gauge, counter)) = self.0.metrics.read().as_ref() {
            gauge.reset();
            counter.reset();
        }
    }

    /// Whether all checks of readiness pass.
    pub fn is_ready(&self) -> bool {
        self.of(Endpoint::Readyz).iter().all(|c| (c.probe)().is_ok())
    }

    fn of(&self, endpoint: Endpoint) -> Vec<Check> {
        self.0.checks.read().iter().filter(|c| endpoint.covers(c.scope)).cloned().collect()
    }

    /// Routes of the three endpoints and of each check.
    pub fn router(&self) -> Router {
        self.router_of(&[Endpoint::Healthz, Endpoint::Livez, Endpoint::Readyz])
    }

    /// Routes of some endpoints.
    pub fn router_of(&self, endpoints: &[Endpoint]) -> Router {
        let mut router = Router::new();
        for endpoint in endpoints.iter().copied() {
            let whole = get(move |State(checks): State<Self>, RawQuery(query): RawQuery| async move {
                checks.answer(endpoint, query.as_deref().unwrap_or(""))
            });
            let single = get(move |State(checks): State<Self>, Path(check): Path<String>| async move {
                checks.answer_one(endpoint, &check)
            });
            let name = endpoint.name();
            router = router
                .route(&format!("/{name}"), whole.clone())
                .route(&format!("/{name}/"), whole)
                .route(&format!("/{name}/{{*check}}"), single);
        }
        router.with_state(self.clone())
    }

    fn count(&self, check: &str, endpoint: Endpoint, outcome: &Result<(), String>) {
        let metrics = self.0.metrics.read();
        let Some((gauge, counter)) = metrics.as_ref() else { return };
        gauge.with_label_values(&[check, endpoint.name()]).set(i64::from(outcome.is_ok()));
        let status = if outcome.is_ok() { "success" } else { "error" };
        counter.with_label_values(&[check, endpoint.name(), status]).inc();
    }

    fn answer(&self, endpoint: Endpoint, query: &str) -> Response {
        let name = endpoint.name();
        let mut excluded: Vec<(String, bool)> = values(query, "exclude").map(|v| (v, false)).collect();
        let verbose = values(query, "verbose").next().is_some();
        let mut lines = String::new();
        let mut failed = false;
        for check in self.of(endpoint) {
            let by_name = excluded.iter_mut().find(|(n, _)| *n == check.name);
            if let Some((_, used)) = by_name {
                *used = true;
                lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
                continue;
            }
            let by_group = check.group.as_deref().and_then(|g| excluded.iter_mut().find(|(n, _)| n == g));
            if let Some((group, used)) = by_group {
                *used = true;
                lines.push_str(&format!("[+]{} excluded with {group}: ok\n", check.name));
                continue;
            }
            let outcome = check.run(endpoint);
            self.count(&check.name, endpoint, &outcome);
            match outcome {
                Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
                Err(reason) => {
                    tracing::info!(v = 2, check = %check.name, %reason, "{name} check failed");
                    lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
                    failed = true;
                }
            }
        }
        let mut unused: Vec<String> =
            excluded.iter().filter(|(_, used)| !used).map(|(n, _)| format!("{n:?}")).collect();
        unused.sort();
        unused.dedup();
        if !unused.is_empty() {
            let list = unused.join(", ");
            lines.push_str(&format!("warn: some health checks cannot be excluded: no matches for {list}\n"));
        }
        if failed {
            return text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{name} check failed\n"));
        }
        text(StatusCode::OK, if verbose { format!("{lines}{name} check passed\n") } else { "ok".to_owned() })
    }

    fn answer_one(&self, endpoint: Endpoint, check: &str) -> Response {
        match self.of(endpoint).iter().find(|c| c.name == check).map(|c| (c.probe)()) {
            None => text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
            Some(Ok(())) => text(StatusCode::OK, "ok".into()),
            Some(Err(reason)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {reason}\n")),
        }
    }
}

/// Decoded values of a query parameter.
fn values<'q>(query: &'q str, name: &'q str) -> impl Iterator<Item = String> + 'q {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then(|| percent_decoded(value))
    })
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn text(code: StatusCode, body: String) -> Response {
    let headers = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")];
    (code, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get_text(checks: &HealthChecks, path: &str) -> (u16, String) {
        use tower::ServiceExt;
        let request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        let answer = checks.router().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn texts_are_exact() {
        let checks = HealthChecks::new();
        assert_eq!(get_text(&checks, "/livez").await, (200, "ok".into()));
        checks.add("informer-sync", || Err("not finished".into()));
        checks.add_grouped(Scope::ALL, "etcd", "etcd-override-0", || Ok(()));
        let all = "[+]ping ok\n[-]informer-sync failed: reason withheld\n[+]etcd-override-0 ok\nreadyz check failed\n";
        assert_eq!(get_text(&checks, "/readyz").await, (500, all.into()));
        let fine = "[+]ping ok\n[+]informer-sync excluded: ok\n[+]etcd-override-0 excluded with etcd: ok\n\
                    warn: some health checks cannot be excluded: no matches for \"a\", \"b\"\nreadyz check passed\n";
        let path = "/readyz?verbose&exclude=b&exclude=informer-sync&exclude=etcd&exclude=a";
        assert_eq!(get_text(&checks, path).await, (200, fine.into()));
        let one = get_text(&checks, "/readyz/informer-sync").await;
        assert_eq!(one, (500, "internal server error: not finished\n".into()));
        assert_eq!(get_text(&checks, "/livez/informer-sync").await.0, 404);
    }
}
