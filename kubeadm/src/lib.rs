//! kubeadm: makes a cluster, lets hosts join it, and takes a host out of it.
//!
//! - [`commands`] reads the command line ([`cli`]) and configuration ([`config`]) and runs a workflow of [`phases`];
//! - phases are built from what each needs: certificates ([`pki`], [`kubeconfig`]), static Pods ([`manifests`]), images
//!   ([`images`]), the kubelet ([`kubelet`]), objects of the API ([`client`], [`addons`], [`rbac`], [`token`]);
//! - [`upkeep`] runs on every control plane: it renews certificates, saves etcd's data and keeps its file small;
//! - the machine is reached through [`host::Host`] alone, so that every phase can be tested without one.

pub mod addons;
pub mod admin;
pub mod audit;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod constants;
pub mod cri;
pub mod discovery;
pub mod encryption;
pub mod error;
pub mod etcd;
pub mod fetch;
pub mod host;
pub mod images;
pub mod kubeconfig;
pub mod kubelet;
pub mod manifests;
pub mod mirror;
pub mod patches;
pub mod phases;
pub mod pki;
pub mod preflight;
pub mod rbac;
pub mod supervisor;
pub mod token;
pub mod upkeep;
pub mod yaml;
