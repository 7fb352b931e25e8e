//! Files on the node: `NAMESPACE/POD/CONTAINER.log`, one JSON object a line, rotated by size, removed by age.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;

use crate::record::Record;

/// Files held open.
const MAX_OPEN: usize = 256;
/// Time between looks for files that are too old.
const SWEEP: Duration = Duration::from_secs(600);

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Bytes of a file.
    pub(crate) size: u64,
    /// Files of a container.
    pub(crate) files: u32,
    /// Time after the last line.
    pub(crate) age: Duration,
}

/// The files.
pub(crate) struct FileSink {
    root: PathBuf,
    retention: Retention,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<PathBuf, (File, u64)>,
    swept: Option<SystemTime>,
}

impl FileSink {
    pub(crate) fn new(root: PathBuf, retention: Retention) -> Self {
        Self { root, retention, state: Mutex::default() }
    }

    /// Appends records and makes sure that they are on the disk.
    pub(crate) fn write(&self, records: &[Record]) -> io::Result<()> {
        let mut state = self.state.lock();
        let outcome = self.append(&mut state, records);
        if outcome.is_err() {
            // What is on the disk decides how much there is.
            state.open.clear();
        }
        self.sweep_now_and_then(&mut state);
        outcome
    }

    fn append(&self, state: &mut State, records: &[Record]) -> io::Result<()> {
        let mut touched = BTreeSet::new();
        let mut lines = Vec::new();
        for (number, record) in records.iter().enumerate() {
            serde_json::to_writer(&mut lines, record)?;
            lines.push(b'\n');
            let next = records.get(number + 1);
            if next.is_some_and(|next| next.kubernetes == record.kubernetes) && lines.len() < 1 << 16 {
                continue;
            }
            let path = self.path_of(record);
            self.write_to(state, &path, &lines)?;
            touched.insert(path);
            lines.clear();
        }
        for path in touched {
            if let Some((file, _)) = state.open.get(&path) {
                file.sync_data()?;
            }
        }
        Ok(())
    }

    /// Names were checked when the log was found.
    fn path_of(&self, record: &Record) -> PathBuf {
        let source = &record.kubernetes;
        self.root.join(&source.namespace).join(&source.pod).join(format!("{}.log", source.container))
    }

    fn write_to(&self, state: &mut State, path: &Path, lines: &[u8]) -> io::Result<()> {
        if state.open.len() >= MAX_OPEN && !state.open.contains_key(path) {
            for (file, _) in state.open.values() {
                file.sync_data()?;
            }
            state.open.clear();
        }
        let full = |(_, size): &(File, u64)| *size > 0 && *size + lines.len() as u64 > self.retention.size;
        if !state.open.contains_key(path) {
            state.open.insert(path.to_owned(), open(path)?);
        }
        if state.open.get(path).is_some_and(full) {
            if let Some((file, _)) = state.open.remove(path) {
                file.sync_data()?;
            }
            rotate(path, self.retention.files)?;
            state.open.insert(path.to_owned(), open(path)?);
        }
        if let Some((file, size)) = state.open.get_mut(path) {
            file.write_all(lines)?;
            *size += lines.len() as u64;
        }
        Ok(())
    }

    fn sweep_now_and_then(&self, state: &mut State) {
        let now = SystemTime::now();
        let due = state.swept.is_none_or(|swept| now.duration_since(swept).is_ok_and(|passed| passed >= SWEEP));
        if due {
            state.swept = Some(now);
            state.open.clear();
            self.sweep(now);
        }
    }

    /// Removes files that nobody wrote to for long, and the directories they leave empty.
    pub(super) fn sweep(&self, now: SystemTime) {
        let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
        for namespace in entries(&self.root).filter(is_directory) {
            for pod in entries(&namespace.path()).filter(is_directory) {
                for file in entries(&pod.path()).filter(|file| file.file_name().to_string_lossy().contains(".log")) {
                    let written = file.metadata().and_then(|metadata| metadata.modified());
                    let age = written.ok().and_then(|written| now.duration_since(written).ok());
                    if age.is_some_and(|age| age > self.retention.age)
                        && let Err(error) = fs::remove_file(file.path())
                    {
                        tracing::warn!(%error, path = %file.path().display(), "An old file cannot be removed");
                    }
                }
                // Directories with something in them stay.
                let _stays = fs::remove_dir(pod.path()).is_err();
            }
            let _stays = fs::remove_dir(namespace.path()).is_err();
        }
    }
}

fn is_directory(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = File::options().create(true).append(true).mode(0o640).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// `x.log` becomes `x.log.1`, that becomes `x.log.2`; the last one goes.
fn rotate(path: &Path, files: u32) -> io::Result<()> {
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", path.display()));
    if files <= 1 {
        return fs::remove_file(path);
    }
    for number in (1..files - 1).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))
}
