//! JSON Patch (RFC 6902).

use serde_json::Value;

use crate::status::{ApiError, ApiResult, Reason, StatusDetails};

/// Operations in one patch at most.
const MAX_OPERATIONS: usize = 10_000;

/// Applies a patch, all operations or none.
pub fn apply(current: &Value, patch: &Value) -> ApiResult<Value> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(ApiError::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let operations: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let mut patched = current.clone();
    json_patch::patch(&mut patched, &operations).map_err(|_| {
        ApiError::new(422, Reason::Invalid, "the server rejected our request due to an error in our request")
            .with_details(StatusDetails::default())
    })?;
    Ok(patched)
}
