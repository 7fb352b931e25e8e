//! Validation per kind, beyond metadata.
//!
//! Objects are value trees in the storage version, defaulted. Texts are those of API validation v1.36. What holds of
//! every object of a kind is a `content` rule; creation, updates and subresources add rules of their own.

mod admission;
mod autoscaling;
mod batch;
mod certificates;
mod checks;
mod content;
mod core;
mod definitions;
mod devices;
mod events;
mod extension;
mod flow;
mod job;
mod networking;
mod pod;
mod policies;
mod quota;
pub(crate) mod read;
mod service;
mod service_addresses;
mod storage;
#[cfg(test)]
mod tests;
mod workloads;

pub use checks::is_extended;
use machinery::{
    GroupVersionKind,
    field::{ErrorList, Path},
};
use serde_json::Value;
pub use service_addresses::cluster_addresses;

pub(crate) use self::checks::{lenient_cidr, lenient_ip};

/// Checks tolerations that stand outside of Pods, in a list of this name.
pub fn tolerations(list: &[Value], name: &str) -> ErrorList {
    let mut errors = ErrorList::default();
    pod::tolerations(list, &Path::new(name), &mut errors);
    errors
}

/// Checks a new object.
pub fn create(gvk: &GroupVersionKind, object: &Value) -> ErrorList {
    let mut errors = valid(gvk, object);
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => pod::new_pod(object, &mut errors),
        ("", "Event") => events::event(object, &mut errors),
        ("apps", "StatefulSet") => workloads::new_stateful_set(object, &mut errors),
        ("batch", "Job") => job::new_job(object, &mut errors),
        ("batch", "CronJob") => batch::new_cron_job(object, &mut errors),
        ("networking.k8s.io", "Ingress") => networking::new_ingress(object, &mut errors),
        ("networking.k8s.io", "IPAddress") => networking::address(object, &mut errors),
        _ => {}
    }
    errors
}

/// Checks an updated object against the stored one.
pub fn update(gvk: &GroupVersionKind, new: &Value, old: &Value, subresource: &str) -> ErrorList {
    match subresource {
        "" => {
            let mut errors = news(valid(gvk, new), || valid(gvk, old));
            changes(gvk, new, old, &mut errors);
            errors
        }
        "status" => {
            let mut errors = news(valid_status(gvk, new), || valid_status(gvk, old));
            status_changes(gvk, new, old, &mut errors);
            errors
        }
        other => through(gvk, other, new, old),
    }
}

/// The errors that the stored object does not have as well: what was accepted once stays acceptable.
fn news(mut errors: ErrorList, stored: impl FnOnce() -> ErrorList) -> ErrorList {
    if !errors.is_empty() {
        let known = stored().into_causes();
        errors.retain(|cause| !known.contains(cause));
    }
    errors
}

/// What every object of the kind obeys.
fn valid(gvk: &GroupVersionKind, object: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", kind) => core_kind(kind, object, &mut errors),
        ("apps", "ControllerRevision") => core::revision(object, &mut errors),
        ("apps", kind) => workloads::workload(kind, object, &mut errors),
        ("batch", "Job") => job::job(object, &mut errors),
        ("batch", "CronJob") => batch::cron_job(object, &mut errors),
        ("autoscaling", _) => autoscaling::autoscaler(object, &mut errors),
        ("networking.k8s.io", kind) => network_kind(kind, object, &mut errors),
        ("storage.k8s.io", kind) => storage_kind(kind, object, &mut errors),
        ("rbac.authorization.k8s.io", kind) => rbac_kind(kind, object, &mut errors),
        ("admissionregistration.k8s.io", kind) => admission_kind(kind, object, &mut errors),
        ("resource.k8s.io", kind) => device_kind(kind, object, &mut errors),
        (group, kind) => other_kind(group, kind, object, &mut errors),
    }
    errors
}

fn core_kind(kind: &str, object: &Value, errors: &mut ErrorList) {
    match kind {
        "Pod" => pod::pod(object, errors),
        "PodTemplate" => {
            pod::template(object.get("template").unwrap_or(&Value::Null), &Path::new("template"), errors);
        }
        "ReplicationController" => workloads::replication_controller(object, errors),
        "ConfigMap" => content::config_map(object, errors),
        "Secret" => content::secret(object, errors),
        "Service" => service::service(object, errors),
        "Endpoints" => core::endpoints(object, errors),
        "Node" => core::node(object, errors),
        "PersistentVolume" => storage::volume(object, errors),
        "PersistentVolumeClaim" => storage::claim(object, errors),
        "ResourceQuota" => quota::resource_quota(object, errors),
        "LimitRange" => quota::limit_range(object, errors),
        _ => {}
    }
}

