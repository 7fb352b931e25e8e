//! The verbs, generic over the kinds table.

pub mod body;
pub mod context;
pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod managed;
pub mod patch;
pub mod scale;
pub mod update;
pub mod validate;
pub mod watch;
