//! Rebuilds the index from the log when a store is opened.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use super::{
    index::Index,
    record::{Kind, Record},
    segment::{MAGIC, Segment},
};
use crate::contract::StoreError;

/// A log that was read back.
pub(super) struct Replayed {
    pub(super) index: Index,
    /// The segment to append to; `None` in an empty directory.
    pub(super) active: Option<Arc<Segment>>,
    /// Number of the last group commit.
    pub(super) commit: u64,
    /// Keys that expire: unix milliseconds, revision, key.
    pub(super) expiring: Vec<(u64, i64, Arc<str>)>,
    /// Id for the next segment.
    pub(super) next_segment: u32,
}

/// Reads the log in a directory.
pub(super) fn replay(directory: &Path) -> Result<Replayed, StoreError> {
    let mut ids = segment_ids(directory)?;
    drop_unborn(directory, &mut ids)?;
    let mut state = State::default();
    for (position, id) in ids.iter().enumerate() {
        if position > 0 && ids[position - 1] + 1 != *id {
            return Err(StoreError::Corrupt(format!("segment {} of the log is missing", id - 1)));
        }
        state.read_segment(directory, *id, position + 1 == ids.len())?;
    }
    let active = ids.last().and_then(|id| state.index.segments.get(id).map(Arc::clone));
    let prunable = state.index.prunable();
    state.index.prune(&prunable);
    let mut index = state.index;
    // A list's resourceVersion is never 0.
    index.revision = index.revision.max(1);
    let expiring = state.expiring.into_iter().map(|(key, (expires, revision))| (expires, revision, key)).collect();
    let next_segment = ids.last().map_or(1, |id| id + 1);
    Ok(Replayed { index, active, commit: state.commit, expiring, next_segment })
}

fn segment_ids(directory: &Path) -> Result<Vec<u32>, StoreError> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(unavailable)?;
    let mut ids: Vec<u32> =
        entries.iter().filter_map(|entry| entry.file_name().to_str().and_then(Segment::id_of)).collect();
    ids.sort_unstable();
    Ok(ids)
}

/// Removes a last segment whose creation was cut short: it has no mark yet, so nothing was ever appended to it.
fn drop_unborn(directory: &Path, ids: &mut Vec<u32>) -> Result<(), StoreError> {
    let Some(id) = ids.last().copied() else { return Ok(()) };
    let segment = Segment::open(directory, id).map_err(unavailable)?;
    let length = segment.file_len().map_err(unavailable)?.min(64 * 1024) as u32;
    let mut born = false;
    if segment.has_magic() {
        segment.walk(MAGIC.len() as u32, length, |record, _, _| {
            born = record.kind == Kind::Mark;
            false
        })?;
    }
    if born {
        return Ok(());
    }
    if length as usize > MAGIC.len() + 128 {
        return Err(StoreError::Corrupt(format!("segment {id} has no header")));
    }
    segment.remove().map_err(unavailable)?;
    ids.pop();
    Ok(())
}

fn unavailable(error: std::io::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

#[derive(Default)]
struct State {
    index: Index,
    commit: u64,
    /// Whether the last record read ended its group commit.
    complete: bool,
    expiring: BTreeMap<Arc<str>, (u64, i64)>,
}

impl State {
    fn read_segment(&mut self, directory: &Path, id: u32, last: bool) -> Result<(), StoreError> {
        let segment = Arc::new(Segment::open(directory, id).map_err(unavailable)?);
        let length = u32::try_from(segment.file_len().map_err(unavailable)?)
            .map_err(|_| StoreError::Corrupt(format!("segment {id} is larger than a segment can be")))?;
        if !segment.has_magic() {
            return Err(StoreError::Corrupt(format!("segment {id} has no header")));
        }
        let mut last_revision = 0;
        let end = segment.walk(MAGIC.len() as u32, length, |record, offset, _| {
            if record.kind != Kind::Mark && !record.copy {
                last_revision = last_revision.max(record.revision);
            }
            self.take(&record, id, offset);
            true
        })?;
        if end < length {
            self.cut(&segment, end, length, last)?;
        }
        segment.set_committed(end, last_revision);
        self.index.segments.insert(id, segment);
        Ok(())
    }

    fn take(&mut self, record: &Record<'_>, segment: u32, offset: u32) {
        self.commit = self.commit.max(record.commit);
        self.complete = record.kind == Kind::Mark;
        if record.kind == Kind::Mark {
            self.index.revision = self.index.revision.max(record.revision);
            self.index.compact_revision = self.index.compact_revision.max(record.create_revision);
            return;
        }
        let key = match self.index.entry(record.key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::from(record.key),
        };
        if record.expires > 0 && record.kind == Kind::Put {
            self.expiring.insert(Arc::clone(&key), (record.expires, record.revision));
        } else {
            self.expiring.remove(&key);
        }
        self.index.apply(key, record, segment, offset);
    }

    /// Deals with bytes at the end of a segment that are no records: the torn end of the last write is cut off,
    /// anything else is damage.
    fn cut(&self, segment: &Segment, end: u32, length: u32, last: bool) -> Result<(), StoreError> {
        let torn = if self.complete { self.commit + 1 } else { self.commit };
        if !last || segment.has_later_commit(end, length, torn)? {
            return Err(StoreError::Corrupt(format!("segment {} is damaged at byte {end}", segment.id)));
        }
        tracing::info!(segment = segment.id, bytes = length - end, "cutting off an unfinished write");
        segment.truncate(end).map_err(unavailable)
    }
}
