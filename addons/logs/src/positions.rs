//! How far each file was read, kept over restarts.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// A file, whatever it is called at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// How far a file was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    #[serde(flatten)]
    pub(crate) file: FileId,
    /// Time of its first line: another file may have the inode later.
    pub(crate) first: String,
    pub(crate) offset: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    version: u32,
    positions: Vec<Position>,
}

/// Version of the document.
const VERSION: u32 = 1;

/// Reads the positions; `None` if nothing was ever kept. A file that cannot be understood counts as empty.
pub(crate) fn load(path: &Path) -> io::Result<Option<HashMap<FileId, Position>>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    match serde_json::from_slice::<Document>(&text) {
        Ok(document) if document.version == VERSION => {
            Ok(Some(document.positions.into_iter().map(|position| (position.file, position)).collect()))
        }
        Ok(document) => {
            tracing::warn!(version = document.version, "Positions of another version are not used");
            Ok(Some(HashMap::new()))
        }
        Err(error) => {
            tracing::warn!(%error, "Positions cannot be understood and are not used");
            Ok(Some(HashMap::new()))
        }
    }
}

/// Replaces the positions at once.
pub(crate) fn save(path: &Path, mut positions: Vec<Position>) -> io::Result<()> {
    positions.sort_by_key(|position| position.file);
    let text = serde_json::to_vec(&Document { version: VERSION, positions })?;
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("deep/positions.json");
        assert_eq!(load(&path).expect("read"), None);
        let position = Position { file: FileId { device: 1, inode: 2 }, first: "t".into(), offset: 3 };
        save(&path, vec![position.clone()]).expect("saved");
        assert_eq!(load(&path).expect("read"), Some(HashMap::from([(position.file, position)])));
        for broken in ["", "{}", "[1]", r#"{"version":9,"positions":[]}"#] {
            fs::write(&path, broken).expect("written");
            assert_eq!(load(&path).expect("read"), Some(HashMap::new()), "{broken}");
        }
    }
}
