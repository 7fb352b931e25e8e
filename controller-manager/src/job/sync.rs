//! One reconciliation of a Job.

use std::{collections::BTreeSet, sync::Arc};

use ::controller::{
    EventRecorder, EventType, ObjectKey, Outcome, Reconcile, ReconcileError, events::reference_to, slow_start,
};
use client::CallError;
use futures::future::join_all;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, ResourceExt, api::PostParams};
use runtime::clock::Clock;

use super::{
    Shared, account, is_foreign,
    plan::{self, Ending, Streak, World},
    pods::{self, JobPod, TRACKING},
};
use crate::{
    children::{self, Candidate, Claimer, PodControl, PodError},
    context,
    metrics::JobMetrics,
    views,
};

const PODS: &str = "pods";
const JOBS: &str = "jobs";

pub(super) struct Reconciler {
    pub(super) shared: Arc<Shared>,
    pub(super) control: PodControl,
    pub(super) recorder: EventRecorder,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: JobMetrics,
}

/// Pods after the step was taken.
#[derive(Clone, Copy)]
struct Left {
    active: usize,
    ready: usize,
    terminating: usize,
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.shared;
        let Some(job) = shared.jobs.get(key) else {
            shared.forget(key);
            return Ok(Outcome::Done);
        };
        if is_foreign(&job) || plan::is_finished(&job) {
            shared.forget(key);
            return Ok(Outcome::Done);
        }
        let mode = job.spec.as_ref().and_then(|s| s.completion_mode.as_deref()).unwrap_or("NonIndexed");
        if !matches!(mode, "NonIndexed" | "Indexed") {
            let text = format!("Skipped Job sync because completion mode is unknown: {mode}");
            self.recorder.event(&reference_to(&job.view.0), EventType::Warning, "UnknownCompletionMode", text);
            return Ok(Outcome::Done);
        }
        let seen = |resource: &str| match resource {
            PODS => shared.pods.last_revision(),
            _ => shared.jobs.last_revision(),
        };
        if !shared.own.lagging(key, seen).is_empty() {
            return Ok(context::LAG);
        }
        let allowed = shared.expectations.satisfied(key);
        let pods = self.claim(key, &job.view.0).await?;
        let (began, mut action) = (self.clock.elapsed(), "reconciling");
        let outcome = self.sync(key, &job.view.0, &pods, allowed, &mut action).await;
        let labels = [action, mode, if outcome.is_ok() { "success" } else { "error" }];
        self.metrics.syncs.with_label_values(&labels).inc();
        let took = self.clock.elapsed().saturating_sub(began).as_secs_f64();
        self.metrics.durations.with_label_values(&labels).observe(took);
        outcome
    }
}

impl Reconciler {
    async fn claim(&self, key: &ObjectKey, job: &Job) -> Result<Vec<JobPod>, ReconcileError> {
        let Some(selector) = job.spec.as_ref().and_then(|s| s.selector.as_ref()) else { return Ok(Vec::new()) };
        let selector = children::selector_of(selector)?;
        let claimer = Claimer::new(&self.shared.client, job, &[TRACKING]);
        let own = self.shared.pods.by_index(views::BY_CONTROLLER, &job.uid().unwrap_or_default());
        let orphans = self.shared.pods.by_index(views::BY_CONTROLLER, &views::orphans_of(&key.namespace));
        let mut claimed = Vec::new();
        for pod in own.into_iter().chain(orphans) {
            let candidate = Candidate {
                name: &pod.key.name,
                uid: &pod.uid,
                controller: pod.controller().map(|o| o.uid.as_str()),
                deleting: pod.deletion.is_some(),
                matches: children::matches(&selector, &pod.labels),
            };
            if claimer.claim::<Pod>(&candidate).await? {
                claimed.push(pod);
            }
        }
        Ok(claimed)
    }

    async fn sync(
        &self,
        key: &ObjectKey,
        job: &Job,
        pods: &[JobPod],
        allowed: bool,
        action: &mut &'static str,
    ) -> Result<Outcome, ReconcileError> {
        let now = context::now(self.clock.as_ref());
        let before = self.shared.streaks.lock().get(key).copied().unwrap_or_default();
        let mut world = World::new(job, pods, now.0, before);
        if world.status.start_time.is_none() && !world.is_suspended() {
            world.status.start_time = Some(now.clone());
        }
        let active = world.active();
        let mut left = Left {
            active: active.len(),
            ready: active.iter().filter(|p| p.is_ready()).count(),
            terminating: world.terminating(),
        };
        drop(active);
        let mut ending = world.ending();
        let (mut acted, mut again) = (Ok(()), None);
        let mut status = world.status.clone();
        if ending.is_some() {
            *action = if left.active > 0 { "pods_deleted" } else { "tracking" };
            acted = self.delete_active(key, job, &world, &mut left).await;
        } else if allowed && job.metadata.deletion_timestamp.is_none() {
            let step = world.step();
            again = step.again;
            *action = match (step.delete.is_empty(), step.create.is_empty()) {
                (false, _) => "pods_deleted",
                (true, false) => "pods_created",
                _ => "reconciling",
            };
            acted = self.carry_out(key, job, step, &mut left).await;
            ending = world.complete(left.active);
            if let Some(ending) = &ending {
                self.complain(job, &world, ending, left.active);
            } else {
                self.suspend(job, &world, &mut status, &now);
            }
        }
        self.count(key, &world, ending.as_ref(), status, left, &now).await?;
        acted?;
        Ok(again.map_or(Outcome::Done, Outcome::After))
    }

