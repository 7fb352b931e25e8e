//! The generic API server: handler chain, verbs, admission frame, authentication, authorization, discovery.
//!
//! [`chain::serve`] is the life of a request from top to bottom; [`server::dispatch`] picks the verb; the verbs in
//! [`verbs`] are generic over [`endpoint::Endpoint`], of which `registry` makes one per served resource.

pub mod admission;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod chain;
pub mod codec;
pub mod delegate;
pub mod endpoint;
pub mod flowcontrol;
pub mod front;
pub mod impersonate;
mod journal;
pub mod metrics;
pub mod negotiate;
pub mod nonresource;
pub mod options;
pub mod print;
pub mod projection;
pub mod published;
pub mod remote;
pub mod request;
pub mod resource;
pub mod respond;
pub mod selection;
pub mod server;
mod steps;
pub mod user;
pub mod verbs;
