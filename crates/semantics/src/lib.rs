//! Shared arithmetic of the API: pod requests, QoS class, quota usage, cron schedules.
//!
//! Functions of value trees, used where objects are not decoded into types.

pub mod cron;
pub mod qos;
pub mod quota;
pub mod resources;
