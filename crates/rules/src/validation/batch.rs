//! CronJob, and what Jobs and their templates share.

use jiff::tz::TimeZone;
use machinery::{
    field::{ErrorList, Path},
    meta,
};
use semantics::cron::Schedule;
use serde_json::{Value, json};

use super::{
    checks::{enumeration, non_negative},
    job,
    read::{is_true, present, text},
    spec_path,
};

/// Checks a CronJob.
pub(super) fn cron_job(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    let path = spec_path();
    schedule(text(spec, "schedule"), &path.child("schedule"), errors);
    non_negative(spec, "startingDeadlineSeconds", &path, errors);
    time_zone(spec, &path.child("timeZone"), errors);
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(spec, field, &path, errors);
    }
    enumeration(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], &path, errors);
    let path = path.child("jobTemplate").child("spec");
    let Some(own) = spec.pointer("/jobTemplate/spec") else { return };
    job::spec(own, &path, errors);
    if let Some(selector) = present(own, "selector") {
        errors.invalid(&path.child("selector"), selector, "`selector` will be auto-generated");
    }
    if is_true(own, "manualSelector") {
        errors.not_supported(&path.child("manualSelector"), &json!(true), &["nil", "false"]);
    }
}

/// Jobs have the name of their CronJob and eleven characters more.
const MAX_NAME: usize = 52;

/// Checks what only a new CronJob obeys.
pub(super) fn new_cron_job(object: &Value, errors: &mut ErrorList) {
    let name = meta::name(object);
    if name.len() > MAX_NAME {
        let text = format!("must be no more than {MAX_NAME} characters");
        errors.invalid(&Path::new("metadata").child("name"), &json!(name), &text);
    }
}

fn schedule(schedule: &str, path: &Path, errors: &mut ErrorList) {
    if schedule.is_empty() {
        errors.required(path, "");
    } else if schedule.contains("TZ") {
        let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(path, &json!(schedule), text);
    } else if let Err(error) = Schedule::parse(schedule) {
        errors.invalid(path, &json!(schedule), &error.to_string());
    }
}

fn time_zone(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(zone) = present(spec, "timeZone").and_then(Value::as_str) else { return };
    if zone.is_empty() {
        errors.invalid(path, &json!(zone), "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("Local") {
        let text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, &json!(zone), text);
    } else if !jiff::tz::db().is_definitively_empty() && TimeZone::get(zone).is_err() {
        errors.invalid(path, &json!(zone), &format!("unknown time zone {zone}"));
    }
}
