//! Gives back the space of records that nobody needs. The oldest segment is read, what is still the present value of
//! its key is copied to the end of the log, and the segment is removed; always the oldest, so that a removal's record
//! never goes before the records that it removed.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    index::{Index, Standing},
    log::{Log, LogError},
    record::{Kind, Record},
    segment::{MAGIC, Segment},
};
use crate::contract::StoreError;

/// Bytes of log read in one step.
const STEP_BYTES: u32 = 512 << 10;

/// The cleaner.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    /// Segment being cleaned, and how far.
    place: Option<(u32, u32)>,
    /// The oldest segment holds history; wait for a compaction.
    blocked: bool,
}

/// A record to copy.
struct Kept {
    key: Arc<str>,
    revision: i64,
    create_revision: i64,
    expires: u64,
    value: Bytes,
}

impl Cleaner {
    /// Looks again after a compaction.
    pub(super) fn retry(&mut self) {
        self.blocked = false;
    }

    /// Whether there is enough to gain.
    pub(super) fn is_due(&self, log: &Log, index: &RwLock<Index>) -> bool {
        if self.blocked {
            return false;
        }
        let index = index.read();
        if self.place.is_some() {
            return true;
        }
        let Some((id, oldest)) = index.segments.first_key_value() else { return false };
        if log.active_id() == Some(*id) || oldest.last_revision() > index.compact_revision {
            return false;
        }
        let total: u64 = index.segments.values().map(|segment| u64::from(segment.committed())).sum();
        let garbage = total.saturating_sub(index.live_bytes);
        let segment = u64::from(log.segment_bytes());
        if log.is_full() { garbage > segment / 2 } else { garbage > index.live_bytes.max(segment) }
    }

    /// Cleans a little.
    pub(super) fn step(&mut self, log: &mut Log, index: &RwLock<Index>, revision: i64) {
        match self.try_step(log, index, revision) {
            Ok(()) => {}
            Err(LogError::Full) => self.blocked = true,
            Err(LogError::Failed(reason)) => {
                tracing::error!(reason, "cleaning the log failed");
                self.blocked = true;
            }
        }
    }

    fn try_step(&mut self, log: &mut Log, index: &RwLock<Index>, revision: i64) -> Result<(), LogError> {
        let (segment, compact_revision) = {
            let index = index.read();
            let Some((_, segment)) = index.segments.first_key_value() else { return Ok(()) };
            (Arc::clone(segment), index.compact_revision)
        };
        let start = self.place.filter(|(id, _)| *id == segment.id).map_or(MAGIC.len() as u32, |(_, offset)| offset);
        let (kept, stopped) = match self.read(&segment, start, index) {
            Ok(read) => read,
            Err(error) => return Err(LogError::Failed(error.to_string())),
        };
        if !kept.is_empty() {
            let bytes = kept.iter().map(|kept| kept.value.len() + kept.key.len() + 64).sum();
            log.begin(revision, compact_revision, bytes, index)?;
            for kept in &kept {
                log.add(kept.record());
            }
            log.end(revision, compact_revision)?;
            let places = log.take_places();
            let mut index = index.write();
            for (kept, (segment, offset)) in kept.iter().zip(places) {
                index.apply(Arc::clone(&kept.key), &kept.record(), segment, offset);
            }
        }
        if self.blocked {
            self.place = None;
            return Ok(());
        }
        self.place = Some((segment.id, stopped));
        if stopped >= segment.committed() {
            self.place = None;
            log.ensure_marked(revision, compact_revision, index)?;
            index.write().segments.remove(&segment.id);
            segment.remove().map_err(|e| LogError::Failed(format!("remove a segment: {e}")))?;
        }
        Ok(())
    }

    /// What a piece of a segment holds that must be kept, and where the piece ends. Sets `blocked` at history.
    fn read(&mut self, segment: &Segment, start: u32, index: &RwLock<Index>) -> Result<(Vec<Kept>, u32), StoreError> {
        let mut kept = Vec::new();
        let mut blocked = false;
        let index = index.read();
        let end = segment.committed();
        let stopped = segment.walk(start, end, |record, offset, _| {
            if offset - start >= STEP_BYTES {
                return false;
            }
            if record.kind != Kind::Mark {
                match index.standing(&record, segment.id, offset) {
                    Standing::Dead => {}
                    Standing::Latest(key) => kept.push(Kept::of(key, &record)),
                    Standing::History => blocked = true,
                }
            }
            !blocked
        })?;
        drop(index);
        self.blocked = blocked;
        if stopped < end && stopped - start < STEP_BYTES && !blocked {
            return Err(StoreError::Corrupt(format!("segment {} at byte {stopped}", segment.id)));
        }
        Ok((kept, stopped))
    }
}

impl Kept {
    fn of(key: Arc<str>, record: &Record<'_>) -> Self {
        Self {
            key,
            revision: record.revision,
            create_revision: record.create_revision,
            expires: record.expires,
            value: Bytes::copy_from_slice(record.value),
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            kind: Kind::Put,
            copy: true,
            commit: 0,
            revision: self.revision,
            create_revision: self.create_revision,
            expires: self.expires,
            key: &self.key,
            value: &self.value,
        }
    }
}
