//! Rotation of one container's log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Prepares a rotation: tidies up old files, compresses rotated ones, moves the current one away. Answers the new name.
pub(super) fn rotate(log: &Path, max_files: usize) -> io::Result<PathBuf> {
    let mut old = rotated(log)?;
    let keep = max_files.saturating_sub(2);
    while old.len() > keep {
        fs::remove_file(old.remove(0))?;
    }
    for path in old.iter().filter(|path| path.extension().is_none_or(|extension| extension != "gz")) {
        compress(path)?;
    }
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let target = suffixed(log, &format!(".{stamp}"));
    fs::rename(log, &target)?;
    Ok(target)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Rotated files, oldest first, after removing leftovers of an interrupted rotation.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(base)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{base}.");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with(&prefix) {
            continue;
        }
        let compressed_twin = suffixed(&path, ".gz");
        if name.ends_with(".tmp") || (!name.ends_with(".gz") && compressed_twin.exists()) {
            fs::remove_file(&path)?;
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn compress(path: &Path) -> io::Result<()> {
    let staged = suffixed(path, ".tmp");
    let mut encoder = GzEncoder::new(File::create(&staged)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&staged, suffixed(path, ".gz"))?;
    fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_a_few_and_compresses_all_but_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        fs::write(&log, "now").unwrap();
        for n in 1..=5 {
            fs::write(dir.path().join(format!("0.log.2026010{n}-000000")), "old").unwrap();
        }
        fs::write(dir.path().join("0.log.20260101-000000.tmp"), "").unwrap();
        let newest = rotate(&log, 5).unwrap();
        assert!(!log.exists() && newest.exists());
        let mut names: Vec<String> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names.len(), 4);
        assert_eq!(names.iter().filter(|name| name.ends_with(".gz")).count(), 3);
    }
}
