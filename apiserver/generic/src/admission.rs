//! Admission: what plugins see, and the order in which they are asked.

use std::sync::Arc;

use async_trait::async_trait;
use machinery::{ApiResult, GroupVersionKind, GroupVersionResource};
use serde_json::Value;

use crate::{endpoint::Warnings, user::User};

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One operation under admission. Objects are value trees in the storage version.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// Kind of the object.
    pub kind: GroupVersionKind,
    /// Resource it stands under.
    pub resource: GroupVersionResource,
    /// Subresource or empty.
    pub subresource: String,
    /// Name; empty while `generateName` has not been resolved.
    pub name: String,
    /// Namespace or empty.
    pub namespace: String,
    /// The operation.
    pub operation: Operation,
    /// Who asks.
    pub user: User,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// What the client is warned of.
    pub warnings: Warnings,
}

impl AdmissionRequest {
    /// Whether this is about a group's resource (subresource aside).
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.resource.group == group && self.resource.resource == resource
    }

    /// The 403 of a rejecting plugin: `{resource.group} "{name}" is forbidden: {why}`.
    pub fn reject(&self, object: Option<&Value>, why: &str) -> machinery::ApiError {
        let from_object = |field| object.map(|o| machinery::meta::text(o, field)).filter(|t| !t.is_empty());
        let name = Some(self.name.as_str())
            .filter(|n| !n.is_empty())
            .or_else(|| from_object("name"))
            .or_else(|| from_object("generateName"))
            .unwrap_or("Unknown");
        machinery::ApiError::forbidden(&self.resource.group_resource(), name, why)
    }
}

/// One admission plugin. The mutating halves of all plugins run first, in order, then the validating halves.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// Name as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Whether the plugin looks at such requests at all.
    fn handles(&self, request: &AdmissionRequest) -> bool;

    /// May change the object (absent on delete and connect) or reject.
    async fn admit(
        &self,
        _request: &AdmissionRequest,
        _object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        Ok(())
    }

    /// May only reject.
    async fn validate(
        &self,
        _request: &AdmissionRequest,
        _object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        Ok(())
    }
}

/// The enabled plugins in upstream's order.
#[derive(Clone, Default)]
pub struct Plugins(pub Arc<Vec<Arc<dyn Plugin>>>);

impl Plugins {
    /// Runs the mutating halves.
    pub async fn admit(
        &self,
        request: &AdmissionRequest,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        for plugin in self.0.iter().filter(|p| p.handles(request)) {
            plugin.admit(request, object.as_deref_mut(), old).await?;
        }
        Ok(())
    }

    /// Runs the validating halves.
    pub async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        for plugin in self.0.iter().filter(|p| p.handles(request)) {
            plugin.validate(request, object, old).await?;
        }
        Ok(())
    }
}
