//! Deletes finished Jobs when their `ttlSecondsAfterFinished` is over.

use std::{sync::Arc, time::Duration};

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError};
use client::ApiErrorExt;
use k8s_openapi::{api::batch::v1::Job, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions, PropagationPolicy},
};
use prometheus::Histogram;
use runtime::clock::Clock;

use crate::{
    StartError,
    context::{Context, now},
    job::is_finished,
    metrics::seconds,
    table::Started,
    views::JobView,
};

const CONTROLLER: &str = "ttl-after-finished-controller";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let jobs: Informer<JobView> = context.informers.get();
    let queue = context.queue("ttl_jobs_to_delete");
    let of_jobs = queue.clone();
    jobs.on_change(move |change| {
        let job = change.object();
        if !matches!(change, Change::Deleted { .. }) && expiry(job).is_some() {
            of_jobs.add(job.key.clone());
        }
    });
    let deletion = context.metrics.job_deletion.clone();
    let reconciler = Reconciler { client, jobs: jobs.clone(), clock: Arc::clone(&context.clock), deletion };
    let workers = context.options.workers.concurrent_ttl_after_finished_syncs;
    context.drive(CONTROLLER, queue, workers, reconciler, &[&jobs]);
    Ok(Started::Running)
}

/// When a Job is to be deleted.
fn expiry(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.deletion_timestamp.is_some() || !is_finished(job) {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let mut ends = conditions.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    let at = ends.find_map(|c| c.last_transition_time.as_ref())?.0;
    Timestamp::from_second(at.as_second().saturating_add(i64::from(ttl))).ok()
}

struct Reconciler {
    client: Client,
    jobs: Informer<JobView>,
    clock: Arc<dyn Clock>,
    deletion: Histogram,
}

impl Reconciler {
    fn left(&self, job: &Job) -> Option<Duration> {
        let now = Timestamp::try_from(self.clock.now()).ok()?;
        let left = expiry(job)?.as_millisecond() - now.as_millisecond();
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(left) = self.jobs.get(key).and_then(|j| self.left(&j)) else { return Ok(Outcome::Done) };
        if !left.is_zero() {
            return Ok(Outcome::After(left));
        }
        // The cache may be old: somebody may have given it more time.
        let api: Api<Job> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(fresh) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
        match self.left(&fresh) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions { uid: fresh.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(&key.name, &params).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => {
                let late = expiry(&fresh).map_or(0.0, |due| seconds(due, now(&*self.clock).0));
                self.deletion.observe(late);
                Ok(Outcome::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn expiry_counts_from_the_end() {
        let of = |spec: Value, conditions: Value| {
            let job: Job = serde_json::from_value(json!({"spec": spec, "status": {"conditions": conditions}})).unwrap();
            expiry(&job).map(|t| t.to_string())
        };
        let ttl = json!({"template": {}, "ttlSecondsAfterFinished": 10});
        let ended =
            |kind: &str| json!([{"type": kind, "status": "True", "lastTransitionTime": "2024-01-01T00:00:00Z"}]);
        assert_eq!(of(ttl.clone(), ended("Complete")).as_deref(), Some("2024-01-01T00:00:10Z"));
        assert_eq!(of(ttl.clone(), ended("Failed")).as_deref(), Some("2024-01-01T00:00:10Z"));
        assert_eq!(of(ttl, ended("Suspended")), None);
        assert_eq!(of(json!({"template": {}}), ended("Complete")), None);
    }
}
