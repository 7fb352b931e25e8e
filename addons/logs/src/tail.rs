//! One log file: read line by line, under whatever name it has.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use crate::{
    cri::{self, Assembler, Taken},
    positions::{FileId, Position},
    record::Record,
};

/// Bytes read at once.
const PIECE: usize = 64 * 1024;
/// A line without an end; what comes is taken as it is.
const MAX_LINE: usize = 1 << 20;

/// A file being read.
#[derive(Debug)]
pub(crate) struct Tail {
    id: FileId,
    file: File,
    assembler: Assembler,
    /// Time of the first line.
    first: String,
    /// The beginning of a line.
    buffer: Vec<u8>,
    /// Offset of what was not read yet.
    offset: u64,
    /// Offset of what has not arrived yet.
    committed: u64,
    /// Looks that found nothing new.
    pub(crate) idle: u32,
    /// Whether the runtime writes to another file now.
    pub(crate) left: bool,
    /// Whether it could not be read.
    pub(crate) failed: bool,
}

/// What a look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    pub(crate) bytes: u64,
    pub(crate) malformed: u64,
}

/// Identity of an open file, if it is a regular one.
pub(crate) fn identify(path: &Path) -> io::Result<Option<FileId>> {
    let metadata = std::fs::metadata(path)?;
    Ok(metadata.is_file().then(|| FileId { device: metadata.dev(), inode: metadata.ino() }))
}

impl Tail {
    /// Opens a file; goes on where a position says if it is of this file.
    pub(crate) fn open(
        path: &Path,
        assembler: Assembler,
        position: Option<&Position>,
        at_end: bool,
    ) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let id = FileId { device: metadata.dev(), inode: metadata.ino() };
        let first = first_stamp(&file)?;
        let known = position.filter(|p| p.file == id && p.first == first && p.offset <= metadata.len());
        let start = match known {
            Some(position) => position.offset,
            None if at_end => metadata.len(),
            None => 0,
        };
        let mut tail = Self {
            id,
            file,
            assembler,
            first,
            buffer: Vec::new(),
            offset: start,
            committed: start,
            idle: 0,
            left: false,
            failed: false,
        };
        tail.file.seek(SeekFrom::Start(start))?;
        Ok(tail)
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Reads about `budget` bytes more.
    pub(crate) fn read(&mut self, budget: usize, out: &mut Vec<Record>) -> io::Result<Looked> {
        if self.file.metadata()?.len() < self.offset {
            self.start_over()?;
        }
        let mut looked = Looked::default();
        let mut piece = vec![0; PIECE];
        while looked.bytes < budget as u64 {
            let count = self.file.read(&mut piece)?;
            if count == 0 {
                break;
            }
            if self.offset == 0 {
                self.first = first_stamp(&self.file)?;
            }
            looked.bytes += count as u64;
            self.buffer.extend_from_slice(&piece[..count]);
            self.offset += count as u64;
            looked.malformed += self.lines(out);
        }
        self.failed = false;
        self.idle = if looked.bytes == 0 { self.idle.saturating_add(1) } else { 0 };
        Ok(looked)
    }

    /// Takes the complete lines out of the buffer.
    fn lines(&mut self, out: &mut Vec<Record>) -> u64 {
        let mut malformed = 0;
        let mut taken = 0;
        let base = self.offset - self.buffer.len() as u64;
        while let Some(length) = self.buffer[taken..].iter().position(|byte| *byte == b'\n') {
            let line = &self.buffer[taken..taken + length];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            malformed += u64::from(self.assembler.take(line, base + taken as u64, out) == Taken::Malformed);
            taken += length + 1;
        }
        self.buffer.drain(..taken);
        if self.buffer.len() > MAX_LINE {
            let line = std::mem::take(&mut self.buffer);
            malformed +=
                u64::from(self.assembler.take(&line, self.offset - line.len() as u64, out) == Taken::Malformed);
        }
        malformed
    }

    /// The file was emptied and written anew.
    fn start_over(&mut self) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        self.buffer.clear();
        (self.offset, self.committed) = (0, 0);
        self.first = first_stamp(&self.file)?;
        Ok(())
    }

    /// No more is to come: hands out what has begun.
    pub(crate) fn finish(&mut self, out: &mut Vec<Record>) {
        if !self.buffer.is_empty() {
            let line = std::mem::take(&mut self.buffer);
            self.assembler.take(&line, self.offset - line.len() as u64, out);
        }
        self.assembler.finish(out);
    }

    /// All that was read has arrived.
    pub(crate) fn commit(&mut self) {
        let read = self.offset - self.buffer.len() as u64;
        self.committed = self.assembler.start().map_or(read, |start| start.min(read));
    }

    /// What is to be kept.
    pub(crate) fn position(&self) -> Position {
        Position { file: self.id, first: self.first.clone(), offset: self.committed }
    }

    /// Bytes that are still to be read.
    pub(crate) fn lag(&self) -> u64 {
        if self.failed {
            return 0;
        }
        self.file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(self.offset))
    }
}

/// Time of a file's first line; empty while there is none.
fn first_stamp(file: &File) -> io::Result<String> {
    let mut start = [0; 64];
    let count = file.read_at(&mut start, 0)?;
    Ok(cri::stamp(&start[..count]).unwrap_or_default().to_owned())
}
