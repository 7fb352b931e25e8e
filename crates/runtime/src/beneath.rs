//! Files below a directory whose contents may be hostile: links may lead around in it and never out of it.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open as open_directory, openat2},
    sys::stat::{Mode, SFlag, fstat},
};

/// Opens `path` below `root`, for nothing but to name it (`O_PATH`); an empty path is `root` itself.
pub fn open(root: &Path, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let root_fd = open_directory(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    if path.as_os_str().is_empty() {
        return Ok(root_fd);
    }
    let how = OpenHow::new()
        .flags(flags | OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root_fd.as_fd(), path, how)?)
}

/// Reads a regular file of at most `limit` bytes below `root`. Others are errors of kind `InvalidInput`, longer ones of
/// kind `InvalidData`.
pub fn read(root: &Path, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let fd = open(root, path, OFlag::empty())?;
    if fstat(&fd)?.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut file = File::open(path_of(&fd))?.take(limit + 1);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "file is too large"));
    }
    Ok(bytes)
}

/// A path that means what a descriptor means, whatever happens to names.
pub fn path_of(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}
