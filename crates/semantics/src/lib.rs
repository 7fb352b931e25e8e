//! Shared arithmetic of the API: pod requests, QoS class, quota usage, cron schedules, tolerations.
//!
//! Functions of value trees, used where objects are not decoded into types; taints and tolerations are typed.

pub mod cron;
pub mod qos;
pub mod quota;
pub mod resources;
pub mod taints;
