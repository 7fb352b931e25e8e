//! The operating system below the kubelet: control groups, mounts and file-system facts, behind one trait.
//!
//! Invariants: nothing outside this module mounts, unmounts or writes to a control group; every call blocks and is
//! made from a blocking thread. [`Recorder`] is the twin for tests.

mod cgroups;
mod devices;
mod facts;
mod iptables;
mod linux;
mod memory_watch;
mod mounts;
mod names;
mod programs;
mod recorder;
mod sockets;
pub mod tuning;
mod watch;

use std::io;
use std::path::{Path, PathBuf};

pub use linux::Linux;
pub use memory_watch::MemoryWatch;
pub use names::{CgroupDriver, CgroupName};
pub use programs::{Program, run as run_program, stream as stream_program};
pub use recorder::{Call, Recorder};
pub use sockets::receive;
pub use watch::DirWatch;

/// The group this process is in.
pub fn own_cgroup() -> Option<String> {
    facts::own_cgroup()
}

/// Whether the kernel enforces AppArmor profiles.
pub fn has_apparmor() -> bool {
    facts::has_apparmor()
}

/// Whether the node knows a user of that name.
pub fn user_exists(name: &str) -> bool {
    nix::unistd::User::from_name(name).is_ok_and(|user| user.is_some())
}

/// Which control group interface the kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// Limits of a Pod or QoS group; `None` leaves a value alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    /// cpu.shares scale.
    pub cpu_shares: Option<i64>,
    /// Microseconds per period; -1 or 0 is none.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Bytes; -1 is none.
    pub memory: Option<i64>,
    /// Processes; -1 is none.
    pub pids: Option<i64>,
    /// `(page size as 2MB, bytes)`.
    pub hugepages: Vec<(String, i64)>,
}

/// What a group used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// Nanoseconds of cpu.
    pub cpu_nanos: u64,
    /// Nanoseconds in user mode.
    pub cpu_user_nanos: u64,
    /// Nanoseconds in system mode.
    pub cpu_system_nanos: u64,
    /// Quota periods.
    pub periods: u64,
    /// Throttled quota periods.
    pub throttled_periods: u64,
    /// Nanoseconds throttled.
    pub throttled_nanos: u64,
    /// Bytes charged.
    pub memory: u64,
    /// Limit, if any.
    pub memory_limit: Option<u64>,
    /// Bytes of inactive page cache.
    pub inactive_file: u64,
    /// Bytes of anonymous memory.
    pub rss: u64,
    /// Bytes of page cache.
    pub cache: u64,
    /// Bytes of mapped files.
    pub mapped_file: u64,
    /// Bytes of swap.
    pub swap: u64,
    /// Minor faults.
    pub page_faults: u64,
    /// Major faults.
    pub major_page_faults: u64,
    /// Times the limit was hit.
    pub failcnt: u64,
    /// Tasks: processes with their threads.
    pub pids: u64,
    /// Processes the kernel killed for want of memory.
    pub oom_kills: u64,
    /// cpu.shares, or what a weight amounts to.
    pub cpu_shares: u64,
    /// Microseconds per period, if limited.
    pub cpu_quota: Option<u64>,
    /// Microseconds.
    pub cpu_period: u64,
    /// The most bytes that were charged at a time.
    pub memory_peak: u64,
    /// Bytes that are kept for it before others.
    pub memory_reservation: u64,
    /// Limit of swap, if any.
    pub swap_limit: Option<u64>,
    /// Time lost waiting, where the kernel keeps account.
    pub pressure: Option<Pressure>,
}

/// Time lost waiting for one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// Microseconds in all.
    pub total_micros: u64,
    /// Hundredths of a percent of the last 10, 60 and 300 seconds.
    pub hundredths: [u64; 3],
}

/// Time lost waiting: by some tasks, by all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Pressure {
    pub cpu: [Stall; 2],
    pub memory: [Stall; 2],
    pub io: [Stall; 2],
}

/// Reads and writes on one device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DeviceIo {
    /// `/dev/sda`
    pub device: String,
    pub reads: u64,
    pub writes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl CgroupUsage {
    /// Memory that cannot be taken back easily.
    pub fn working_set(&self) -> u64 {
        self.memory.saturating_sub(self.inactive_file)
    }
}

/// Space and inodes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes left to users.
    pub available: u64,
    /// Bytes in use.
    pub used: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes left.
    pub inodes_free: u64,
}

/// Traffic of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

