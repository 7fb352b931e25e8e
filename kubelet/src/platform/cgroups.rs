//! Writing and reading control groups of both versions.

mod device_io;
mod gather;
mod pressure;
mod slices;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::Pid;

use self::slices::Slices;
use super::{CgroupDriver, CgroupLimits, CgroupUsage, CgroupVersion, MemoryWatch};
use crate::pods::resources::weight;

const ROOT: &str = "/sys/fs/cgroup";
/// Limits of version 1 from which on there is none.
const UNLIMITED: u64 = 1 << 60;
const REMOVE_ATTEMPTS: u32 = 5;
/// Hierarchies of version 1 that a Pod's group is made in when they are mounted.
const V1_CONTROLLERS: [&str; 9] =
    ["cpu", "cpuacct", "memory", "pids", "cpuset", "hugetlb", "blkio", "freezer", "systemd"];

/// The mounted hierarchies.
#[derive(Clone, Debug)]
pub(super) struct Cgroups {
    version: CgroupVersion,
    root: PathBuf,
    /// Directories of the hierarchies of version 1, each once.
    hierarchies: Vec<PathBuf>,
    /// With the driver of systemd.
    slices: Option<Slices>,
}

impl Cgroups {
    pub(super) fn detect(driver: CgroupDriver) -> Self {
        let unified = statfs(ROOT).is_ok_and(|stat| stat.filesystem_type() == CGROUP2_SUPER_MAGIC);
        let version = if unified { CgroupVersion::V2 } else { CgroupVersion::V1 };
        let slices = (driver == CgroupDriver::Systemd).then(Slices::default);
        let root = PathBuf::from(ROOT);
        let mounted = V1_CONTROLLERS.iter().map(|name| root.join(name)).filter(|dir| dir.is_dir());
        let mut hierarchies: Vec<PathBuf> = mounted.filter_map(|dir| dir.canonicalize().ok()).collect();
        hierarchies.sort();
        hierarchies.dedup();
        Self { version, root, hierarchies, slices }
    }

    pub(super) fn version(&self) -> CgroupVersion {
        self.version
    }

    /// Directories of a group, one per hierarchy.
    fn dirs(&self, path: &str) -> Vec<PathBuf> {
        let relative = path.trim_start_matches('/');
        match self.version {
            CgroupVersion::V2 => vec![self.root.join(relative)],
            CgroupVersion::V1 => self.hierarchies.iter().map(|dir| dir.join(relative)).collect(),
        }
    }

    fn controller(&self, name: &str, path: &str) -> PathBuf {
        let relative = path.trim_start_matches('/');
        match self.version {
            CgroupVersion::V2 => self.root.join(relative),
            CgroupVersion::V1 => self.root.join(name).join(relative),
        }
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        ["cpu", "memory", "pids"].iter().all(|name| {
            let hierarchy = self.controller(name, "");
            !hierarchy.is_dir() || self.controller(name, path).is_dir()
        })
    }

    pub(super) fn apply(&self, path: &str, limits: &CgroupLimits) -> io::Result<()> {
        if let Some(slices) = &self.slices {
            slices.apply(path, self.version, limits)?;
        }
        self.create(path)?;
        match self.version {
            CgroupVersion::V1 => self.apply_v1(path, limits),
            CgroupVersion::V2 => self.apply_v2(path, limits),
        }
    }

    /// Moves this process.
    pub(super) fn join(&self, path: &str) -> io::Result<()> {
        self.create(path)?;
        let own = std::process::id().to_string();
        self.dirs(path).iter().try_for_each(|dir| fs::write(dir.join("cgroup.procs"), &own))
    }

    /// Moves what is in the root, see [`gather`].
    pub(super) fn gather(&self, path: &str) -> io::Result<usize> {
        self.create(path)?;
        gather::gather(&self.dirs("/"), &self.dirs(path), &gather::is_system_process)
    }

