//! Writes `src/generated/*.rs` from the `.proto` files: `cargo run -p timonel-proto --example generate`.
//! Needs `protoc`; the result is committed, so ordinary builds do not.

use std::path::Path;

const FILES: [&str; 9] = [
    "runtime/v1/api.proto",
    "grpc/health/v1/health.proto",
    "csi/v1/csi.proto",
    "pluginregistration/v1/api.proto",
    "deviceplugin/v1beta1/api.proto",
    "podresources/v1/api.proto",
    "dra/v1/api.proto",
    "kms/v2/api.proto",
    "kms/v2/object.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = root.join("src/generated");
    std::fs::create_dir_all(&out)?;
    let builder = tonic_prost_build::configure().build_server(true).build_client(true).out_dir(&out);
    builder.compile_protos(&FILES.map(|file| root.join(file)), &[root.to_path_buf()])?;
    Ok(())
}