    fn complain(&self, job: &Job, world: &World<'_>, _ending: &Ending, active: usize) {
        let Some(wanted) = world.spec.completions else { return };
        let about = reference_to(job);
        if active > 0 {
            let text = "Too many active pods running after completion count reached";
            self.recorder.event(&about, EventType::Warning, "TooManyActivePods", text);
        }
        if world.succeeded() > wanted {
            let text = "Too many succeeded pods running after completion count reached";
            self.recorder.event(&about, EventType::Warning, "TooManySucceededPods", text);
        }
    }

    /// Follows `spec.suspend`.
    fn suspend(&self, job: &Job, world: &World<'_>, status: &mut JobStatus, now: &Time) {
        let about = reference_to(job);
        let was = plan::condition(status, "Suspended").is_some();
        match (world.is_suspended(), was) {
            (true, false) => {
                account::set(status, "Suspended", true, "JobSuspended", "Job suspended", now);
                status.start_time = None;
                self.recorder.event(&about, EventType::Normal, "Suspended", "Job suspended");
            }
            (false, true) => {
                account::set(status, "Suspended", false, "JobResumed", "Job resumed", now);
                status.start_time = Some(now.clone());
                self.recorder.event(&about, EventType::Normal, "Resumed", "Job resumed");
            }
            _ => {}
        }
    }

    /// Deletes what runs when the Job ends early.
    async fn delete_active(
        &self,
        key: &ObjectKey,
        job: &Job,
        world: &World<'_>,
        left: &mut Left,
    ) -> Result<(), ReconcileError> {
        let parent = reference_to(job);
        let parent = &parent;
        let active: Vec<JobPod> = world.active().into_iter().cloned().collect();
        let deletions = active.iter().map(|pod| async move {
            match self.control.delete(&key.namespace, &pod.key.name, parent).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        });
        let outcomes = join_all(deletions).await;
        let gone = outcomes.iter().filter(|o| o.is_ok()).count();
        left.active -= gone;
        left.terminating += gone;
        left.ready = left.ready.min(left.active);
        outcomes.into_iter().collect::<Result<(), PodError>>().map_err(Into::into)
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        job: &Job,
        step: plan::Step,
        left: &mut Left,
    ) -> Result<(), ReconcileError> {
        if !step.delete.is_empty() {
            return self.delete(key, job, &step.delete, left).await;
        }
        if step.create.is_empty() {
            return Ok(());
        }
        let owner = children::owner_reference(job);
        let parent = reference_to(job);
        let expectations = &self.shared.expectations;
        expectations.expect_creations(key, step.create.len());
        let (owner, parent, create) = (&owner, &parent, &step.create);
        let done = slow_start(create.len(), 1, |at| async move {
            let plan::Creation { index, before } = create[at];
            let template = pods::template_for(job, index, before);
            let made = children::pod_of(&template, &pods::prefix(&key.name, index), owner);
            let outcome = match made {
                Ok(pod) => self.control.create(&key.namespace, &pod, parent).await,
                Err(error) => Err(error.into()),
            };
            match outcome {
                Ok(created) => {
                    self.shared.own.wrote(key, PODS, &created.resource_version().unwrap_or_default());
                    Ok(())
                }
                Err(error) => {
                    expectations.creation_observed(key);
                    if error.is_namespace_terminating() { Ok(()) } else { Err(error) }
                }
            }
        })
        .await;
        for _ in 0..done.skipped {
            expectations.creation_observed(key);
        }
        left.active += done.succeeded;
        done.error.map_or(Ok(()), |e| Err(e.into()))
    }

    /// Deletes surplus Pods, which are not to be counted.
    async fn delete(
        &self,
        key: &ObjectKey,
        job: &Job,
        surplus: &[JobPod],
        left: &mut Left,
    ) -> Result<(), ReconcileError> {
        let parent = reference_to(job);
        let expectations = &self.shared.expectations;
        expectations.expect_deletions(key, surplus.iter().map(|p| p.uid.clone()));
        let parent = &parent;
        let deletions = surplus.iter().map(|pod| async move {
            let outcome: Result<(), ReconcileError> = async {
                self.shared.untrack(pod).await?;
                match self.control.delete(&key.namespace, &pod.key.name, parent).await {
                    Err(error) if !error.is_not_found() => Err(error.into()),
                    _ => Ok(()),
                }
            }
            .await;
            if outcome.is_err() {
                expectations.deletion_observed(key, &pod.uid);
            }
            outcome
        });
        let outcomes = join_all(deletions).await;
        let gone = outcomes.iter().filter(|o| o.is_ok()).count();
        left.active -= gone;
        left.terminating += gone;
        left.ready = left.ready.min(left.active);
        outcomes.into_iter().collect()
    }

