//! Which run of a CronJob is due, and which Jobs are history: pure.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use k8s_openapi::{
    api::batch::v1::{CronJob, Job},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use semantics::cron::Schedule;

use crate::children::owner_reference;

/// Annotation of Jobs: the time they were due.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed runs after which something is wrong.
const MANY: i64 = 100;
/// Slack of the next look, so that it is not too early.
const SLACK: Duration = Duration::from_millis(100);

/// The latest run that is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Option<Timestamp>,
    /// Whether so many were missed that somebody should know.
    pub(super) too_many: bool,
}

/// Finds the latest run that is due.
pub(super) fn due(cron: &CronJob, schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Result<Due, String> {
    let spec = &cron.spec;
    let last = cron.status.as_ref().and_then(|s| s.last_schedule_time.as_ref());
    let mut earliest = last.or(cron.metadata.creation_timestamp.as_ref()).map_or(Timestamp::UNIX_EPOCH, |t| t.0);
    if let Some(seconds) = spec.starting_deadline_seconds {
        let limit = Timestamp::from_second(now.as_second().saturating_sub(seconds)).unwrap_or(Timestamp::MIN);
        earliest = earliest.max(limit);
    }
    let none = Due::default();
    let Some(first) = schedule.next(earliest, zone) else { return Ok(none) };
    if now < first {
        return Ok(none);
    }
    let Some(second) = schedule.next(first, zone) else { return Ok(Due { at: Some(first), too_many: false }) };
    if now < second {
        return Ok(Due { at: Some(first), too_many: false });
    }
    let between = second.as_second() - first.as_second();
    if between < 1 {
        return Err("time difference between two schedules is less than 1 second".into());
    }
    let missed = (now.as_second() - first.as_second()) / between + 1;
    // Runs need not be equally far apart: from shortly before the estimate on they are looked at one by one.
    let near = first.as_second() + (missed - 2).max(0) * between;
    let mut latest = first;
    let mut at = Timestamp::from_second(near).map_err(|e| e.to_string())?;
    at = schedule.next(Timestamp::from_second(at.as_second() - 1).map_err(|e| e.to_string())?, zone).unwrap_or(first);
    while at <= now {
        latest = at;
        match schedule.next(at, zone) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(Due { at: Some(latest), too_many: missed > MANY })
}

/// How long until the next run.
pub(super) fn until_next(schedule: &Schedule, zone: &TimeZone, now: Timestamp) -> Option<Duration> {
    let next = schedule.next(now, zone)?;
    let millis = u64::try_from(next.as_millisecond() - now.as_millisecond()).unwrap_or(0);
    Some(Duration::from_millis(millis) + SLACK)
}

/// Whether it is too late to start a run.
pub(super) fn is_late(cron: &CronJob, at: Timestamp, now: Timestamp) -> bool {
    let deadline = cron.spec.starting_deadline_seconds;
    deadline.is_some_and(|d| at.as_second().saturating_add(d) < now.as_second())
}

/// The name of the Job of a run: the same one for every attempt.
pub(super) fn job_name(cron: &str, at: Timestamp) -> String {
    format!("{cron}-{}", at.as_second() / 60)
}

/// The Job of a run.
pub(super) fn job(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let template = cron.spec.job_template.clone();
    let from = template.metadata.unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let text = if local.offset().is_zero() {
        local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    } else {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    };
    annotations.insert(SCHEDULED.into(), text);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron.metadata.name.as_deref().unwrap_or_default(), at)),
            namespace: cron.metadata.namespace.clone(),
            labels: from.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner_reference(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}

/// How a Job ended.
pub(super) fn ended(job: &Job) -> Option<&str> {
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let mut ends = conditions.filter(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    ends.next().map(|c| c.type_.as_str())
}

/// Finished Jobs beyond the limits, oldest first.
pub(super) fn history<'a>(cron: &CronJob, jobs: impl Iterator<Item = &'a Job>) -> Vec<&'a Job> {
    let spec = &cron.spec;
    let (good, bad): (Vec<&Job>, Vec<&Job>) =
        jobs.filter(|j| ended(j).is_some()).partition(|j| ended(j) == Some("Complete"));
    let surplus = |mut jobs: Vec<&'a Job>, limit: Option<i32>| {
        let Some(limit) = limit.and_then(|l| usize::try_from(l).ok()) else { return Vec::new() };
        jobs.sort_by_key(|j| {
            let start = j.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
            (start, j.metadata.name.clone())
        });
        jobs.truncate(jobs.len().saturating_sub(limit));
        jobs
    };
    let mut gone = surplus(good, spec.successful_jobs_history_limit);
    gone.extend(surplus(bad, spec.failed_jobs_history_limit));
    gone
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron(deadline: Option<i64>, last: Option<&str>) -> CronJob {
        serde_json::from_value(json!({"metadata": {"name": "c", "creationTimestamp": "2024-01-01T00:00:30Z"}, "spec": {
            "schedule": "*/10 * * * *", "startingDeadlineSeconds": deadline, "jobTemplate": {"metadata": {"labels": {"a": "b"}}},
            "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}, "status": {"lastScheduleTime": last}}))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_latest_missed_run_is_due() {
        let schedule = Schedule::parse("*/10 * * * *").unwrap();
        let of = |cron: &CronJob, now: &str| {
            let due = due(cron, &schedule, &TimeZone::UTC, at(now)).unwrap();
            (due.at.map(|t| t.to_string()).unwrap_or_default(), due.too_many)
        };
        let fresh = cron(None, None);
        assert_eq!(of(&fresh, "2024-01-01T00:05:00Z"), (String::new(), false));
        assert_eq!(of(&fresh, "2024-01-01T00:10:00Z"), ("2024-01-01T00:10:00Z".into(), false));
        assert_eq!(of(&fresh, "2024-01-01T01:29:00Z"), ("2024-01-01T01:20:00Z".into(), false));
        assert_eq!(of(&fresh, "2024-01-03T01:29:00Z"), ("2024-01-03T01:20:00Z".into(), true));
        assert_eq!(of(&cron(None, Some("2024-01-01T01:20:00Z")), "2024-01-01T01:29:00Z").0, "");
        assert_eq!(of(&cron(Some(60), None), "2024-01-03T01:29:00Z"), (String::new(), false));
        assert_eq!(of(&cron(Some(600), None), "2024-01-03T01:29:00Z"), ("2024-01-03T01:20:00Z".into(), false));
        assert!(is_late(&cron(Some(60), None), at("2024-01-01T00:10:00Z"), at("2024-01-01T00:11:01Z")));
        assert_eq!(
            until_next(&schedule, &TimeZone::UTC, at("2024-01-01T00:09:59Z")),
            Some(Duration::from_millis(1100))
        );
    }

    #[test]
    fn jobs_carry_their_time() {
        let zone = TimeZone::get("Asia/Tokyo").unwrap();
        let made = job(&cron(None, None), at("2024-01-01T00:10:00Z"), &zone);
        assert_eq!(made.metadata.name.as_deref(), Some("c-28401130"));
        assert_eq!(made.metadata.annotations.unwrap()[SCHEDULED], "2024-01-01T09:10:00+09:00");
        let plain = job(&cron(None, None), at("2024-01-01T00:10:00Z"), &TimeZone::UTC);
        assert_eq!(plain.metadata.annotations.unwrap()[SCHEDULED], "2024-01-01T00:10:00Z");
    }

    #[test]
    fn history_has_limits() {
        let job = |name: &str, kind: &str, start: &str| -> Job {
            let conditions: Value = json!([{"type": kind, "status": "True"}]);
            serde_json::from_value(
                json!({"metadata": {"name": name}, "status": {"conditions": conditions, "startTime": start}}),
            )
            .unwrap()
        };
        let jobs = [
            job("new", "Complete", "2024-01-03T00:00:00Z"),
            job("old", "Complete", "2024-01-01T00:00:00Z"),
            job("bad", "Failed", "2024-01-02T00:00:00Z"),
            job("runs", "Suspended", "2024-01-01T00:00:00Z"),
        ];
        let gone: Vec<_> =
            history(&cron(None, None), jobs.iter()).iter().map(|j| j.metadata.name.clone().unwrap()).collect();
        assert_eq!(gone, ["old", "bad"]);
    }
}
