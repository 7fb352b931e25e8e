//! Health of the server: its store, its caches, its shutdown.

use std::{sync::Arc, time::Duration};

use generic::server::CustomEndpoints;
use parking_lot::Mutex;
use runtime::health::{HealthChecks, Scope};
use storage::contract::Store;
use tokio_util::sync::CancellationToken;

use crate::resources::Resources;

/// Between two looks at the store.
const EVERY: Duration = Duration::from_secs(1);

/// What the store answered last.
#[derive(Clone)]
pub(crate) struct StoreHealth(Arc<Mutex<Result<(), String>>>);

impl StoreHealth {
    /// Asks the store again and again until `stop`; it has `deadline` to answer. It counts as healthy until it was
    /// asked: it has just been opened.
    pub(crate) fn follow(store: &Arc<dyn Store>, deadline: Duration, stop: &CancellationToken) -> Self {
        let health = Self(Arc::new(Mutex::new(Ok(()))));
        let (told, store, stop) = (health.clone(), Arc::clone(store), stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let answer = tokio::time::timeout(deadline, store.ping()).await;
                *told.0.lock() = match answer {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(_) => Err("context deadline exceeded".into()),
                };
                tokio::time::sleep(EVERY).await;
            }
        }));
        health
    }

    fn check(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let health = self.clone();
        move || health.0.lock().clone()
    }
}

/// How the store is doing, for each of the checks.
pub(crate) struct StoreChecks {
    /// For `etcd`.
    pub(crate) health: StoreHealth,
    /// For `etcd-readiness`.
    pub(crate) readiness: StoreHealth,
}

/// Adds the check of custom resources: those defined at the start are served.
pub(crate) fn add_definitions(health: &HealthChecks, endpoints: &Arc<CustomEndpoints>) {
    let endpoints = Arc::clone(endpoints);
    health.add_to(Scope::READY, "poststarthook/crd-informer-synced", move || match endpoints.is_complete() {
        true => Ok(()),
        false => Err("custom resources are not served yet".into()),
    });
}

/// Adds the checks of `/healthz`, `/livez` and `/readyz`, in upstream's order.
pub(crate) fn add_checks(
    health: &HealthChecks,
    resources: &Arc<Resources>,
    store: &StoreChecks,
    stop: &CancellationToken,
) {
    health.add_to(Scope::ALL, "log", || Ok(()));
    health.add_to(Scope::ALL, "etcd", store.health.check());
    health.add_to(Scope::READY, "etcd-readiness", store.readiness.check());
    let caches = Arc::clone(resources);
    health.add_to(Scope::READY, "informer-sync", move || match caches.ready() {
        true => Ok(()),
        false => Err("watch caches are not filled".into()),
    });
    health.add_to(Scope::ALL, "poststarthook/rbac/bootstrap-roles", || Ok(()));
    let stop = stop.clone();
    health.add_to(Scope::READY, "shutdown", move || match stop.is_cancelled() {
        true => Err("process is shutting down".into()),
        false => Ok(()),
    });
}
