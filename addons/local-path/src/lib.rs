//! Local path provisioner: one process on every node makes the volumes of claims that the scheduler has placed there,
//! as directories below one directory, and removes them when they are released.
//!
//! ```text
//!  scheduler: selected-node      binder: storage-provisioner
//!            \                   /
//!             claim --> [plan::volume_for] --> directory, PersistentVolume (local, bound to the node)
//!  released volume  --> [plan::is_expired] --> directory removed, PersistentVolume deleted
//! ```
//! The protocol is that of external provisioners: annotations on claims and volumes, see
//! <https://kubernetes.io/docs/concepts/storage/persistent-volumes/>.

mod plan;
mod provision;
mod run;

pub use run::{Options, ProvisionerError, run};

/// Name of the provisioner in StorageClasses.
pub const PROVISIONER: &str = "timonel.dev/local-path";
