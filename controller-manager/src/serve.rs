//! The secure port: health for everybody, the rest for those who may.

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::get};
use runtime::{Runtime, health::Endpoint, metrics, serving::SecureServing, zpages};

use crate::{COMPONENT, StartError, options::Options};

/// Default of `--secure-port`.
const PORT: u16 = 10257;
/// Grace for running requests at the end.
const GRACE: Duration = Duration::from_secs(2);
/// Served paths, for `/statusz`.
const PATHS: &[&str] = &["/healthz", "/metrics", "/configz", "/statusz", "/flagz", "/version"];

/// Binds the port and serves it until the process stops.
pub(crate) fn start(options: &Arc<Options>, runtime: &Runtime) -> Result<(), StartError> {
    let tasks = &runtime.tasks;
    let Some(serving) = SecureServing::bind(&options.serving, PORT, COMPONENT, &[], &[], tasks)? else {
        return Ok(());
    };
    let health = runtime.health.router_of(&[Endpoint::Healthz]);
    let router = health;
    let stop = tasks.token().clone();
    tasks.spawn("secure server", serving.serve(router, stop, GRACE));
    Ok(())
}

/// What only authorized users see.
#[allow(dead_code)]
fn restricted(options: &Arc<Options>, runtime: &Runtime) -> Router {
    let config = Arc::clone(options);
    let mut router = metrics::router(runtime.registry.clone())
        .merge(zpages::router(runtime, PATHS))
        .merge(zpages::configz("kubecontrollermanager.config.k8s.io", move || config.document()));
    if options.profiling.profiling {
        let tasks = runtime.tasks.clone();
        let index = || async { "profiles:\ngoroutine\n" };
        let dump = move || async move { tasks.running().join("\n") };
        router = router.route("/debug/pprof/", get(index)).route("/debug/pprof/goroutine", get(dump));
    }
    router
}
