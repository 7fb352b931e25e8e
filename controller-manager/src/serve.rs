//! The secure port: health for everybody, the rest for those who may.

use std::{sync::Arc, time::Duration};

use axum::Router;
use client::DelegatedAuth;
use runtime::{Runtime, health::Endpoint, metrics, profiling, serving::SecureServing, zpages};

use crate::{COMPONENT, StartError, options::Options};

/// Default of `--secure-port`.
const PORT: u16 = 10257;
/// Grace for running requests at the end.
const GRACE: Duration = Duration::from_secs(2);
/// Served paths, for `/statusz`.
const PATHS: &[&str] = &["/configz", "/debug", "/healthz", "/metrics"];

/// Binds the port and serves it until the process stops.
pub(crate) async fn start(options: &Arc<Options>, runtime: &Runtime) -> Result<(), StartError> {
    let tasks = &runtime.tasks;
    let args = options.serving.local_by_default(runtime);
    let Some(serving) = SecureServing::bind(&args, PORT, COMPONENT, &[], &[], tasks)? else {
        return Ok(());
    };
    let auth = DelegatedAuth::new(&options.auth, COMPONENT, runtime).await?;
    let config = Arc::clone(options);
    let mut router: Router = runtime
        .health
        .router_of(&[Endpoint::Healthz])
        .merge(metrics::resettable_router(runtime.registry.clone(), &runtime.health))
        .merge(zpages::router(runtime, PATHS))
        .merge(zpages::configz("kubecontrollermanager.config.k8s.io", move || config.document()));
    if options.profiling.profiling {
        router = router.merge(profiling::router(tasks));
    }
    tasks.spawn("secure server", serving.serve(auth.protect(router), runtime.shutdown.clone(), GRACE));
    Ok(())
}
