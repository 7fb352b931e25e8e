//! API machinery without I/O: Status, metadata, selectors, quantities, patches, managed fields, tables.
//!
//! Everything here is a function of its arguments: no clock, no randomness, no files.

pub mod gvk;
pub mod meta;
pub mod status;

pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use status::{ApiError, ApiResult, Reason, Status, StatusCause, StatusDetails};
