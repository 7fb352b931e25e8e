//! CustomResourceDefinitions: what they define is served while they exist.
//!
//! ```text
//!  definition --> [naming]  names accepted?  --> conditions
//!             --> [serving] watch cache, endpoints per version, discovery and OpenAPI
//!             --> [finalizer] when it is deleted: its objects first
//!  request    --> [version] decoding, strategy and conversion of one served version
//! ```
//!
//! [`Definitions::run`] follows the definitions and is the only writer of their conditions. A change of what is served
//! makes new endpoints over a new watch cache, filled before it is used; requests under way end on the old ones, and
//! watches of the old ones are closed. Schemas are compiled when the first object needs them.

mod conversion;
mod definition;
mod finalizer;
mod naming;
mod printer;
mod publish;
mod serving;
mod status;
mod strategy;
mod version;
mod webhook;

pub use serving::{Definitions, Settings};
