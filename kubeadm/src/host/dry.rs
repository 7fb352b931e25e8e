//! A machine of which files are only told: they are written into a directory of their own.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;

use super::{Daemon, Ended, Host, PathKind, Program, Stop};

/// Reads go to the machine below, writes to a directory.
pub struct DryHost {
    below: Arc<dyn Host>,
    directory: PathBuf,
}

impl DryHost {
    /// Writes go below `directory`.
    pub fn new(below: Arc<dyn Host>, directory: PathBuf) -> Self {
        Self { below, directory }
    }

    fn staged(&self, path: &Path) -> PathBuf {
        self.directory.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where a path is read: its staged form when there is one.
    fn seen(&self, path: &Path) -> PathBuf {
        let staged = self.staged(path);
        if self.below.kind(&staged).is_some() { staged } else { path.to_owned() }
    }
}

impl Host for DryHost {
    fn write(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let is_key = path.extension().is_some_and(|e| e == "key" || e == "conf");
        if is_key {
            self.say(&format!("[dryrun] Would write file {:?}\n", path.display().to_string()));
        } else {
            let text = String::from_utf8_lossy(content);
            self.say(&format!("[dryrun] Would write file {:?} with content:\n{text}", path.display().to_string()));
        }
        let staged = self.staged(path);
        if let Some(parent) = staged.parent() {
            self.below.create_directory(parent, 0o700)?;
        }
        self.below.write(&staged, mode, content)
    }

    fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.below.create_directory(&self.staged(path), mode)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.below.list(path)
    }

    fn append(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        self.below.append(&self.staged(path), mode, content)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.say(&format!("[dryrun] Would remove {:?}\n", path.display().to_string()));
        self.below.remove(&self.staged(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.say(&format!("[dryrun] Would move {:?} to {:?}\n", from.display().to_string(), to.display().to_string()));
        Ok(())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.below.read(&self.seen(path))
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        self.below.kind(&self.seen(path))
    }

    fn start(&self, daemon: &Daemon) -> io::Result<u32> {
        self.say(&format!("[dryrun] Would start {:?}\n", daemon.program.display().to_string()));
        Err(io::Error::other("nothing is started in a dry run"))
    }

    fn stop(&self, pid: u32, _how: Stop) -> io::Result<()> {
        self.say(&format!("[dryrun] Would stop process {pid}\n"));
        Ok(())
    }

    fn unmount(&self, path: &Path, _flags: &[String]) -> io::Result<()> {
        self.say(&format!("[dryrun] Would unmount {:?}\n", path.display().to_string()));
        Ok(())
    }

    fn say(&self, text: &str) {
        self.below.say(text);
    }

    fn hush(&self, quiet: bool) {
        self.below.hush(quiet);
    }

    fn warn(&self, text: &str) {
        self.below.warn(text);
    }

    fn ask(&self) -> io::Result<String> {
        self.below.ask()
    }

    fn now(&self) -> OffsetDateTime {
        self.below.now()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.below.variable(name)
    }

    fn proxy_variables(&self) -> Vec<(String, String)> {
        self.below.proxy_variables()
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        self.below.real_path(path)
    }

    fn run(&self, program: &Program) -> io::Result<Ended> {
        self.below.run(program)
    }

    fn find_program(&self, name: &str) -> Option<PathBuf> {
        self.below.find_program(name)
    }

    fn own_program(&self) -> io::Result<PathBuf> {
        self.below.own_program()
    }

    fn command_of(&self, pid: u32) -> Option<Vec<String>> {
        self.below.command_of(pid)
    }

    fn pause(&self, duration: Duration) {
        self.below.pause(duration);
    }

    fn mounts_below(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.below.mounts_below(path)
    }

    fn change_root(&self, root: &Path) -> io::Result<()> {
        self.below.change_root(root)
    }

    fn hostname(&self) -> io::Result<String> {
        self.below.hostname()
    }

    fn is_root(&self) -> bool {
        self.below.is_root()
    }

    fn processors(&self) -> usize {
        self.below.processors()
    }

    fn port_is_free(&self, port: u16) -> bool {
        self.below.port_is_free(port)
    }

    fn default_address(&self) -> Option<IpAddr> {
        self.below.default_address()
    }

    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.below.resolve(name)
    }

    fn random(&self, bytes: &mut [u8]) {
        self.below.random(bytes);
    }
}
