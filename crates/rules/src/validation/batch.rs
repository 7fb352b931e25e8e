//! Job and CronJob.

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::{
    container::{enumeration, non_negative},
    pod,
    read::{is_true, number, present, same, text},
    spec_path,
};

const NUMBERS: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
];
const IMMUTABLE: [&str; 6] =
    ["selector", "completionMode", "podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "managedBy"];
/// What a suspended Job may change of its template's spec.
const SCHEDULING: [&str; 4] = ["nodeSelector", "affinity", "tolerations", "schedulingGates"];
const MAX_INDEXED_PARALLELISM: i64 = 100_000;

/// Checks a new Job.
pub(super) fn job(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    job_spec(spec, &spec_path(), errors);
}

fn job_spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in NUMBERS {
        non_negative(spec, field, path, errors);
    }
    if text(spec, "completionMode") == "Indexed" {
        if number(spec, "completions").is_none() {
            errors.required(&path.child("completions"), "when completion mode is Indexed");
        }
        if let Some(many) = number(spec, "parallelism").filter(|n| *n > MAX_INDEXED_PARALLELISM) {
            let text =
                format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
            errors.invalid(&path.child("parallelism"), &json!(many), &text);
        }
    } else if let Some(limit) = number(spec, "backoffLimitPerIndex") {
        errors.invalid(&path.child("backoffLimitPerIndex"), &json!(limit), "requires indexed completion mode");
    }
    enumeration(spec, "completionMode", &["Indexed", "NonIndexed"], path, errors);
    let path = path.child("template").child("spec");
    let Some(pod_spec) = spec.pointer("/template/spec") else { return };
    pod::spec(pod_spec, &path, errors);
    match text(pod_spec, "restartPolicy") {
        "OnFailure" | "Never" => {}
        "Always" | "" => errors.required(&path.child("restartPolicy"), "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(&path.child("restartPolicy"), &json!(other), &["OnFailure", "Never"]),
    }
}

/// Checks an update of a Job.
pub(super) fn job_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    if same("spec", new.get("spec"), old.get("spec")) {
        return;
    }
    job(new, errors);
    let at = |object: &Value, field: &str| object.get("spec").and_then(|s| s.get(field)).cloned();
    let differs = |field: &str| !same(field, at(new, field).as_ref(), at(old, field).as_ref());
    let path = spec_path();
    if differs("completions") {
        let indexed = at(new, "completionMode") == Some(json!("Indexed"));
        let value = at(new, "completions").unwrap_or_default();
        if !indexed {
            errors.invalid(&path.child("completions"), &value, "field is immutable");
        } else if at(new, "completions") != at(new, "parallelism") {
            let text = "can only be modified in tandem with spec.parallelism";
            errors.invalid(&path.child("completions"), &value, text);
        }
    }
    for field in IMMUTABLE {
        if differs(field) {
            errors.invalid(&path.child(field), &at(new, field).unwrap_or_default(), "field is immutable");
        }
    }
    let sent = at(new, "template").unwrap_or_default();
    let mut expected = at(old, "template").unwrap_or_default();
    if may_reschedule(old) {
        take_scheduling(&mut expected, &sent);
    }
    if !same("template", Some(&sent), Some(&expected)) {
        errors.invalid(&path.child("template"), &sent, "field is immutable");
    }
}

/// Whether the Pods of a suspended Job may still be changed: none runs.
fn may_reschedule(job: &Value) -> bool {
    let suspended = job.get("spec").is_some_and(|spec| is_true(spec, "suspend"));
    let status = job.get("status").unwrap_or(&Value::Null);
    suspended && number(status, "active").unwrap_or(0) == 0
}

fn take_scheduling(template: &mut Value, sent: &Value) {
    let copy = |from: Option<&Value>, to: &mut Value, field: &str| {
        if let (Some(value), Some(map)) = (from.and_then(|f| f.get(field)), to.as_object_mut()) {
            map.insert(field.to_owned(), value.clone());
        } else if let Some(map) = to.as_object_mut() {
            map.remove(field);
        }
    };
    if let Some(metadata) = sent.get("metadata") {
        template["metadata"] = metadata.clone();
    }
    let Some(spec) = template.get_mut("spec") else { return };
    for field in SCHEDULING {
        copy(sent.get("spec"), spec, field);
    }
    for field in ["containers", "initContainers"] {
        let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        for (at, one) in list.iter_mut().enumerate() {
            let from = sent.get("spec").and_then(|s| s.get(field)).and_then(|l| l.get(at));
            copy(from, one, "resources");
        }
    }
}

/// Checks a new or changed CronJob.
pub(super) fn cron_job(object: &Value, errors: &mut ErrorList) {
    let Some(spec) = present(object, "spec") else { return };
    let path = spec_path();
    let schedule = text(spec, "schedule");
    if schedule.is_empty() {
        errors.required(&path.child("schedule"), "");
    }
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        non_negative(spec, field, &path, errors);
    }
    if let Some("") = present(spec, "timeZone").and_then(Value::as_str) {
        errors.invalid(&path.child("timeZone"), &json!(""), "timeZone must be nil or non-empty string");
    }
    enumeration(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], &path, errors);
    let path = path.child("jobTemplate").child("spec");
    let Some(job) = spec.pointer("/jobTemplate/spec") else { return };
    if let Some(selector) = present(job, "selector") {
        errors.invalid(&path.child("selector"), selector, "`selector` will be auto-generated");
    }
    if is_true(job, "manualSelector") {
        errors.not_supported(&path.child("manualSelector"), &json!(true), &["nil", "false"]);
    }
    job_spec(job, &path, errors);
}

/// Checks what only a new schedule must obey: zones stand in their own field.
pub(super) fn new_schedule(object: &Value, errors: &mut ErrorList) {
    let schedule = object.get("spec").map_or("", |spec| text(spec, "schedule"));
    if schedule.contains("TZ") {
        let text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(&spec_path().child("schedule"), &json!(schedule), text);
    }
}
