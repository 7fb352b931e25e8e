//! The file in which prepared claims are kept.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::PreparedClaim;
use crate::checkpoint;

const VERSION: &str = "v1";

#[derive(Serialize, Deserialize)]
struct File {
    version: String,
    entries: Vec<PreparedClaim>,
    /// Over the entries as they are written.
    checksum: u32,
}

fn checksum(entries: &[PreparedClaim]) -> io::Result<u32> {
    Ok(util::fnv32a(&serde_json::to_vec(entries)?))
}

pub(super) fn write(path: &Path, claims: &BTreeMap<String, PreparedClaim>) -> io::Result<()> {
    let entries: Vec<PreparedClaim> = claims.values().cloned().collect();
    let checksum = checksum(&entries)?;
    checkpoint::write(path, &serde_json::to_vec(&File { version: VERSION.to_owned(), entries, checksum })?)
}

pub(super) fn read(path: &Path) -> io::Result<BTreeMap<String, PreparedClaim>> {
    let is_whole = |file: &File| {
        file.version == VERSION && checksum(&file.entries).is_ok_and(|expected| expected == file.checksum)
    };
    let Some(file) = checkpoint::read(path, is_whole)? else { return Ok(BTreeMap::new()) };
    Ok(file.entries.into_iter().map(|claim| (claim.uid.clone(), claim)).collect())
}
