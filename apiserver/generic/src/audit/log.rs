//! Events in a file, one JSON object a line; full files are kept for a while.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use time::{OffsetDateTime, macros::format_description};

use super::Sink;

/// Where events go, and how long they stay.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Size at which a file is full, bytes; 0 for never.
    pub max_size: u64,
    /// Full files that are kept at most; 0 for all.
    pub max_backups: usize,
    /// How long full files are kept; zero for ever.
    pub max_age: Duration,
}

/// A log of events.
pub struct LogFile {
    settings: LogSettings,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    size: u64,
}

impl LogFile {
    /// Opens the log; its directory is made if need be.
    pub fn open(settings: LogSettings) -> io::Result<Self> {
        let state = if settings.path == Path::new("-") {
            State { file: None, size: 0 }
        } else {
            if let Some(directory) = settings.path.parent() {
                fs::create_dir_all(directory)?;
            }
            append(&settings.path)?
        };
        Ok(Self { settings, state: Mutex::new(state) })
    }

    fn write_line(&self, line: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let length = line.len() as u64;
        let limit = self.settings.max_size;
        if state.file.is_some() && limit > 0 && state.size > 0 && state.size + length > limit {
            self.rotate(&mut state)?;
        }
        state.size += length;
        match &mut state.file {
            Some(file) => file.write_all(line),
            None => io::stdout().lock().write_all(line),
        }
    }

    fn rotate(&self, state: &mut State) -> io::Result<()> {
        let path = &self.settings.path;
        let (stem, end) = names(path);
        let format = format_description!("[year]-[month]-[day]T[hour]-[minute]-[second].[subsecond digits:3]");
        let now = OffsetDateTime::now_utc().format(&format).map_err(io::Error::other)?;
        let mut full = path.with_file_name(format!("{stem}-{now}{end}"));
        let mut more = 0;
        while full.exists() {
            more += 1;
            full = path.with_file_name(format!("{stem}-{now}-{more}{end}"));
        }
        fs::rename(path, full)?;
        *state = append(path)?;
        self.remove_old()
    }

    /// Removes full files beyond their number or age. Their names tell their order.
    fn remove_old(&self) -> io::Result<()> {
        let LogSettings { path, max_backups, max_age, .. } = &self.settings;
        let (stem, end) = names(path);
        let mut full = Vec::new();
        for entry in fs::read_dir(path.parent().unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{stem}-")) && name.ends_with(&end) {
                full.push((name, entry.path(), entry.metadata()?.modified()?));
            }
        }
        full.sort_by(|a, b| b.0.cmp(&a.0));
        for (at, (_, path, modified)) in full.into_iter().enumerate() {
            let age = SystemTime::now().duration_since(modified).unwrap_or_default();
            if (*max_backups > 0 && at >= *max_backups) || (!max_age.is_zero() && age > *max_age) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<State> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok(State { file: Some(file), size })
}

/// Name of a log without its extension, and the extension with its dot.
fn names(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let end = text(path.extension());
    (text(path.file_stem()), if end.is_empty() { end } else { format!(".{end}") })
}

impl Sink for LogFile {
    fn write(&self, mut line: Vec<u8>) -> io::Result<()> {
        line.push(b'\n');
        self.write_line(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_kept_for_a_while() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new/audit.log");
        let settings = LogSettings { path: path.clone(), max_size: 10, max_backups: 2, max_age: Duration::ZERO };
        let log = LogFile::open(settings).expect("a log");
        for n in 0..5 {
            log.write(format!("line {n}").into_bytes()).expect("written");
        }
        assert_eq!(fs::read_to_string(&path).expect("the log"), "line 4\n");
        let mut names: Vec<String> = fs::read_dir(path.parent().expect("a directory"))
            .expect("entries")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert!(names.len() == 3 && names.iter().all(|name| name.starts_with("audit") && name.ends_with(".log")));
    }
}
