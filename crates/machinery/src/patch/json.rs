//! JSON Patch (RFC 6902).

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::status::{ApiError, ApiResult, Reason, StatusDetails};

/// Operations in one patch at most.
const MAX_OPERATIONS: usize = 10_000;
/// Bytes that `copy` operations of one patch may add.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Applies a patch, all operations or none.
pub fn apply(current: &Value, patch: &Value) -> ApiResult<Value> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(ApiError::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    let Patch(operations) = serde_json::from_value(patch.clone()).map_err(|e| ApiError::bad_request(e.to_string()))?;
    let mut patched = current.clone();
    let mut copied = 0_usize;
    for operation in operations {
        if let PatchOperation::Copy(copy) = &operation {
            let source = copy.from.resolve(&patched).map_err(|_| rejected())?;
            copied = copied.saturating_add(weight(source));
            if copied > MAX_COPIED {
                return Err(ApiError::too_large(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the \
                     limit {MAX_COPIED}"
                )));
            }
        }
        json_patch::patch(&mut patched, std::slice::from_ref(&operation)).map_err(|_| rejected())?;
    }
    Ok(patched)
}

fn rejected() -> ApiError {
    ApiError::new(422, Reason::Invalid, "the server rejected our request due to an error in our request")
        .with_details(StatusDetails::default())
}

/// Roughly the bytes of a value as JSON.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(weight).sum::<usize>() + list.len() + 2,
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + 4 + weight(v)).sum::<usize>() + 2,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_apply_in_order_or_not_at_all() {
        let current = json!({"a": [1, 2], "b": {"c": 1}});
        let patch = json!([
            {"op": "test", "path": "/a/0", "value": 1},
            {"op": "add", "path": "/a/-", "value": 3},
            {"op": "replace", "path": "/b/c", "value": 2},
            {"op": "copy", "from": "/b", "path": "/d"},
            {"op": "move", "from": "/b", "path": "/e"},
            {"op": "remove", "path": "/a/0"},
        ]);
        assert_eq!(apply(&current, &patch).expect("patched"), json!({"a": [2, 3], "d": {"c": 2}, "e": {"c": 2}}));
        for bad in [
            json!([{"op": "test", "path": "/a/0", "value": 9}]),
            json!([{"op": "remove", "path": "/zz"}]),
            json!([{"op": "replace", "path": "/zz", "value": 1}]),
            json!([{"op": "add", "path": "/zz/yy", "value": 1}]),
        ] {
            let error = apply(&current, &bad).expect_err("rejected");
            assert_eq!((error.code(), error.reason()), (422, "Invalid"), "{bad}");
        }
        assert_eq!(apply(&current, &json!({"op": "add"})).map_err(|e| e.code()), Err(400));
    }

    #[test]
    fn growth_is_bounded() {
        let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "test", "path": "", "value": 1})).collect();
        let error = apply(&json!({}), &json!(many)).expect_err("too many");
        assert_eq!(error.code(), 413);
        assert_eq!(error.to_string(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
        let doubling: Vec<Value> =
            (0..60).map(|n| json!({"op": "copy", "from": "", "path": format!("/x{n}")})).collect();
        let error = apply(&json!({"seed": "x".repeat(1000)}), &json!(doubling)).expect_err("too large");
        assert_eq!(error.code(), 413);
    }
}
