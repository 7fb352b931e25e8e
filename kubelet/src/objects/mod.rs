//! API objects that Pods refer to, behind a trait so that a kubelet without an apiserver works the same way.

mod api;
mod claims;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub use api::{ApiObjects, Strategy};

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
    /// This kubelet's Node, as it is now.
    async fn node(&self, name: &str) -> Result<Node, ObjectError>;
    /// A claim for dynamic resources, as it is now.
    async fn resource_claim(&self, namespace: &str, name: &str) -> Result<ResourceClaim, ObjectError>;
    /// What is told of a storage driver, if anything.
    async fn csi_driver(&self, name: &str) -> Result<Option<CSIDriver>, ObjectError>;
    /// The attachment of a volume.
    async fn attachment(&self, name: &str) -> Result<Option<VolumeAttachment>, ObjectError>;
    /// A claim's volume has this size now.
    async fn claim_resized(&self, claim: &PersistentVolumeClaim, size: &Quantity) -> Result<(), ObjectError>;
    /// A claim's volume could not be made larger; `final_answer`: it will not be without somebody's doing.
    async fn claim_not_resized(&self, claim: &PersistentVolumeClaim, final_answer: bool) -> Result<(), ObjectError>;
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

    async fn node(&self, name: &str) -> Result<Node, ObjectError> {
        Err(ObjectError::NotFound { resource: "nodes", name: name.to_owned() })
    }

    async fn resource_claim(&self, _namespace: &str, name: &str) -> Result<ResourceClaim, ObjectError> {
        Err(ObjectError::NotFound { resource: "resourceclaims.resource.k8s.io", name: name.to_owned() })
    }

    async fn csi_driver(&self, _name: &str) -> Result<Option<CSIDriver>, ObjectError> {
        Ok(None)
    }

    async fn attachment(&self, _name: &str) -> Result<Option<VolumeAttachment>, ObjectError> {
        Ok(None)
    }

    async fn claim_resized(&self, _claim: &PersistentVolumeClaim, _size: &Quantity) -> Result<(), ObjectError> {
        Ok(())
    }

    async fn claim_not_resized(&self, _claim: &PersistentVolumeClaim, _final: bool) -> Result<(), ObjectError> {
        Ok(())
    }

    fn register(&self, _pod: &Pod) {}

    fn unregister(&self, _uid: &str) {}
}
