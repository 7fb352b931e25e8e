//! The files of an image as a tar archive that is the same, bit for bit, for the same content.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

use super::recipe::{Entry, Recipe};
use crate::{
    error::{Context, Result},
    host::Host,
};

/// Packs a recipe.
pub fn pack(host: &dyn Host, recipe: &Recipe) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for directory in directories(recipe) {
        let mut header = header(EntryType::Directory, 0o755, 0);
        let path = relative(&directory);
        tar.append_data(&mut header, format!("{path}/"), std::io::empty()).context("cannot write a layer")?;
    }
    for (path, entry) in &recipe.entries {
        add(host, &mut tar, path, entry).with_context(|| format!("cannot add {} to a layer", path.display()))?;
    }
    tar.into_inner().context("cannot write a layer")
}

fn add(host: &dyn Host, tar: &mut Builder<Vec<u8>>, path: &Path, entry: &Entry) -> std::io::Result<()> {
    let inside = relative(path);
    match entry {
        Entry::Copy(source) => {
            let content = host.read(source)?;
            let mode = if is_program(path, &content) { 0o755 } else { 0o644 };
            tar.append_data(&mut header(EntryType::Regular, mode, content.len()), inside, content.as_slice())
        }
        Entry::Text(text) => {
            tar.append_data(&mut header(EntryType::Regular, 0o644, text.len()), inside, text.as_bytes())
        }
        Entry::Link(target) => tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), inside, target),
        Entry::Scratch => {
            tar.append_data(&mut header(EntryType::Directory, 0o1777, 0), format!("{inside}/"), std::io::empty())
        }
    }
}

/// ELF files and scripts are programs.
fn is_program(path: &Path, content: &[u8]) -> bool {
    content.starts_with(b"\x7fELF") || content.starts_with(b"#!") || path.starts_with("/usr/local/bin")
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// The directories above all entries.
fn directories(recipe: &Recipe) -> BTreeSet<PathBuf> {
    let above = |path: &PathBuf| path.ancestors().skip(1).map(Path::to_owned).collect::<Vec<_>>();
    let all = recipe.entries.keys().flat_map(above);
    all.filter(|d| d.parent().is_some() && !recipe.entries.contains_key(d)).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix("/").unwrap_or(path).to_string_lossy().into_owned()
}
