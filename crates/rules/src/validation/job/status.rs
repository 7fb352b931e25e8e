//! What a status update of a Job may say.

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::super::{
    checks::{IMMUTABLE, non_negative},
    read::{is_true, list, number, present, same, text},
};

/// Whether a Job has a condition that holds.
pub(super) fn has(job: &Value, kind: &str) -> bool {
    let status = job.get("status").unwrap_or(&Value::Null);
    list(status, "conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

/// Checks the status of a Job against the stored one. What it says already is not questioned again.
pub(in super::super) fn status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let path = Path::new("status");
    let (sent, stored) = (new.get("status").unwrap_or(&none), old.get("status").unwrap_or(&none));
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        non_negative(sent, field, &path, errors);
    }
    counters(new, sent, stored, &path, errors);
    conditions(new, old, &path.child("conditions"), errors);
    let finished = has(new, "Complete") || has(new, "Failed");
    let news = finished && !(has(old, "Complete") || has(old, "Failed"));
    if news {
        ended(sent, &path, errors);
    }
    start(old, sent, stored, &path.child("startTime"), errors);
    completion(new, old, sent, stored, &path.child("completionTime"), errors);
}

fn counters(job: &Value, sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let indexed = job.pointer("/spec/completionMode") == Some(&json!("Indexed"));
    for field in ["failed", "succeeded"] {
        let (now, before) = (number(sent, field).unwrap_or(0), number(stored, field).unwrap_or(0));
        if now < before && !(indexed && field == "succeeded") {
            errors.invalid(&path.child(field), &json!(now), &format!("cannot decrease the {field} counter"));
        }
    }
}

fn conditions(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if has(old, kind) && !has(new, kind) {
            errors.invalid_unshown(path, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    let newly = |kind: &str| has(new, kind) && !has(old, kind);
    if (newly("Complete") || newly("Failed")) && has(new, "Complete") && has(new, "Failed") {
        errors.invalid_unshown(path, "cannot set Complete=True and Failed=true conditions");
    }
    for (kind, first) in [("Complete", "SuccessCriteriaMet"), ("Failed", "FailureTarget")] {
        if newly(kind) && !has(new, first) {
            let text = format!("cannot set {kind}=True condition without the {first}=true condition");
            errors.invalid_unshown(path, &text);
        }
    }
}

fn ended(status: &Value, path: &Path, errors: &mut ErrorList) {
    if present(status, "startTime").is_none() {
        errors.required(&path.child("startTime"), "startTime is required for finished job");
    }
    for field in ["active", "terminating"] {
        let count = number(status, field).unwrap_or(0);
        if count > 0 {
            errors.invalid(&path.child(field), &json!(count), &format!("{field}>0 is invalid for finished job"));
        }
    }
    if let Some(uncounted) = present(status, "uncountedTerminatedPods").filter(|u| !same("", Some(u), None)) {
        let text = "uncountedTerminatedPods needs to be empty for finished job";
        errors.invalid(&path.child("uncountedTerminatedPods"), uncounted, text);
    }
}

fn start(old: &Value, sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(before) = present(stored, "startTime") else { return };
    let suspended = old.get("spec").is_some_and(|spec| is_true(spec, "suspend"));
    if suspended || has(old, "Suspended") {
        return;
    }
    match present(sent, "startTime") {
        None => errors.required(path, "startTime cannot be removed for unsuspended job"),
        Some(now) if now != before => {
            errors.invalid(path, now, "startTime cannot be modified for unsuspended job");
        }
        Some(_) => {}
    }
}

fn completion(new: &Value, old: &Value, sent: &Value, stored: &Value, path: &Path, errors: &mut ErrorList) {
    let (now, before) = (present(sent, "completionTime"), present(stored, "completionTime"));
    if before.is_some() && now != before {
        errors.invalid(path, now.unwrap_or(&Value::Null), IMMUTABLE);
    }
    if now.is_some() && now != before && !has(new, "Complete") {
        let value = now.unwrap_or(&Value::Null);
        errors.invalid(path, value, "cannot set completionTime when there is no Complete=True condition");
    }
    if now.is_none() && has(new, "Complete") && !has(old, "Complete") {
        errors.required(path, "completionTime is required for Complete jobs");
    }
}
