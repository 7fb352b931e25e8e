//! The twin of a machine: files in memory, programs that answer as told, and a record of what was done.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use parking_lot::Mutex;
use time::OffsetDateTime;

use super::{Daemon, Ended, Host, PathKind, Program, Stop};

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File { mode: u32, content: Vec<u8> },
    Directory { mode: u32 },
    Socket,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<PathBuf, Node>,
    said: String,
    warned: String,
    done: Vec<String>,
    answers: BTreeMap<String, Ended>,
    programs: BTreeMap<String, PathBuf>,
    processes: BTreeMap<u32, Vec<String>>,
    mounts: Vec<PathBuf>,
    variables: Vec<(String, String)>,
    random: u64,
}

/// A machine that only remembers.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<State>);

impl Recorder {
    /// A machine named `node` with address 10.0.0.1 at the beginning of 2026.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_file(self, path: &str, content: &str) -> Self {
        self.0.lock().nodes.insert(path.into(), Node::File { mode: 0o644, content: content.into() });
        self
    }

    pub(crate) fn with_directory(self, path: &str) -> Self {
        self.0.lock().nodes.insert(path.into(), Node::Directory { mode: 0o755 });
        self
    }

    pub(crate) fn with_socket(self, path: &str) -> Self {
        self.0.lock().nodes.insert(path.into(), Node::Socket);
        self
    }

    pub(crate) fn with_program(self, name: &str, path: &str) -> Self {
        self.0.lock().programs.insert(name.into(), path.into());
        self.with_file(path, "\u{7f}ELF")
    }

    pub(crate) fn with_answer(self, program: &str, stdout: &str) -> Self {
        let ended = Ended { code: Some(0), stdout: stdout.into(), stderr: String::new() };
        self.0.lock().answers.insert(program.into(), ended);
        self
    }

    pub(crate) fn with_variable(self, name: &str, value: &str) -> Self {
        self.0.lock().variables.push((name.into(), value.into()));
        self
    }

    pub(crate) fn with_mount(self, path: &str) -> Self {
        self.0.lock().mounts.push(path.into());
        self
    }

    pub(crate) fn with_process(self, pid: u32, command: &[&str]) -> Self {
        self.0.lock().processes.insert(pid, command.iter().map(|w| (*w).to_owned()).collect());
        self
    }

    /// What was printed.
    pub(crate) fn said(&self) -> String {
        self.0.lock().said.clone()
    }

    /// What was printed to standard error.
    pub(crate) fn warned(&self) -> String {
        self.0.lock().warned.clone()
    }

    /// Programs, signals and mounts.
    pub(crate) fn done(&self) -> Vec<String> {
        self.0.lock().done.clone()
    }

    /// Mode of a file or directory.
    pub(crate) fn mode(&self, path: &str) -> Option<u32> {
        match self.0.lock().nodes.get(Path::new(path))? {
            Node::File { mode, .. } | Node::Directory { mode } => Some(*mode),
            Node::Socket => None,
        }
    }

    /// Content of a file.
    pub(crate) fn text(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.read(Path::new(path)).unwrap_or_default()).into_owned()
    }

    /// Paths of all files.
    pub(crate) fn files(&self) -> Vec<String> {
        let state = self.0.lock();
        let files = state.nodes.iter().filter(|(_, node)| matches!(node, Node::File { .. }));
        files.map(|(path, _)| path.display().to_string()).collect()
    }
}

fn absent() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such file or directory")
}

impl Host for Recorder {
    fn say(&self, text: &str) {
        self.0.lock().said.push_str(text);
    }

    fn hush(&self, _quiet: bool) {}

    fn warn(&self, text: &str) {
        self.0.lock().warned.push_str(text);
    }

    fn ask(&self) -> io::Result<String> {
        Ok("n\n".into())
    }

    fn now(&self) -> OffsetDateTime {
        machinery::time::parse("2026-01-01T00:00:00Z").unwrap()
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.0.lock().variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }

    fn proxy_variables(&self) -> Vec<(String, String)> {
        let state = self.0.lock();
        state.variables.iter().filter(|(name, _)| name.to_lowercase().ends_with("_proxy")).cloned().collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.0.lock().nodes.get(path) {
            Some(Node::File { content, .. }) => Ok(content.clone()),
            _ => Err(absent()),
        }
    }

