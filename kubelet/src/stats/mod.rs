//! What the node, its Pods and their containers use, from control groups, file systems and the runtime.
//!
//! [`Stats`] collects; [`summary`], [`cadvisor`] and [`resource`] show it in three forms, and eviction decides by it.
//! Walking trees of files is costly, so what it finds holds for `volumeStatsAggPeriod`.

pub mod cadvisor;
mod collect;
mod disk;
mod drivers;
mod exposition;
mod rate;
pub mod resource;
pub mod summary;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};

pub use collect::Stats;

use crate::platform::{CgroupUsage, DiskUse, FsUsage, Interface, ProcessIds};
use crate::volumes;

/// Use of one control group at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStats {
    /// When.
    pub at: Timestamp,
    /// What.
    pub usage: CgroupUsage,
    /// Nanoseconds of cpu per second, once there are two samples.
    pub nano_cores: Option<u64>,
}

/// The node.
#[derive(Clone, Debug, Default)]
pub struct NodeStats {
    /// The root group.
    pub group: GroupStats,
    /// Bytes of memory of the machine.
    pub memory_capacity: u64,
    /// Bytes of swap of the machine: all, free.
    pub swap: (u64, u64),
    /// The file system of the kubelet's directory.
    pub fs: Option<FsUsage>,
    /// The file system of images, and what images take.
    pub image_fs: Option<(FsUsage, DiskUse)>,
    /// The file system of containers' own layers, where it is another one.
    pub container_fs: Option<(FsUsage, DiskUse)>,
    /// Whether images are on a file system of their own.
    pub dedicated_image_fs: bool,
    /// Process ids.
    pub processes: Option<ProcessIds>,
    /// Interfaces.
    pub network: Vec<Interface>,
    /// When the machine began.
    pub booted: Timestamp,
    /// Groups above: `pods`, `kubelet`, `runtime`, `misc`.
    pub system: Vec<(&'static str, GroupStats)>,
    /// All groups that are not of one Pod, by path.
    pub slices: Vec<(String, GroupStats)>,
    /// The device that containers' own layers are on.
    pub device: String,
}

/// A volume of a Pod that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeStats {
    /// Name in the Pod.
    pub name: String,
    /// The claim behind it.
    pub claim: Option<String>,
    /// Its file system.
    pub fs: FsUsage,
    /// What is in it.
    pub used: DiskUse,
    /// Whether it counts as the Pod's ephemeral storage.
    pub ephemeral: bool,
    /// Whether its driver says that something is wrong with it.
    pub abnormal: Option<bool>,
}

/// The claim behind a volume.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    volumes::claim_of(pod, volume).map(|(name, _)| name)
}

/// A container.
#[derive(Clone, Debug, Default)]
pub struct ContainerStats {
    /// Name in the Pod; empty for the sandbox.
    pub name: String,
    /// Runtime id.
    pub id: String,
    /// Image.
    pub image: String,
    /// When it began.
    pub started: Timestamp,
    /// Path of its group.
    pub cgroup: String,
    /// Use, while it runs.
    pub group: Option<GroupStats>,
    /// Its own layer.
    pub rootfs: Option<DiskUse>,
    /// Its logs.
    pub logs: Option<DiskUse>,
}

/// A Pod.
#[derive(Clone, Debug, Default)]
pub struct PodStats {
    /// UID.
    pub uid: String,
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// When it began.
    pub started: Timestamp,
    /// Path of its group.
    pub cgroup: String,
    /// Its group.
    pub group: Option<GroupStats>,
    /// Interfaces, unless they are the node's.
    pub network: Option<Vec<Interface>>,
    /// Containers that run.
    pub containers: Vec<ContainerStats>,
    /// The sandbox.
    pub sandbox: Option<ContainerStats>,
    /// Volumes.
    pub volumes: Vec<VolumeStats>,
    /// Files of the Pod outside volumes, such as its hosts file.
    pub other: DiskUse,
}

impl PodStats {
    /// Bytes and inodes that count as the Pod's ephemeral storage.
    pub fn ephemeral_storage(&self) -> DiskUse {
        let containers = self
            .containers
            .iter()
            .map(|container| container.rootfs.unwrap_or_default() + container.logs.unwrap_or_default());
        let volumes = self.volumes.iter().filter(|volume| volume.ephemeral).map(|volume| volume.used);
        containers.chain(volumes).fold(self.other, |sum, one| sum + one)
    }

    /// Bytes of memory that cannot be taken back easily.
    pub fn working_set(&self) -> u64 {
        match &self.group {
            Some(group) => group.usage.working_set(),
            None => self.containers.iter().filter_map(|c| c.group.as_ref()).map(|g| g.usage.working_set()).sum(),
        }
    }

    /// Tasks.
    pub fn processes(&self) -> u64 {
        match &self.group {
            Some(group) => group.usage.pids,
            None => self.containers.iter().filter_map(|c| c.group.as_ref()).map(|g| g.usage.pids).sum(),
        }
    }
}
