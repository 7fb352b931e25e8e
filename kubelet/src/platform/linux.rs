//! The real platform.

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid};

use super::cgroups::Cgroups;
use super::{
    CgroupDriver, CgroupLimits, CgroupName, CgroupUsage, CgroupVersion, DeviceIo, DiskUse, FsUsage, Interface,
    MemoryWatch, OpenFiles, Platform, ProcessIds, devices, facts, iptables, mounts,
};

/// Linux with the hierarchies found at start.
#[derive(Clone, Debug)]
pub struct Linux {
    cgroups: Cgroups,
    driver: CgroupDriver,
}

impl Linux {
    /// Looks at the mounted hierarchies.
    pub fn detect(driver: CgroupDriver) -> Self {
        Self { cgroups: Cgroups::detect(driver), driver }
    }
}

impl Platform for Linux {
    fn cgroup_version(&self) -> CgroupVersion {
        self.cgroups.version()
    }

    fn apply_cgroup(&self, name: &CgroupName, limits: &CgroupLimits) -> io::Result<()> {
        self.cgroups.apply(&self.cgroup_path(name), limits)
    }

    fn cgroup_exists(&self, name: &CgroupName) -> bool {
        self.cgroups.exists(&self.cgroup_path(name))
    }

    fn remove_cgroup(&self, name: &CgroupName) -> io::Result<()> {
        self.cgroups.remove(&self.cgroup_path(name))
    }

    fn pod_cgroups(&self, root: &CgroupName) -> Vec<(CgroupName, String)> {
        let parents = [root.clone(), root.child("burstable"), root.child("besteffort")];
        let mut found = Vec::new();
        for parent in parents {
            for directory in self.cgroups.children(&self.cgroup_path(&parent)) {
                if let Some(uid) = CgroupName::pod_uid(&directory, self.driver) {
                    found.push((parent.child(&format!("pod{uid}")), uid));
                }
            }
        }
        found
    }

    fn cgroup_usage(&self, path: &str) -> io::Result<CgroupUsage> {
        self.cgroups.usage(path)
    }

    fn cgroup_io(&self, path: &str) -> Vec<DeviceIo> {
        let by_number = self.cgroups.io(path).into_iter();
        by_number.filter_map(|(number, io)| Some(DeviceIo { device: facts::device(&number)?, ..io })).collect()
    }

    fn device_of(&self, path: &Path) -> Option<String> {
        facts::device_of(path)
    }

    fn cgroup_path(&self, name: &CgroupName) -> String {
        name.path(self.driver)
    }

    fn join_cgroup(&self, path: &str) -> io::Result<()> {
        self.cgroups.join(path)
    }

    fn gather_system(&self, path: &str) -> io::Result<usize> {
        self.cgroups.gather(path)
    }

    fn watch_memory(&self, path: &str, mark: u64) -> io::Result<MemoryWatch> {
        self.cgroups.watch_memory(path, mark)
    }

    fn ensure_chains(&self) -> io::Result<bool> {
        iptables::ensure()
    }

    fn container_cgroup(&self, pod: &CgroupName, id: &str) -> String {
        let pod = self.cgroup_path(pod);
        match self.driver {
            CgroupDriver::Cgroupfs => format!("{pod}/{id}"),
            CgroupDriver::Systemd => format!("{pod}/cri-containerd-{id}.scope"),
        }
    }

    fn open_files(&self, path: &str) -> OpenFiles {
        facts::open_files(&self.cgroups.processes(path))
    }

    fn interfaces(&self, path: Option<&str>) -> io::Result<Vec<Interface>> {
        match path {
            None => facts::interfaces(Path::new("/proc/self/net/dev")),
            Some(path) => match self.cgroups.processes(path).first() {
                Some(pid) => facts::interfaces(Path::new(&format!("/proc/{pid}/net/dev"))),
                None => Err(io::Error::from(io::ErrorKind::NotFound)),
            },
        }
    }

    fn process_ids(&self) -> io::Result<ProcessIds> {
        facts::process_ids()
    }

    fn mount_tmpfs(&self, target: &Path, size: Option<u64>) -> io::Result<()> {
        mounts::tmpfs(target, size)
    }

    fn mount_hugepages(&self, target: &Path, page_size: &str) -> io::Result<()> {
        mounts::hugepages(target, page_size)
    }

    fn format_and_mount(&self, device: &Path, target: &Path, fs_type: &str, options: &[String]) -> io::Result<()> {
        devices::format_and_mount(device, target, fs_type, options)
    }

    fn make_shared(&self, target: &Path) -> io::Result<()> {
        mounts::make_shared(target)
    }

    fn bind_beneath(&self, root: &Path, path: &Path, target: &Path) -> io::Result<()> {
        mounts::bind_beneath(root, path, target)
    }

    fn make_beneath(&self, root: &Path, path: &Path) -> io::Result<()> {
        mounts::make_beneath(root, path)
    }

    fn unmount(&self, target: &Path) -> io::Result<()> {
        mounts::unmount(target)
    }

    fn mounts_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        mounts::below(dir)
    }

    fn fs_usage(&self, path: &Path) -> io::Result<FsUsage> {
        let stat = statvfs(path)?;
        let unit = stat.fragment_size();
        Ok(FsUsage {
            capacity: stat.blocks() * unit,
            available: stat.blocks_available() * unit,
            used: (stat.blocks() - stat.blocks_free()) * unit,
            inodes: stat.files(),
            inodes_free: stat.files_free(),
        })
    }

    fn disk_use(&self, path: &Path) -> io::Result<DiskUse> {
        facts::disk_use(path)
    }

    fn same_fs(&self, a: &Path, b: &Path) -> bool {
        facts::same_fs(a, b)
    }

    fn chown(&self, path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        Ok(nix::unistd::fchownat(nix::fcntl::AT_FDCWD, path, uid, gid, flags)?)
    }
}
