//! The built-in resources hooked up to the generic server: endpoints, conversions, subresources, table columns.

pub mod component_statuses;
pub mod connect;
pub mod conversion;
pub mod endpoints;
pub mod pods;
pub mod reviews;
pub mod services;
pub mod tables;
pub mod tokens;
