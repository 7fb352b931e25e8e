//! Defaulting, validation and update strategy per kind, RBAC evaluation: functions only.
//!
//! [`strategy::for_kind`] answers how objects of one kind behave between decoding and storage.
//! Everything works on value trees in the storage version; time and randomness are arguments.

pub mod bootstrap;
pub mod defaults;
pub mod metadata;
pub mod pod_security;
pub mod policy;
pub mod rbac;
pub mod strategy;
pub mod validation;
