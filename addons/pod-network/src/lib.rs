//! The pod network: an agent on every node.
//!
//! ```text
//!  Nodes --> plan (what there must be) --> links, rules (what differs) --> Host (ip, bridge, iptables)
//!                                     \--> cni (configuration of the runtime)
//! ```
//! Every agent derives all addresses from the Nodes alone, so agents do not talk to each other. The state of the host is
//! read again for every synchronisation: what somebody else changed is put right.

mod agent;
mod cni;
mod host;
mod links;
mod nodes;
mod plan;
mod rules;
mod run;

pub use run::{AgentError, Options, run};
