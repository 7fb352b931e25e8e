//! Validation per kind, beyond metadata.
//!
//! Objects are value trees in the storage version, defaulted. Texts are those of API validation v1.36.

mod workloads;

use machinery::{
    GroupVersionKind,
    field::{ErrorList, Path},
};
use serde_json::Value;

/// Checks a new object.
pub fn create(gvk: &GroupVersionKind, object: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    if let ("apps", _) = (gvk.group.as_str(), gvk.kind.as_str()) {
        workloads::create(&gvk.kind, object, &mut errors);
    }
    errors
}

/// Checks an updated object against the stored one.
pub fn update(gvk: &GroupVersionKind, new: &Value, old: &Value, subresource: &str) -> ErrorList {
    let mut errors = ErrorList::default();
    if let ("apps", "") = (gvk.group.as_str(), subresource) {
        workloads::update(&gvk.kind, new, old, &mut errors);
    }
    errors
}

/// `spec` as a path.
fn spec_path() -> Path {
    Path::new("spec")
}
