//! API machinery without I/O: Status, metadata, selectors, quantities, patches, managed fields.
//!
//! Everything here is a function of its arguments: no clock, no randomness, no files.

pub mod decode;
pub mod duration;
pub mod field;
pub mod gvk;
pub mod intstr;
pub mod jsonpath;
pub mod list;
pub mod managed;
pub mod meta;
pub mod names;
pub mod patch;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod time;

pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource};
pub use status::{ApiError, ApiResult, Reason, Status, StatusCause, StatusDetails};