fn network_kind(kind: &str, object: &Value, errors: &mut ErrorList) {
    match kind {
        "Ingress" => networking::ingress(object, errors),
        "IngressClass" => networking::ingress_class(object, errors),
        "NetworkPolicy" => networking::policy(object, errors),
        "ServiceCIDR" => networking::service_cidr(object, errors),
        _ => {}
    }
}

fn storage_kind(kind: &str, object: &Value, errors: &mut ErrorList) {
    match kind {
        "StorageClass" => storage::storage_class(object, errors),
        "VolumeAttributesClass" => storage::attributes_class(object, errors),
        "CSIDriver" => storage::csi_driver(object, errors),
        "CSINode" => storage::csi_node(object, errors),
        "VolumeAttachment" => storage::attachment(object, errors),
        "CSIStorageCapacity" => storage::storage_capacity(object, errors),
        _ => {}
    }
}

fn rbac_kind(kind: &str, object: &Value, errors: &mut ErrorList) {
    match kind {
        "Role" => extension::role(object, true, errors),
        "ClusterRole" => extension::role(object, false, errors),
        "RoleBinding" => extension::binding(object, true, errors),
        "ClusterRoleBinding" => extension::binding(object, false, errors),
        _ => {}
    }
}

fn admission_kind(kind: &str, object: &Value, errors: &mut ErrorList) {
    match kind {
        "ValidatingWebhookConfiguration" => admission::webhooks(object, false, errors),
        "MutatingWebhookConfiguration" => admission::webhooks(object, true, errors),
        "ValidatingAdmissionPolicy" => policies::policy(object, false, errors),
        "MutatingAdmissionPolicy" => policies::policy(object, true, errors),
        "ValidatingAdmissionPolicyBinding" => policies::binding(object, false, errors),
        "MutatingAdmissionPolicyBinding" => policies::binding(object, true, errors),
        _ => {}
    }
}

fn device_kind(kind: &str, object: &Value, errors: &mut ErrorList) {
    match kind {
        "ResourceClaim" => devices::claim(object, errors),
        "ResourceClaimTemplate" => devices::template(object, errors),
        "DeviceClass" => devices::class(object, errors),
        "ResourceSlice" => devices::slice(object, errors),
        _ => {}
    }
}

fn other_kind(group: &str, kind: &str, object: &Value, errors: &mut ErrorList) {
    match (group, kind) {
        ("policy", "PodDisruptionBudget") => extension::budget(object, errors),
        ("scheduling.k8s.io", "PriorityClass") => extension::priority_class(object, errors),
        ("node.k8s.io", "RuntimeClass") => extension::runtime_class(object, errors),
        ("coordination.k8s.io", "Lease") => extension::lease(object, errors),
        ("discovery.k8s.io", "EndpointSlice") => networking::endpoint_slice(object, errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::request(object, errors),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => flow::schema(object, errors),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => flow::level(object, errors),
        ("apiregistration.k8s.io", "APIService") => admission::api_service(object, errors),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            definitions::definition(object, errors);
            definitions::stored_versions(object, errors);
        }
        _ => {}
    }
}

