//! Job.

mod policies;
mod status;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
    selector::LabelSelector,
};
use serde_json::{Value, json};

pub(super) use self::status::status;
use super::{
    checks::{self, IMMUTABLE, domain_path, enumeration, non_negative},
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
const FROZEN: [&str; 6] =
    ["selector", "completionMode", "podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "managedBy"];
/// What a suspended Job may change of its template's spec.
const SCHEDULING: [&str; 4] = ["nodeSelector", "affinity", "tolerations", "schedulingGates"];
const MAX_INDEXED_PARALLELISM: i64 = 100_000;
const MAX_MANAGER: usize = 63;
const INDEXED_ONLY: &str = "requires indexed completion mode";

/// Checks a Job.
pub(super) fn job(object: &Value, errors: &mut ErrorList) {
    let Some(own) = present(object, "spec") else { return };
    let path = spec_path();
    checks::selector(own.get("selector"), &path.child("selector"), errors);
    spec(own, &path, errors);
    selects_template(own, &path, errors);
    host_names(object, own, errors);
}

fn selects_template(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(Ok(selector)) = present(spec, "selector").map(LabelSelector::from_object) else { return };
    let labels = spec.pointer("/template/metadata/labels");
    if !selector.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str)) {
        let value = labels.cloned().unwrap_or_else(|| json!({}));
        let path = path.child("template").child("metadata").child("labels");
        errors.invalid(&path, &value, "`selector` does not match template `labels`");
    }
}

/// The Pods of an indexed Job have their index in their host name.
fn host_names(object: &Value, spec: &Value, errors: &mut ErrorList) {
    let completions = number(spec, "completions").unwrap_or(0);
    if text(spec, "completionMode") != "Indexed" || completions <= 0 {
        return;
    }
    let last = format!("{}-{}", meta::name(object), completions - 1);
    if !names::dns1123_label(&last).is_empty() {
        let text = format!("will not able to create pod with invalid DNS label: {last}");
        errors.invalid(&Path::new("metadata").child("name"), &json!(meta::name(object)), &text);
    }
}

/// Checks what only a new Job obeys: a selector that is not the client's own is the one that creation has made.
pub(super) fn new_job(object: &Value, errors: &mut ErrorList) {
    let Some(own) = present(object, "spec").filter(|spec| !is_true(spec, "manualSelector")) else { return };
    let (uid, name) = (meta::uid(object), meta::name(object));
    let Some(selector) = present(own, "selector") else { return };
    let Ok(parsed) = LabelSelector::from_object(selector) else { return };
    let made = |key: &str| match key {
        "batch.kubernetes.io/controller-uid" | "controller-uid" => Some(uid),
        "batch.kubernetes.io/job-name" | "job-name" => Some(name),
        _ => None,
    };
    if !parsed.matches(made) {
        errors.invalid(&spec_path().child("selector"), selector, "`selector` not auto-generated");
    }
}

/// Checks the spec of a Job or of a template of Jobs.
pub(super) fn spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in NUMBERS {
        non_negative(spec, field, path, errors);
    }
    if present(spec, "maxFailedIndexes").is_some() && present(spec, "backoffLimitPerIndex").is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = present(spec, "managedBy").and_then(Value::as_str) {
        let path = path.child("managedBy");
        domain_path(manager, &path, errors);
        if manager.len() > MAX_MANAGER {
            errors.too_long(&path, MAX_MANAGER);
        }
    }
    enumeration(spec, "completionMode", &["Indexed", "NonIndexed"], path, errors);
    if text(spec, "completionMode") == "Indexed" {
        indexed(spec, path, errors);
    } else {
        for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = present(spec, field) {
                errors.invalid(&path.child(field), value, INDEXED_ONLY);
            }
        }
    }
    if let Some(policy) = present(spec, "podFailurePolicy") {
        policies::failure(spec, policy, &path.child("podFailurePolicy"), errors);
    }
    if let Some(policy) = present(spec, "successPolicy") {
        let path = path.child("successPolicy");
        if text(spec, "completionMode") == "Indexed" {
            policies::success(spec, policy, &path, errors);
        } else {
            errors.invalid(&path, policy, INDEXED_ONLY);
        }
    }
    let replacements: &[&str] =
        if present(spec, "podFailurePolicy").is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    enumeration(spec, "podReplacementPolicy", replacements, path, errors);
    template(spec, &path.child("template"), errors);
}

