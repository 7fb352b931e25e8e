//! The certificates of a cluster: what there is ([`table`]), how one is made ([`issue`]), and the files ([`files`]).

pub mod files;
pub mod issue;
pub mod key;
pub mod renew;
pub mod table;
#[cfg(test)]
mod tests;

pub use issue::{Authority, Lifetime, Names, Subject, Usage};
pub use key::{Algorithm, Key};
