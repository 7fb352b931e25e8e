//! Images: names, credentials, pulling, collecting.

mod credentials;
mod pull;
mod reference;

pub use credentials::{Credential, Keyring};
pub use pull::{ImageError, Images, PullPolicy, Pulled};
pub use reference::{Reference, parse};
