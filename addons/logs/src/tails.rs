//! All files being read: found, followed through rotation, given up when there is nothing left in them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use crate::{
    cri::Assembler,
    positions::{FileId, Position},
    record::{Record, Source},
    scan::{self, Found},
    tail::{self, Looked, Tail},
};

/// Looks without anything new after which a file that nobody writes to is given up.
const PATIENCE: u32 = 3;
/// Bytes of one file in a batch, as a part of the whole: none keeps the others waiting.
const SHARE: usize = 4;

/// What is read, and how.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) root: PathBuf,
    pub(crate) excluded: Vec<String>,
    pub(crate) node: Arc<str>,
    pub(crate) batch: usize,
    pub(crate) max_line: usize,
}

/// The files.
#[derive(Debug)]
pub(crate) struct Tails {
    reading: Reading,
    /// In the order they are read.
    open: BTreeMap<Found, Tail>,
    /// Positions of files that were not opened yet, or are read to the end.
    kept: HashMap<FileId, Position>,
    /// Files that were read to their end and are left by the runtime.
    done: HashSet<FileId>,
    /// Whether files that are found now are read from their end.
    at_end: bool,
    /// Where the next batch begins.
    turn: usize,
}

/// Records that are sent at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    pub(crate) looked: Looked,
}

impl Tails {
    pub(crate) fn new(reading: Reading, kept: HashMap<FileId, Position>, at_end: bool) -> Self {
        Self { reading, open: BTreeMap::new(), kept, done: HashSet::new(), at_end, turn: 0 }
    }

    /// Looks which files there are.
    pub(crate) fn rescan(&mut self) {
        let found = match scan::scan(&self.reading.root, &self.reading.excluded) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, directory = %self.reading.root.display(), "The logs of Pods cannot be listed");
                return;
            }
        };
        let mut names: HashMap<FileId, Found> = HashMap::new();
        for file in found {
            if let Ok(Some(id)) = tail::identify(&file.path) {
                names.entry(id).or_insert(file);
            }
        }
        // Files keep their identity when they get another name.
        for (old, mut tail) in std::mem::take(&mut self.open) {
            let now = names.remove(&tail.id());
            tail.left = now.as_ref().is_none_or(|now| !now.current);
            self.open.insert(now.unwrap_or(old), tail);
        }
        let present: HashSet<FileId> = names.keys().copied().collect();
        self.done.retain(|id| present.contains(id));
        for (id, file) in names {
            if !self.done.contains(&id) {
                self.begin(id, file);
            }
        }
        let open: HashSet<FileId> = self.open.values().map(Tail::id).collect();
        self.kept.retain(|id, _| present.contains(id) && !open.contains(id));
        self.at_end = false;
    }

    fn begin(&mut self, id: FileId, file: Found) {
        let source = Source {
            namespace: file.namespace.clone(),
            pod: file.pod.clone(),
            uid: file.uid.clone(),
            container: file.container.clone(),
            restart: file.restart,
            node: Arc::clone(&self.reading.node),
        };
        let assembler = Assembler::new(Arc::new(source), self.reading.max_line);
        match Tail::open(&file.path, assembler, self.kept.get(&id), self.at_end) {
            Ok(mut tail) => {
                tail.left = !file.current;
                self.open.insert(file, tail);
            }
            Err(error) => tracing::debug!(%error, path = %file.path.display(), "A log cannot be opened"),
        }
    }

    /// Reads what there is, up to the size of a batch.
    pub(crate) fn read(&mut self) -> Batch {
        let mut batch = Batch::default();
        let count = self.open.len().max(1);
        let share = (self.reading.batch / SHARE).max(1);
        let order: Vec<Found> =
            self.open.keys().cycle().skip(self.turn % count).take(self.open.len()).cloned().collect();
        for file in order {
            if batch.looked.bytes >= self.reading.batch as u64 {
                break;
            }
            self.turn = (self.turn + 1) % count;
            // What a container wrote earlier goes first.
            let before = self.open.range(..&file).next_back().filter(|(other, _)| other.is_beside(&file));
            if before.is_some_and(|(_, tail)| tail.lag() > 0) {
                continue;
            }
            let Some(tail) = self.open.get_mut(&file) else { continue };
            match tail.read(share, &mut batch.records) {
                Ok(looked) => {
                    batch.looked.bytes += looked.bytes;
                    batch.looked.malformed += looked.malformed;
                }
                Err(error) => {
                    tracing::warn!(%error, path = %file.path.display(), "A log cannot be read");
                    tail.failed = true;
                }
            }
            if tail.left && tail.idle >= PATIENCE {
                tail.finish(&mut batch.records);
            }
        }
        batch
    }

    /// The last batch has arrived.
    pub(crate) fn commit(&mut self) {
        for tail in self.open.values_mut() {
            tail.commit();
        }
        let over: Vec<Found> = self
            .open
            .iter()
            .filter(|(_, tail)| tail.left && tail.idle >= PATIENCE)
            .map(|(file, _)| file.clone())
            .collect();
        for file in over {
            if let Some(tail) = self.open.remove(&file) {
                self.done.insert(tail.id());
                self.kept.insert(tail.id(), tail.position());
            }
        }
    }

    /// What is to be kept over a restart.
    pub(crate) fn positions(&self) -> Vec<Position> {
        self.open.values().map(Tail::position).chain(self.kept.values().cloned()).collect()
    }

    /// Files that are open, and bytes in them that were not read.
    pub(crate) fn state(&self) -> (usize, u64) {
        (self.open.len(), self.open.values().map(Tail::lag).sum())
    }
}

#[cfg(test)]
mod tests;
