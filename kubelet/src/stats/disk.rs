//! What trees of files take, found now and then.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::platform::{DiskUse, Platform};

const REMEMBERED: usize = 16_384;

/// The last findings.
pub(super) struct DiskCache {
    period: Duration,
    known: Mutex<HashMap<PathBuf, (Instant, DiskUse)>>,
}

impl DiskCache {
    pub(super) fn new(period: Duration) -> Self {
        Self { period, known: Mutex::default() }
    }

    /// Walks the tree if the last finding is too old. Blocks.
    pub(super) fn get(&self, platform: &dyn Platform, path: &Path) -> Option<DiskUse> {
        if let Some((at, found)) = self.known.lock().get(path)
            && at.elapsed() < self.period
        {
            return Some(*found);
        }
        let found = platform.disk_use(path).ok()?;
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.retain(|_, (at, _)| at.elapsed() < self.period);
        }
        known.insert(path.to_owned(), (Instant::now(), found));
        Some(found)
    }
}
