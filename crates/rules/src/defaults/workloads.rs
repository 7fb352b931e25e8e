//! Defaults of `apps` and `batch`.

use serde_json::{Map, Value, json};

use super::{child, is_empty, items, pod_template_spec, quantities, set, set_zero, spec, text};

pub(super) fn apply(kind: &str, object: &mut Value) {
    match kind {
        "Deployment" => with_template(object, deployment),
        "ReplicaSet" => with_template(object, |spec| set(spec, "replicas", 1)),
        "DaemonSet" => with_template(object, daemon_set),
        "StatefulSet" => with_template(object, stateful_set),
        "Job" => {
            with_template(object, job);
            labels_from_template(object);
        }
        "CronJob" => cron_job(object),
        _ => {}
    }
}

/// Runs `fill` on the spec after the pod template's own defaults.
pub(super) fn with_template(object: &mut Value, fill: impl FnOnce(&mut Map<String, Value>)) {
    let Some(spec) = spec(object) else { return };
    template(spec);
    fill(spec);
}

fn template(spec: &mut Map<String, Value>) {
    let Some(template) = child(spec, "template") else { return };
    set(template, "metadata", json!({}));
    if let Some(inner) = child(template, "spec") {
        pod_template_spec(inner);
    }
}

fn deployment(spec: &mut Map<String, Value>) {
    set(spec, "replicas", 1);
    if let Some(strategy) = child(spec, "strategy") {
        set_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            set(rolling, "maxUnavailable", "25%");
            set(rolling, "maxSurge", "25%");
        }
    }
    set(spec, "revisionHistoryLimit", 10);
    set(spec, "progressDeadlineSeconds", 600);
}

fn daemon_set(spec: &mut Map<String, Value>) {
    if let Some(strategy) = child(spec, "updateStrategy") {
        set_zero(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = child(strategy, "rollingUpdate")
        {
            set(rolling, "maxUnavailable", 1);
            set(rolling, "maxSurge", 0);
        }
    }
    set(spec, "revisionHistoryLimit", 10);
}

fn stateful_set(spec: &mut Map<String, Value>) {
    set_zero(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = child(spec, "updateStrategy") {
        if text(strategy, "type").is_empty() {
            set_zero(strategy, "type", "RollingUpdate");
            child(strategy, "rollingUpdate");
        }
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut)
        {
            set(rolling, "partition", 0);
        }
    }
    if let Some(policy) = child(spec, "persistentVolumeClaimRetentionPolicy") {
        set_zero(policy, "whenDeleted", "Retain");
        set_zero(policy, "whenScaled", "Retain");
    }
    set(spec, "replicas", 1);
    set(spec, "revisionHistoryLimit", 10);
    for claim in items(spec, "volumeClaimTemplates") {
        set_zero(claim, "apiVersion", "v1");
        set_zero(claim, "kind", "PersistentVolumeClaim");
        if let Some(inner) = child(claim, "spec") {
            set(inner, "volumeMode", "Filesystem");
            quantities::resources(inner);
        }
        if let Some(status) = child(claim, "status") {
            set_zero(status, "phase", "Pending");
        }
    }
}

fn job(spec: &mut Map<String, Value>) {
    let absent = |spec: &Map<String, Value>, key: &str| spec.get(key).is_none_or(Value::is_null);
    if absent(spec, "completions") && absent(spec, "parallelism") {
        set(spec, "completions", 1);
    }
    set(spec, "parallelism", 1);
    let unlimited = !absent(spec, "backoffLimitPerIndex");
    set(spec, "backoffLimit", if unlimited { i64::from(i32::MAX) } else { 6 });
    set_zero(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    set(spec, "manualSelector", false);
    let policy = if absent(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    set_zero(spec, "podReplacementPolicy", policy);
    failure_policy(spec);
}

fn failure_policy(spec: &mut Map<String, Value>) {
    let Some(policy) = spec.get_mut("podFailurePolicy").and_then(Value::as_object_mut) else { return };
    for rule in items(policy, "rules") {
        for condition in items(rule, "onPodConditions") {
            set_zero(condition, "status", "True");
        }
    }
}

/// Empty labels of the object become those of its template.
pub(super) fn labels_from_template(object: &mut Value) {
    let labels =
        object.pointer("/spec/template/metadata/labels").filter(|l| l.as_object().is_some_and(|m| !m.is_empty()));
    let Some(labels) = labels.cloned() else { return };
    let metadata = machinery::meta::metadata_mut(object);
    if is_empty(metadata, "labels") {
        metadata.insert("labels".into(), labels);
    }
}

fn cron_job(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    set_zero(spec, "concurrencyPolicy", "Allow");
    set(spec, "suspend", false);
    set(spec, "successfulJobsHistoryLimit", 3);
    set(spec, "failedJobsHistoryLimit", 1);
    let Some(job) = child(spec, "jobTemplate") else { return };
    set(job, "metadata", json!({}));
    if let Some(inner) = child(job, "spec") {
        template(inner);
        failure_policy(inner);
    }
}
