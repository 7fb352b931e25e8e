//! Collecting.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::disk::DiskCache;
use super::drivers::DriverVolumes;
use super::rate::Rates;
use super::{ContainerStats, GroupStats, NodeStats, PodStats, VolumeStats};
use crate::cri::{CriError, labels, v1};
use crate::metrics::METRICS;
use crate::node::machine;
use crate::platform::{DiskUse, FsUsage};
use crate::pods;
use crate::services::Services;
use crate::spec::pod_cgroup;
use crate::workers::{PodSummary, Stage, Workers};

/// Collects statistics.
pub struct Stats {
    services: Arc<Services>,
    workers: Arc<Workers>,
    rates: Rates,
    disk: DiskCache,
    drivers: DriverVolumes,
    runtime_group: String,
    /// The image of sandboxes, once it is known.
    pause: OnceLock<String>,
    /// Containers whose logs are told of: UID, namespace and name of the Pod, and their own.
    told_logs: Mutex<BTreeSet<[String; 4]>>,
}

/// What the runtime says of one Pod.
#[derive(Default)]
struct Seen {
    sandbox: Option<v1::PodSandbox>,
    containers: Vec<v1::Container>,
}

impl Stats {
    /// Of the Pods of these workers and the node they are on. `runtime_group`: the container runtime's control group,
    /// if it has one.
    pub fn new(services: Arc<Services>, workers: Arc<Workers>, runtime_group: &str) -> Arc<Self> {
        let disk = DiskCache::new(services.config.volume_stats_agg_period.0);
        let drivers = DriverVolumes::new(services.config.volume_stats_agg_period.0);
        let (runtime_group, told_logs) = (runtime_group.to_owned(), Mutex::default());
        Arc::new(Self {
            services,
            workers,
            rates: Rates::default(),
            disk,
            drivers,
            runtime_group,
            pause: OnceLock::new(),
            told_logs,
        })
    }

    /// The node. What cannot be read is absent.
    pub async fn node(self: &Arc<Self>) -> NodeStats {
        let info = self.services.cri.image_fs_info().await.unwrap_or_default();
        let stats = Arc::clone(self);
        tokio::task::spawn_blocking(move || stats.read_node(&info)).await.unwrap_or_default()
    }

    fn read_node(&self, info: &v1::ImageFsInfoResponse) -> NodeStats {
        let platform = &*self.services.platform;
        let root = self.services.paths.root();
        let images = info.image_filesystems.first().and_then(|fs| self.runtime_fs(fs));
        let layers = info.container_filesystems.first().and_then(|fs| self.runtime_fs(fs));
        let dedicated = images.as_ref().is_some_and(|(path, ..)| !platform.same_fs(path, root));
        let other_layers =
            layers.filter(|(path, ..)| images.as_ref().is_some_and(|(images, ..)| !platform.same_fs(path, images)));
        let own = crate::platform::own_cgroup();
        let mut system = vec![("pods", platform.cgroup_path(&self.services.settings.pods_root))];
        system.extend(own.map(|own| ("kubelet", own)));
        if !self.runtime_group.is_empty() {
            system.push(("runtime", self.runtime_group.clone()));
        }
        if !self.services.config.system_cgroups.is_empty() {
            system.push(("misc", self.services.config.system_cgroups.clone()));
        }
        let layers_at = other_layers.as_ref().or(images.as_ref()).map_or(root, |(path, ..)| path.as_path());
        let pods_root = &self.services.settings.pods_root;
        let mut slices: Vec<String> = system.iter().map(|(_, path)| path.clone()).collect();
        slices.extend(["burstable", "besteffort"].map(|name| platform.cgroup_path(&pods_root.child(name))));
        slices.retain(|path| path != "/");
        slices.sort();
        slices.dedup();
        NodeStats {
            device: platform.device_of(layers_at).unwrap_or_default(),
            slices: slices.into_iter().filter_map(|path| Some((path.clone(), self.group(&path)?))).collect(),
            group: self.group("/").unwrap_or_default(),
            memory_capacity: u64::try_from(machine::meminfo("MemTotal")).unwrap_or(0),
            swap: (
                u64::try_from(machine::meminfo("SwapTotal")).unwrap_or(0),
                u64::try_from(machine::meminfo("SwapFree")).unwrap_or(0),
            ),
            fs: platform.fs_usage(root).ok(),
            image_fs: images.map(|(_, fs, used)| (fs, used)),
            container_fs: other_layers.map(|(_, fs, used)| (fs, used)),
            dedicated_image_fs: dedicated,
            processes: platform.process_ids().ok(),
            network: platform.interfaces(None).unwrap_or_default(),
            booted: machine::boot_time(),
            system: system.into_iter().filter_map(|(name, path)| Some((name, self.group(&path)?))).collect(),
        }
    }

