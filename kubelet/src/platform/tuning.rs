//! Settings of this process and of the kernel.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// As many as there are threads that work all the time on a small machine.
#[cfg(target_env = "gnu")]
const MAX_ARENAS: i32 = 2;

/// Kernel parameters as Pods can rely on them.
const KERNEL: [(&str, i64); 6] = [
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];

/// How willing the kernel is to kill this process.
pub fn set_oom_score(score: i32) -> io::Result<()> {
    fs::write("/proc/self/oom_score_adj", score.to_string())
}

/// Files that may be open; not more than the process may ask for.
pub fn set_max_open_files(count: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    match setrlimit(Resource::RLIMIT_NOFILE, count, count) {
        Err(Errno::EPERM) => Ok(setrlimit(Resource::RLIMIT_NOFILE, count.min(hard), hard)?),
        other => Ok(other?),
    }
}

/// Sets kernel parameters, or, if they are `protected`, refuses those that differ.
pub fn kernel(protected: bool) -> Result<(), String> {
    for (name, wanted) in KERNEL {
        let path = Path::new("/proc/sys").join(name);
        let found: i64 = match fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()) {
            Some(found) => found,
            // Kernels without the feature have no parameter.
            None => continue,
        };
        if found == wanted {
            continue;
        }
        if protected {
            return Err(format!("invalid kernel flag: {name}, expected value: {wanted}, actual value: {found}"));
        }
        tracing::info!(v = 2, name, from = found, to = wanted, "updating kernel flag");
        if let Err(error) = fs::write(&path, wanted.to_string()) {
            tracing::error!(name, %error, "kernel flag");
        }
    }
    Ok(())
}

/// Holds a lock on a file for as long as the process lives; waits for whoever has it.
pub fn lock(path: &Path) -> io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    std::mem::forget(lock);
    Ok(())
}

/// Threads that come and go for blocking work share their memory: apart, each would keep what it once needed.
pub fn share_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the call only sets a limit of the allocator, and may be made at any time.
        #[allow(unsafe_code)]
        let set = unsafe { libc::mallopt(libc::M_ARENA_MAX, MAX_ARENAS) };
        if set == 0 {
            tracing::debug!("the allocator takes no limit");
        }
    }
}
