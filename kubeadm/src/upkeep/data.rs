//! etcd's data: snapshots of it, and a file that is not much larger than what it holds.

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::Upkeep;
use crate::{
    client::Cluster,
    config::ClusterConfiguration,
    error::{Context, Result},
    etcd::{Size, local::Local, snapshot},
};

/// A file below this is never made smaller, bytes.
const SMALL: u64 = 64 << 20;
const PREFIX: &str = "etcd-";
const SUFFIX: &str = ".db";

/// Whether a file has more waste than data.
pub(super) fn is_wasteful(size: Size) -> bool {
    size.file > SMALL && size.in_use < size.file / 2
}

/// Name of a snapshot of a time, to the second.
pub(super) fn name_at(at: OffsetDateTime) -> String {
    format!("{PREFIX}{}{SUFFIX}", machinery::time::format(at).replace(':', "-"))
}

/// The time that a name tells.
pub(super) fn time_of(path: &Path) -> Option<OffsetDateTime> {
    let text = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    let (day, hour) = text.split_once('T')?;
    machinery::time::parse(&format!("{day}T{}", hour.replace('-', ":"))).ok()
}

impl Upkeep {
    /// One round.
    pub(super) async fn data(&mut self, api: &Cluster, cluster: &ClusterConfiguration) -> Result<()> {
        let host = std::sync::Arc::clone(&self.host);
        if !cluster.has_local_etcd() {
            return Ok(());
        }
        let etcd = Local::read(&*host)?.client(&*host).await?;
        let size = etcd.size().await.context("cannot ask etcd for its size")?;
        self.metrics.size(size);
        if is_wasteful(size) {
            etcd.defragment().await.context("cannot make etcd's file smaller")?;
            let now = etcd.size().await.context("cannot ask etcd for its size")?;
            self.metrics.size(now);
            let message = format!(
                "etcd's file had {} bytes, of them {} in use, and has {} now",
                size.file, size.in_use, now.file
            );
            self.tell(Some(api), "Normal", "EtcdDefragmented", &message).await;
        }
        if self.settings.snapshot_interval.is_zero() {
            return Ok(());
        }
        let directory = self.settings.snapshots.clone();
        host.create_directory(&directory, 0o700).context("cannot make the directory of snapshots")?;
        let mut all = self.snapshots(&directory)?;
        let now = host.now();
        if all.last().is_none_or(|(at, _)| now - *at >= self.settings.snapshot_interval) {
            let file = directory.join(name_at(now));
            let bytes = snapshot::save(&*host, &etcd, &file).await.context("cannot save a snapshot")?;
            host.line(&format!("[upkeep] Saved {bytes} bytes to {:?}", file.display().to_string()));
            all.push((now, file));
        }
        if let Some((at, _)) = all.last() {
            self.metrics.saved(*at);
        }
        let surplus = all.len().saturating_sub(self.settings.kept.max(1));
        for (_, old) in &all[..surplus] {
            host.remove(old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        Ok(())
    }

    /// The snapshots that are there, the oldest first.
    fn snapshots(&self, directory: &Path) -> Result<Vec<(OffsetDateTime, PathBuf)>> {
        let listed = self.host.list(directory).context("cannot read the directory of snapshots")?;
        let mut all: Vec<_> = listed.into_iter().filter_map(|path| Some((time_of(&path)?, path))).collect();
        all.sort();
        Ok(all)
    }
}
