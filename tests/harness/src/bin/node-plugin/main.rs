//! What a node of a test has beside the kubelet: a storage driver whose volumes are directories, a device plugin whose
//! devices are names, a login daemon whose machine goes down.
//!
//! `node-plugin csi NAME DIRECTORY`, `node-plugin devices RESOURCE COUNT` and `node-plugin logind FILE`.

mod devices;
mod logind;
mod storage;

use std::path::Path;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The kubelet's directory.
pub(crate) const KUBELET: &str = "/var/lib/kubelet";

/// A socket, whatever was there before.
pub(crate) fn listen(path: &Path) -> Result<UnixListenerStream, Failure> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    Ok(UnixListenerStream::new(UnixListener::bind(path)?))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["csi", name, directory] => storage::serve(name, Path::new(directory)).await,
        ["devices", resource, count] => devices::serve(resource, count.parse()?).await,
        ["logind", trigger] => logind::serve(Path::new(trigger)).await,
        _ => Err("usage: node-plugin csi NAME DIRECTORY | devices RESOURCE COUNT | logind FILE".into()),
    }
}
