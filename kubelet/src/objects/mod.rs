//! API objects that Pods refer to, behind a trait so that a kubelet without an apiserver works the same way.

mod api;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};

pub use api::ApiObjects;

/// Why an object could not be had.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ObjectError {
    /// It does not exist.
    #[error("{resource} {name:?} not found")]
    NotFound {
        /// Resource in the singular, as messages name it.
        resource: &'static str,
        /// Object name.
        name: String,
    },
    /// Services were not listed yet.
    #[error("services have not yet been read at least once, cannot construct envvars")]
    ServicesNotSynced,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl ObjectError {
    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Reads of referenced objects.
#[async_trait]
pub trait Objects: Send + Sync {
    /// A ConfigMap.
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError>;
    /// A Secret.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError>;
    /// All Services, once they were read.
    fn services(&self) -> Result<Vec<Arc<Service>>, ObjectError>;
    /// A bound token for a service account.
    async fn token(
        &self,
        namespace: &str,
        account: &str,
        spec: TokenRequestSpec,
    ) -> Result<TokenRequestStatus, ObjectError>;
    /// The runtime handler of a RuntimeClass.
    async fn runtime_handler(&self, class: &str) -> Result<String, ObjectError>;
    /// A claim, as it is now.
    async fn claim(&self, namespace: &str, name: &str) -> Result<PersistentVolumeClaim, ObjectError>;
    /// A PersistentVolume, as it is now.
    async fn volume(&self, name: &str) -> Result<PersistentVolume, ObjectError>;
    /// Starts to follow what a Pod refers to.
    fn register(&self, pod: &Pod);
    /// Stops following for a Pod.
    fn unregister(&self, uid: &str);
}

/// No apiserver: nothing exists.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObjects;

#[async_trait]
impl Objects for NoObjects {
    async fn config_map(&self, _namespace: &str, name: &str) -> Result<Arc<ConfigMap>, ObjectError> {
        Err(ObjectError::NotFound { resource: "configmap", name: name.to_owned() })
    }

    async fn secret(&self, _namespace: &str, name: &str) -> Result<Arc<Secret>, ObjectError> {
        Err(ObjectError::NotFound { resource: "secret", name: name.to_owned() })
    }

    fn services(&self) -> Result<Vec<Arc<Service>>, ObjectError> {
        Ok(Vec::new())
    }

    async fn token(
        &self,
        _namespace: &str,
        account: &str,
        _spec: TokenRequestSpec,
    ) -> Result<TokenRequestStatus, ObjectError> {
        Err(ObjectError::NotFound { resource: "serviceaccounts", name: account.to_owned() })
    }

    async fn runtime_handler(&self, class: &str) -> Result<String, ObjectError> {
        Err(ObjectError::NotFound { resource: "runtimeclasses.node.k8s.io", name: class.to_owned() })
    }

    async fn claim(&self, _namespace: &str, name: &str) -> Result<PersistentVolumeClaim, ObjectError> {
        Err(ObjectError::NotFound { resource: "persistentvolumeclaims", name: name.to_owned() })
    }

    async fn volume(&self, name: &str) -> Result<PersistentVolume, ObjectError> {
        Err(ObjectError::NotFound { resource: "persistentvolumes", name: name.to_owned() })
    }

    fn register(&self, _pod: &Pod) {}

    fn unregister(&self, _uid: &str) {}
}
