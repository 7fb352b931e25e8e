//! The three patch types on value trees.

pub mod json;
pub mod merge;
pub mod strategic;