    fn runtime_fs(&self, fs: &v1::FilesystemUsage) -> Option<(PathBuf, FsUsage, DiskUse)> {
        let path = PathBuf::from(&fs.fs_id.as_ref()?.mountpoint);
        let used = disk_use(Some(fs)).unwrap_or_default();
        Some((path.clone(), self.services.platform.fs_usage(&path).ok()?, used))
    }

    fn group(&self, path: &str) -> Option<GroupStats> {
        let usage = self.services.platform.cgroup_usage(path).ok()?;
        Some(self.rates.add(path, usage, Timestamp::now()))
    }

    /// All Pods that have something running.
    pub async fn pods(self: &Arc<Self>) -> Result<Vec<PodStats>, CriError> {
        let cri = &self.services.cri;
        let mut seen: HashMap<String, Seen> = HashMap::new();
        for sandbox in cri.list_pod_sandbox(None).await?.into_iter().filter(|sandbox| sandbox.state == 0) {
            let uid = sandbox.metadata.as_ref().map(|metadata| metadata.uid.clone()).unwrap_or_default();
            seen.entry(uid).or_default().sandbox = Some(sandbox);
        }
        for container in cri.list_containers(None).await?.into_iter().filter(|container| container.state == 1) {
            let uid = container.labels.get(labels::POD_UID).cloned().unwrap_or_default();
            seen.entry(uid).or_default().containers.push(container);
        }
        let layers: HashMap<String, DiskUse> = cri
            .list_container_stats()
            .await?
            .into_iter()
            .filter_map(|stats| Some((stats.attributes?.id, disk_use(stats.writable_layer.as_ref())?)))
            .collect();
        let live = self.workers.all().into_iter().filter(|summary| summary.stage < Stage::Terminated);
        let live: Vec<Arc<Pod>> = live.map(|summary| summary.pod).collect();
        self.drivers.refresh(&self.services, &live).await;
        let (stats, pause) = (Arc::clone(self), self.pause_image().await);
        let read = tokio::task::spawn_blocking(move || {
            let mut out: Vec<PodStats> = live
                .iter()
                .filter_map(|pod| Some(stats.read_pod(pod, seen.get(pods::uid(pod))?, &layers, &pause)))
                .collect();
            out.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
            stats.forget_groups(&out);
            stats.drivers.publish(&out);
            out
        });
        Ok(read.await.unwrap_or_default())
    }

    /// Tells how much logs take.
    pub async fn measure_logs(self: Arc<Self>) {
        let work = tokio::task::spawn_blocking(move || {
            let mut told = self.told_logs.lock();
            let before = std::mem::take(&mut *told);
            for PodSummary { pod, stage, .. } in self.workers.all() {
                if stage >= Stage::Terminated {
                    continue;
                }
                let dir = self.services.paths.logs_of(&pod);
                for (container, _) in pods::all_containers(&pod) {
                    let Some(used) = self.disk.get(&*self.services.platform, &dir.join(&container.name)) else {
                        continue;
                    };
                    let labels = [pods::uid(&pod), pods::namespace(&pod), pods::name(&pod), &container.name];
                    let bytes = i64::try_from(used.bytes).unwrap_or(i64::MAX);
                    METRICS.pods.log_bytes.with_label_values(&labels).set(bytes);
                    told.insert(labels.map(str::to_owned));
                }
            }
            for labels in before.difference(&told) {
                let labels = labels.each_ref().map(String::as_str);
                // It is gone already if somebody else has removed it.
                drop(METRICS.pods.log_bytes.remove_label_values(&labels));
            }
        });
        if let Err(error) = work.await {
            tracing::error!(%error, "space of logs");
        }
    }

    /// Keeps the series about claims fresh, until stopped.
    pub async fn watch_claims(self: Arc<Self>, stop: CancellationToken) {
        let period = self.services.config.volume_stats_agg_period.0;
        if period.is_zero() {
            return;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
            let has_claim = |pod: &Pod| {
                let mut volumes = pods::spec(pod).volumes.iter().flatten();
                volumes.any(|volume| super::claim_of(pod, volume).is_some())
            };
            if self.workers.all().iter().any(|summary| has_claim(&summary.pod))
                && let Err(error) = self.pods().await
            {
                tracing::warn!(%error, "statistics of volumes");
            }
        }
    }

