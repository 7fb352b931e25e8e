//! Validation per kind, beyond metadata.
//!
//! Objects are value trees in the storage version, defaulted. Texts are those of API validation v1.36.

mod batch;
mod container;
mod content;
mod core;
mod extension;
mod pod;
mod read;
mod service;
#[cfg(test)]
mod tests;
mod workloads;

use machinery::{
    GroupVersionKind,
    field::{ErrorList, Path},
};
use serde_json::Value;

/// Checks a new object.
pub fn create(gvk: &GroupVersionKind, object: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => pod::create(object, &mut errors),
        ("", "ReplicationController") => workloads::replication_controller(object, &mut errors),
        ("", "ConfigMap") => content::config_map(object, &mut errors),
        ("", "Secret") => content::secret(object, &mut errors),
        ("", "Service") => service::check(object, &mut errors),
        ("", "Node") => core::node(object, &mut errors),
        ("", "PersistentVolume") => core::volume(object, &mut errors),
        ("", "PersistentVolumeClaim") => core::claim(object, &mut errors),
        ("rbac.authorization.k8s.io", kind) => rbac(kind, object, &mut errors),
        ("policy", "PodDisruptionBudget") => extension::budget(object, &mut errors),
        ("scheduling.k8s.io", "PriorityClass") => extension::priority_class(object, &mut errors),
        ("coordination.k8s.io", "Lease") => extension::lease(object, &mut errors),
        ("certificates.k8s.io", "CertificateSigningRequest") => extension::signing_request(object, &mut errors),
        ("apps", kind) => workloads::create(kind, object, &mut errors),
        ("batch", "Job") => batch::job(object, &mut errors),
        ("batch", "CronJob") => {
            batch::cron_job(object, &mut errors);
            batch::new_schedule(object, &mut errors);
        }
        _ => {}
    }
    errors
}

/// Checks an updated object against the stored one.
pub fn update(gvk: &GroupVersionKind, new: &Value, old: &Value, subresource: &str) -> ErrorList {
    let mut errors = ErrorList::default();
    if !subresource.is_empty() {
        return errors;
    }
    let spec_changed = !read::same("spec", new.get("spec"), old.get("spec"));
    match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => pod::update(new, old, &mut errors),
        ("", "ReplicationController") if spec_changed => workloads::replication_controller(new, &mut errors),
        ("", "ConfigMap") => {
            content::unchanged(new, old, &mut errors);
            content::config_map(new, &mut errors);
        }
        ("", "Secret") => {
            content::same_type(new, old, &mut errors);
            content::unchanged(new, old, &mut errors);
            content::secret(new, &mut errors);
        }
        ("", "Service") if spec_changed => {
            service::check(new, &mut errors);
            service::update(new, old, &mut errors);
        }
        ("", "Node") if spec_changed => {
            core::node(new, &mut errors);
            core::node_update(new, old, &mut errors);
        }
        ("", "PersistentVolumeClaim") if spec_changed => core::claim_update(new, old, &mut errors),
        ("rbac.authorization.k8s.io", kind) => {
            rbac(kind, new, &mut errors);
            extension::same_role(new, old, &mut errors);
        }
        ("policy", "PodDisruptionBudget") => extension::budget(new, &mut errors),
        ("scheduling.k8s.io", "PriorityClass") => extension::priority_class_update(new, old, &mut errors),
        ("coordination.k8s.io", "Lease") => extension::lease(new, &mut errors),
        ("storage.k8s.io", "StorageClass") => {
            let fields = ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"];
            extension::immutable(new, old, &fields, &mut errors);
        }
        ("apps", kind) => workloads::update(kind, new, old, &mut errors),
        ("batch", "Job") => batch::job_update(new, old, &mut errors),
        ("batch", "CronJob") if spec_changed => {
            batch::cron_job(new, &mut errors);
            if new.pointer("/spec/schedule") != old.pointer("/spec/schedule") {
                batch::new_schedule(new, &mut errors);
            }
        }
        _ => {}
    }
    errors
}

fn rbac(kind: &str, object: &Value, errors: &mut ErrorList) {
    match kind {
        "Role" => extension::role(object, true, errors),
        "ClusterRole" => extension::role(object, false, errors),
        "RoleBinding" => extension::binding(object, true, errors),
        "ClusterRoleBinding" => extension::binding(object, false, errors),
        _ => {}
    }
}

/// `spec` as a path.
fn spec_path() -> Path {
    Path::new("spec")
}
