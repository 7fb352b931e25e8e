//! Rollback by annotation.

use ::controller::{EventType, ReconcileError};
use client::CallError;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, ResourceExt, api::PostParams};

use super::{
    plan::{self, HASH_LABEL},
    revision::{self, ROLLBACK},
    sync::Run,
};
use crate::template;

impl Run<'_> {
    /// Goes back to the revision that the annotation names; whether there was one.
    pub(super) async fn roll_back(&mut self) -> Result<bool, ReconcileError> {
        let annotation = self.deployment.metadata.annotations.as_ref().and_then(|a| a.get(ROLLBACK));
        let Some(wanted) = annotation.and_then(|text| text.parse::<i64>().ok()) else { return Ok(false) };
        self.sync_revision().await?;
        let mut deployment = self.deployment.clone();
        match revision::target(&self.all(), wanted) {
            None => {
                let text = if wanted == 0 {
                    "Unable to find last revision."
                } else {
                    "Unable to find the revision to rollback to."
                };
                self.tell(EventType::Warning, "DeploymentRollbackRevisionNotFound", text.to_owned());
            }
            Some(set) => {
                let theirs = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
                let name = self.deployment.name_any();
                let same = template::same_but_for(HASH_LABEL, &theirs, &plan::spec(&self.deployment).template);
                if same {
                    let text =
                        format!("The rollback revision contains the same template as current deployment {name:?}");
                    self.tell(EventType::Warning, "DeploymentRollbackTemplateUnchanged", text);
                } else {
                    let mut theirs = theirs;
                    if let Some(labels) = theirs.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
                        labels.remove(HASH_LABEL);
                    }
                    if let Some(spec) = &mut deployment.spec {
                        spec.template = theirs;
                    }
                    deployment.metadata.annotations = Some(revision::rolled_back(&self.deployment, &set));
                    let number = revision::of(&set.metadata).unwrap_or(0);
                    let text = format!("Rolled back deployment {name:?} to revision {number}");
                    self.tell(EventType::Normal, "DeploymentRollback", text);
                }
            }
        }
        if let Some(annotations) = &mut deployment.metadata.annotations {
            annotations.remove(ROLLBACK);
        }
        let api: Api<Deployment> = Api::namespaced(self.by.client.clone(), &self.key.namespace);
        let written = api.replace(&self.key.name, &PostParams::default(), &deployment).await;
        let written = written.map_err(|e| CallError::new(format!("update Deployment {}", self.key), e))?;
        self.by.shared.own.wrote(self.key, "deployments", &written.resource_version().unwrap_or_default());
        Ok(true)
    }
}
