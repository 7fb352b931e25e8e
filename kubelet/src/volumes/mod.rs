//! Volumes of Pods on this node.
//!
//! [`Volumes::set_up`] is called at every sync of a Pod and makes the directories match the Pod: it mounts what is
//! absent, refreshes what changed and leaves the rest alone. [`Volumes::tear_down`] undoes everything below a Pod's
//! directory, for Pods whose spec is known or not. Neither keeps state besides tokens and failure back-offs, so a
//! restarted kubelet goes on where the last one stopped.

mod atomic;
mod claims;
mod error;
mod hostpath;
mod local;
mod measure;
mod ownership;
mod payload;
pub mod subpath;
mod tokens;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use parking_lot::Mutex;

pub(crate) use claims::claim_of;
pub(crate) use error::Failure;
pub use error::VolumeError;
pub use ownership::ChangePolicy;
pub(crate) use ownership::give as give_to_group;
pub(crate) use tokens::Tokens;

use crate::csi::{self, Csi, CsiError, VolumeUse, Wanted};
use crate::events::Events;
use crate::node::NodeFacts;
use crate::objects::Objects;
use crate::paths::Paths;
use crate::platform::Platform;
use crate::pods;
use crate::pods::quantity;
use crate::pods::resources::Effective;
use atomic::Payload;
use payload::Sources;

const EMPTY_DIR: &str = "kubernetes.io~empty-dir";
const CONFIG_MAP: &str = "kubernetes.io~configmap";
const SECRET: &str = "kubernetes.io~secret";
const PROJECTED: &str = "kubernetes.io~projected";
const DOWNWARD: &str = "kubernetes.io~downward-api";

/// A volume that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// A directory or file on the node.
    Path {
        /// Where.
        path: PathBuf,
        /// Mounted read-only whatever the container asks for.
        read_only: bool,
    },
    /// A device of the node.
    Device {
        /// The link to it.
        path: PathBuf,
        /// Containers may only read it.
        read_only: bool,
    },
    /// An image, resolved when a container starts.
    Image,
}

/// A volume of a Pod: UID and name.
type PlaceKey = (String, String);

/// Where a volume is whose place its definition in the Pod does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Placed {
    /// Where the kernel can be asked about it.
    path: Option<PathBuf>,
    /// Driver, handle and directory name of a volume that a driver is asked about.
    driver: Option<(String, String, String)>,
}

/// Ready volumes by name.
pub type Mounted = BTreeMap<String, Ready>;

/// Sets volumes up and takes them down.
pub struct Volumes {
    paths: Paths,
    platform: Arc<dyn Platform>,
    objects: Arc<dyn Objects>,
    csi: Arc<Csi>,
    events: Events,
    tokens: Tokens,
    placed: Mutex<HashMap<PlaceKey, Placed>>,
    /// Groups that volumes say may use them.
    groups: Mutex<HashMap<PlaceKey, i64>>,
    /// Plugins of volumes that are ready, by UID of the Pod.
    ready: Mutex<HashMap<String, measure::Plugins>>,
    /// Plugins and states whose numbers of volumes are told.
    told: Mutex<BTreeSet<(String, &'static str)>>,
}

impl Volumes {
    /// Volumes below the kubelet's directory.
    pub fn new(
        paths: Paths,
        platform: Arc<dyn Platform>,
        objects: Arc<dyn Objects>,
        csi: Arc<Csi>,
        events: Events,
    ) -> Self {
        let (tokens, placed) = (Tokens::default(), Mutex::default());
        let (groups, ready, told) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { paths, platform, objects, csi, events, tokens, placed, groups, ready, told }
    }

    /// Makes every volume that a container mounts ready; on failure says which were not.
    pub async fn set_up(&self, pod: &Pod, node: &NodeFacts) -> Result<Mounted, Vec<VolumeError>> {
        let used = used_volumes(pod);
        let mut mounted = Mounted::new();
        let mut errors = Vec::new();
        for volume in pods::spec(pod).volumes.iter().flatten().filter(|volume| used.contains(volume.name.as_str())) {
            let start = Instant::now();
            let result = self.one(pod, volume, node).await;
            self.measure(pod, volume, start, &result);
            match result {
                Ok(ready) => {
                    mounted.insert(volume.name.clone(), ready);
                }
                Err(failure) => errors.push(VolumeError { volume: volume.name.clone(), failure }),
            }
        }
        if errors.is_empty() { Ok(mounted) } else { Err(errors) }
    }

