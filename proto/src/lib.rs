//! gRPC definitions that a node speaks: the container runtime interface v1 and the health protocol of grpc probes.
//!
//! The modules are generated from `runtime/v1/api.proto` and `grpc/health/v1/health.proto` by
//! `cargo run -p timonel-proto --example generate` and committed.

/// Container runtime interface, `runtime.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::let_underscore_must_use)]
#[rustfmt::skip]
#[path = "generated/runtime.v1.rs"]
pub mod cri;

/// gRPC health checking, `grpc.health.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::let_underscore_must_use)]
#[rustfmt::skip]
#[path = "generated/grpc.health.v1.rs"]
pub mod health;
