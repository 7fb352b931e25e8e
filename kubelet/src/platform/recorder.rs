//! A platform that only remembers what it was asked.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::{
    CgroupDriver, CgroupLimits, CgroupName, CgroupUsage, CgroupVersion, DeviceIo, DiskUse, FsUsage, Interface,
    MemoryWatch, OpenFiles, Platform, ProcessIds,
};

/// One recorded call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A group was written.
    Apply(String, CgroupLimits),
    /// A group was removed.
    Remove(String),
    /// A file system was mounted.
    Mount(&'static str, PathBuf, String),
    /// Something was unmounted.
    Unmount(PathBuf),
    /// Ownership was set.
    Chown(PathBuf, Option<u32>, Option<u32>),
}

/// The recording twin: directories are really made, nothing is mounted.
#[derive(Debug, Default)]
pub struct Recorder {
    calls: Mutex<Vec<Call>>,
    mounted: Mutex<BTreeSet<PathBuf>>,
    groups: Mutex<BTreeSet<CgroupName>>,
}

impl Recorder {
    /// Everything asked so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }

    fn record(&self, call: Call) {
        self.calls.lock().push(call);
    }

    fn mount(&self, kind: &'static str, target: &Path, options: String) {
        self.mounted.lock().insert(target.to_owned());
        self.record(Call::Mount(kind, target.to_owned(), options));
    }
}

impl Platform for Recorder {
    fn cgroup_version(&self) -> CgroupVersion {
        CgroupVersion::V2
    }

    fn apply_cgroup(&self, name: &CgroupName, limits: &CgroupLimits) -> io::Result<()> {
        self.groups.lock().insert(name.clone());
        self.record(Call::Apply(self.cgroup_path(name), limits.clone()));
        Ok(())
    }

    fn cgroup_exists(&self, name: &CgroupName) -> bool {
        self.groups.lock().contains(name)
    }

    fn remove_cgroup(&self, name: &CgroupName) -> io::Result<()> {
        self.groups.lock().remove(name);
        self.record(Call::Remove(self.cgroup_path(name)));
        Ok(())
    }

    fn pod_cgroups(&self, _root: &CgroupName) -> Vec<(CgroupName, String)> {
        let uid = |name: &CgroupName| CgroupName::pod_uid(name.last(), CgroupDriver::Cgroupfs);
        self.groups.lock().iter().filter_map(|name| Some((name.clone(), uid(name)?))).collect()
    }

    fn cgroup_usage(&self, _path: &str) -> io::Result<CgroupUsage> {
        Ok(CgroupUsage::default())
    }

    fn cgroup_io(&self, _path: &str) -> Vec<DeviceIo> {
        Vec::new()
    }

    fn device_of(&self, _path: &Path) -> Option<String> {
        Some("/dev/recorded".to_owned())
    }

    fn cgroup_path(&self, name: &CgroupName) -> String {
        name.path(CgroupDriver::Cgroupfs)
    }

    fn join_cgroup(&self, _path: &str) -> io::Result<()> {
        Ok(())
    }

    fn gather_system(&self, _path: &str) -> io::Result<usize> {
        Ok(0)
    }

    fn watch_memory(&self, _path: &str, _mark: u64) -> io::Result<MemoryWatch> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    fn ensure_chains(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn container_cgroup(&self, pod: &CgroupName, id: &str) -> String {
        format!("{}/{id}", self.cgroup_path(pod))
    }

    fn open_files(&self, _path: &str) -> OpenFiles {
        OpenFiles::default()
    }

    fn interfaces(&self, _path: Option<&str>) -> io::Result<Vec<Interface>> {
        Ok(Vec::new())
    }

    fn process_ids(&self) -> io::Result<ProcessIds> {
        Ok(ProcessIds { max: 1 << 15, used: 100 })
    }

    fn mount_tmpfs(&self, target: &Path, size: Option<u64>) -> io::Result<()> {
        self.mount("tmpfs", target, size.map(|size| size.to_string()).unwrap_or_default());
        Ok(())
    }

    fn mount_hugepages(&self, target: &Path, page_size: &str) -> io::Result<()> {
        self.mount("hugetlbfs", target, page_size.to_owned());
        Ok(())
    }

    fn format_and_mount(&self, device: &Path, target: &Path, fs_type: &str, _options: &[String]) -> io::Result<()> {
        self.mount("device", target, format!("{} {fs_type}", device.display()));
        Ok(())
    }

    fn make_shared(&self, target: &Path) -> io::Result<()> {
        self.mount("shared", target, String::new());
        Ok(())
    }

    fn bind_beneath(&self, root: &Path, path: &Path, target: &Path) -> io::Result<()> {
        self.mount("bind", target, root.join(path).display().to_string());
        Ok(())
    }

    fn make_beneath(&self, root: &Path, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(root.join(path))
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        self.mounted.lock().remove(target);
        self.record(Call::Unmount(target.to_owned()));
        Ok(())
    }

    fn mounts_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.mounted.lock().iter().rev().filter(|point| point.starts_with(dir)).cloned().collect())
    }

    fn fs_usage(&self, _path: &Path) -> io::Result<FsUsage> {
        Ok(FsUsage { capacity: 1 << 40, available: 1 << 39, used: 1 << 39, inodes: 1 << 20, inodes_free: 1 << 19 })
    }

    fn disk_use(&self, _path: &Path) -> io::Result<DiskUse> {
        Ok(DiskUse::default())
    }

    fn same_fs(&self, _a: &Path, _b: &Path) -> bool {
        true
    }

    fn chown(&self, path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        self.record(Call::Chown(path.to_owned(), uid, gid));
        Ok(())
    }
}