fn indexed(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let completions = number(spec, "completions");
    if completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if let Some(many) = number(spec, "parallelism").filter(|n| *n > MAX_INDEXED_PARALLELISM) {
        let text = format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
        errors.invalid(&path.child("parallelism"), &json!(many), &text);
    }
    if let (Some(failed), Some(completions)) = (number(spec, "maxFailedIndexes"), completions)
        && failed > completions
    {
        let text = "must be less than or equal to completions";
        errors.invalid(&path.child("maxFailedIndexes"), &json!(failed), text);
    }
}

fn template(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(template) = present(spec, "template") else { return };
    pod::template(template, path, errors);
    let path = path.child("spec").child("restartPolicy");
    match template.pointer("/spec/restartPolicy").and_then(Value::as_str).unwrap_or("") {
        "OnFailure" if present(spec, "podFailurePolicy").is_some() => {
            let text = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&path, &json!("OnFailure"), text);
        }
        "OnFailure" | "Never" => {}
        "Always" | "" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(&path, &json!(other), &["OnFailure", "Never"]),
    }
}

/// Checks what may change of a stored Job.
pub(super) fn update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let at = |object: &Value, field: &str| object.get("spec").and_then(|s| s.get(field)).cloned();
    let differs = |field: &str| !same(field, at(new, field).as_ref(), at(old, field).as_ref());
    let path = spec_path();
    if differs("completions") {
        let indexed = at(new, "completionMode") == Some(json!("Indexed"));
        let value = at(new, "completions").unwrap_or_default();
        if !indexed {
            errors.invalid(&path.child("completions"), &value, IMMUTABLE);
        } else if at(new, "completions") != at(new, "parallelism") {
            let text = "can only be modified in tandem with spec.parallelism";
            errors.invalid(&path.child("completions"), &value, text);
        }
    }
    for field in FROZEN {
        if differs(field) {
            errors.invalid(&path.child(field), &at(new, field).unwrap_or_default(), IMMUTABLE);
        }
    }
    let sent = at(new, "template").unwrap_or_default();
    let mut expected = at(old, "template").unwrap_or_default();
    if may_reschedule(old) {
        take_scheduling(&mut expected, &sent);
    }
    if !same("template", Some(&sent), Some(&expected)) {
        errors.invalid(&path.child("template"), &sent, IMMUTABLE);
    }
}

/// Whether the Pods of a suspended Job may still be changed: none runs.
fn may_reschedule(job: &Value) -> bool {
    let suspended = job.get("spec").is_some_and(|spec| is_true(spec, "suspend"));
    let status = job.get("status").unwrap_or(&Value::Null);
    let idle = number(status, "active").unwrap_or(0) == 0;
    let stopped = present(status, "startTime").is_none() || status::has(job, "Suspended");
    suspended && idle && stopped
}

fn take_scheduling(template: &mut Value, sent: &Value) {
    let copy = |from: Option<&Value>, to: &mut Value, field: &str| {
        if let (Some(value), Some(map)) = (from.and_then(|f| f.get(field)), to.as_object_mut()) {
            map.insert(field.to_owned(), value.clone());
        } else if let Some(map) = to.as_object_mut() {
            map.remove(field);
        }
    };
    if let (Some(metadata), Some(map)) = (sent.get("metadata"), template.as_object_mut()) {
        map.insert("metadata".into(), metadata.clone());
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
