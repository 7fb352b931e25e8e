//! One reconciliation of a CronJob.

use std::{sync::Arc, time::Duration};

use ::controller::{
    Cached, EventRecorder, EventType, Informer, ObjectKey, Outcome, OwnWrites, Reconcile, ReconcileError, Whole,
    events::reference_to,
};
use client::{ApiErrorExt, CallError};
use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::{
        batch::v1::{CronJob, CronJobStatus, Job},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use prometheus::Histogram;
use runtime::clock::Clock;
use semantics::cron::Schedule;

use super::plan;
use crate::{
    context, metrics,
    views::{self, JobView},
};

pub(super) struct Reconciler {
    pub(super) client: Client,
    pub(super) recorder: EventRecorder,
    pub(super) crons: Informer<Whole<CronJob>>,
    pub(super) jobs: Informer<JobView>,
    pub(super) own: OwnWrites<ObjectKey>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) skew: Histogram,
}

type Jobs = Vec<Arc<Cached<JobView>>>;

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(cron) = self.crons.get(key) else {
            self.own.forget(key);
            return Ok(Outcome::Done);
        };
        let seen =
            |resource: &str| if resource == "jobs" { self.jobs.last_revision() } else { self.crons.last_revision() };
        if !self.own.lagging(key, seen).is_empty() {
            return Ok(context::LAG);
        }
        let jobs = self.jobs.by_index(views::BY_CONTROLLER, &cron.uid);
        let mut status = cron.status.clone().unwrap_or_default();
        let again = self.sync(key, &cron.view.0, &jobs, &mut status).await;
        let cleaned = self.clean(key, &cron.view.0, &jobs, &mut status).await;
        if status.active.as_ref().is_some_and(Vec::is_empty) {
            status.active = None;
        }
        if cron.status.clone().unwrap_or_default() != status {
            self.write(key, &cron.view.0, status).await?;
        }
        cleaned?;
        Ok(again?.map_or(Outcome::Done, Outcome::After))
    }
}

fn reference(job: &Job) -> ObjectReference {
    ObjectReference { namespace: job.namespace(), resource_version: job.resource_version(), ..reference_to(job) }
}

fn is_active(status: &CronJobStatus, uid: &str) -> bool {
    status.active.iter().flatten().any(|a| a.uid.as_deref() == Some(uid))
}

fn forget(status: &mut CronJobStatus, uid: &str) {
    if let Some(active) = &mut status.active {
        active.retain(|a| a.uid.as_deref() != Some(uid));
    }
}

