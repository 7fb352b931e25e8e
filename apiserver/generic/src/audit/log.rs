//! Events in a file, one JSON object a line; full files are kept for a while.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};
use parking_lot::Mutex;
use time::{OffsetDateTime, macros::format_description};

use super::delivery::legacy_line;

/// Where events go, and how long they stay.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Size at which a file is full, bytes; 0 for never.
    pub max_size: u64,
    /// Full files that are kept at most; 0 for all.
    pub max_backups: usize,
    /// How long full files are kept; zero for ever.
    pub max_age: Duration,
    /// Whether full files are compressed.
    pub compress: bool,
    /// Whether lines have the old format instead of JSON.
    pub legacy: bool,
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
        fs::rename(path, &full)?;
        *state = append(path)?;
        if self.settings.compress {
            compress(&full)?;
        }
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
            if name.starts_with(&format!("{stem}-")) && (name.ends_with(&end) || name.ends_with(&format!("{end}.gz"))) {
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

/// Replaces a file by a compressed one.
fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let mut from = File::open(path)?;
    let to = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(PathBuf::from(name))?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(path)
}

impl LogFile {
    /// Writes events, one JSON object each.
    pub(super) fn write_all(&self, events: &[String]) -> io::Result<()> {
        for event in events {
            let mut line = if self.settings.legacy { legacy_line(event)? } else { event.clone() };
            line.push('\n');
            self.write_line(line.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_kept_for_a_while() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("new/audit.log");
        let settings = LogSettings { path: path.clone(), max_size: 10, max_backups: 2, ..LogSettings::default() };
        let log = LogFile::open(settings).expect("a log");
        for n in 0..5 {
            log.write_all(&[format!("line {n}")]).expect("written");
        }
        assert_eq!(fs::read_to_string(&path).expect("the log"), "line 4\n");
        let mut names: Vec<String> = fs::read_dir(path.parent().expect("a directory"))
            .expect("entries")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert!(names.len() == 3 && names.iter().all(|name| name.starts_with("audit") && name.ends_with(".log")));
    }

    #[test]
    fn full_files_are_compressed_if_that_is_wanted() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let settings =
            LogSettings { path: path.clone(), max_size: 10, max_backups: 1, compress: true, ..LogSettings::default() };
        let log = LogFile::open(settings).expect("a log");
        for n in 0..4 {
            log.write_all(&[format!("line {n}")]).expect("written");
        }
        let kept: Vec<PathBuf> = fs::read_dir(directory.path())
            .expect("entries")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|end| end == "gz"))
            .collect();
        let mut text = String::new();
        let file = File::open(&kept[0]).expect("a file");
        io::Read::read_to_string(&mut flate2::read::GzDecoder::new(file), &mut text).expect("text");
        assert_eq!((text.as_str(), kept.len()), ("line 2\n", 1));
    }
}
