//! NamespaceLifecycle.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::Resource,
};
use machinery::{ApiError, ApiResult, GroupResource, StatusCause};
use serde_json::Value;

/// Namespaces that stay.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// How long the cache gets to learn of a namespace's last change.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps objects out of missing and terminating namespaces.
pub(super) struct NamespaceLifecycle {
    pub(super) namespaces: Arc<Resource>,
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        match request.operation {
            Operation::Delete => request.is("", "namespaces"),
            Operation::Create | Operation::Update => {
                !request.namespace.is_empty()
                    && !request.is("", "namespaces")
                    && !request.is("authorization.k8s.io", "localsubjectaccessreviews")
            }
            Operation::Connect => false,
        }
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        if request.operation == Operation::Delete {
            return match IMMORTAL.contains(&request.name.as_str()) {
                true => Err(request.reject(None, "this namespace may not be deleted")),
                false => Ok(()),
            };
        }
        let phase = self.phase(&request.namespace).await?;
        if phase != "Terminating" || request.operation != Operation::Create {
            return Ok(());
        }
        let namespace = &request.namespace;
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = StatusCause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        };
        Err(request.reject(object.as_deref(), &why).edit(|s| s.details.get_or_insert_default().causes.push(cause)))
    }
}

impl NamespaceLifecycle {
    async fn phase(&self, namespace: &str) -> ApiResult<String> {
        let missing = || ApiError::not_found(&GroupResource::new("", "namespaces"), namespace);
        let found = tokio::time::timeout(PATIENCE, self.namespaces.get_settled("", namespace)).await;
        let found = found.unwrap_or_else(|_| Err(missing()))?;
        Ok(found.index.field("status.phase").unwrap_or("").to_owned())
    }
}
