//! Warnings about objects that are valid but unwise.

mod addresses;
mod labels;
mod others;
mod pod;
mod volumes;

use machinery::GroupVersionKind;
use serde_json::Value;

/// Warnings about a new (`old` absent) or changed object.
pub(super) fn of(gvk: &GroupVersionKind, object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Warnings::default();
    let new = old.is_none();
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") if new => pod::pod(object, &mut warnings),
        ("", "Pod") => {}
        ("", "PodTemplate") if changed(object, old) => {
            pod::template(object.get("template"), "template", &mut warnings);
        }
        ("", kind) => {
            if kind == "ReplicationController" && changed(object, old) {
                workload(kind, object, new, &mut warnings);
            }
            others::core(kind, object, old, &mut warnings);
        }
        ("apps" | "batch", kind) if changed(object, old) => workload(kind, object, new, &mut warnings),
        (group, kind) => others::other(group, kind, object, old, &mut warnings),
    }
    warnings.0
}

/// What to say of a deprecated kind to everyone who asks for its objects.
pub fn deprecation(gvk: &GroupVersionKind, verb: &str) -> Option<&'static str> {
    if !gvk.group.is_empty() || gvk.kind != "Endpoints" {
        return None;
    }
    Some(if verb == "list" {
        "v1 EndpointsList is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSliceList"
    } else {
        "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
    })
}

fn changed(object: &Value, old: Option<&Value>) -> bool {
    old.is_none_or(|old| old.pointer("/metadata/generation") != object.pointer("/metadata/generation"))
}

fn workload(kind: &str, object: &Value, new: bool, warnings: &mut Warnings) {
    let named = ["Deployment", "ReplicaSet", "ReplicationController", "Job", "CronJob"].contains(&kind);
    if new && named {
        pod::name(object, "this is used in Pod names and hostnames", warnings);
    }
    if kind == "CronJob" {
        let path = "spec.jobTemplate.spec";
        others::job(object.pointer("/spec/jobTemplate/spec"), path, warnings);
        if !new && object.pointer("/spec/schedule").and_then(Value::as_str).is_some_and(|s| s.contains("TZ")) {
            warnings.add(
                "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
            );
        }
        let template = object.pointer("/spec/jobTemplate/spec/template");
        pod::template(template, &format!("{path}.template"), warnings);
        return;
    }
    if kind == "Job" {
        others::job(object.get("spec"), "spec", warnings);
    }
    pod::template(object.pointer("/spec/template"), "spec.template", warnings);
    let history = object.pointer("/spec/revisionHistoryLimit").and_then(Value::as_i64);
    if kind == "StatefulSet" && history.is_some_and(|limit| limit < 0) {
        warnings.add(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
        );
    }
}

/// Warnings in the order they were found.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn add(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn pairs<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(field).and_then(Value::as_object).into_iter().flatten()
}

fn is_set(value: &Value, field: &str) -> bool {
    value.get(field).is_some_and(|value| !value.is_null())
}

#[cfg(test)]
mod tests;
