//! Mounting, and walking paths that may be hostile.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat};
use runtime::beneath;

pub(super) fn tmpfs(target: &Path, size: Option<u64>) -> io::Result<()> {
    let size = size.map(|bytes| format!("size={bytes}"));
    let with_noswap = size.as_ref().map_or("noswap".to_owned(), |size| format!("{size},noswap"));
    let flags = MsFlags::empty();
    match mount(Some("tmpfs"), target, Some("tmpfs"), flags, Some(with_noswap.as_str())) {
        Err(Errno::EINVAL) => {
            mount(Some("tmpfs"), target, Some("tmpfs"), flags, size.as_deref()).map_err(io::Error::from)
        }
        other => other.map_err(io::Error::from),
    }
}

pub(super) fn hugepages(target: &Path, page_size: &str) -> io::Result<()> {
    let data = format!("pagesize={page_size}");
    Ok(mount(Some("nodev"), target, Some("hugetlbfs"), MsFlags::empty(), Some(data.as_str()))?)
}

/// Mounts below a directory are seen in other namespaces. Where systemd runs, they are anyway.
pub(super) fn make_shared(target: &Path) -> io::Result<()> {
    let none: Option<&str> = None;
    let points = points()?;
    // Of mounts on one point the last counts.
    let holding = points.iter().filter(|(point, _)| target.starts_with(point));
    let holder = holding.max_by_key(|(point, _)| point.components().count());
    if holder.is_some_and(|(_, shared)| *shared) {
        return Ok(());
    }
    if holder.is_none_or(|(point, _)| point != target) {
        mount(Some(target), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    }
    Ok(mount(none, target, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none)?)
}

pub(super) fn unmount(target: &Path) -> io::Result<()> {
    match umount2(target, MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Mount points with whether they are shared, from the kernel's table.
fn points() -> io::Result<Vec<(PathBuf, bool)>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let point = unescape(fields.nth(4)?);
            let shared = fields.skip(1).take_while(|field| *field != "-").any(|field| field.starts_with("shared:"));
            Some((PathBuf::from(point), shared))
        })
        .collect())
}

/// The table writes blanks and backslashes in octal.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let octal = bytes.get(index + 1..index + 4).and_then(|d| std::str::from_utf8(d).ok());
        match (bytes[index], octal.and_then(|digits| u8::from_str_radix(digits, 8).ok())) {
            (b'\\', Some(value)) => {
                out.push(value);
                index += 4;
            }
            (byte, _) => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> =
        points()?.into_iter().map(|(point, _)| point).filter(|point| point.starts_with(dir)).collect();
    found.reverse();
    found.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    Ok(found)
}

pub(super) fn make_beneath(root: &Path, path: &Path) -> io::Result<()> {
    if beneath::open(root, path, OFlag::empty()).is_ok() {
        return Ok(());
    }
    let mut dir = beneath::open(root, Path::new(""), OFlag::empty())?;
    let mode = Mode::from_bits_truncate(fstat(&dir)?.st_mode & 0o7777);
    let mut done = PathBuf::new();
    for component in path.components() {
        if component == Component::CurDir {
            continue;
        }
        let Component::Normal(name) = component else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "path must be relative and without backsteps"));
        };
        done.push(name);
        dir = match beneath::open(root, &done, OFlag::O_DIRECTORY) {
            Ok(next) => next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match mkdirat(dir.as_fd(), name, mode) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let next = beneath::open(root, &done, OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)?;
                // The mode above passed through the umask; the volume's own is wanted.
                fs::set_permissions(
                    beneath::path_of(&next),
                    std::os::unix::fs::PermissionsExt::from_mode(mode.bits()),
                )?;
                next
            }
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

pub(super) fn bind_beneath(root: &Path, path: &Path, target: &Path) -> io::Result<()> {
    let source = beneath::open(root, path, OFlag::empty())?;
    let wanted = fstat(&source)?;
    let is_dir = wanted.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if let Ok(existing) = open(target, OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW, Mode::empty()) {
        let found = fstat(&existing)?;
        drop(existing);
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino) {
            return Ok(());
        }
        unmount(target)?;
        if target.is_dir() { fs::remove_dir(target)? } else { fs::remove_file(target)? }
    }
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if is_dir {
        fs::create_dir(target)?
    } else {
        drop(fs::File::create_new(target)?)
    }
    let none: Option<&str> = None;
    Ok(mount(Some(&beneath::path_of(&source)), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table_escapes_are_read() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
    }

    #[test]
    fn subpath_links_cannot_leave_the_volume() {
        // CVE-2021-25741, CVE-2017-1002101
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("volume");
        fs::create_dir(&root).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("out")).unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        assert!(beneath::open(&root, Path::new("out"), OFlag::empty()).is_err());
        assert!(beneath::open(&root, Path::new("up/volume"), OFlag::empty()).is_err());
        assert!(make_beneath(&root, Path::new("out/new")).is_err());
        assert!(make_beneath(&root, Path::new("../x")).is_err());
        make_beneath(&root, Path::new("a/b")).unwrap();
        assert!(root.join("a/b").is_dir());
    }
}
