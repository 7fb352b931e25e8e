//! Where every version of every key lies in the log.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    record::{self, HEADER, Kind, Record},
    segment::Segment,
};
use crate::contract::{KeyValue, Range, StoreError};

/// One version of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) revision: i64,
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) deleted: bool,
}

/// The versions of a key that are held.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) create_revision: i64,
    pub(super) latest: Version,
    /// Versions before the latest, oldest first.
    older: Vec<Version>,
}

impl Entry {
    /// The version as of `revision`.
    fn at(&self, revision: i64) -> Option<&Version> {
        let found = if self.latest.revision <= revision {
            Some(&self.latest)
        } else {
            self.older.iter().rev().find(|version| version.revision <= revision)
        };
        found.filter(|version| !version.deleted)
    }
}

/// A version with what is needed to read it.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) key: Arc<str>,
    pub(super) version: Version,
    pub(super) segment: Arc<Segment>,
}

impl Located {
    /// Reads the version.
    pub(super) fn read(&self) -> Result<KeyValue, StoreError> {
        let bytes = self.segment.read(self.version.offset, self.version.length)?;
        let damaged = || StoreError::Corrupt(format!("record of key {:?}", self.key));
        let (record, _) = record::decode(&bytes).ok_or_else(damaged)?;
        if record.key != &*self.key || record.revision != self.version.revision || record.kind != Kind::Put {
            return Err(damaged());
        }
        let create_revision = record.create_revision;
        let value = Bytes::from(bytes).slice(HEADER + self.key.len()..);
        Ok(KeyValue { key: self.key.to_string(), value, create_revision, mod_revision: self.version.revision })
    }
}

/// What a range finds: the versions to read, whether the limit cut them, and the number of keys.
pub(super) struct Found {
    pub(super) items: Vec<Located>,
    pub(super) count: i64,
    pub(super) revision: i64,
}

/// The index. Everything in it is committed.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, Entry>,
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    /// Keys with versions that a compaction may drop.
    prunable: HashSet<Arc<str>>,
    pub(super) revision: i64,
    pub(super) compact_revision: i64,
    /// Bytes of records that are held.
    pub(super) live_bytes: u64,
}

impl Index {
    /// The entry of a key, a removed one included.
    pub(super) fn entry(&self, key: &str) -> Option<(&Arc<str>, &Entry)> {
        self.keys.get_key_value(key)
    }

    /// A version as something to read.
    pub(super) fn locate(&self, key: &Arc<str>, version: Version) -> Result<Located, StoreError> {
        let segment = self.segments.get(&version.segment).map(Arc::clone);
        let segment = segment.ok_or_else(|| StoreError::Corrupt(format!("segment {} is missing", version.segment)))?;
        Ok(Located { key: Arc::clone(key), version, segment })
    }

    /// The latest version of a key.
    pub(super) fn get(&self, key: &str) -> Result<Option<Located>, StoreError> {
        match self.keys.get_key_value(key) {
            Some((key, entry)) if !entry.latest.deleted => self.locate(key, entry.latest).map(Some),
            _ => Ok(None),
        }
    }

    /// The version of a key before `revision`.
    pub(super) fn before(&self, key: &str, revision: i64) -> Result<Option<Located>, StoreError> {
        let Some((key, entry)) = self.keys.get_key_value(key) else { return Ok(None) };
        entry.at(revision - 1).map(|version| self.locate(key, *version)).transpose()
    }

    /// Finds a range.
    pub(super) fn range(&self, range: &Range<'_>) -> Result<Found, StoreError> {
        let revision = range.revision.unwrap_or(self.revision);
        if revision > self.revision {
            return Err(StoreError::FutureRevision { requested: revision, current: self.revision });
        }
        if revision < self.compact_revision {
            let (compact_revision, current) = (self.compact_revision, self.revision);
            return Err(StoreError::Compacted { compact_revision, current });
        }
        let start = range.start.filter(|start| *start > range.prefix).unwrap_or(range.prefix);
        let mut found = Found { items: Vec::new(), count: 0, revision };
        for (key, entry) in self.keys.range::<str, _>((Bound::Included(start), Bound::Unbounded)) {
            if !key.starts_with(range.prefix) {
                break;
            }
            let Some(version) = entry.at(revision) else { continue };
            found.count += 1;
            if range.limit == 0 || found.items.len() < range.limit {
                found.items.push(self.locate(key, *version)?);
            }
        }
        Ok(found)
    }

    /// Takes in a committed record that lies at `offset` of `segment`.
    pub(super) fn apply(&mut self, key: Arc<str>, record: &Record<'_>, segment: u32, offset: u32) {
        let length = record.encoded_len() as u32;
        let deleted = record.kind == Kind::Delete;
        let version = Version { revision: record.revision, segment, offset, length, deleted };
        self.revision = self.revision.max(record.revision);
        let Some(entry) = self.keys.get_mut(&*key) else {
            self.live_bytes += u64::from(length);
            if deleted {
                self.prunable.insert(Arc::clone(&key));
            }
            let create_revision = record.create_revision;
            self.keys.insert(key, Entry { create_revision, latest: version, older: Vec::new() });
            return;
        };
        if entry.latest.revision == version.revision {
            entry.latest = version;
            return;
        }
        self.live_bytes += u64::from(length);
        entry.create_revision = record.create_revision;
        entry.older.push(std::mem::replace(&mut entry.latest, version));
        if entry.older.len() == 1 {
            self.prunable.insert(key);
        }
    }

    /// Keys that [`Self::prune`] should look at.
    pub(super) fn prunable(&self) -> Vec<Arc<str>> {
        self.prunable.iter().map(Arc::clone).collect()
    }

    /// Forgets versions of these keys that were superseded at or before the compacted revision.
    pub(super) fn prune(&mut self, keys: &[Arc<str>]) {
        for key in keys {
            let Some(entry) = self.keys.get_mut(&**key) else {
                self.prunable.remove(key);
                continue;
            };
            let compact = self.compact_revision;
            let current = entry.older.iter().filter(|version| version.revision <= compact).count();
            let latest_is_old = entry.latest.revision <= compact;
            // The version that stood at the compacted revision stays readable, unless it is a removal.
            let mut drop = if latest_is_old { entry.older.len() } else { current.saturating_sub(1) };
            if !latest_is_old && current > 0 && entry.older[current - 1].deleted {
                drop = current;
            }
            let freed: u64 = entry.older.drain(..drop).map(|version| u64::from(version.length)).sum();
            self.live_bytes -= freed;
            if entry.older.is_empty() {
                entry.older = Vec::new();
                if latest_is_old && entry.latest.deleted {
                    self.live_bytes -= u64::from(entry.latest.length);
                    self.keys.remove(&**key);
                    self.prunable.remove(key);
                } else if !entry.latest.deleted {
                    self.prunable.remove(key);
                }
            }
        }
    }

    /// What the record at a place of the log is to the index.
    pub(super) fn standing(&self, record: &Record<'_>, segment: u32, offset: u32) -> Standing {
        let Some((key, entry)) = self.keys.get_key_value(record.key) else { return Standing::Dead };
        let here = |version: &Version| version.segment == segment && version.offset == offset;
        if here(&entry.latest) {
            if entry.latest.deleted { Standing::History } else { Standing::Latest(Arc::clone(key)) }
        } else if entry.older.iter().any(here) {
            Standing::History
        } else {
            Standing::Dead
        }
    }
}

/// What a record of the log is to the index.
pub(super) enum Standing {
    /// Nobody needs it.
    Dead,
    /// The present value of this key.
    Latest(Arc<str>),
    /// Needed until the next compaction only.
    History,
}