    /// Only version 1 tells.
    pub(super) fn watch_memory(&self, path: &str, mark: u64) -> io::Result<MemoryWatch> {
        match self.version {
            CgroupVersion::V1 => MemoryWatch::new(&self.controller("memory", path), mark),
            CgroupVersion::V2 => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }

    fn create(&self, path: &str) -> io::Result<()> {
        for dir in self.dirs(path) {
            fs::create_dir_all(&dir)?;
        }
        match self.version {
            CgroupVersion::V1 => self.inherit_cpuset(path),
            CgroupVersion::V2 => self.enable_controllers(path),
        }
    }

    /// A new cpuset group is unusable until its parent's sets are copied.
    fn inherit_cpuset(&self, path: &str) -> io::Result<()> {
        let base = self.root.join("cpuset");
        if !base.is_dir() {
            return Ok(());
        }
        let mut parent = base;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let dir = parent.join(part);
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if read(&dir.join(file)).is_empty() {
                    fs::write(dir.join(file), read(&parent.join(file)))?;
                }
            }
            parent = dir;
        }
        Ok(())
    }

    /// Hands controllers down to every level above the group.
    fn enable_controllers(&self, path: &str) -> io::Result<()> {
        let mut dir = self.root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            let available = read(&dir.join("cgroup.controllers"));
            for controller in available.split_whitespace() {
                // A controller that cannot be delegated here is no reason to fail: its limits are then not written.
                if let Err(error) = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")) {
                    tracing::debug!(controller, dir = %dir.display(), %error, "controller not delegated");
                }
            }
            dir.push(part);
        }
        Ok(())
    }

    fn apply_v1(&self, path: &str, limits: &CgroupLimits) -> io::Result<()> {
        let cpu = self.controller("cpu", path);
        if let Some(shares) = limits.cpu_shares {
            write_if_present(&cpu.join("cpu.shares"), &shares.to_string())?;
        }
        if let Some(period) = limits.cpu_period.filter(|period| *period > 0) {
            write_if_present(&cpu.join("cpu.cfs_period_us"), &period.to_string())?;
        }
        if let Some(quota) = limits.cpu_quota {
            let quota = if quota <= 0 { -1 } else { quota };
            write_if_present(&cpu.join("cpu.cfs_quota_us"), &quota.to_string())?;
        }
        if let Some(memory) = limits.memory {
            write_if_present(&self.controller("memory", path).join("memory.limit_in_bytes"), &memory.to_string())?;
        }
        if let Some(pids) = limits.pids {
            let text = if pids <= 0 { "max".to_owned() } else { pids.to_string() };
            write_if_present(&self.controller("pids", path).join("pids.max"), &text)?;
        }
        for (size, bytes) in &limits.hugepages {
            let file = self.controller("hugetlb", path).join(format!("hugetlb.{size}.limit_in_bytes"));
            write_if_present(&file, &bytes.to_string())?;
        }
        Ok(())
    }

    fn apply_v2(&self, path: &str, limits: &CgroupLimits) -> io::Result<()> {
        let dir = self.controller("", path);
        if let Some(shares) = limits.cpu_shares {
            write_if_present(&dir.join("cpu.weight"), &weight(shares).to_string())?;
        }
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            let period = limits.cpu_period.unwrap_or(crate::pods::resources::QUOTA_PERIOD);
            let quota = limits.cpu_quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
            write_if_present(&dir.join("cpu.max"), &format!("{quota} {period}"))?;
        }
        if let Some(memory) = limits.memory {
            write_if_present(&dir.join("memory.max"), &max_or(memory))?;
        }
        if let Some(pids) = limits.pids {
            write_if_present(&dir.join("pids.max"), &max_or(pids))?;
        }
        for (size, bytes) in &limits.hugepages {
            write_if_present(&dir.join(format!("hugetlb.{size}.max")), &bytes.to_string())?;
        }
        Ok(())
    }

    pub(super) fn remove(&self, path: &str) -> io::Result<()> {
        if let Some(slices) = &self.slices {
            slices.stop(path);
        }
        let dirs = self.dirs(path);
        let mut last = Ok(());
        for attempt in 0..REMOVE_ATTEMPTS {
            for dir in dirs.iter().filter(|dir| dir.is_dir()) {
                kill_all(dir);
            }
            last = dirs.iter().filter(|dir| dir.is_dir()).try_for_each(|dir| remove_tree(dir));
            if last.is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(20 << attempt));
        }
        last
    }

    /// Processes of a group and those below it.
    pub(super) fn processes(&self, path: &str) -> Vec<u32> {
        let mut found = Vec::new();
        if let Some(dir) = self.dirs(path).into_iter().find(|dir| dir.join("cgroup.procs").is_file()) {
            collect_processes(&dir, &mut found);
        }
        found
    }

    /// Names of groups directly below a group.
    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = self.dirs(path).iter().flat_map(|dir| child_dirs(dir)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Reads and writes by the numbers of devices.
    pub(super) fn io(&self, path: &str) -> device_io::ByDevice {
        match self.version {
            CgroupVersion::V1 => device_io::v1(&self.controller("blkio", path)),
            CgroupVersion::V2 => device_io::v2(&self.controller("", path)),
        }
    }

    pub(super) fn usage(&self, path: &str) -> io::Result<CgroupUsage> {
        match self.version {
            CgroupVersion::V1 => self.usage_v1(path),
            CgroupVersion::V2 => self.usage_v2(path),
        }
    }

    fn usage_v1(&self, path: &str) -> io::Result<CgroupUsage> {
        let memory = self.controller("memory", path);
        let acct = self.controller("cpuacct", path);
        let stat = table(&memory.join("memory.stat"));
        let cpu = self.controller("cpu", path);
        let throttle = table(&cpu.join("cpu.stat"));
        let ticks = table(&acct.join("cpuacct.stat"));
        let get = |key: &str| stat.get(key).copied().unwrap_or(0);
        let limit = number(&memory.join("memory.limit_in_bytes")).filter(|limit| *limit < UNLIMITED);
        Ok(CgroupUsage {
            cpu_nanos: fs::read_to_string(acct.join("cpuacct.usage"))?.trim().parse().unwrap_or(0),
            cpu_user_nanos: ticks.get("user").copied().unwrap_or(0) * 10_000_000,
            cpu_system_nanos: ticks.get("system").copied().unwrap_or(0) * 10_000_000,
            periods: throttle.get("nr_periods").copied().unwrap_or(0),
            throttled_periods: throttle.get("nr_throttled").copied().unwrap_or(0),
            throttled_nanos: throttle.get("throttled_time").copied().unwrap_or(0),
            memory: number(&memory.join("memory.usage_in_bytes")).unwrap_or(0),
            memory_limit: limit,
            inactive_file: get("total_inactive_file"),
            rss: get("total_rss"),
            cache: get("total_cache"),
            mapped_file: get("total_mapped_file"),
            swap: get("total_swap"),
            page_faults: get("total_pgfault"),
            major_page_faults: get("total_pgmajfault"),
            failcnt: number(&memory.join("memory.failcnt")).unwrap_or(0),
            pids: number(&self.controller("pids", path).join("pids.current")).unwrap_or(0),
            oom_kills: table(&memory.join("memory.oom_control")).get("oom_kill").copied().unwrap_or(0),
            cpu_shares: number(&cpu.join("cpu.shares")).unwrap_or(0),
            cpu_quota: number(&cpu.join("cpu.cfs_quota_us")),
            cpu_period: number(&cpu.join("cpu.cfs_period_us")).unwrap_or(0),
            memory_peak: number(&memory.join("memory.max_usage_in_bytes")).unwrap_or(0),
            memory_reservation: number(&memory.join("memory.soft_limit_in_bytes"))
                .filter(|limit| *limit < UNLIMITED)
                .unwrap_or(0),
            swap_limit: number(&memory.join("memory.memsw.limit_in_bytes"))
                .filter(|limit| *limit < UNLIMITED)
                .map(|both| both.saturating_sub(limit.unwrap_or(0))),
            pressure: None,
        })
    }

    fn usage_v2(&self, path: &str) -> io::Result<CgroupUsage> {
        let dir = self.controller("", path);
        let cpu_text = fs::read_to_string(dir.join("cpu.stat"))?;
        let cpu = parse_table(&cpu_text);
        let stat = table(&dir.join("memory.stat"));
        let events = table(&dir.join("memory.events"));
        let micros = |key: &str| cpu.get(key).copied().unwrap_or(0) * 1000;
        let get = |key: &str| stat.get(key).copied().unwrap_or(0);
        let maximum = read(&dir.join("cpu.max"));
        let (quota, period) = maximum.split_once(' ').unwrap_or_default();
        let (quota, period) = (quota.parse().ok(), period.parse().unwrap_or(0));
        // The root group has no memory.current: take what the node's statistics sum up to.
        let memory = number(&dir.join("memory.current")).unwrap_or_else(|| get("anon") + get("file") + get("kernel"));
        Ok(CgroupUsage {
            cpu_nanos: micros("usage_usec"),
            cpu_user_nanos: micros("user_usec"),
            cpu_system_nanos: micros("system_usec"),
            periods: cpu.get("nr_periods").copied().unwrap_or(0),
            throttled_periods: cpu.get("nr_throttled").copied().unwrap_or(0),
            throttled_nanos: micros("throttled_usec"),
            memory,
            memory_limit: number(&dir.join("memory.max")),
            inactive_file: get("inactive_file"),
            rss: get("anon"),
            cache: get("file"),
            mapped_file: get("file_mapped"),
            swap: number(&dir.join("memory.swap.current")).unwrap_or(0),
            page_faults: get("pgfault"),
            major_page_faults: get("pgmajfault"),
            failcnt: events.get("max").copied().unwrap_or(0),
            pids: number(&dir.join("pids.current")).unwrap_or(0),
            oom_kills: events.get("oom_kill").copied().unwrap_or(0),
            cpu_shares: number(&dir.join("cpu.weight")).map_or(0, shares),
            cpu_quota: quota,
            cpu_period: period,
            memory_peak: number(&dir.join("memory.peak")).unwrap_or(0),
            memory_reservation: number(&dir.join("memory.min")).unwrap_or(0),
            swap_limit: number(&dir.join("memory.swap.max")),
            pressure: pressure::of(&dir),
        })
    }
}

