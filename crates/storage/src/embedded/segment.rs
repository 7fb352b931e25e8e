//! One file of the log.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, AtomicU32, Ordering},
};

use super::record::{self, Record};
use crate::contract::StoreError;

/// What every segment starts with.
pub(super) const MAGIC: &[u8; 8] = b"TMSEG\0\0\x01";
const READ_CHUNK: usize = 1 << 20;

/// A segment. Its bytes up to `committed` never change.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: u32,
    file: File,
    path: PathBuf,
    committed: AtomicU32,
    /// Revision of the newest original record in it; copies do not count.
    last_revision: AtomicI64,
}

impl Segment {
    /// Opens an existing segment; `committed` and `last_revision` are to be set by the replay.
    pub(super) fn open(directory: &Path, id: u32) -> io::Result<Self> {
        let path = Self::path(directory, id);
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self { id, file, path, committed: AtomicU32::new(0), last_revision: AtomicI64::new(0) })
    }

    /// Creates a segment that starts with `mark`, durably.
    pub(super) fn create(directory: &Path, id: u32, mark: &Record<'_>) -> io::Result<Self> {
        let path = Self::path(directory, id);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let mut bytes = MAGIC.to_vec();
        mark.encode(&mut bytes);
        let written =
            file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()).and_then(|()| sync_directory(directory));
        if let Err(error) = written {
            std::fs::remove_file(&path)?;
            return Err(error);
        }
        let committed = AtomicU32::new(bytes.len() as u32);
        Ok(Self { id, file, path, committed, last_revision: AtomicI64::new(0) })
    }

    fn path(directory: &Path, id: u32) -> PathBuf {
        directory.join(format!("{id:010}.log"))
    }

    /// The number in a segment's file name.
    pub(super) fn id_of(name: &str) -> Option<u32> {
        name.strip_suffix(".log").filter(|digits| digits.len() == 10)?.parse().ok()
    }

    /// Bytes that are committed.
    pub(super) fn committed(&self) -> u32 {
        self.committed.load(Ordering::Acquire)
    }

    /// Declares bytes up to `end` committed, the newest original record among them being of `revision`.
    pub(super) fn set_committed(&self, end: u32, revision: i64) {
        self.last_revision.fetch_max(revision, Ordering::Release);
        self.committed.store(end, Ordering::Release);
    }

    /// Revision of the newest original record.
    pub(super) fn last_revision(&self) -> i64 {
        self.last_revision.load(Ordering::Acquire)
    }

    /// Appends bytes behind the committed ones and makes them durable; they still have to be declared committed.
    pub(super) fn append(&self, bytes: &[u8]) -> Result<(), AppendError> {
        let at = u64::from(self.committed());
        if let Err(error) = self.file.write_all_at(bytes, at) {
            self.file.set_len(at).map_err(AppendError::Sync)?;
            return Err(AppendError::Write(error));
        }
        self.file.sync_data().map_err(AppendError::Sync)
    }

    /// Cuts the file to `length`, durably.
    pub(super) fn truncate(&self, length: u32) -> io::Result<()> {
        self.file.set_len(u64::from(length))?;
        self.file.sync_all()
    }

    /// Size of the file.
    pub(super) fn file_len(&self) -> io::Result<u64> {
        self.file.metadata().map(|m| m.len())
    }

    /// Bytes of one record.
    pub(super) fn read(&self, offset: u32, length: u32) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; length as usize];
        self.file
            .read_exact_at(&mut bytes, u64::from(offset))
            .map_err(|e| StoreError::Unavailable(format!("read {}: {e}", self.path.display())))?;
        Ok(bytes)
    }

    /// Walks the records from `offset` to `end`, giving each with its offset and length until `visit` returns false.
    /// Returns the offset where it stopped: `end`, the record refused, or the first one that is damaged or cut.
    pub(super) fn walk(
        &self,
        offset: u32,
        end: u32,
        mut visit: impl FnMut(Record<'_>, u32, u32) -> bool,
    ) -> Result<u32, StoreError> {
        let mut at = offset;
        let mut want = READ_CHUNK;
        while at < end {
            let length = want.min((end - at) as usize);
            let chunk = self.read(at, length as u32)?;
            let mut used = 0;
            while let Some((record, length)) = record::decode(&chunk[used..]) {
                if !visit(record, at + used as u32, length as u32) {
                    return Ok(at + used as u32);
                }
                used += length;
            }
            if used == 0 {
                // Either the record is longer than the chunk, or there is none.
                match record::encoded_len(&chunk) {
                    Some(needed) if needed > length && needed <= (end - at) as usize => want = needed,
                    _ => return Ok(at),
                }
            } else {
                at += used as u32;
                want = READ_CHUNK;
            }
        }
        Ok(at)
    }

    /// Whether a whole record of a later group commit than `commit` lies behind `offset`. If so, the bytes between are
    /// damage rather than the torn end of the last write, since a commit starts only when the one before is durable.
    pub(super) fn has_later_commit(&self, offset: u32, end: u32, commit: u64) -> Result<bool, StoreError> {
        let bytes = self.read(offset, end - offset)?;
        Ok((1..bytes.len())
            .filter(|at| bytes.get(at + 8).is_some_and(|kind| (1..=3).contains(kind)))
            .filter_map(|at| record::decode(&bytes[at..]))
            .any(|(record, _)| record.commit > commit))
    }

    /// Whether the file starts as a segment does.
    pub(super) fn has_magic(&self) -> bool {
        let mut start = [0; MAGIC.len()];
        self.file.read_exact_at(&mut start, 0).is_ok() && &start == MAGIC
    }

    /// Removes the file, durably; open readers keep reading it.
    pub(super) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)?;
        self.path.parent().map_or(Ok(()), sync_directory)
    }
}

/// Why an append failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AppendError {
    /// Nothing was kept; the segment is as before.
    #[error("write: {0}")]
    Write(io::Error),
    /// It is unknown what is on disk.
    #[error("sync: {0}")]
    Sync(io::Error),
}

/// Whether an error says that the disk, or the quota, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
