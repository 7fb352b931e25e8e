//! Moving what runs in the root into a group.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::read;

const ATTEMPTS: u32 = 10;

/// Moves processes from some groups into others until none is left that may be moved: new ones come while it goes on.
pub(super) fn gather(from: &[PathBuf], to: &[PathBuf], may_move: &dyn Fn(u32) -> bool) -> io::Result<usize> {
    let mut moved = 0;
    for _ in 0..ATTEMPTS {
        let found = from.iter().flat_map(|dir| processes(dir));
        let mut movable: Vec<u32> = found.filter(|pid| may_move(*pid)).collect();
        movable.sort_unstable();
        movable.dedup();
        if movable.is_empty() {
            return Ok(moved);
        }
        for pid in movable {
            for dir in to {
                match fs::write(dir.join("cgroup.procs"), pid.to_string()) {
                    // It ended meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => break,
                    other => other?,
                }
            }
            moved += 1;
        }
    }
    Err(io::Error::other("ran out of attempts to create system containers"))
}

fn processes(dir: &std::path::Path) -> Vec<u32> {
    read(&dir.join("cgroup.procs")).lines().filter_map(|line| line.parse().ok()).collect()
}

/// Whether a process is neither the first one nor part of the kernel, which has no program.
pub(super) fn is_system_process(pid: u32) -> bool {
    pid > 1 && fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_may_be_moved_is_moved_once() {
        let root = tempfile::tempdir().unwrap();
        let to = root.path().join("system");
        fs::create_dir(&to).unwrap();
        fs::write(root.path().join("cgroup.procs"), "1\n5\n9\n").unwrap();
        let seen = RefCell::new(BTreeSet::new());
        let may_move = |pid: u32| pid != 9 && pid > 1 && seen.borrow_mut().insert(pid);
        let moved = gather(&[root.path().to_owned()], std::slice::from_ref(&to), &may_move).unwrap();
        assert_eq!(moved, 1);
        assert_eq!(fs::read_to_string(to.join("cgroup.procs")).unwrap(), "5");
    }

    #[test]
    fn what_comes_back_is_not_moved_for_ever() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cgroup.procs"), "5\n").unwrap();
        let to = root.path().join("system");
        fs::create_dir(&to).unwrap();
        assert!(gather(&[root.path().to_owned()], &[to], &|_| true).is_err());
    }

    #[test]
    fn the_first_process_stays() {
        assert!(!is_system_process(1));
        assert!(is_system_process(std::process::id()));
    }
}
