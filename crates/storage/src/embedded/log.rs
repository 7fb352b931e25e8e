//! The writing end of the log: segments, group commits, and what happens when the disk is full.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::RwLock;

use super::{
    index::Index,
    record::{Kind, Record},
    segment::{AppendError, Segment, is_full, sync_directory},
};

/// Why nothing was written.
#[derive(Debug)]
pub(super) enum LogError {
    /// No space.
    Full,
    /// Anything else.
    Failed(String),
}

/// The log as its one writer sees it.
pub(super) struct Log {
    directory: PathBuf,
    active: Option<Arc<Segment>>,
    next_segment: u32,
    commit: u64,
    segment_bytes: u32,
    reserve_bytes: u64,
    /// Space ran out and the reserve may be in use.
    full: bool,
    /// Set when it is unknown what is on disk: no write can be acknowledged any more.
    failed: Option<String>,
    buffer: Vec<u8>,
    places: Vec<(u32, u32)>,
    last_revision: i64,
    /// Compacted revision that the log knows of.
    marked: i64,
}

impl Log {
    /// The log in `directory`, to be continued in `active`.
    pub(super) fn new(
        directory: &Path,
        active: Option<Arc<Segment>>,
        next_segment: u32,
        commit: u64,
        segment_bytes: u32,
        reserve_bytes: u64,
    ) -> Self {
        let mut log = Self {
            directory: directory.to_owned(),
            active,
            next_segment,
            commit,
            segment_bytes,
            reserve_bytes,
            full: false,
            failed: None,
            buffer: Vec::new(),
            places: Vec::new(),
            last_revision: 0,
            marked: 0,
        };
        log.full = log.make_reserve().is_err();
        log
    }

    /// Whether values are refused for want of space.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Largest size of a segment with more than one record.
    pub(super) fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    /// Id of the segment that is appended to.
    pub(super) fn active_id(&self) -> Option<u32> {
        self.active.as_ref().map(|segment| segment.id)
    }

    /// Starts a group of about `bytes` bytes, in a new segment if the present one has no room.
    pub(super) fn begin(
        &mut self,
        revision: i64,
        compact_revision: i64,
        bytes: usize,
        index: &RwLock<Index>,
    ) -> Result<(), LogError> {
        if let Some(reason) = &self.failed {
            return Err(LogError::Failed(reason.clone()));
        }
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        self.places.clear();
        self.last_revision = 0;
        let room = self.active.as_ref().is_some_and(|active| {
            let used = active.committed() as usize;
            used + bytes <= self.segment_bytes as usize || used < 1024
        });
        if room {
            return Ok(());
        }
        self.commit += 1;
        let mark = mark(self.commit, revision, compact_revision);
        let segment = match Segment::create(&self.directory, self.next_segment, &mark) {
            Ok(segment) => Arc::new(segment),
            Err(error) if is_full(&error) && self.release_reserve() => {
                Arc::new(Segment::create(&self.directory, self.next_segment, &mark).map_err(|e| self.refused(&e))?)
            }
            Err(error) => return Err(self.refused(&error)),
        };
        self.next_segment += 1;
        index.write().segments.insert(segment.id, Arc::clone(&segment));
        self.active = Some(segment);
        Ok(())
    }

    /// Adds a record to the group.
    pub(super) fn add(&mut self, record: Record<'_>) {
        let record = Record { commit: self.commit + 1, ..record };
        if let Some(active) = &self.active {
            self.places.push((active.id, active.committed() + self.buffer.len() as u32));
        }
        if !record.copy {
            self.last_revision = self.last_revision.max(record.revision);
        }
        record.encode(&mut self.buffer);
    }

    /// Makes the group durable; the store stands at `revision` with it. On failure it is as if it never was.
    pub(super) fn end(&mut self, revision: i64, compact_revision: i64) -> Result<(), LogError> {
        let Some(active) = self.active.as_ref().map(Arc::clone) else {
            return Err(LogError::Failed("log has no segment".into()));
        };
        mark(self.commit + 1, revision, compact_revision).encode(&mut self.buffer);
        let outcome = match active.append(&self.buffer) {
            Err(AppendError::Write(error)) if is_full(&error) && self.full && self.release_reserve() => {
                active.append(&self.buffer)
            }
            outcome => outcome,
        };
        match outcome {
            Ok(()) => {
                self.commit += 1;
                self.marked = compact_revision;
                active.set_committed(active.committed() + self.buffer.len() as u32, self.last_revision);
                Ok(())
            }
            Err(AppendError::Write(error)) => Err(self.refused(&error)),
            Err(error @ AppendError::Sync(_)) => {
                let reason = format!("the log cannot be written until restart: {error}");
                tracing::error!(%error, "writing the log failed, refusing writes from now on");
                self.failed = Some(reason.clone());
                Err(LogError::Failed(reason))
            }
        }
    }

    /// Makes sure that the log knows of a compaction, before what it gave up goes for good.
    pub(super) fn ensure_marked(
        &mut self,
        revision: i64,
        compact_revision: i64,
        index: &RwLock<Index>,
    ) -> Result<(), LogError> {
        if self.marked >= compact_revision {
            return Ok(());
        }
        self.begin(revision, compact_revision, 0, index)?;
        self.end(revision, compact_revision)
    }

    /// Segment and offset of every record of the last group.
    pub(super) fn take_places(&mut self) -> Vec<(u32, u32)> {
        std::mem::take(&mut self.places)
    }

    fn refused(&mut self, error: &io::Error) -> LogError {
        if !is_full(error) {
            return LogError::Failed(error.to_string());
        }
        if !self.full {
            tracing::error!("no space left on disk: refusing writes of values, removals still work");
            self.full = true;
        }
        LogError::Full
    }

    fn reserve_path(&self) -> PathBuf {
        self.directory.join("reserve")
    }

    /// Sets disk space aside that removals and cleaning may use when there is no other.
    fn make_reserve(&self) -> io::Result<()> {
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.reserve_path())?;
        if file.metadata()?.len() == self.reserve_bytes {
            return Ok(());
        }
        let length = i64::try_from(self.reserve_bytes).unwrap_or(i64::MAX);
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            Ok(()) => file.sync_all(),
            // Not every file system can set space aside.
            Err(nix::errno::Errno::EOPNOTSUPP) => Ok(()),
            Err(error) => {
                file.set_len(0)?;
                Err(error.into())
            }
        }
    }

    /// Frees the reserve. False if there was none left.
    fn release_reserve(&mut self) -> bool {
        self.full = true;
        let path = self.reserve_path();
        fs::metadata(&path).is_ok_and(|m| m.len() > 0)
            && fs::remove_file(&path).and_then(|()| sync_directory(&self.directory)).is_ok()
    }

    /// Takes values again if there is space for the reserve and some more.
    pub(super) fn try_recover(&mut self) {
        let probe = self.directory.join("probe");
        let room = fs::write(&probe, vec![0; (self.segment_bytes / 4) as usize]);
        let reserve = self.make_reserve();
        if let Err(error) = fs::remove_file(&probe) {
            tracing::debug!(%error, "removing the probe file");
        }
        if room.is_ok() && reserve.is_ok() {
            tracing::info!("there is space on disk again");
            self.full = false;
        }
    }
}

fn mark(commit: u64, revision: i64, compact_revision: i64) -> Record<'static> {
    Record {
        kind: Kind::Mark,
        copy: false,
        commit,
        revision,
        create_revision: compact_revision,
        expires: 0,
        key: "",
        value: &[],
    }
}
