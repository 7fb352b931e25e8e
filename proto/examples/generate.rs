//! Writes `src/generated/*.rs` from the `.proto` files: `cargo run -p timonel-proto --example generate`.
//! Needs `protoc`; the result is committed, so ordinary builds do not.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = root.join("src/generated");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure().build_server(true).build_client(true).out_dir(&out).compile_protos(
        &[root.join("runtime/v1/api.proto"), root.join("grpc/health/v1/health.proto")],
        &[root.to_path_buf()],
    )?;
    Ok(())
}
