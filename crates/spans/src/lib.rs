//! What takes how long. A [`Span`] is a piece of work with a name; it has steps and pieces of its own. Two readers may
//! come of it: the log, which tells of work that took too long, step by step ([`Span::log_if_long`]), and a collector of
//! traces, which is sent the spans of traces that were chosen ([`Tracer`]).
//!
//! A component has one [`Tracer`]: [`Tracer::off`], or [`Tracer::start`] with what the operator has configured. Work
//! begins with [`Tracer::span`], runs in [`Span::within`], and anybody below says [`child`] and [`step`], which do
//! nothing where nobody listens. Who asks another server gives it [`inject`]ed headers.

mod config;
mod context;
mod export;
mod log;
mod span;

pub use config::{Config, TracingError};
pub use context::Context;
pub use export::{Service, Tracer};
pub use span::{Attribute, Kind, Span, child, current, enter, inject, step};

#[cfg(test)]
mod tests;
