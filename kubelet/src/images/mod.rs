//! Images: names, credentials, pulling, collecting.

mod credentials;
mod providers;
mod pull;
mod records;
mod reference;

pub use credentials::{Credential, Keyring, node_files};
pub use providers::{ProviderError, Providers};
pub use pull::{ImageError, Images, PullPolicy, Pulled};
pub use records::{PullSecret, Records, Source, Verification};
pub use reference::{Reference, parse};
