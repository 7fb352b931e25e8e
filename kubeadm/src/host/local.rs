//! This machine.

use std::{
    fs,
    io::{self, BufRead, Read, Write},
    net::{IpAddr, ToSocketAddrs, UdpSocket},
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use time::OffsetDateTime;

use super::{Daemon, Ended, Host, PathKind, Program, Stop};

/// The machine this process runs on.
#[derive(Debug, Default)]
pub struct LocalHost {
    quiet: AtomicBool,
}

impl Host for LocalHost {
    fn say(&self, text: &str) {
        if self.quiet.load(Ordering::Relaxed) {
            return;
        }
        // A closed pipe must not stop the work on the machine.
        let _closed = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).is_err();
    }

    fn hush(&self, quiet: bool) {
        self.quiet.store(quiet, Ordering::Relaxed);
    }

    fn warn(&self, text: &str) {
        eprint!("{text}");
    }

    fn ask(&self) -> io::Result<String> {
        let mut line = String::new();
        io::stdin().lock().take(4096).read_line(&mut line)?;
        Ok(line)
    }

    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn variable(&self, name: &str) -> Option<String> {
        runtime::env::non_empty(name)
    }

    fn proxy_variables(&self) -> Vec<(String, String)> {
        runtime::env::with_suffix("_proxy")
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn write(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        tracing::debug!(path = %path.display(), "writing a file");
        let directory = path.parent().ok_or_else(|| io::Error::other("the path has no directory"))?;
        let name = path.file_name().ok_or_else(|| io::Error::other("the path has no name"))?;
        // The kubelet skips names with a leading dot.
        let staged = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        let written = stage(&staged, mode, content).and_then(|()| fs::rename(&staged, path));
        if written.is_err() {
            let _absent = fs::remove_file(&staged).is_err();
        }
        written
    }

    fn append(&self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let mut file = fs::OpenOptions::new().append(true).create(true).mode(mode).open(path)?;
        file.write_all(content)?;
        file.sync_data()
    }

    fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            other => other,
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries = fs::read_dir(path)?.map(|e| e.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        entries.sort();
        Ok(entries)
    }

    fn kind(&self, path: &Path) -> Option<PathKind> {
        let found = fs::metadata(path).ok()?.file_type();
        Some(if found.is_file() {
            PathKind::File
        } else if found.is_dir() {
            PathKind::Directory
        } else if found.is_socket() {
            PathKind::Socket
        } else {
            PathKind::Other
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn run(&self, program: &Program) -> io::Result<Ended> {
        tracing::debug!(program = program.name, args = program.args.join(" "), "running a program");
        let mut child = Command::new(&program.name)
            .args(&program.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().map(|pipe| std::thread::spawn(move || drain(pipe)));
        let err = child.stderr.take().map(|pipe| std::thread::spawn(move || drain(pipe)));
        let code = wait(&mut child, program.deadline)?;
        let text =
            |thread: Option<std::thread::JoinHandle<String>>| thread.and_then(|t| t.join().ok()).unwrap_or_default();
        Ok(Ended { code, stdout: text(out), stderr: text(err) })
    }

    fn find_program(&self, name: &str) -> Option<PathBuf> {
        let path = runtime::env::var("PATH").unwrap_or_default();
        let directories = path.split(':').filter(|d| d.starts_with('/')).map(PathBuf::from);
        let usual = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        directories.chain(usual).map(|d| d.join(name)).find(|candidate| {
            fs::metadata(candidate).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
    }

    fn own_program(&self) -> io::Result<PathBuf> {
        std::env::current_exe()
    }

    fn start(&self, daemon: &Daemon) -> io::Result<u32> {
        let log = fs::OpenOptions::new().create(true).append(true).mode(0o640).open(&daemon.log)?;
        let child = Command::new(&daemon.program)
            .args(&daemon.args)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok(child.id())
    }

    fn command_of(&self, pid: u32) -> Option<Vec<String>> {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The state follows the name in parentheses; a zombie has ended.
        if status.rsplit_once(") ")?.1.starts_with('Z') {
            // One of our own is collected.
            let child = Pid::from_raw(i32::try_from(pid).ok()?);
            let _other = waitpid(child, Some(WaitPidFlag::WNOHANG)).is_err();
            return None;
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = line.split(|b| *b == 0).filter(|w| !w.is_empty());
        Some(words.map(|w| String::from_utf8_lossy(w).into_owned()).collect())
    }

    fn stop(&self, pid: u32, how: Stop) -> io::Result<()> {
        let signal = match how {
            Stop::Gracefully => Signal::SIGTERM,
            Stop::Now => Signal::SIGKILL,
        };
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn mounts_below(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|p| PathBuf::from(unescape(p)));
        let mut below: Vec<_> = points.filter(|p| p != path && p.starts_with(path)).collect();
        below.reverse();
        Ok(below)
    }

    fn unmount(&self, path: &Path, flags: &[String]) -> io::Result<()> {
        let flag = |name: &str| match name {
            "MNT_FORCE" => MntFlags::MNT_FORCE,
            "MNT_DETACH" => MntFlags::MNT_DETACH,
            "MNT_EXPIRE" => MntFlags::MNT_EXPIRE,
            "UMOUNT_NOFOLLOW" => MntFlags::UMOUNT_NOFOLLOW,
            _ => MntFlags::empty(),
        };
        Ok(umount2(path, flags.iter().fold(MntFlags::empty(), |all, name| all | flag(name)))?)
    }

    fn change_root(&self, root: &Path) -> io::Result<()> {
        nix::unistd::chroot(root)?;
        std::env::set_current_dir("/")
    }

    fn hostname(&self) -> io::Result<String> {
        runtime::env::hostname()
    }

    fn is_root(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn processors(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn port_is_free(&self, port: u16) -> bool {
        let both = std::net::TcpListener::bind(("::", port));
        match both {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                std::net::TcpListener::bind(("0.0.0.0", port)).is_ok()
            }
            other => other.is_ok(),
        }
    }

    fn default_address(&self) -> Option<IpAddr> {
        // Connecting a datagram socket sends nothing; the kernel picks the source address of the default route.
        let via = |local: &str, remote: &str| {
            let socket = UdpSocket::bind((local, 0)).ok()?;
            socket.connect((remote, 53)).ok()?;
            Some(socket.local_addr().ok()?.ip())
        };
        via("0.0.0.0", "192.0.2.1").or_else(|| via("::", "2001:db8::1")).filter(|ip| !ip.is_unspecified())
    }

    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok((name, 0_u16).to_socket_addrs()?.map(|a| a.ip()).collect())
    }

    fn random(&self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }
}

/// Writes a new file so that its content is on the disk before it gets its name.
fn stage(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

/// What a program printed, up to 1 MiB.
fn drain(mut pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let mut part = [0_u8; 8192];
    while let Ok(len @ 1..) = pipe.read(&mut part) {
        if kept.len() < 1 << 20 {
            kept.extend_from_slice(&part[..len]);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<i32>> {
    let end = Instant::now() + deadline;
    let mut nap = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() >= end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("did not end within {deadline:?}")));
        }
        std::thread::sleep(nap);
        nap = (nap * 2).min(Duration::from_millis(50));
    }
}

/// mountinfo writes blanks as octal.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |all, (code, plain)| all.replace(code, plain))
}
