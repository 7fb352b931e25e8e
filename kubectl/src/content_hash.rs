//! Hashes in the names of generated ConfigMaps and Secrets (`--append-hash`, kustomize): ten characters of their content.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::print::json;

/// The hash of a document, whose keys are sorted, in characters that make no words.
pub(crate) fn of(document: &Value) -> String {
    let digest = Sha256::digest(json::compact(document).as_bytes());
    let hex: String = digest.iter().take(5).map(|b| format!("{b:02x}")).collect();
    hex.chars()
        .map(|c| match c {
            '0' => 'g',
            '1' => 'h',
            '3' => 'k',
            'a' => 'm',
            'e' => 't',
            other => other,
        })
        .collect()
}
