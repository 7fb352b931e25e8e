//! Health of the server: its store, its caches, its shutdown.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aggregator::Aggregation;
use generic::server::CustomEndpoints;
use parking_lot::Mutex;
use runtime::health::{HealthChecks, Scope};
use storage::contract::Store;
use tokio_util::sync::CancellationToken;

use crate::{options::Options, resources::Resources};

/// What is said of an answer that is not there in time.
const LATE: &str = "context deadline exceeded";
/// Between two looks at the store.
const EVERY: Duration = Duration::from_secs(1);

/// What the store answered last, and how long that took.
#[derive(Clone)]
pub(crate) struct StoreHealth(Arc<Mutex<(Result<(), String>, Duration)>>);

impl StoreHealth {
    /// Asks the store again and again until `stop`, and waits for `longest`. It counts as healthy until it was asked: it
    /// has just been opened.
    pub(crate) fn follow(store: &Arc<dyn Store>, longest: Duration, stop: &CancellationToken) -> Self {
        let health = Self(Arc::new(Mutex::new((Ok(()), Duration::ZERO))));
        let (told, store, stop) = (health.clone(), Arc::clone(store), stop.clone());
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let start = Instant::now();
                let answer = tokio::time::timeout(longest, store.ping()).await;
                let answer = match answer {
                    Ok(answer) => answer.map_err(|error| error.to_string()),
                    Err(_) => Err(LATE.into()),
                };
                *told.0.lock() = (answer, start.elapsed());
                tokio::time::sleep(EVERY).await;
            }
        }));
        health
    }

    /// Passes if the last answer was good, and came within `deadline`.
    fn check(&self, deadline: Duration) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let health = self.clone();
        move || match &*health.0.lock() {
            (Ok(()), took) if *took > deadline => Err(LATE.into()),
            (answer, _) => answer.clone(),
        }
    }
}

/// Adds the checks of the stores of single resources.
pub(crate) fn add_overrides(
    health: &HealthChecks,
    stores: &[Arc<dyn Store>],
    options: &Options,
    stop: &CancellationToken,
) {
    let (alive, ready) = (options.storage.etcd_healthcheck_timeout, options.storage.etcd_readycheck_timeout);
    for (n, store) in stores.iter().enumerate() {
        let followed = StoreHealth::follow(store, alive.max(ready), stop);
        health.add_grouped(Scope::ALL, "etcd", &format!("etcd-override-{n}"), followed.check(alive));
        let name = format!("etcd-override-readiness-{n}");
        health.add_grouped(Scope::READY, "etcd-readiness", &name, followed.check(ready));
    }
}

/// Adds the checks of aggregation.
pub(crate) fn add_aggregation(health: &HealthChecks, aggregation: &Aggregation, grace: Duration) {
    let registered = aggregation.registered();
    health.add_to(Scope::ALL, "autoregister-completion", move || match registered() {
        true => Ok(()),
        false => Err("missing APIService".into()),
    });
    health.add_hook("kube-apiserver-autoregistration", grace, aggregation.registered());
    health.add_hook("apiservice-status-local-available-controller", grace, aggregation.registered());
    for hook in [
        "apiservice-registration-controller",
        "apiservice-wait-for-first-sync",
        "apiservice-status-remote-available-controller",
    ] {
        health.add_hook(hook, grace, aggregation.followed());
    }
}

/// Adds the check of custom resources: those defined at the start are served. That they are not yet is no sign of a
/// dead server before `grace`.
pub(crate) fn add_definitions(health: &HealthChecks, endpoints: &Arc<CustomEndpoints>, grace: Duration) {
    let endpoints = Arc::clone(endpoints);
    health.add_hook("crd-informer-synced", grace, move || endpoints.is_complete());
}

/// What has been done, or runs, before anything is served, by the names that upstream has for it.
const DONE_BEFORE: [&str; 22] = [
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "start-system-namespaces-controller",
    "start-cluster-authentication-info-controller",
    "start-kube-apiserver-identity-lease-controller",
    "start-kube-apiserver-identity-lease-garbage-collector",
    "start-legacy-token-tracking-controller",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "start-kube-aggregator-informers",
    "apiservice-discovery-controller",
    "aggregator-reload-proxy-client-cert",
    "apiservice-openapi-controller",
    "apiservice-openapiv3-controller",
    "storage-object-count-tracker-hook",
    "peer-endpoint-reconciler-controller",
];

/// Adds the checks of `/healthz`, `/livez` and `/readyz`, in upstream's order.
pub(crate) fn add_checks(
    health: &HealthChecks,
    resources: &Arc<Resources>,
    store: &StoreHealth,
    options: &Options,
    stop: &CancellationToken,
) {
    health.add_to(Scope::ALL, "log", || Ok(()));
    health.add_to(Scope::ALL, "etcd", store.check(options.storage.etcd_healthcheck_timeout));
    health.add_to(Scope::READY, "etcd-readiness", store.check(options.storage.etcd_readycheck_timeout));
    let caches = Arc::clone(resources);
    health.add_to(Scope::READY, "informer-sync", move || match caches.ready() {
        true => Ok(()),
        false => Err("watch caches are not filled".into()),
    });
    let stored = Arc::clone(resources);
    health.add_hook("storage-readiness", Duration::ZERO, move || stored.ready());
    for hook in DONE_BEFORE {
        health.add_hook(hook, Duration::ZERO, || true);
    }
    if options.enable_priority_and_fairness {
        health.add_to(Scope::ALL, "poststarthook/priority-and-fairness-config-consumer", || Ok(()));
        health.add_to(Scope::ALL, "poststarthook/priority-and-fairness-filter", || Ok(()));
    }
    let stop = stop.clone();
    health.add_to(Scope::READY, "shutdown", move || match stop.is_cancelled() {
        true => Err("process is shutting down".into()),
        false => Ok(()),
    });
}