/// cpu.shares that a weight stands for.
fn shares(weight: u64) -> u64 {
    2 + (weight.saturating_sub(1) * 262_142) / 9999
}

fn max_or(value: i64) -> String {
    if value <= 0 { "max".to_owned() } else { value.to_string() }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    read(path).parse().ok()
}

fn table(path: &Path) -> HashMap<String, u64> {
    parse_table(&read(path))
}

fn parse_table(text: &str) -> HashMap<String, u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// A controller that is not mounted or not delegated has no file; that is not an error.
fn write_if_present(path: &Path, value: &str) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    if read(path) == value {
        return Ok(());
    }
    fs::write(path, value)
        .map_err(|error| io::Error::new(error.kind(), format!("write {value:?} to {}: {error}", path.display())))
}

fn child_dirs(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn collect_processes(dir: &Path, found: &mut Vec<u32>) {
    found.extend(read(&dir.join("cgroup.procs")).lines().filter_map(|line| line.parse::<u32>().ok()));
    for child in child_dirs(dir) {
        collect_processes(&dir.join(child), found);
    }
}

fn kill_all(dir: &Path) {
    for child in child_dirs(dir) {
        kill_all(&dir.join(child));
    }
    for pid in read(&dir.join("cgroup.procs")).lines().filter_map(|line| line.parse::<i32>().ok()) {
        if pid > 1
            && let Err(error) = kill(Pid::from_raw(pid), Signal::SIGKILL)
        {
            tracing::debug!(pid, %error, "process in a removed group");
        }
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in child_dirs(dir) {
        remove_tree(&dir.join(child))?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
