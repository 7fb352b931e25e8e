//! The phases of `init`, `join`, `upgrade` and `reset`, and what runs them: [`workflow`].

pub mod addons;
pub mod certs;
pub mod cluster_info;
pub mod control_plane;
pub mod init;
pub mod join;
pub mod kubeconfigs;
pub mod mark;
pub mod preflight;
pub mod reset;
pub mod summary;
#[cfg(test)]
mod tests;
pub mod upgrade;
pub mod upload;
pub mod upload_certs;
pub mod wait;
pub mod workflow;