    fn write(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        self.0.lock().nodes.insert(path.to_owned(), Node::File { mode, content: content.to_vec() });
        Ok(())
    }

    fn append(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let before = self.read(path).unwrap_or_default();
        self.write(path, mode, &[&before, content].concat())
    }

    fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut state = self.0.lock();
        for above in path.ancestors().skip(1) {
            state.nodes.entry(above.to_owned()).or_insert(Node::Directory { mode: 0o755 });
        }
        state.nodes.entry(path.to_owned()).or_insert(Node::Directory { mode });
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.0.lock();
        // Directories above files are there without being told.
        let below = state.nodes.keys().filter_map(|entry| {
            let first = entry.strip_prefix(path).ok()?.components().next()?;
            Some(path.join(first))
        });
        let entries: Vec<PathBuf> = below.collect::<std::collections::BTreeSet<_>>().into_iter().collect();
        if entries.is_empty() && !state.nodes.contains_key(path) { Err(absent()) } else { Ok(entries) }
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        let state = self.0.lock();
        match state.nodes.get(path) {
            Some(Node::File { .. }) => Some(PathKind::File),
            Some(Node::Directory { .. }) => Some(PathKind::Directory),
            Some(Node::Socket) => Some(PathKind::Socket),
            None => state.nodes.keys().any(|n| n.starts_with(path)).then_some(PathKind::Directory),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().nodes.retain(|entry, _| !entry.starts_with(path));
        Ok(())
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let node = state.nodes.remove(from).ok_or_else(absent)?;
        state.nodes.insert(to.to_owned(), node);
        Ok(())
    }

    fn run(&self, program: &Program) -> io::Result<Ended> {
        let mut state = self.0.lock();
        state.done.push(format!("run {} {}", program.name, program.args.join(" ")));
        let name = program.name.rsplit('/').next().unwrap_or_default();
        Ok(state.answers.get(name).cloned().unwrap_or_default())
    }

    fn find_program(&self, name: &str) -> Option<PathBuf> {
        self.0.lock().programs.get(name).cloned()
    }

    fn own_program(&self) -> io::Result<PathBuf> {
        Ok("/usr/bin/kubeadm".into())
    }

    fn start(&self, daemon: &Daemon) -> io::Result<u32> {
        let mut state = self.0.lock();
        let mut command = vec![daemon.program.display().to_string()];
        command.extend(daemon.args.iter().cloned());
        state.done.push(format!("start {}", command.join(" ")));
        let pid = 100 + u32::try_from(state.processes.len()).unwrap();
        state.processes.insert(pid, command);
        Ok(pid)
    }

    fn command_of(&self, pid: u32) -> Option<Vec<String>> {
        self.0.lock().processes.get(&pid).cloned()
    }

    fn stop(&self, pid: u32, how: Stop) -> io::Result<()> {
        let mut state = self.0.lock();
        state.done.push(format!("stop {pid} {how:?}"));
        state.processes.remove(&pid);
        Ok(())
    }

    fn pause(&self, _duration: Duration) {}

    fn mounts_below(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.lock().mounts.iter().filter(|m| m.starts_with(path)).cloned().collect())
    }

    fn unmount(&self, path: &Path, flags: &[String]) -> io::Result<()> {
        self.0.lock().done.push(format!("unmount {} [{}]", path.display(), flags.join(" ")));
        Ok(())
    }

    fn change_root(&self, _root: &Path) -> io::Result<()> {
        Ok(())
    }

    fn hostname(&self) -> io::Result<String> {
        Ok("node".into())
    }

    fn is_root(&self) -> bool {
        true
    }

    fn processors(&self) -> usize {
        2
    }

    fn port_is_free(&self, _port: u16) -> bool {
        true
    }

    fn default_address(&self) -> Option<IpAddr> {
        Some([10, 0, 0, 1].into())
    }

    fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        self.default_address().map(|address| vec![address]).ok_or_else(absent)
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock();
        for byte in bytes {
            // A linear congruential generator is random enough here.
            state.random = state.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state.random >> 33) as u8;
        }
    }
}
