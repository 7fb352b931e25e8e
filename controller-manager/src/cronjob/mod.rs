//! CronJobs: Jobs at set times.

mod plan;
mod sync;

use std::sync::Arc;

use ::controller::{Cached, Change, Informer, ObjectKey, Queue, Whole, claim::controller_of};
use k8s_openapi::api::batch::v1::CronJob;

use crate::{StartError, context::Context, table::Started, views::JobView};

const CONTROLLER: &str = "cronjob-controller";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let crons: Informer<Whole<CronJob>> = context.informers.get();
    let jobs: Informer<JobView> = context.informers.get();
    let queue: Queue<ObjectKey> = context.queue("cronjob");
    let of_crons = queue.clone();
    crons.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            of_crons.add(change.object().key.clone());
        }
    });
    let of_jobs = queue.clone();
    jobs.on_change(move |change| {
        let wake = |job: &Cached<JobView>| {
            let owner = controller_of(job.metadata.owner_references.as_deref()).filter(|o| o.kind == "CronJob");
            if let Some(owner) = owner {
                of_jobs.add(ObjectKey::new(job.key.namespace.clone(), owner.name.clone()));
            }
        };
        if let Change::Updated { old, .. } = change {
            wake(old);
        }
        wake(change.object());
    });
    let reconciler = sync::Reconciler {
        recorder: context.recorder(&client, CONTROLLER),
        client,
        crons: crons.clone(),
        jobs: jobs.clone(),
        own: ::controller::OwnWrites::default(),
        clock: Arc::clone(&context.clock),
        skew: context.metrics.cronjob_skew.clone(),
    };
    let workers = context.options.workers.concurrent_cron_job_syncs;
    context.drive(CONTROLLER, queue, workers, reconciler, &[&crons, &jobs]);
    Ok(Started::Running)
}
