//! The container runtime: a client with deadlines and the view of a Pod that the runtime gives.

mod client;
mod slim;
mod trace;
mod view;

pub(crate) use client::channel;
pub use client::{Cri, CriError, RuntimeVersion};
pub use slim::{SlimContainer, SlimSandbox};
pub use view::{ContainerRecord, PodView, RecordState, SandboxRecord, labels};

pub use proto::cri as v1;