/// What the processes of a group have open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFiles {
    /// Processes.
    pub processes: u64,
    /// File descriptors.
    pub descriptors: u64,
    /// Sockets among them.
    pub sockets: u64,
}

/// What a tree of files takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes on disk.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
}

impl std::ops::Add for DiskUse {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, inodes: self.inodes + other.inodes }
    }
}

/// Process ids of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessIds {
    /// How many there can be.
    pub max: u64,
    /// How many are taken.
    pub used: u64,
}

/// The calls.
pub trait Platform: Send + Sync {
    /// The kernel's control group interface.
    fn cgroup_version(&self) -> CgroupVersion;
    /// Creates a group if absent and writes its limits.
    fn apply_cgroup(&self, name: &CgroupName, limits: &CgroupLimits) -> io::Result<()>;
    /// Whether the group exists in every hierarchy that counts.
    fn cgroup_exists(&self, name: &CgroupName) -> bool;
    /// Kills what is left in a group and removes it with its children.
    fn remove_cgroup(&self, name: &CgroupName) -> io::Result<()>;
    /// UIDs of Pods with a group below the root.
    fn pod_cgroups(&self, root: &CgroupName) -> Vec<(CgroupName, String)>;
    /// Usage of the group at a path as the kernel shows it.
    fn cgroup_usage(&self, path: &str) -> io::Result<CgroupUsage>;
    /// Reads and writes of the group at a path, by device.
    fn cgroup_io(&self, path: &str) -> Vec<DeviceIo>;
    /// The device of the file system at a path, `/dev/sda1`; what is mounted there if it is on none.
    fn device_of(&self, path: &Path) -> Option<String>;
    /// The group's path below the hierarchy's root.
    fn cgroup_path(&self, name: &CgroupName) -> String;
    /// Moves this process into a group, which is made if absent.
    fn join_cgroup(&self, path: &str) -> io::Result<()>;
    /// Moves processes that are in the root group, but for the first one and the kernel's, into a group, which is made
    /// if absent. Answers how many.
    fn gather_system(&self, path: &str) -> io::Result<usize>;
    /// Has the kernel tell when the memory of the group at a path crosses a mark, where it can.
    fn watch_memory(&self, path: &str, mark: u64) -> io::Result<MemoryWatch>;
    /// Makes the chains by which others recognise a kubelet, and the one that keeps local addresses local. Answers
    /// whether any was absent.
    fn ensure_chains(&self) -> io::Result<bool>;
    /// The path of a container's group in that of its Pod.
    fn container_cgroup(&self, pod: &CgroupName, id: &str) -> String;
    /// What the processes of a group have open.
    fn open_files(&self, path: &str) -> OpenFiles;
    /// Interfaces in the network namespace of a group's processes, or the node's.
    fn interfaces(&self, path: Option<&str>) -> io::Result<Vec<Interface>>;
    /// Process ids of the machine.
    fn process_ids(&self) -> io::Result<ProcessIds>;

    /// Mounts a tmpfs of at most `size` bytes.
    fn mount_tmpfs(&self, target: &Path, size: Option<u64>) -> io::Result<()>;
    /// Mounts a hugetlbfs with a page size.
    fn mount_hugepages(&self, target: &Path, page_size: &str) -> io::Result<()>;
    /// Mounts a device's file system, which is made if the device holds nothing.
    fn format_and_mount(&self, device: &Path, target: &Path, fs_type: &str, options: &[String]) -> io::Result<()>;
    /// Binds a directory to itself and makes it propagate, if it does not yet.
    fn make_shared(&self, target: &Path) -> io::Result<()>;
    /// Binds `path` below `root`, reached without leaving `root`, on `target`.
    fn bind_beneath(&self, root: &Path, path: &Path, target: &Path) -> io::Result<()>;
    /// Creates missing directories of `path` below `root` without following links out of it.
    fn make_beneath(&self, root: &Path, path: &Path) -> io::Result<()>;
    /// Unmounts; something not mounted is fine.
    fn unmount(&self, target: &Path) -> io::Result<()>;
    /// Mount points at or below a directory, deepest first.
    fn mounts_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// Space of the file system at a path.
    fn fs_usage(&self, path: &Path) -> io::Result<FsUsage>;
    /// What the files below a directory take, without other file systems.
    fn disk_use(&self, path: &Path) -> io::Result<DiskUse>;
    /// Whether two paths are on the same file system.
    fn same_fs(&self, a: &Path, b: &Path) -> bool;
    /// Sets owner and group.
    fn chown(&self, path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()>;
}
