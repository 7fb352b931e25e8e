//! HorizontalPodAutoscalers: as many replicas as metrics ask for.
//!
//! ```text
//!  metrics API --> [calculator] replicas by each metric --> the most --> [recommendation] over time --> scale
//! ```
//! An autoscaler is looked at every sync period, whatever changes: usage has no watch.

mod calculator;
mod evaluate;
mod metrics;
pub(crate) mod options;
mod recommendation;
mod report;
mod status;
mod sync;

use std::{collections::HashMap, sync::Arc};

use ::controller::{Change, Informer, Whole};
use client::Discovery;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use parking_lot::Mutex;

use crate::{StartError, context::Context, table::Started, views::PodView};
use metrics::MetricsApi;
use report::Report;

const CONTROLLER: &str = "horizontal-pod-autoscaler-controller";
/// Source of events.
const COMPONENT: &str = "horizontal-pod-autoscaler";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let (autoscalers, pods): (Informer<Whole<HorizontalPodAutoscaler>>, Informer<PodView>) =
        (context.informers.get(), context.informers.get());
    let queue = context.queue("horizontalpodautoscaler");
    let discovery = Arc::new(Discovery::new(client.clone()));
    let reconciler = Arc::new(sync::Reconciler {
        recorder: context.recorder(&client, COMPONENT),
        metrics: MetricsApi::new(client.clone(), Arc::clone(&discovery)),
        client,
        discovery,
        autoscalers: autoscalers.clone(),
        pods: pods.clone(),
        clock: Arc::clone(&context.clock),
        options: context.options.autoscaler.clone(),
        memory: Mutex::new(HashMap::new()),
        report: Report::new(&context.registry)?,
    });
    let (keys, memory) = (queue.clone(), Arc::clone(&reconciler));
    autoscalers.on_change(move |change| match change {
        Change::Deleted { old } => memory.forget(&old.key),
        Change::Added { new, .. } => keys.add(new.key.clone()),
        // Its own writes of the status must not make it look again at once.
        Change::Updated { old, new } if old.spec != new.spec || old.uid != new.uid => keys.add(new.key.clone()),
        Change::Updated { .. } => {}
    });
    let workers = context.options.autoscaler.concurrent_horizontal_pod_autoscaler_syncs;
    context.drive(CONTROLLER, queue, workers, sync::Shell(reconciler), &[&autoscalers, &pods]);
    Ok(Started::Running)
}
