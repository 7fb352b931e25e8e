//! The behaviour of one kind between decoding and storage: what the generic verbs ask of it.
//!
//! The order of calls is that of the write path: `defaults` (inside decoding), then mutating admission, then
//! `prepare_create` / `prepare_update`, then `validate_create` / `validate_update`, then `warnings`.

mod fields;
mod kinds;
mod prepare;
mod warnings;

use machinery::field::ErrorList;
use serde_json::Value;

pub use kinds::for_kind;
pub use warnings::deprecation;

/// What a strategy may know besides the objects.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Current time, RFC 3339 with second precision, UTC (`2006-01-02T15:04:05Z`).
    pub now: &'a str,
    /// Name of the requesting user.
    pub user: &'a str,
    /// Uid of the requesting user, may be empty.
    pub user_uid: &'a str,
    /// Groups of the requesting user.
    pub groups: &'a [String],
    /// Extra attributes of the requesting user as a JSON object of lists.
    pub extra: Option<&'a Value>,
}

/// How objects are removed when the client states no propagation policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultPropagation {
    /// Dependents are collected in the background.
    Background,
    /// Dependents are orphaned (Job, ReplicationController).
    Orphan,
    /// The kind takes no part in garbage collection (Events).
    Unsupported,
}

/// What a write through a subresource may change: `""` is the main resource, else `status`, `approval`, `finalize`,
/// `resize`, `ephemeralcontainers`.
pub type Subresource<'a> = &'a str;

/// Strategy of one kind. Objects are value trees in the storage version. Defaults fit kinds without special rules.
pub trait Strategy: Send + Sync {
    /// Fills defaults in place. Runs whenever an object is decoded, also from storage.
    fn defaults(&self, _object: &mut Value) {}

    /// Brings a stored object in the storage version into the form in which it is served.
    fn read(&self, object: &mut Value) {
        self.defaults(object);
    }

    /// Prepares a new object: resets what the client may not set (status and so on), sets `metadata.generation`.
    fn prepare_create(&self, _object: &mut Value, _context: &Context<'_>) {}

    /// Validates a new object, name rules included.
    fn validate_create(&self, _object: &Value) -> ErrorList;

    /// Prepares an update: keeps from `old` what this subresource may not change, raises the generation.
    fn prepare_update(&self, _new: &mut Value, _old: &Value, _subresource: Subresource<'_>, _context: &Context<'_>) {}

    /// Validates an update after preparation (generic metadata rules are checked by the caller).
    fn validate_update(&self, _new: &Value, _old: &Value, _subresource: Subresource<'_>) -> ErrorList;

    /// Warnings for the client about a created or updated object (`old` is absent on create).
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Whether PUT creates a missing object.
    fn create_on_update(&self) -> bool {
        false
    }

    /// Whether PUT without resourceVersion is accepted.
    fn unconditional_update(&self) -> bool {
        true
    }

    /// Grace period in seconds for a delete of `object` with the client's wish, or `None` if the kind is not deleted
    /// gracefully. Only Pods are.
    fn grace_period(&self, _object: &Value, _wish: Option<i64>) -> Option<i64> {
        None
    }

    /// Propagation when the client states none.
    fn default_propagation(&self) -> DefaultPropagation {
        DefaultPropagation::Background
    }

    /// Whether a DELETE that removes the object answers with the object instead of a `Status`.
    fn delete_returns_object(&self) -> bool {
        false
    }

    /// Whether the object must stay although metadata.finalizers is empty (Namespaces hold `spec.finalizers`).
    fn holds_deletion(&self, _object: &Value) -> bool {
        false
    }

    /// Runs when a delete only marks the object (Namespaces turn `Terminating`).
    fn mark_deleting(&self, _object: &mut Value) {}

    /// Paths of the selectable fields beyond `metadata.name` and `metadata.namespace`, with how they are read.
    fn selectable_fields(&self) -> &'static [SelectableField] {
        &[]
    }
}

/// One field that field selectors of a kind may name.
#[derive(Clone, Copy, Debug)]
pub struct SelectableField {
    /// Name in the selector, such as `spec.nodeName`.
    pub label: &'static str,
    /// Where the value stands in the object, outermost first; numeric segments index lists.
    pub path: &'static [&'static str],
    /// Read instead when the first path is absent or empty.
    pub fallback: Option<&'static [&'static str]>,
    /// Text when the value is absent everywhere.
    pub absent: &'static str,
}