/// What an update through the main resource may not change.
fn changes(gvk: &GroupVersionKind, new: &Value, old: &Value, errors: &mut ErrorList) {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => pod::update(new, old, errors),
        ("", "ConfigMap") => content::unchanged(new, old, errors),
        ("", "Secret") => {
            content::same_type(new, old, errors);
            content::unchanged(new, old, errors);
        }
        ("", "Service") => service::update(new, old, errors),
        ("", "Node") => core::node_update(new, old, errors),
        ("", "PersistentVolume") => storage::volume_update(new, old, errors),
        ("", "PersistentVolumeClaim") => storage::claim_update(new, old, errors),
        ("", "ResourceQuota") => quota::resource_quota_update(new, old, errors),
        ("apps", "ControllerRevision") => core::revision_update(new, old, errors),
        ("apps", kind) => workloads::update(kind, new, old, errors),
        ("batch", "Job") => job::update(new, old, errors),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => extension::same_role(new, old, errors),
        ("scheduling.k8s.io", "PriorityClass") => extension::priority_class_update(new, old, errors),
        ("node.k8s.io", "RuntimeClass") => extension::immutable(new, old, &["handler"], errors),
        ("discovery.k8s.io", "EndpointSlice") => extension::immutable(new, old, &["addressType"], errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::update(new, old, "", errors),
        ("networking.k8s.io", "IngressClass") => networking::ingress_class_update(new, old, errors),
        ("networking.k8s.io", "ServiceCIDR") => networking::service_cidr_update(new, old, errors),
        ("networking.k8s.io", "IPAddress") => networking::address_update(new, old, errors),
        ("storage.k8s.io", kind) => storage_changes(kind, new, old, errors),
        ("apiextensions.k8s.io", _) => definitions::update(new, old, errors),
        ("resource.k8s.io", "ResourceClaim" | "ResourceClaimTemplate") => devices::same_spec(new, old, errors),
        ("resource.k8s.io", "ResourceSlice") => devices::slice_update(new, old, errors),
        _ => {}
    }
}

fn storage_changes(kind: &str, new: &Value, old: &Value, errors: &mut ErrorList) {
    match kind {
        "StorageClass" => {
            storage::frozen(new, old, &["parameters", "provisioner", "reclaimPolicy"], errors);
            extension::immutable(new, old, &["volumeBindingMode"], errors);
        }
        "VolumeAttributesClass" => storage::frozen(new, old, &["driverName", "parameters"], errors),
        "CSIDriver" => storage::csi_driver_update(new, old, errors),
        "CSINode" => storage::csi_node_update(new, old, errors),
        "VolumeAttachment" => devices::same_spec(new, old, errors),
        "CSIStorageCapacity" => extension::immutable(new, old, &["nodeTopology", "storageClassName"], errors),
        _ => {}
    }
}

/// What every status of the kind obeys.
fn valid_status(gvk: &GroupVersionKind, object: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Node") => core::node_status(object, &mut errors),
        ("", "Service") => service::status(object, &mut errors),
        ("", "PersistentVolumeClaim") => storage::claim_status(object, &mut errors),
        ("", "ResourceQuota") => quota::resource_quota_status(object, &mut errors),
        ("policy", "PodDisruptionBudget") => extension::budget_status(object, &mut errors),
        ("autoscaling", _) => autoscaling::status(object, &mut errors),
        ("networking.k8s.io", "Ingress") => networking::ingress_status(object, &mut errors),
        ("flowcontrol.apiserver.k8s.io", _) => flow::status(object, &mut errors),
        ("apiextensions.k8s.io", _) => definitions::stored_versions(object, &mut errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::conditions(object, &mut errors),
        _ => {}
    }
    errors
}

/// What an update of the status may not change.
fn status_changes(gvk: &GroupVersionKind, new: &Value, old: &Value, errors: &mut ErrorList) {
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => pod::status(new, old, errors),
        ("", "Namespace") => core::namespace_status(new, errors),
        ("", "ReplicationController") => workloads::status("ReplicationController", new, old, errors),
        ("apps", kind) => workloads::status(kind, new, old, errors),
        ("batch", "Job") => job::status(new, old, errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificates::update(new, old, "status", errors),
        ("resource.k8s.io", "ResourceClaim") => devices::claim_status(new, old, errors),
        _ => {}
    }
}

/// Checks an update through a subresource other than `status`.
fn through(gvk: &GroupVersionKind, subresource: &str, new: &Value, old: &Value) -> ErrorList {
    match (gvk.kind.as_str(), subresource) {
        ("Pod", "ephemeralcontainers") => {
            let mut errors = news(valid(gvk, new), || valid(gvk, old));
            pod::ephemeral_update(new, old, &mut errors);
            errors
        }
        ("Pod", "resize") => {
            let mut errors = news(valid(gvk, new), || valid(gvk, old));
            pod::resize(new, old, &mut errors);
            errors
        }
        ("Namespace", "finalize") => {
            let mut errors = ErrorList::default();
            core::namespace_finalize(new, &mut errors);
            errors
        }
        ("CertificateSigningRequest", "approval") => {
            let mut errors = valid_status(gvk, new);
            certificates::update(new, old, "approval", &mut errors);
            errors
        }
        _ => ErrorList::default(),
    }
}

/// `spec` as a path.
fn spec_path() -> Path {
    Path::new("spec")
}
