//! Turning rule violations into the 422 answer.

use machinery::{ApiError, ApiResult, GroupVersionKind, field::ErrorList};

/// 422 `Invalid` if there are errors.
pub fn fail(gvk: &GroupVersionKind, name: &str, errors: ErrorList) -> ApiResult<()> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(&gvk.group_kind(), name, errors.into_causes())) }
}
