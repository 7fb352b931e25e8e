//! Facts from `/proc` and file systems.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{DiskUse, Interface, OpenFiles, ProcessIds};

/// Blocks of `st_blocks`.
const BLOCK: u64 = 512;

/// The unified group, or that of the memory controller.
pub(super) fn own_cgroup() -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers = fields.next()?;
            fields.next().filter(|_| controllers.split(',').any(|one| one == wanted)).map(str::to_owned)
        })
    };
    of("memory").or_else(|| of(""))
}

/// Whether the kernel enforces AppArmor profiles.
pub(super) fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

pub(super) fn interfaces(path: &Path) -> io::Result<Vec<Interface>> {
    Ok(fs::read_to_string(path)?.lines().filter_map(interface).filter(|found| found.name != "lo").collect())
}

/// `  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0`
fn interface(line: &str) -> Option<Interface> {
    let (name, rest) = line.split_once(':')?;
    let numbers: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let at = |index: usize| numbers.get(index).copied();
    Some(Interface {
        name: name.trim().to_owned(),
        rx_bytes: at(0)?,
        rx_packets: at(1)?,
        rx_errors: at(2)?,
        rx_dropped: at(3)?,
        tx_bytes: at(8)?,
        tx_packets: at(9)?,
        tx_errors: at(10)?,
        tx_dropped: at(11)?,
    })
}

pub(super) fn open_files(processes: &[u32]) -> OpenFiles {
    let mut out = OpenFiles { processes: processes.len() as u64, ..OpenFiles::default() };
    for pid in processes {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            out.descriptors += 1;
            let link = fs::read_link(entry.path()).unwrap_or_default();
            out.sockets += u64::from(link.to_string_lossy().starts_with("socket:"));
        }
    }
    out
}

pub(super) fn process_ids() -> io::Result<ProcessIds> {
    let number = |path: &str| -> io::Result<u64> {
        fs::read_to_string(path)?.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    let load = fs::read_to_string("/proc/loadavg")?;
    // The fourth word is `running/all`.
    let used = load.split_whitespace().nth(3).and_then(|word| word.split_once('/')?.1.parse().ok());
    let max = number("/proc/sys/kernel/pid_max")?.min(number("/proc/sys/kernel/threads-max")?);
    Ok(ProcessIds { max, used: used.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))? })
}

/// Files with several names count once; what vanishes meanwhile is left out.
pub(super) fn disk_use(path: &Path) -> io::Result<DiskUse> {
    let device = fs::symlink_metadata(path)?.dev();
    let mut out = DiskUse::default();
    let mut linked = HashSet::new();
    for entry in walkdir::WalkDir::new(path).follow_links(false).same_file_system(true).into_iter().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.dev() != device || (meta.nlink() > 1 && !meta.is_dir() && !linked.insert(meta.ino())) {
            continue;
        }
        out = out + DiskUse { bytes: meta.blocks() * BLOCK, inodes: 1 };
    }
    Ok(out)
}

pub(super) fn same_fs(a: &Path, b: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
    device(a) == device(b)
}

/// `/dev/sda` for `8:0`.
pub(super) fn device(number: &str) -> Option<String> {
    let link = fs::read_link(Path::new("/sys/dev/block").join(number)).ok()?;
    Some(format!("/dev/{}", link.file_name()?.to_str()?))
}

/// The device of the file system at a path, or what is mounted there.
pub(super) fn device_of(path: &Path) -> Option<String> {
    let number = fs::metadata(path).ok()?.dev();
    let number = format!("{}:{}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
    device(&number).or_else(|| source(&fs::read_to_string("/proc/self/mountinfo").ok()?, &number))
}

/// What is mounted, by the number of its file system.
fn source(mounts: &str, number: &str) -> Option<String> {
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(number))?;
    line.split_once(" - ")?.1.split(' ').nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_lines_are_read() {
        let found = interface("  eth0: 10 1 2 3 0 0 0 0 20 4 5 6 0 0 0 0").unwrap();
        assert_eq!((found.name.as_str(), found.rx_bytes, found.tx_bytes, found.tx_dropped), ("eth0", 10, 20, 6));
        assert_eq!(interface("Inter-|   Receive"), None);
    }

    #[test]
    fn file_systems_have_sources() {
        let mounts = "22 27 0:21 / /proc rw,relatime - proc proc rw\n29 27 0:30 / /x rw shared:1 - overlay over rw";
        assert_eq!(source(mounts, "0:30").as_deref(), Some("over"));
        assert_eq!(source(mounts, "0:31"), None);
        assert!(device_of(Path::new("/")).is_some());
    }

    #[test]
    fn linked_files_count_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 10_000]).unwrap();
        let once = disk_use(dir.path()).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        let twice = disk_use(dir.path()).unwrap();
        assert_eq!((twice.inodes, once.inodes), (2, 2));
        assert!(twice.bytes >= 10_000 && twice.bytes < 2 * 10_000 + 8192);
        assert!(disk_use(&dir.path().join("absent")).is_err());
        assert!(process_ids().unwrap().used > 0);
    }
}
