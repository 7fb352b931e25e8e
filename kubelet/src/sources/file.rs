//! Manifests in a directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::{Deliveries, Origin, Snapshot, SourceName, decode, prepare};
use crate::platform::DirWatch;
use crate::pods;

const MAX_FILE: u64 = 10 << 20;
/// Several writes to a directory become one look.
const SETTLE: Duration = Duration::from_millis(100);

/// Watches a directory of manifests.
pub struct FileSource {
    /// The directory.
    pub dir: PathBuf,
    /// Node name.
    pub node: String,
    /// How often to look without being told.
    pub period: Duration,
}

impl FileSource {
    /// Delivers the directory's content whenever it changes.
    pub async fn run(self, deliveries: Deliveries, stop: CancellationToken) {
        let mut last: Option<BTreeMap<String, String>> = None;
        loop {
            let mut watch = DirWatch::new(&self.dir).ok();
            let (dir, node) = (self.dir.clone(), self.node.clone());
            let pods = tokio::task::spawn_blocking(move || scan(&dir, &node)).await.unwrap_or_default();
            let names = pods.iter().map(|(uid, pod)| (uid.clone(), pods::full_name(pod))).collect();
            if last.as_ref() != Some(&names) {
                last = Some(names);
                if deliveries.send(Snapshot { source: SourceName::File, pods }).await.is_err() {
                    return;
                }
            }
            let changed = async {
                match &mut watch {
                    Some(watch) => {
                        if watch.changed().await.is_err() {
                            std::future::pending::<()>().await;
                        }
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.period) => {}
                () = changed => tokio::time::sleep(SETTLE).await,
            }
        }
    }
}

/// All Pods of a directory; a broken file is skipped.
fn scan(dir: &Path, node: &str) -> BTreeMap<String, Arc<Pod>> {
    let mut found = BTreeMap::new();
    let mut entries: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => return found,
    };
    entries.sort();
    for path in entries {
        let hidden = path.file_name().and_then(|name| name.to_str()).is_none_or(|name| name.starts_with('.'));
        if hidden || !path.is_file() {
            continue;
        }
        match read(&path, node) {
            Ok(pod) => {
                found.insert(pods::uid(&pod).to_owned(), Arc::new(pod));
            }
            Err(error) => tracing::error!(path = %path.display(), error, "could not process manifest file"),
        }
    }
    found
}

fn read(path: &Path, node: &str) -> Result<Pod, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err("file is too large".to_owned());
    }
    let values = decode(&bytes, false).map_err(|error| error.to_string())?;
    let place = path.display().to_string();
    let origin = Origin { source: SourceName::File, place: &place, node };
    let value = values.first().ok_or("file holds no Pod")?;
    prepare(value, &origin).map_err(|error| error.to_string())
}