impl Reconciler {
    fn api(&self, key: &ObjectKey) -> Api<Job> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    /// Follows the Jobs there are and starts the one that is due.
    async fn sync(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        jobs: &Jobs,
        status: &mut CronJobStatus,
    ) -> Result<Option<Duration>, ReconcileError> {
        self.follow(key, cron, jobs, status).await?;
        let spec = cron.spec.clone();
        let about = reference_to(cron);
        if cron.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let zone = match zone(spec.time_zone.as_deref()) {
            Ok(zone) => zone,
            Err(text) => {
                self.recorder.event(&about, EventType::Warning, "UnknownTimeZone", text);
                return Ok(None);
            }
        };
        if spec.suspend == Some(true) {
            return Ok(None);
        }
        let schedule = match Schedule::parse(&spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let text = format!("unparseable schedule: {} : {error}", spec.schedule);
                self.recorder.event(&about, EventType::Warning, "UnparseableSchedule", text);
                return Ok(None);
            }
        };
        let now = Timestamp::try_from(self.clock.now())?;
        let again = plan::until_next(&schedule, &zone, now);
        let due = match plan::due(cron, &schedule, &zone, now) {
            Ok(due) => due,
            Err(error) => {
                let text = format!("invalid schedule: {} : {error}", spec.schedule);
                self.recorder.event(&about, EventType::Warning, "InvalidSchedule", text);
                return Ok(None);
            }
        };
        if due.too_many {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.recorder.event(&about, EventType::Warning, "TooManyMissedTimes", text);
        }
        let Some(at) = due.at else { return Ok(again) };
        if plan::is_late(cron, at, now) {
            let when = at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string();
            let text = format!("Missed scheduled time to start a job: {when}");
            self.recorder.event(&about, EventType::Warning, "MissSchedule", text);
            return Ok(again);
        }
        let name = plan::job_name(&key.name, at);
        let started = status.active.iter().flatten().any(|a| a.name.as_deref() == Some(&name))
            || status.last_schedule_time.as_ref().is_some_and(|t| t.0 == at);
        if started {
            return Ok(again);
        }
        let busy = status.active.as_ref().is_some_and(|a| !a.is_empty());
        match spec.concurrency_policy.as_deref() {
            Some("Forbid") if busy => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.recorder.event(&about, EventType::Normal, "JobAlreadyActive", text);
                return Ok(again);
            }
            Some("Replace") => {
                for active in status.active.clone().into_iter().flatten() {
                    let (name, uid) = (active.name.unwrap_or_default(), active.uid.unwrap_or_default());
                    self.delete(key, &about, &name).await?;
                    forget(status, &uid);
                }
            }
            _ => {}
        }
        if let Some(job) = self.create(key, cron, &plan::job(cron, at, &zone)).await? {
            let created = job.metadata.creation_timestamp.as_ref().map_or(at, |t| t.0);
            self.skew.observe(metrics::seconds(at, created));
            if !is_active(status, &job.uid().unwrap_or_default()) {
                status.active.get_or_insert_default().push(reference(&job));
            }
            status.last_schedule_time = Some(Time(at));
        }
        Ok(again)
    }

    /// Brings the list of active Jobs up to date.
    async fn follow(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        jobs: &Jobs,
        status: &mut CronJobStatus,
    ) -> Result<(), ReconcileError> {
        let about = reference_to(cron);
        for job in jobs {
            let known = is_active(status, &job.uid);
            match plan::ended(job) {
                None if !known => {
                    let text = format!("Saw a job that the controller did not create or forgot: {}", job.key.name);
                    self.recorder.event(&about, EventType::Warning, "UnexpectedJob", text);
                }
                None => {}
                Some(end) => {
                    if known {
                        forget(status, &job.uid);
                        let text = format!("Saw completed job: {}, condition: {end}", job.key.name);
                        self.recorder.event(&about, EventType::Normal, "SawCompletedJob", text);
                    }
                    let done =
                        job.status.as_ref().and_then(|s| s.completion_time.clone()).filter(|_| end == "Complete");
                    if done > status.last_successful_time {
                        status.last_successful_time = done;
                    }
                }
            }
        }
        for active in status.active.clone().into_iter().flatten() {
            let (name, uid) = (active.name.unwrap_or_default(), active.uid.unwrap_or_default());
            if jobs.iter().any(|j| j.uid == uid) {
                continue;
            }
            // The cache may be late.
            let found = self.api(key).get_opt(&name).await?;
            if found.is_none_or(|j| j.uid().as_deref() != Some(&uid)) {
                let text = format!("Active job went missing: {name}");
                self.recorder.event(&about, EventType::Normal, "MissingJob", text);
                forget(status, &uid);
            }
        }
        Ok(())
    }

    /// Creates the Job of a run; `None` if there is none of ours in the end.
    async fn create(&self, key: &ObjectKey, cron: &CronJob, job: &Job) -> Result<Option<Job>, ReconcileError> {
        let name = job.name_any();
        let about = reference_to(cron);
        match self.api(key).create(&PostParams::default(), job).await {
            Ok(created) => {
                self.own.wrote(key, "jobs", &created.resource_version().unwrap_or_default());
                self.recorder.event(&about, EventType::Normal, "SuccessfulCreate", format!("Created job {name}"));
                Ok(Some(created))
            }
            Err(error) if error.is_namespace_terminating() => Ok(None),
            Err(error) if error.is_already_exists() => {
                // It may have been created by an attempt whose status was never written.
                let present = self.api(key).get(&name).await?;
                let owner = ::controller::claim::controller_of(present.metadata.owner_references.as_deref());
                let ours = owner.is_some_and(|o| Some(&o.uid) == cron.metadata.uid.as_ref());
                Ok(Some(present).filter(|p| ours && plan::ended(p).is_none()))
            }
            Err(error) => {
                let text = format!("Error creating job: {}", error.text());
                self.recorder.event(&about, EventType::Warning, "FailedCreate", text);
                Err(CallError::new(format!("create Job {name}"), error).into())
            }
        }
    }

    async fn delete(&self, key: &ObjectKey, about: &ObjectReference, name: &str) -> Result<(), ReconcileError> {
        match self.api(key).delete(name, &DeleteParams::background()).await {
            Ok(_) => {
                self.recorder.event(about, EventType::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                let text = format!("Deleted job: {}", error.text());
                self.recorder.event(about, EventType::Warning, "FailedDelete", text);
                Err(CallError::new(format!("delete Job {name}"), error).into())
            }
        }
    }

    /// Deletes finished Jobs beyond the limits.
    async fn clean(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        jobs: &Jobs,
        status: &mut CronJobStatus,
    ) -> Result<(), ReconcileError> {
        let about = reference_to(cron);
        for job in plan::history(cron, jobs.iter().map(|j| &j.view.0)) {
            if job.metadata.deletion_timestamp.is_some() {
                continue;
            }
            self.delete(key, &about, &job.name_any()).await?;
            forget(status, &job.uid().unwrap_or_default());
        }
        Ok(())
    }

    async fn write(&self, key: &ObjectKey, cron: &CronJob, status: CronJobStatus) -> Result<(), ReconcileError> {
        let api: Api<CronJob> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut object = cron.clone();
        object.status = Some(status);
        let written = api.replace_status(&key.name, &PostParams::default(), &object).await;
        let written = written.map_err(|e| CallError::new(format!("update status of CronJob {key}"), e))?;
        self.own.wrote(key, "cronjobs", &written.resource_version().unwrap_or_default());
        Ok(())
    }
}

fn zone(name: Option<&str>) -> Result<TimeZone, String> {
    match name {
        None => Ok(TimeZone::UTC),
        Some("Local") => Err("invalid timeZone: \"Local\": it must be a name of the tz database".into()),
        Some(name) => TimeZone::get(name).map_err(|e| format!("invalid timeZone: {name:?}: {e}")),
    }
}
