//! The server of this process: health, metrics, debugging.

use std::time::Duration;

use axum::Router;
use client::DelegatedAuth;
use runtime::{Runtime, profiling, serving::SecureServing, zpages};

use crate::{config::Settings, options::Options, resource_metrics::ResourceMetrics, start::StartError};

/// Grace for running requests at the end.
const GRACE: Duration = Duration::from_secs(5);
/// Port unless a flag says another.
const PORT: u16 = 10259;
const PATHS: &[&str] = &["/configz", "/debug", "/healthz", "/livez", "/metrics", "/readyz"];

/// Binds the port and serves.
pub(crate) async fn start(
    options: &Options,
    runtime: &Runtime,
    settings: &Settings,
    resources: &ResourceMetrics,
) -> Result<(), StartError> {
    let args = options.serving.local_by_default(runtime);
    let serving = SecureServing::bind(&args, PORT, "kube-scheduler", &[], &[], &runtime.tasks)?;
    let Some(serving) = serving else { return Ok(()) };
    let auth = DelegatedAuth::new(&options.auth, runtime.component, runtime).await?;
    let document = settings.document();
    let stop = runtime.shutdown.clone();
    let shutdown = stop.clone();
    runtime.health.add_to(runtime::health::Scope::READY, "shutdown", move || {
        if shutdown.is_cancelled() { Err("process is shutting down".into()) } else { Ok(()) }
    });
    let router: Router = runtime
        .health
        .router()
        .merge(runtime::metrics::all_resettable_router(runtime.registry.clone(), &runtime.health))
        .merge(resources.router())
        .merge(zpages::router(runtime, PATHS))
        .merge(zpages::configz("componentconfig", move || document.clone()));
    let router = if settings.profiling() { router.merge(profiling::router(&runtime.tasks)) } else { router };
    runtime.tasks.spawn("server", serving.serve(auth.protect(router), stop, GRACE));
    Ok(())
}
