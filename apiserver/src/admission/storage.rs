//! StorageObjectInUseProtection and PersistentVolumeClaimResize.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::{Resource, decode_cached},
};
use machinery::{ApiResult, meta, quantity::Quantity};
use serde_json::{Value, json};

/// Finalizers that keep storage objects while something uses them.
fn finalizer(request: &AdmissionRequest) -> Option<&'static str> {
    Some(match (request.resource.group.as_str(), request.resource.resource.as_str()) {
        ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
        ("", "persistentvolumes") => "kubernetes.io/pv-protection",
        ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
        _ => return None,
    })
}

/// Gives new storage objects their protection finalizer.
pub(super) struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create && request.subresource.is_empty() && finalizer(request).is_some()
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let (Some(object), Some(finalizer)) = (object, finalizer(request)) else { return Ok(()) };
        if !meta::finalizers(object).contains(&finalizer) {
            let list = meta::metadata_mut(object).entry("finalizers").or_insert_with(|| json!([]));
            if let Some(list) = list.as_array_mut() {
                list.push(json!(finalizer));
            }
        }
        Ok(())
    }
}

/// Lets only claims grow whose class says that their volumes can.
pub(super) struct PersistentVolumeClaimResize {
    pub(super) classes: Arc<Resource>,
}

fn size(claim: &Value) -> Option<Quantity> {
    claim
        .pointer("/spec/resources/requests/storage")
        .and_then(Value::as_str)
        .and_then(|text| Quantity::parse(text).ok())
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Update
            && request.subresource.is_empty()
            && request.is("", "persistentvolumeclaims")
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.pointer("/status/phase").and_then(Value::as_str) != Some("Bound") {
            return Err(request.reject(Some(new), "Only bound persistent volume claims can be expanded"));
        }
        let class = meta::text_map(new, "annotations")
            .find(|(key, _)| *key == "volume.beta.kubernetes.io/storage-class")
            .map(|(_, class)| class)
            .or_else(|| new.pointer("/spec/storageClassName").and_then(Value::as_str))
            .unwrap_or("");
        let expands = match class {
            "" => false,
            class => match self.classes.get_settled("", class).await {
                Ok(found) => decode_cached(&found)?.object["allowVolumeExpansion"] == true,
                Err(error) if error.is_not_found() => false,
                Err(error) => return Err(error),
            },
        };
        if expands {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                   support resize";
        Err(request.reject(Some(new), why))
    }
}
