//! The machine that kubeadm changes: files, programs, mounts, processes. Everything else in this crate reaches it through
//! [`Host`]; tests use the twin of [`recorder`], `--dry-run` the shell of [`dry`].

pub mod dry;
mod local;
#[cfg(test)]
pub mod recorder;

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use local::LocalHost;
use time::OffsetDateTime;

/// What a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A socket.
    Socket,
    /// Anything else.
    Other,
}

/// A program to run to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name or path.
    pub name: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Killed when it takes longer.
    pub deadline: Duration,
}

impl Program {
    /// A program that is given a minute.
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(name: impl Into<String>, args: I) -> Self {
        Self { name: name.into(), args: args.into_iter().map(Into::into).collect(), deadline: Duration::from_secs(60) }
    }

    /// The same with another deadline.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// How a program ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Exit status; `None` when killed.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    /// Whether it ended with 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// A process that outlives kubeadm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Path of the program.
    pub program: PathBuf,
    /// Arguments.
    pub args: Vec<String>,
    /// Where its output is appended.
    pub log: PathBuf,
}

/// A stop signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM.
    Gracefully,
    /// SIGKILL.
    Now,
}

/// One machine.
pub trait Host: Send + Sync {
    /// Prints to standard output.
    fn say(&self, text: &str);
    /// Whether [`say`](Self::say) prints nothing until told otherwise.
    fn hush(&self, quiet: bool);
    /// Prints to standard error.
    fn warn(&self, text: &str);
    /// Reads a line from standard input.
    fn ask(&self) -> io::Result<String>;
    /// The time.
    fn now(&self) -> OffsetDateTime;
    /// A variable of the environment that is not empty.
    fn variable(&self, name: &str) -> Option<String>;
    /// Variables whose names end in `_proxy`.
    fn proxy_variables(&self) -> Vec<(String, String)>;

    /// Content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Replaces a file as a whole. Its directory must be there.
    fn write(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()>;
    /// Adds to the end of a file, which is made with `mode` if it is not there, and brings it to the disk.
    fn append(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()>;
    /// Makes a directory (with `mode`) and the missing ones above it (0755). One that is there keeps its mode.
    fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Entries of a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// What is at a path, links followed; `None` when there is nothing.
    fn kind(&self, path: &Path) -> Option<PathKind>;
    /// Removes a file or a directory with all in it; links are not followed. Nothing there is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// A path with all links followed.
    fn real_path(&self, path: &Path) -> io::Result<PathBuf>;
    /// Renames within a file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Runs a program to its end.
    fn run(&self, program: &Program) -> io::Result<Ended>;
    /// Path of a program in the search path.
    fn find_program(&self, name: &str) -> Option<PathBuf>;
    /// Path of this program.
    fn own_program(&self) -> io::Result<PathBuf>;
    /// Starts a process in a session of its own and returns its id.
    fn start(&self, daemon: &Daemon) -> io::Result<u32>;
    /// The command line of a process; `None` when there is none.
    fn command_of(&self, pid: u32) -> Option<Vec<String>>;
    /// Signals a process.
    fn stop(&self, pid: u32, how: Stop) -> io::Result<()>;
    /// Waits a moment.
    fn pause(&self, duration: Duration);

    /// Mount points below a directory, deepest first.
    fn mounts_below(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Unmounts with the names of umount2's flags.
    fn unmount(&self, path: &Path, flags: &[String]) -> io::Result<()>;

    /// Makes a directory the root of this process.
    fn change_root(&self, root: &Path) -> io::Result<()>;
    /// Name of the machine.
    fn hostname(&self) -> io::Result<String>;
    /// Whether this process is root.
    fn is_root(&self) -> bool;
    /// Number of processors that may be used.
    fn processors(&self) -> usize;
    /// Whether a TCP port is free to listen on.
    fn port_is_free(&self, port: u16) -> bool;
    /// Address of the interface with the default route.
    fn default_address(&self) -> Option<IpAddr>;
    /// Addresses of a host name.
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
    /// Unix seconds and random bytes come from here too, so that tests are repeatable.
    fn random(&self, bytes: &mut [u8]);
}

/// Conveniences on top of the verbs.
impl dyn Host + '_ {
    /// Prints a line.
    pub fn line(&self, text: &str) {
        self.say(&format!("{text}\n"));
    }

    /// Whether something is there.
    pub fn exists(&self, path: &Path) -> bool {
        self.kind(path).is_some()
    }

    /// Content of a text file.
    pub fn read_text(&self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// Writes a file after making its directory (0755).
    pub fn put(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.create_directory(parent, 0o755)?;
        }
        self.write(path, mode, content)
    }

    /// Removes what a directory holds; no directory is fine.
    pub fn empty(&self, directory: &Path) -> io::Result<()> {
        if self.kind(directory).is_none() {
            return Ok(());
        }
        self.list(directory)?.iter().try_for_each(|entry| self.remove(entry))
    }

    /// Whether systemd runs this machine.
    pub fn has_systemd(&self) -> bool {
        self.kind(Path::new("/run/systemd/system")) == Some(PathKind::Directory)
            && self.find_program("systemctl").is_some()
    }

    /// `len` letters and digits at random.
    pub fn random_text(&self, len: usize) -> String {
        const LETTERS: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut text = String::with_capacity(len);
        let mut byte = [0_u8];
        while text.len() < len {
            self.random(&mut byte);
            // 252 is the greatest multiple of 36 in a byte: above it letters would not be equally likely.
            if byte[0] < 252 {
                text.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
            }
        }
        text
    }
}
