//! Three-way patches: from what was applied last, what is applied now, and what the server has.

pub mod merge;
pub mod strategic;
#[cfg(test)]
mod tests;

use serde_json::Value;

use crate::print::declared;

/// A patch with its media type.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// `application/strategic-merge-patch+json` or `application/merge-patch+json`.
    pub media_type: &'static str,
    /// The patch.
    pub body: Value,
}

impl Patch {
    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.body.as_object().is_some_and(serde_json::Map::is_empty)
    }
}

/// Media type of strategic merge patches.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Media type of JSON merge patches.
pub const MERGE: &str = "application/merge-patch+json";

/// The patch that brings `current` to `modified` and removes what only `original` had: strategic for built-in kinds.
pub fn patch(original: &Value, modified: &Value, current: &Value) -> Patch {
    match declared::schema(modified) {
        Some(schema) => {
            Patch { media_type: STRATEGIC, body: strategic::three_way(original, modified, current, schema) }
        }
        None => Patch { media_type: MERGE, body: merge::three_way(original, modified, current) },
    }
}

/// The patch from one version of an object to another.
pub fn two_way(original: &Value, modified: &Value) -> Patch {
    match declared::schema(modified) {
        Some(schema) => Patch { media_type: STRATEGIC, body: strategic::two_way(original, modified, schema) },
        None => Patch { media_type: MERGE, body: merge::diff(original, modified) },
    }
}
