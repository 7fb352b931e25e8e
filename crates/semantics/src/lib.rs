//! Shared arithmetic of the API: pod requests, QoS class, quota usage.
//!
//! Functions of value trees, used where objects are not decoded into types.

pub mod qos;
pub mod quota;
pub mod resources;