    async fn one(&self, pod: &Pod, volume: &Volume, node: &NodeFacts) -> Result<Ready, Failure> {
        let sources = Sources { pod, objects: &*self.objects, tokens: &self.tokens, node };
        if let Some(source) = &volume.empty_dir {
            return Ok(self.empty_dir(pod, &volume.name, source, node).await?);
        }
        if let Some(source) = &volume.host_path {
            let (path, kind) = (PathBuf::from(&source.path), source.type_.clone().unwrap_or_default());
            let checked = path.clone();
            blocking(move || Ok(hostpath::prepare(&checked, &kind))).await??;
            return Ok(Ready::Path { path, read_only: false });
        }
        if let Some(source) = &volume.config_map {
            let items = source.items.as_deref();
            let files = sources.config_map(&source.name, items, source.default_mode, source.optional).await?;
            return Ok(self.files(pod, &volume.name, CONFIG_MAP, files).await?);
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let files = sources.secret(name, source.items.as_deref(), source.default_mode, source.optional).await?;
            return Ok(self.files(pod, &volume.name, SECRET, files).await?);
        }
        if let Some(source) = &volume.downward_api {
            let files = sources.downward(source.items.as_deref().unwrap_or_default(), source.default_mode)?;
            return Ok(self.files(pod, &volume.name, DOWNWARD, files).await?);
        }
        if let Some(source) = &volume.projected {
            let files = sources.projected(source).await?;
            return Ok(self.files(pod, &volume.name, PROJECTED, files).await?);
        }
        if let Some((claim, read_only)) = claim_of(pod, volume) {
            return self.claimed(pod, volume, &claim, read_only).await;
        }
        if let Some(source) = &volume.csi {
            let wanted = Wanted::inline(pod, &volume.name, source);
            return self.of_driver(pod, volume, &wanted, None).await;
        }
        if volume.image.is_some() {
            return Ok(Ready::Image);
        }
        if volume.git_repo.is_some() {
            return Err("git-repo volume plugin has been disabled".to_owned().into());
        }
        Err("no volume plugin matched".to_owned().into())
    }

    async fn empty_dir(
        &self,
        pod: &Pod,
        name: &str,
        source: &EmptyDirVolumeSource,
        node: &NodeFacts,
    ) -> Result<Ready, String> {
        let path = self.paths.volume(pods::uid(pod), EMPTY_DIR, name);
        let medium = source.medium.clone().unwrap_or_default();
        let size = memory_size(pod, source, node);
        let page_size = huge_page_size(pod, &medium);
        let group = fs_group(pod);
        let (platform, dir) = (Arc::clone(&self.platform), path.clone());
        blocking(move || {
            let fresh = !dir.is_dir();
            if fresh {
                fs::create_dir_all(&dir)?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
            }
            if !medium.is_empty() && !is_mounted(&*platform, &dir)? {
                match page_size {
                    Some(page_size) => platform.mount_hugepages(&dir, &page_size)?,
                    None => platform.mount_tmpfs(&dir, size)?,
                }
                // A new tmpfs is sticky; the directory it covers was not.
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
            }
            match group {
                Some((group, policy)) if fresh => ownership::apply(&dir, group, false, policy),
                _ => Ok(()),
            }
        })
        .await?;
        Ok(Ready::Path { path, read_only: false })
    }

    /// A directory that is rewritten as a whole; everything but configMap is on a tmpfs.
    async fn files(&self, pod: &Pod, name: &str, plugin: &str, payload: Payload) -> Result<Ready, String> {
        let path = self.paths.volume(pods::uid(pod), plugin, name);
        let nested = nested_mount_points(pod, name);
        let group = fs_group(pod);
        let in_memory = plugin != CONFIG_MAP;
        let (platform, dir) = (Arc::clone(&self.platform), path.clone());
        blocking(move || {
            if !dir.is_dir() {
                fs::create_dir_all(&dir)?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
            }
            if in_memory && !is_mounted(&*platform, &dir)? {
                platform.mount_tmpfs(&dir, None)?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
            }
            for inner in nested {
                platform.make_beneath(&dir, &inner)?;
            }
            atomic::write(&dir, &payload, |fresh| match group {
                Some((group, _)) => ownership::apply(fresh, group, true, ChangePolicy::Always),
                None => Ok(()),
            })?;
            match group {
                Some((group, _)) => ownership::apply_root(&dir, group),
                None => Ok(()),
            }
        })
        .await?;
        Ok(Ready::Path { path, read_only: true })
    }

