//! Hosts of a test: each has its own mounts, name, network, processes and control groups, on one kernel.
//!
//! A [`Segment`] is an Ethernet segment that hosts are plugged into. Everything is gone when dropped.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::kubectl::Output;

/// Time for a host to come up.
const UP: Duration = Duration::from_secs(30);

static COUNTER: AtomicU32 = AtomicU32::new(0);

fn command(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    Output {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

fn must(program: &str, arguments: &[&str]) -> String {
    let output = command(program, arguments);
    assert_eq!(output.code, 0, "{program} {arguments:?}: {}{}", output.out, output.err);
    output.out
}

/// An Ethernet segment: a bridge in a network namespace of its own.
#[derive(Debug)]
pub struct Segment {
    name: String,
    /// First three numbers of its addresses.
    network: String,
}

impl Segment {
    /// A segment with addresses `<network>.0/24`; its own address is `<network>.254`.
    pub fn new(network: &str) -> Self {
        let name = format!("timonel-{}-s{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        must("ip", &["netns", "add", &name]);
        let segment = Self { name, network: network.to_owned() };
        let address = format!("{network}.254/24");
        for arguments in [
            &["link", "add", "bridge", "type", "bridge"][..],
            &["address", "add", &address, "dev", "bridge"],
            &["link", "set", "bridge", "up"],
        ] {
            must("ip", &[&["-n", &segment.name], arguments].concat());
        }
        segment
    }

    /// A port for a virtual machine that runs in this segment's network namespace.
    pub(crate) fn tap(&self, port: &str) {
        let name = &self.name;
        must("ip", &["-n", name, "tuntap", "add", "dev", port, "mode", "tap"]);
        must("ip", &["-n", name, "link", "set", port, "master", "bridge", "up"]);
    }

    /// The network namespace.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// First three numbers of its addresses.
    pub(crate) fn network(&self) -> &str {
        &self.network
    }

    /// Plugs the network namespace of a process in, as its `eth0`.
    fn plug(&self, pid: u32, port: &str) {
        let pid = pid.to_string();
        let name = &self.name;
        must("ip", &["-n", name, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        must("ip", &["-n", name, "link", "set", port, "master", "bridge"]);
        must("ip", &["-n", name, "link", "set", port, "up"]);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        command("ip", &["netns", "delete", &self.name]);
    }
}

/// A host.
#[derive(Debug)]
pub struct Host {
    name: String,
    address: String,
    first: u32,
    outer: Child,
    groups: Vec<PathBuf>,
    directory: TempDir,
}

impl Host {
    /// A host with address `<network>.<number>` on a segment.
    pub fn new(segment: &Segment, name: &str, number: u8) -> Self {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().to_str().expect("a path in UTF-8");
        let address = format!("{}.{number}", segment.network);
        let gateway = format!("{}.254", segment.network);
        let groups = groups(&format!("timonel-{}-{name}", std::process::id()));
        let enter: String = groups.iter().map(|g| format!("echo $$ >{}/cgroup.procs; ", g.display())).collect();
        let script = format!("{}/host.sh", path);
        std::fs::write(&script, include_str!("../../../deploy/host.sh")).expect("the script");
        let unshare =
            "unshare --mount --uts --net --pid --cgroup --fork --kill-child --mount-proc --propagation private";
        let start = format!("{enter} exec {unshare} bash {script} {path} {name} {address}/24 {gateway}");
        let log = std::fs::File::create(directory.path().join("host.log")).expect("a log");
        let outer = Command::new("bash")
            .args(["-c", &start])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("bash");
        let mut host = Self { name: name.to_owned(), address, first: 0, outer, groups, directory };
        host.first = host.wait_for("its first process", |host| {
            let children = command("pgrep", &["-P", &host.outer.id().to_string()]).out;
            children.lines().next().and_then(|pid| pid.trim().parse().ok())
        });
        segment.plug(host.first, &format!("port{number}"));
        host.wait_for("its set-up", |host| host.directory.path().join("ready").exists().then_some(()));
        host
    }

    fn wait_for<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let log = || std::fs::read_to_string(self.directory.path().join("host.log")).unwrap_or_default();
            assert!(start.elapsed() < UP, "host {} waits for {what}: {}", self.name, log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A file of the host that lies below `/var/log`.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join("log").join(name)).unwrap_or_default()
    }

    /// Runs a shell command on the host, with `programs` first in the path.
    pub fn run(&self, programs: &Path, line: &str) -> Output {
        let first = self.first.to_string();
        let path = format!("PATH={}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
        command(
            "nsenter",
            &["-t", &first, "-m", "-u", "-n", "-p", "-C", "--", "env", &path, "HOME=/root", "bash", "-c", line],
        )
    }

    /// Runs a shell command that must succeed.
    pub fn ok(&self, programs: &Path, line: &str) -> String {
        let output = self.run(programs, line);
        assert_eq!(output.code, 0, "on {}: {line}:\n{}{}", self.name, output.out, output.err);
        output.out
    }

    /// Unplugs the host, as when its power fails: all its processes end at once.
    pub fn power_off(&mut self) {
        if self.outer.kill().is_ok() {
            self.outer.wait().expect("a killed child ends");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.power_off();
        for group in &self.groups {
            remove(group);
        }
    }
}

/// New control groups of a name, one in every hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        fields.next().filter(|kind| *kind == "cgroup").map(|_| PathBuf::from(point))
    });
    points
        .map(|point| {
            let group = point.join(name);
            std::fs::create_dir_all(&group).expect("a control group");
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = std::fs::read_to_string(point.join(file)) {
                    std::fs::write(group.join(file), value.trim()).expect("cpuset");
                }
            }
            group
        })
        .collect()
}

/// Removes a control group with all below it; its processes are ending.
fn remove(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let start = Instant::now();
    while std::fs::remove_dir(group).is_err() && group.exists() && start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
}
