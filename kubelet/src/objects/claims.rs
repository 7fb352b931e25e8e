//! What the kubelet writes into the status of claims.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

/// Conditions that are over once a volume has its size.
const RESIZING: [&str; 4] = ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];

/// The volume has its size.
pub(super) fn resized(claim: &PersistentVolumeClaim, size: &Quantity) -> Value {
    let conditions = claim.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let rest: Vec<_> = conditions.filter(|condition| !RESIZING.contains(&condition.type_.as_str())).collect();
    json!({
        "metadata": { "resourceVersion": claim.metadata.resource_version },
        "status": {
            "capacity": { "storage": size },
            "conditions": rest,
            "allocatedResourceStatuses": { "storage": null },
        },
    })
}

/// The volume has not got its size.
pub(super) fn not_resized(final_answer: bool) -> Value {
    let state = if final_answer { "NodeResizeInfeasible" } else { "NodeResizeInProgress" };
    json!({ "status": { "allocatedResourceStatuses": { "storage": state } } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_of_others_stay() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": { "name": "c", "resourceVersion": "7" },
            "status": { "conditions": [
                { "type": "FileSystemResizePending", "status": "True" }, { "type": "ModifyingVolume", "status": "True" },
            ] },
        }))
        .unwrap();
        let patch = resized(&claim, &Quantity("2Gi".to_owned()));
        assert_eq!(patch["status"]["capacity"]["storage"], "2Gi");
        assert_eq!(patch["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(not_resized(true)["status"]["allocatedResourceStatuses"]["storage"], "NodeResizeInfeasible");
    }
}