    /// Unmounts and removes everything of a Pod.
    pub async fn tear_down(&self, uid: &str) -> io::Result<()> {
        let start = Instant::now();
        self.tokens.forget(uid);
        let subpaths = self.paths.subpaths(uid);
        let locals = local::names(&self.paths, uid);
        // Parts of volumes keep the whole busy.
        let mut errors = self.unmount_all(vec![subpaths.clone()], None).await;
        errors.extend(self.csi.tear_down(uid).await.err().unwrap_or_default());
        let of_drivers = self.paths.volumes(uid).join(csi::PLUGIN);
        errors.extend(self.unmount_all(vec![self.paths.pod(uid)], Some(of_drivers)).await);
        if errors.is_empty() {
            let (platform, pod) = (Arc::clone(&self.platform), self.paths.pod(uid));
            let (globals, names) = (self.paths.clone(), locals);
            let rest = [subpaths, self.paths.volumes(uid), pod.join("volumeDevices")];
            let removed = tokio::task::spawn_blocking(move || {
                local::release(&*platform, &globals, &names)?;
                // Nothing is removed through a mount.
                if let Some(left) = platform.mounts_below(&pod)?.first() {
                    return Err(io::Error::other(format!("{} is still mounted", left.display())));
                }
                rest.iter().try_for_each(|dir| remove_dir(dir))
            });
            errors.extend(removed.await.map_err(io::Error::other).flatten().err().map(|error| error.to_string()));
        }
        self.measure_end(uid, start, errors.is_empty());
        if errors.is_empty() {
            self.placed.lock().retain(|(owner, _), _| owner != uid);
            self.groups.lock().retain(|(owner, _), _| owner != uid);
            return Ok(());
        }
        Err(io::Error::other(errors.join("; ")))
    }

    /// Unmounts everything below directories, but for what somebody else unmounts; what fails does not keep the rest.
    async fn unmount_all(&self, dirs: Vec<PathBuf>, but: Option<PathBuf>) -> Vec<String> {
        let platform = Arc::clone(&self.platform);
        let done = tokio::task::spawn_blocking(move || {
            let mut errors = Vec::new();
            for dir in &dirs {
                let points = platform.mounts_below(dir).unwrap_or_else(|error| {
                    errors.push(error.to_string());
                    Vec::new()
                });
                for point in points.iter().filter(|point| but.as_ref().is_none_or(|but| !point.starts_with(but))) {
                    if let Err(error) = platform.unmount(point) {
                        errors.push(format!("{}: {error}", point.display()));
                    }
                }
            }
            errors
        });
        done.await.unwrap_or_else(|error| vec![error.to_string()])
    }

    /// Whether anything of a Pod's volumes is left.
    pub fn is_clean(&self, uid: &str) -> bool {
        let volumes = self.paths.volumes(uid);
        !volumes.exists()
            && !self.csi.has(uid)
            && self.platform.mounts_below(&self.paths.pod(uid)).is_ok_and(|left| left.is_empty())
    }

    /// Where a volume that is counted is.
    pub fn path_of(&self, uid: &str, volume: &Volume) -> Option<PathBuf> {
        let plugin = match volume {
            Volume { empty_dir: Some(_), .. } => EMPTY_DIR,
            Volume { config_map: Some(_), .. } => CONFIG_MAP,
            Volume { secret: Some(_), .. } => SECRET,
            Volume { projected: Some(_), .. } => PROJECTED,
            Volume { downward_api: Some(_), .. } => DOWNWARD,
            _ => return self.placed(uid, &volume.name).and_then(|placed| placed.path),
        };
        Some(self.paths.volume(uid, plugin, &volume.name))
    }

    fn placed(&self, uid: &str, volume: &str) -> Option<Placed> {
        self.placed.lock().get(&(uid.to_owned(), volume.to_owned())).cloned()
    }

    fn place(&self, pod: &Pod, volume: &str, placed: Placed) {
        self.placed.lock().insert((pods::uid(pod).to_owned(), volume.to_owned()), placed);
    }

    /// What the driver of a volume says about it.
    pub async fn driver_stats(&self, uid: &str, volume: &str) -> Option<VolumeUse> {
        let (driver, handle, name) = self.placed(uid, volume)?.driver?;
        self.csi.stats(uid, &driver, &handle, &name).await
    }

