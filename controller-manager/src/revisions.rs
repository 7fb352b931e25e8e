//! ControllerRevisions: templates as they were, for DaemonSets and StatefulSets.

use ::controller::{Cached, Index, Viewed};
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1::PodTemplateSpec},
    apimachinery::pkg::runtime::RawExtension,
};
use serde_json::{Value, json};

use crate::{template, views};

/// A whole ControllerRevision.
#[derive(Clone, Debug)]
pub(crate) struct RevisionView(pub(crate) ControllerRevision);

impl std::ops::Deref for RevisionView {
    type Target = ControllerRevision;

    fn deref(&self) -> &ControllerRevision {
        &self.0
    }
}

fn by_controller(revision: &Cached<RevisionView>) -> Vec<String> {
    views::meta_by_controller(&revision.metadata)
}

impl Viewed for RevisionView {
    type Object = ControllerRevision;

    const INDICES: &'static [Index<Self>] = &[Index { name: views::BY_CONTROLLER, keys: by_controller }];

    fn project(mut revision: ControllerRevision) -> Self {
        revision.metadata.managed_fields = None;
        Self(revision)
    }
}

/// What a revision keeps of a template: the patch that restores it.
pub(crate) fn data(template: &PodTemplateSpec) -> RawExtension {
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(fields) = template.as_object_mut() {
        fields.insert("$patch".into(), "replace".into());
    }
    RawExtension(json!({"spec": {"template": template}}))
}

/// Whether a revision keeps this.
pub(crate) fn keeps(revision: &ControllerRevision, data: &RawExtension) -> bool {
    let normal = |d: &RawExtension| template::normalized(&d.0);
    revision.data.as_ref().is_some_and(|d| d == data || normal(d) == normal(data))
}

/// The template that a revision keeps.
pub(crate) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template: Value = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Lowest first; of equal ones the older, then by name.
pub(crate) fn sort(revisions: &mut [ControllerRevision]) {
    revisions.sort_by(|a, b| {
        let created = |r: &ControllerRevision| r.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (a.revision, created(a), &a.metadata.name).cmp(&(b.revision, created(b), &b.metadata.name))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_come_back() {
        let template: PodTemplateSpec = serde_json::from_value(
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}),
        )
        .unwrap();
        let data = data(&template);
        assert_eq!(data.0["spec"]["template"]["$patch"], "replace");
        let mut other = data.clone();
        other.0["spec"]["template"]["metadata"]["creationTimestamp"] = Value::Null;
        let revision = ControllerRevision { data: Some(other), ..ControllerRevision::default() };
        assert!(keeps(&revision, &data));
        assert_eq!(template_of(&revision), Some(template));
    }
}
