//! Writes `src/generated/*.rs` from the `.proto` files: `cargo run -p timonel-proto --example generate`.
//! Needs `protoc`; the result is committed, so ordinary builds do not.

use std::path::Path;

const FILES: [&str; 11] = [
    "runtime/v1/api.proto",
    "grpc/health/v1/health.proto",
    "csi/v1/csi.proto",
    "pluginregistration/v1/api.proto",
    "deviceplugin/v1beta1/api.proto",
    "podresources/v1/api.proto",
    "dra/v1/api.proto",
    "kms/v2/api.proto",
    "kms/v2/object.proto",
    "otlp/trace/v1/trace_service.proto",
    "konnectivity/v1/client.proto",
];
/// Of a package that is named like another.
const EXTERNAL_JWT: &str = "externaljwt/v1/api.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    write(&root.join("src/generated"), &FILES)?;
    write(&root.join("src/generated/externaljwt"), &[EXTERNAL_JWT])
}

fn write(out: &Path, files: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::create_dir_all(out)?;
    let builder = tonic_prost_build::configure().build_server(true).build_client(true).out_dir(out);
    let files: Vec<_> = files.iter().map(|file| root.join(file)).collect();
    builder.compile_protos(&files, &[root.to_path_buf()])?;
    Ok(())
}
