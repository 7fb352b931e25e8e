//! The files in which it stands what Pods were given.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Given;
use crate::checkpoint::{self, Printed};

/// What is in the file: the text of the entries, and its checksum.
#[derive(Serialize, Deserialize)]
struct File {
    data: String,
    checksum: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Entries {
    #[serde(default)]
    entries: BTreeMap<String, Given>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<String, Given>,
    /// Counts changes.
    version: u64,
}

/// What Pods were given, by UID. Changes are in memory at once and on disk after [`Ledger::flush`].
pub struct Ledger {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// The version on disk.
    written: tokio::sync::Mutex<u64>,
}

fn checksum(data: &str) -> u64 {
    Printed::text(data).checksum("string")
}

impl Ledger {
    /// Reads the file; one that is not there is empty.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = checkpoint::read(&path, |file: &File| checksum(&file.data) == file.checksum)?;
        let entries: Entries = match file.filter(|file| !file.data.is_empty()) {
            Some(file) => serde_json::from_str(&file.data)?,
            None => Entries::default(),
        };
        let inner = Inner { entries: entries.entries, version: 0 };
        Ok(Self { path, inner: Mutex::new(inner), written: tokio::sync::Mutex::new(0) })
    }

    /// What a Pod was given.
    pub fn get(&self, uid: &str) -> Option<Given> {
        self.inner.lock().entries.get(uid).cloned()
    }

    /// Changes one entry, which is made if absent.
    pub(super) fn change(&self, uid: &str, change: impl FnOnce(&mut Given)) {
        let mut inner = self.inner.lock();
        let entry = inner.entries.entry(uid.to_owned()).or_default();
        let before = entry.clone();
        change(entry);
        if *entry != before || before == Given::default() {
            inner.version += 1;
        }
    }

    /// Forgets Pods that are not known any more.
    pub(super) fn retain(&self, is_known: impl Fn(&str) -> bool) {
        let mut inner = self.inner.lock();
        let before = inner.entries.len();
        inner.entries.retain(|uid, _| is_known(uid));
        if inner.entries.len() != before {
            inner.version += 1;
        }
    }

    /// Writes what is not written yet; several changes are one write.
    pub(super) async fn flush(&self) -> io::Result<()> {
        let mut written = self.written.lock().await;
        let (version, entries) = {
            let inner = self.inner.lock();
            if inner.version == *written {
                return Ok(());
            }
            (inner.version, inner.entries.clone())
        };
        let path = self.path.clone();
        let work = tokio::task::spawn_blocking(move || {
            let data = serde_json::to_string(&Entries { entries })?;
            let file = File { checksum: checksum(&data), data };
            checkpoint::write(&path, &serde_json::to_vec(&file)?)
        });
        work.await.map_err(io::Error::other)??;
        *written = version;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ledger_outlives_its_kubelet_and_is_not_believed_when_it_was_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("allocated_pods_state");
        let ledger = Ledger::open(path.clone()).unwrap();
        let resources = serde_json::from_value(serde_json::json!({ "limits": { "cpu": "1" } })).unwrap();
        ledger.change("u", |given| drop(given.containers.insert("c".into(), resources)));
        ledger.change("gone", |_| {});
        ledger.retain(|uid| uid == "u");
        ledger.flush().await.unwrap();
        let again = Ledger::open(path.clone()).unwrap();
        assert_eq!(again.get("u"), ledger.get("u"));
        assert!(again.get("u").is_some() && again.get("gone").is_none());
        let text = std::fs::read_to_string(&path).unwrap().replace("cpu", "gpu");
        std::fs::write(&path, text).unwrap();
        assert!(Ledger::open(path).is_err());
    }
}
