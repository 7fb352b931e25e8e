//! gRPC definitions that a node speaks: the container runtime interface, storage drivers, device plugins, dynamic
//! resources, the registration of all of these, and the health protocol of grpc probes; and what the API server speaks
//! to key management services, to who signs tokens for it, to network proxies, and to collectors of traces.
//!
//! The modules are generated from the `.proto` files of this crate by `cargo run -p timonel-proto --example generate`
//! and committed.

/// Declares a generated module.
macro_rules! generated {
    ($($(#[$meta:meta])* $name:ident = $path:literal;)*) => {$(
        $(#[$meta])*
        #[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used, clippy::let_underscore_must_use)]
        #[rustfmt::skip]
        #[path = $path]
        pub mod $name;
    )*};
}

generated! {
    /// Container runtime interface, `runtime.v1`.
    cri = "generated/runtime.v1.rs";
    /// gRPC health checking, `grpc.health.v1`.
    health = "generated/grpc.health.v1.rs";
    /// The node's part of the container storage interface, `csi.v1`.
    csi = "generated/csi.v1.rs";
    /// Registration of plugins, `pluginregistration`.
    registration = "generated/pluginregistration.rs";
    /// Device plugins, `v1beta1`.
    device = "generated/v1beta1.rs";
    /// Resources that containers hold, `v1`.
    podresources = "generated/v1.rs";
    /// Dynamic resource allocation on the node, `k8s.io.kubelet.pkg.apis.dra.v1`.
    dra = "generated/k8s.io.kubelet.pkg.apis.dra.v1.rs";
    /// Key management services of the API server, `v2`.
    kms = "generated/v2.rs";
    /// Values sealed with keys of such a service, `kmsobject.v2`.
    kmsobject = "generated/kmsobject.v2.rs";
    /// Who signs tokens of ServiceAccounts, `v1`.
    externaljwt = "generated/externaljwt/v1.rs";
    /// Network proxies.
    konnectivity = "generated/_.rs";
    /// Collectors of traces, `opentelemetry.proto.collector.trace.v1`.
    otlp = "generated/opentelemetry.proto.collector.trace.v1.rs";
}
