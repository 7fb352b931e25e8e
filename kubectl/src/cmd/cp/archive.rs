//! Packing and unpacking of what is copied.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use tar::{Archive, Builder, EntryType, Header};
use tokio::sync::mpsc;

use super::is_below;
use crate::{kubeconfig::files::go_io_text, streams::Output};

/// Bytes that are gathered before they are sent.
const GATHERED: usize = 64 * 1024;

/// What is written here is sent in chunks.
struct Sending {
    sender: mpsc::Sender<Vec<u8>>,
    held: Vec<u8>,
}

impl Write for Sending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(bytes);
        if self.held.len() >= GATHERED {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return Ok(());
        }
        self.sender.blocking_send(held).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// What was received is read here.
struct Receiving {
    receiver: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Receiving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.chunk.len() {
            match self.receiver.blocking_recv() {
                Some(chunk) => (self.chunk, self.at) = (chunk, 0),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// Packs a file or a directory under a name.
pub(super) fn pack(path: &Path, name: &str, sender: mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let mut builder = Builder::new(Sending { sender, held: Vec::new() });
    builder.follow_symlinks(false);
    match add(&mut builder, path, Path::new(name)) {
        // The other side ended; why, it tells itself.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error),
        Ok(()) => builder.into_inner()?.flush(),
    }
}

fn add(builder: &mut Builder<Sending>, path: &Path, name: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return builder.append_path_with_name(path, name);
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<_>>()?;
    entries.sort();
    if entries.is_empty() {
        let mut header = Header::new_gnu();
        header.set_metadata(&metadata);
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        return builder.append_data(&mut header, name, io::empty());
    }
    for entry in entries {
        let Some(last) = entry.file_name().map(PathBuf::from) else { continue };
        add(builder, &entry, &name.join(last))?;
    }
    Ok(())
}

/// Unpacks what is below `prefix` to `target`; nothing is written elsewhere, and links are not followed: `advice` is the
/// command that takes them along.
pub(super) fn unpack(
    receiver: mpsc::Receiver<Vec<u8>>,
    prefix: &str,
    target: &Path,
    advice: &str,
    mut err: Output,
) -> io::Result<()> {
    let mut archive = Archive::new(Receiving { receiver, chunk: Vec::new(), at: 0 });
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.to_string_lossy().trim_start_matches('/').to_owned();
        let Some(rest) = name.strip_prefix(prefix) else {
            return Err(io::Error::other("tar contents corrupted"));
        };
        let rest = rest.trim_matches('/');
        let place = if rest.is_empty() { target.to_path_buf() } else { target.join(rest) };
        if !is_below(&place, target) || through_link(&place, target) {
            writeln!(err, "warning: file {:?} is outside target destination, skipping", place.display().to_string())?;
            continue;
        }
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            fs::create_dir_all(&place)?;
            continue;
        }
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        if kind.is_symlink() || kind.is_hard_link() {
            let link = entry.link_name()?.unwrap_or_default().display().to_string();
            let shown = place.display().to_string();
            writeln!(err, "warning: skipping symlink: {shown:?} -> {link:?} (consider using \"{advice}\")")?;
            continue;
        }
        let opened = fs::File::create(&place);
        let mut file = opened.map_err(|e| io::Error::other(format!("open {}: {}", place.display(), go_io_text(&e))))?;
        io::copy(&mut entry, &mut file)?;
    }
    Ok(())
}

/// Whether a link below the target would lead elsewhere.
fn through_link(place: &Path, target: &Path) -> bool {
    let below = place.ancestors().take_while(|part| *part != target && part.starts_with(target));
    below.into_iter().any(|part| fs::symlink_metadata(part).is_ok_and(|metadata| metadata.is_symlink()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::Captured;

    fn received(builder: Builder<Vec<u8>>) -> mpsc::Receiver<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(builder.into_inner().expect("an archive")).expect("room");
        receiver
    }

    #[test]
    fn a_tree_survives_packing_and_unpacking() {
        let directory = tempfile::tempdir().expect("a directory");
        let source = directory.path().join("source");
        fs::create_dir_all(source.join("below/empty")).expect("directories");
        fs::write(source.join("below/file"), "text").expect("a file");
        let (sender, receiver) = mpsc::channel(64);
        pack(&source, "name", sender).expect("packed");
        let target = directory.path().join("target");
        unpack(receiver, "name", &target, "", Output::new(Captured::default(), false)).expect("unpacked");
        assert_eq!(fs::read_to_string(target.join("below/file")).expect("a file"), "text");
        assert!(target.join("below/empty").is_dir());
    }

    #[test]
    fn nothing_is_written_outside_or_through_links() {
        let directory = tempfile::tempdir().expect("a directory");
        let target = directory.path().join("target");
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        builder.append_link(&mut header, "x/link", "/etc").expect("an entry");
        let mut header = Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        // Names that lead upwards are only made by hand.
        header.as_mut_bytes()[..12].copy_from_slice(b"x/../../evil");
        header.set_cksum();
        builder.append(&header, &b"1"[..]).expect("an entry");
        let told = Captured::default();
        unpack(received(builder), "x", &target, "", Output::new(told.clone(), true)).expect("unpacked");
        assert!(!directory.path().join("evil").exists() && !target.join("link").exists());
        assert!(told.text().contains("skipping symlink") && told.text().contains("outside target destination"));
    }
}