    /// A volume of a storage driver.
    async fn of_driver(
        &self,
        pod: &Pod,
        volume: &Volume,
        wanted: &Wanted,
        claim: Option<claims::Claimed<'_>>,
    ) -> Result<Ready, Failure> {
        let context = csi::Context { pod, tokens: &self.tokens, group: fs_group(pod), claim };
        let path = self.csi.set_up(wanted, &context).await.map_err(|error| match error {
            CsiError::Step { operation, message } => {
                Failure::Step { operation, name: Some(wanted.spec_name.clone()), message }
            }
            CsiError::Waiting(message) => Failure::Waiting(message),
            CsiError::Limit(message) => Failure::Limit(message),
        })?;
        let driver = (wanted.driver.clone(), wanted.handle.clone(), wanted.spec_name.clone());
        if wanted.block {
            return Ok(Ready::Device { path, read_only: wanted.read_only });
        }
        self.place(pod, &volume.name, Placed { path: None, driver: Some(driver) });
        Ok(Ready::Path { path, read_only: wanted.read_only })
    }

    /// Groups that a Pod's volumes say may use them, in ascending order, without those it has anyway.
    pub fn extra_groups(&self, pod: &Pod) -> Vec<i64> {
        let context = pods::spec(pod).security_context.as_ref();
        let own = context.and_then(|context| context.supplemental_groups.as_deref()).unwrap_or_default();
        let groups = self.groups.lock();
        let of_pod = groups.iter().filter(|((owner, _), group)| owner == pods::uid(pod) && !own.contains(group));
        of_pod.map(|(_, group)| *group).collect::<BTreeSet<i64>>().into_iter().collect()
    }

    /// Directory that holds a Pod's emptyDir volumes by name.
    pub fn empty_dirs(&self, uid: &str) -> PathBuf {
        self.paths.volumes(uid).join(EMPTY_DIR)
    }
}

/// Removes a tree that holds no mounts any more.
fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_mounted(platform: &dyn Platform, dir: &Path) -> io::Result<bool> {
    Ok(platform.mounts_below(dir)?.iter().any(|point| point == dir))
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Volumes some container mounts; the others are not set up.
fn used_volumes(pod: &Pod) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (container, _) in pods::all_containers(pod) {
        used.extend(container.volume_mounts.iter().flatten().map(|mount| mount.name.clone()));
        used.extend(container.volume_devices.iter().flatten().map(|device| device.name.clone()));
        let sources = container.env.iter().flatten().filter_map(|env| env.value_from.as_ref());
        used.extend(sources.filter_map(|source| source.file_key_ref.as_ref()).map(|file| file.volume_name.clone()));
    }
    used
}

fn fs_group(pod: &Pod) -> Option<(u32, ChangePolicy)> {
    let context = pods::spec(pod).security_context.as_ref()?;
    let policy = match context.fs_group_change_policy.as_deref() {
        Some("OnRootMismatch") => ChangePolicy::OnRootMismatch,
        _ => ChangePolicy::Always,
    };
    Some((u32::try_from(context.fs_group?).ok()?, policy))
}

/// The smallest of what the node, the Pod and the volume allow.
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, node: &NodeFacts) -> Option<u64> {
    let limits = [
        node.allocatable.get("memory").map(quantity::value),
        Effective::of(pod).limit("memory"),
        source.size_limit.as_ref().map(quantity::value),
    ];
    limits.into_iter().flatten().filter_map(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0).min()
}

/// `HugePages-2Mi` names the size; `HugePages` takes the only size the Pod asks for.
fn huge_page_size(pod: &Pod, medium: &str) -> Option<String> {
    let rest = medium.strip_prefix("HugePages")?;
    let named = rest.strip_prefix('-').map(str::to_owned);
    let size = named.or_else(|| {
        let names = Effective::of(pod).names();
        names.iter().find_map(|name| name.strip_prefix("hugepages-")).map(str::to_owned)
    })?;
    Some(size.trim_end_matches('i').to_owned())
}

/// Mount points of other volumes inside this one must exist before its files are written.
fn nested_mount_points(pod: &Pod, name: &str) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    for (container, _) in pods::all_containers(pod) {
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        let has_no_subpath = |path: &Option<String>| path.as_deref().is_none_or(str::is_empty);
        let own =
            mounts.iter().filter(|m| m.name == name && has_no_subpath(&m.sub_path) && has_no_subpath(&m.sub_path_expr));
        for outer in own {
            for inner in mounts.iter().filter(|inner| inner.name != name) {
                let below = Path::new(&inner.mount_path).strip_prefix(&outer.mount_path);
                found.extend(below.ok().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned));
            }
        }
    }
    found.into_iter().collect()
}