    /// Counts what ended: notes it, releases it, then makes it a number, and ends the Job if that was all.
    async fn count(
        &self,
        key: &ObjectKey,
        world: &World<'_>,
        ending: Option<&Ending>,
        mut status: JobStatus,
        left: Left,
        now: &Time,
    ) -> Result<(), ReconcileError> {
        let number = |n: usize| Some(i32::try_from(n).unwrap_or(i32::MAX));
        status.active = number(left.active);
        status.ready = number(left.ready);
        status.terminating = number(left.terminating);
        let mut done = account::account(world, ending, status);
        if let Some(ending) = ending {
            account::announce(&mut done.status, ending, now);
        }
        let mut job = world.job.clone();
        self.write(key, &mut job, &done.status).await?;
        self.remember(key, world.streak);
        let releases = done.release.iter().map(|pod| self.release(key, pod));
        let outcomes: Vec<Result<&str, CallError>> = join_all(releases).await;
        let released: BTreeSet<&str> = outcomes.iter().filter_map(|o| o.as_ref().ok().copied()).collect();
        account::settle(&mut done.status, |uid| released.contains(uid));
        let ended = match ending {
            Some(ending) if !done.more => account::finish(&mut done.status, ending, now).then_some(ending),
            _ => None,
        };
        self.write(key, &mut job, &done.status).await?;
        self.measure(world, &done.status, ended);
        if let Some(ending) = ended {
            self.tell_end(&job, ending);
        }
        if let Some(error) = outcomes.into_iter().find_map(Result::err) {
            return Err(error.into());
        }
        if done.more {
            self.shared.queue.add(key.clone());
        }
        Ok(())
    }

    /// Counts Pods and Jobs that ended.
    fn measure(&self, world: &World<'_>, status: &JobStatus, ended: Option<&Ending>) {
        let mode = world.spec.completion_mode.as_deref().unwrap_or("NonIndexed");
        let before = world.job.status.as_ref();
        let more = |now: Option<i32>, before: Option<i32>| {
            u64::try_from(now.unwrap_or(0).saturating_sub(before.unwrap_or(0))).unwrap_or(0)
        };
        let succeeded = more(status.succeeded, before.and_then(|s| s.succeeded));
        let failed = more(status.failed, before.and_then(|s| s.failed));
        self.metrics.finished_pods.with_label_values(&[mode, "succeeded"]).inc_by(succeeded);
        self.metrics.finished_pods.with_label_values(&[mode, "failed"]).inc_by(failed);
        if let Some(ending) = ended {
            let result = if ending.success { "succeeded" } else { "failed" };
            // Successes have no reason of their own, but by policy.
            let reason = if ending.success && ending.reason != "SuccessPolicy" { "" } else { ending.reason.as_str() };
            self.metrics.finished.with_label_values(&[mode, result, reason]).inc();
        }
    }

    fn remember(&self, key: &ObjectKey, streak: Streak) {
        let mut streaks = self.shared.streaks.lock();
        if streak == Streak::default() {
            streaks.remove(key);
        } else {
            streaks.insert(key.clone(), streak);
        }
    }

    fn tell_end(&self, job: &Job, ending: &Ending) {
        let about = reference_to(job);
        if ending.success {
            self.recorder.event(&about, EventType::Normal, "Completed", "Job completed");
        } else {
            self.recorder.event(&about, EventType::Warning, &ending.reason, ending.message.clone());
        }
    }

    async fn release<'p>(&self, key: &ObjectKey, pod: &'p JobPod) -> Result<&'p str, CallError> {
        if let Some(written) = self.shared.untrack(pod).await? {
            self.shared.own.wrote(key, PODS, &written.resource_version().unwrap_or_default());
        }
        Ok(&pod.uid)
    }

    /// Writes the status if it differs; `job` becomes what the server made of it.
    async fn write(&self, key: &ObjectKey, job: &mut Job, status: &JobStatus) -> Result<(), ReconcileError> {
        if job.status.as_ref() == Some(status) {
            return Ok(());
        }
        job.status = Some(status.clone());
        let api: Api<Job> = Api::namespaced(self.shared.client.clone(), &key.namespace);
        let written = api.replace_status(&key.name, &PostParams::default(), job).await;
        let written = written.map_err(|e| CallError::new(format!("update status of Job {key}"), e))?;
        self.shared.own.wrote(key, JOBS, &written.resource_version().unwrap_or_default());
        *job = written;
        Ok(())
    }
}
