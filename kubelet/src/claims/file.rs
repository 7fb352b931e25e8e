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
    let Some(bytes) = checkpoint::read(path)? else { return Ok(BTreeMap::new()) };
    let file: File = serde_json::from_slice(&bytes)?;
    if file.version != VERSION || file.checksum != checksum(&file.entries)? {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "checkpoint is corrupted"));
    }
    Ok(file.entries.into_iter().map(|claim| (claim.uid.clone(), claim)).collect())
}
