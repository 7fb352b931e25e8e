//! The twin of a machine.
