//! Pods of Jobs: how they are made and what they tell: pure.

use std::sync::Arc;

use ::controller::Cached;
use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, PodTemplateSpec},
    },
    jiff::Timestamp,
};

use crate::views::{Phase, PodView};

/// Finalizer of Pods that are not counted yet.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// Longest prefix of a generated name.
const MAX_PREFIX: usize = 58;

pub(super) type JobPod = Arc<Cached<PodView>>;

pub(crate) fn is_tracked(pod: &PodView) -> bool {
    pod.finalizers.iter().any(|f| f == TRACKING)
}

pub(super) fn spec(job: &Job) -> JobSpec {
    job.spec.clone().unwrap_or_default()
}

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

/// Whether a terminating Pod is replaced only once it has ended.
pub(super) fn waits_for_end(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// Whether a Pod counts as failed.
pub(super) fn is_failed(pod: &PodView, spec: &JobSpec) -> bool {
    pod.phase == Phase::Failed || (!waits_for_end(spec) && pod.deletion.is_some() && pod.phase != Phase::Succeeded)
}

/// The completion index of a Pod, if it has one within the Job's range.
pub(super) fn index(pod: &PodView, spec: &JobSpec) -> Option<i32> {
    let index: i32 = pod.annotations.get(INDEX)?.parse().ok()?;
    (index >= 0 && index < spec.completions.unwrap_or(0)).then_some(index)
}

/// How often the index failed before this Pod: counted failures, and ignored ones.
pub(super) fn failures(pod: &PodView) -> (i32, i32) {
    let number = |key: &str| pod.annotations.get(key).and_then(|t| t.parse().ok()).unwrap_or(0);
    (number(FAILURES), number(IGNORED_FAILURES))
}

/// When a Pod ended, as well as it can be told.
pub(super) fn finished(pod: &PodView) -> Option<Timestamp> {
    let last = pod.exits.iter().map(|e| e.finished).collect::<Option<Vec<_>>>().and_then(|all| all.into_iter().max());
    let unready = || pod.condition("Ready").filter(|c| c.status == "False").and_then(|c| c.since);
    last.or_else(unready).or(pod.deletion).or(pod.created)
}

/// Prefix of a Pod's name.
pub(super) fn prefix(job: &str, index: Option<i32>) -> String {
    let end = index.map_or_else(|| "-".to_owned(), |i| format!("-{i}-"));
    if index.is_none() {
        return crate::children::name_prefix(job);
    }
    let mut length = job.len().min(MAX_PREFIX.saturating_sub(end.len()));
    while !job.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{end}", &job[..length])
}

/// The template of a Pod. `before` are the failures of its index so far, if the Job counts by index.
pub(super) fn template_for(job: &Job, index: Option<i32>, before: Option<(i32, i32)>) -> PodTemplateSpec {
    let mut template = spec(job).template;
    let meta = template.metadata.get_or_insert_default();
    let finalizers = meta.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == TRACKING) {
        finalizers.push(TRACKING.into());
    }
    let Some(index) = index else { return template };
    meta.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if let Some((counted, ignored)) = before {
        annotations.insert(FAILURES.into(), counted.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.into(), ignored.to_string());
        }
    }
    let pod = template.spec.get_or_insert_default();
    pod.hostname = Some(format!("{}-{index}", job.metadata.name.as_deref().unwrap_or_default()));
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|e| e.name == INDEX_ENV) {
            let field = ObjectFieldSelector { api_version: None, field_path: format!("metadata.labels['{INDEX}']") };
            let from = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
            env.push(EnvVar { name: INDEX_ENV.into(), value: None, value_from: Some(from) });
        }
    }
    template
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_and_environment() {
        assert_eq!(prefix("j", None), "j-");
        assert_eq!(prefix(&"x".repeat(63), Some(12)).len(), 58);
        let job: Job =
            serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"containers": [
            {"name": "a"}, {"name": "b", "env": [{"name": INDEX_ENV, "value": "own"}]}]}}}}))
            .unwrap();
        let made = serde_json::to_value(template_for(&job, Some(3), Some((1, 2)))).unwrap();
        assert_eq!(made["metadata"]["annotations"], json!({INDEX: "3", FAILURES: "1", IGNORED_FAILURES: "2"}));
        assert_eq!(made["metadata"]["finalizers"], json!([TRACKING]));
        assert_eq!(made["spec"]["hostname"], "j-3");
        let path = made.pointer("/spec/containers/0/env/0/valueFrom/fieldRef/fieldPath");
        assert_eq!(path, Some(&json!(format!("metadata.labels['{INDEX}']"))));
        assert_eq!(made["spec"]["containers"][1]["env"][0]["value"], "own");
        let plain = serde_json::to_value(template_for(&job, None, None)).unwrap();
        assert_eq!(plain["spec"].get("hostname"), None);
    }
}
