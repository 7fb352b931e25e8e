//! The system's message bus: as much of D-Bus as it takes to call a service and to hear its signals.
//!
//! [`wire`] turns messages to bytes and back (pure); [`Bus`] is one authenticated connection. Whatever comes from the bus
//! is limited in length and checked; types nobody here needs are refused, not guessed.

mod connection;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

pub use connection::{Answer, Bus, BusError, Call};
pub use wire::{Kind, Message, Value, WireError};
