//! Files that change all at once.
//!
//! ```text
//! volume/..2026_01_02_03_04_05.x/a     real files
//! volume/..data -> ..2026_01_02_03_04_05.x
//! volume/a -> ..data/a
//! ```
//! A reader sees the old or the new set: `..data` is replaced by one rename.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use rand::Rng;

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";
const MAX_COMPONENT: usize = 255;
const MAX_PATH: usize = 4096;

/// One file to be.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Owner, if not root.
    pub owner: Option<u32>,
}

/// Files by relative path.
pub(super) type Payload = BTreeMap<String, File>;

/// Makes `target` hold exactly the payload. `prepare` sees the new directory before it becomes visible.
pub(super) fn write(
    target: &Path,
    payload: &Payload,
    prepare: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<bool> {
    for path in payload.keys() {
        check(path)?;
    }
    let current = fs::read_link(target.join(DATA)).ok().map(|name| target.join(name));
    let changed = !current.as_ref().is_some_and(|dir| holds(dir, payload));
    if changed {
        let fresh = new_directory(target)?;
        write_files(&fresh, payload)?;
        prepare(&fresh)?;
        let staged = target.join(DATA_TMP);
        remove_file(&staged)?;
        symlink(fresh.file_name().unwrap_or_default(), &staged)?;
        fs::rename(&staged, target.join(DATA))?;
    }
    let visible: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    add_links(target, &visible)?;
    remove_stale(target, &visible)?;
    Ok(changed)
}

/// Paths must be relative, short and without backsteps.
fn check(path: &str) -> io::Result<()> {
    let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if path.is_empty() || path.len() > MAX_PATH {
        return invalid(format!("invalid path: {path:?}"));
    }
    if path.starts_with("..") {
        return invalid(format!("invalid path: must not start with '..': {path}"));
    }
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) if name.len() <= MAX_COMPONENT => {}
            Component::RootDir => return invalid(format!("invalid path: must be relative path: {path}")),
            _ => return invalid(format!("invalid path: must not contain '..': {path}")),
        }
    }
    Ok(())
}

fn holds(dir: &Path, payload: &Payload) -> bool {
    let same = payload.iter().all(|(path, file)| fs::read(dir.join(path)).is_ok_and(|bytes| bytes == file.data));
    let mut found = BTreeSet::new();
    same && list(dir, Path::new(""), &mut found).is_ok() && found.len() == payload.len()
}

fn list(root: &Path, relative: &Path, out: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(relative))? {
        let entry = entry?;
        let path = relative.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, out)?;
        } else {
            out.insert(path);
        }
    }
    Ok(())
}

fn new_directory(target: &Path) -> io::Result<PathBuf> {
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S.").to_string();
    let dir = target.join(format!("{stamp}{}", rand::rng().random_range(0..u32::MAX)));
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    Ok(dir)
}

fn write_files(dir: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let full = dir.join(path);
        if let Some(parent) = full.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&full, &file.data)?;
        fs::set_permissions(&full, fs::Permissions::from_mode(file.mode))?;
        if let Some(owner) = file.owner {
            std::os::unix::fs::chown(&full, Some(owner), None)?;
        }
    }
    Ok(())
}

fn add_links(target: &Path, visible: &BTreeSet<&str>) -> io::Result<()> {
    for name in visible {
        let link = target.join(name);
        if fs::read_link(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    Ok(())
}

fn remove_stale(target: &Path, visible: &BTreeSet<&str>) -> io::Result<()> {
    let current = fs::read_link(target.join(DATA)).unwrap_or_default();
    for entry in fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text == DATA || Path::new(&name) == current {
            continue;
        }
        let path = entry.path();
        if text.starts_with("..") {
            if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { remove_file(&path)? }
        } else if !visible.contains(text.as_ref()) && fs::read_link(&path).is_ok_and(|to| to.starts_with(DATA)) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { data: text.into(), mode: 0o640, owner: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn replaces_the_whole_set() {
        let dir = tempfile::tempdir().unwrap();
        let keep = |_: &Path| Ok(());
        assert!(write(dir.path(), &payload(&[("a", "1"), ("d/e", "2")]), keep).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("d/e")).unwrap(), "2");
        let mode = fs::metadata(dir.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(!write(dir.path(), &payload(&[("a", "1"), ("d/e", "2")]), keep).unwrap());
        assert!(write(dir.path(), &payload(&[("b", "3")]), keep).unwrap());
        assert!(!dir.path().join("a").exists() && !dir.path().join("d").exists());
        assert_eq!(fs::read_to_string(dir.path().join("b")).unwrap(), "3");
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 3, "one real directory, ..data and b");
    }

    #[test]
    fn refuses_paths_that_leave() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a/../../x", "..x", ""] {
            assert!(write(dir.path(), &payload(&[(bad, "1")]), |_| Ok(())).is_err(), "{bad}");
        }
    }
}