    /// The image of sandboxes.
    async fn pause_image(&self) -> String {
        if let Some(known) = self.pause.get() {
            return known.clone();
        }
        match self.services.cri.sandbox_image().await {
            Some(image) => self.pause.get_or_init(|| image).clone(),
            None => String::new(),
        }
    }

    fn forget_groups(&self, known: &[PodStats]) {
        let root = self.services.platform.cgroup_path(&self.services.settings.pods_root);
        let is_known = |path: &str| {
            let below = path.strip_prefix(&root).is_some_and(|rest| rest.starts_with('/'));
            !below || known.iter().any(|pod| path.starts_with(&pod.cgroup))
        };
        self.rates.retain(is_known);
    }

    fn read_pod(&self, pod: &Pod, seen: &Seen, layers: &HashMap<String, DiskUse>, pause: &str) -> PodStats {
        let services = &self.services;
        let name = pod_cgroup(pod, &services.settings);
        let cgroup = services.platform.cgroup_path(&name);
        let logs = services.paths.logs_of(pod);
        let container = |id: &str, container_name: &str, created: i64, image: String| {
            let cgroup = services.platform.container_cgroup(&name, id);
            ContainerStats {
                name: container_name.to_owned(),
                id: id.to_owned(),
                image,
                started: Timestamp::from_nanosecond(i128::from(created)).unwrap_or_default(),
                group: self.group(&cgroup),
                cgroup,
                rootfs: layers.get(id).copied(),
                logs: (!container_name.is_empty())
                    .then(|| self.disk.get(&*services.platform, &logs.join(container_name)))
                    .flatten(),
            }
        };
        let containers = seen.containers.iter().map(|one| {
            let own = one.labels.get(labels::CONTAINER_NAME).map(String::as_str).unwrap_or_default();
            let image = one.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
            container(&one.id, own, one.created_at, image)
        });
        let mut containers: Vec<ContainerStats> = containers.collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        let sandbox = seen.sandbox.as_ref().map(|one| container(&one.id, "", one.created_at, pause.to_owned()));
        let network = sandbox
            .as_ref()
            .filter(|_| !pods::host_network(pod))
            .and_then(|sandbox| services.platform.interfaces(Some(&sandbox.cgroup)).ok());
        let status = services.statuses.get(pods::uid(pod));
        PodStats {
            uid: pods::uid(pod).to_owned(),
            name: pods::name(pod).to_owned(),
            namespace: pods::namespace(pod).to_owned(),
            started: status.and_then(|status| status.start_time).map(|time| time.0).unwrap_or_default(),
            group: if services.settings.cgroups_per_qos { self.group(&cgroup) } else { None },
            cgroup,
            network,
            containers,
            sandbox,
            volumes: self.volumes(pod),
            other: services.platform.disk_use(&services.paths.etc_hosts(pods::uid(pod))).unwrap_or_default(),
        }
    }

    fn volumes(&self, pod: &Pod) -> Vec<VolumeStats> {
        let all = pods::spec(pod).volumes.iter().flatten();
        let path = |volume: &Volume| self.services.volumes.path_of(pods::uid(pod), volume);
        let mut found: Vec<VolumeStats> = all.filter_map(|volume| self.volume(pod, volume, &path(volume)?)).collect();
        found.extend(self.drivers.of(pod));
        found
    }

    fn volume(&self, pod: &Pod, volume: &Volume, path: &Path) -> Option<VolumeStats> {
        let platform = &*self.services.platform;
        Some(VolumeStats {
            name: volume.name.clone(),
            claim: super::claim_of(pod, volume),
            fs: platform.fs_usage(path).ok()?,
            used: self.disk.get(platform, path)?,
            ephemeral: is_ephemeral(volume),
            abnormal: None,
        })
    }
}

/// Whether a volume takes space that counts as the Pod's ephemeral storage.
fn is_ephemeral(volume: &Volume) -> bool {
    let on_disk = |medium: &Option<String>| medium.as_deref().unwrap_or_default().is_empty();
    volume.empty_dir.as_ref().is_some_and(|source| on_disk(&source.medium)) || volume.config_map.is_some()
}

fn disk_use(fs: Option<&v1::FilesystemUsage>) -> Option<DiskUse> {
    let fs = fs?;
    let bytes = fs.used_bytes.as_ref().map_or(0, |bytes| bytes.value);
    Some(DiskUse { bytes, inodes: fs.inodes_used.as_ref().map_or(0, |inodes| inodes.value) })
}
