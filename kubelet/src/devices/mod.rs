//! Devices of plugins: which there are, and who gets them.
//!
//! Devices are taken for a container before its plugin is asked about them, so that two Pods never get the same one,
//! and are given back if the plugin refuses.

mod file;
mod plugin;
mod register;
mod state;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use proto::device as v1;
use tokio::sync::Notify;

pub use register::DeviceRegistration;

use crate::allot::{Hints, Mask};
use crate::cri::CriError;
use crate::metrics::METRICS;
use crate::pods;
use crate::pods::resources;
use plugin::Endpoint;
use state::{Holder, State};

const CHECKPOINT: &str = "kubelet_internal_checkpoint";
const ALLOCATE_DEADLINE: Duration = Duration::from_secs(60);
const PRE_START_DEADLINE: Duration = Duration::from_secs(30);

/// Devices of a Pod's containers that end before others start, by resource.
#[derive(Clone, Debug, Default)]
pub struct Reusable(BTreeMap<String, BTreeSet<String>>);

/// What plugins want done for a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceOptions {
    /// Environment, under what the Pod says itself.
    pub env: BTreeMap<String, String>,
    /// Mounts.
    pub mounts: Vec<v1::Mount>,
    /// Device files.
    pub devices: Vec<v1::DeviceSpec>,
    /// Annotations for the runtime.
    pub annotations: BTreeMap<String, String>,
    /// Names of CDI devices.
    pub cdi: Vec<String>,
}

/// Devices of one resource that a container holds, with their NUMA nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Resource.
    pub resource: String,
    /// Ids by NUMA node; those without one under -1.
    pub places: BTreeMap<i64, Vec<String>>,
}

/// The devices of this node.
pub struct Devices {
    dir: PathBuf,
    state: Mutex<State>,
    endpoints: Mutex<BTreeMap<String, Endpoint>>,
    changed: Notify,
}

impl Devices {
    /// Begins with what an earlier kubelet allocated.
    pub fn open(dir: PathBuf) -> Arc<Self> {
        let state = file::read(&dir.join(CHECKPOINT)).unwrap_or_else(|error| {
            tracing::error!(%error, "device allocations of the last kubelet cannot be read");
            State::default()
        });
        Arc::new(Self { dir, state: Mutex::new(state), endpoints: Mutex::default(), changed: Notify::new() })
    }

    /// Returns when the Node should say anew which devices there are.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All and usable devices of each resource.
    pub fn amounts(&self) -> BTreeMap<String, (usize, usize)> {
        self.state.lock().amounts(Instant::now())
    }

    fn save(&self) {
        if let Err(error) = file::write(&self.dir.join(CHECKPOINT), &self.state.lock()) {
            tracing::error!(%error, "writing device allocations");
        }
    }

    /// Whether a plugin gives this resource.
    pub fn knows(&self, resource: &str) -> bool {
        self.state.lock().resources.contains_key(resource)
    }

    /// Gives a container the devices it asks for, if it can be from some NUMA nodes. Containers that end before others
    /// start leave their devices to them.
    pub async fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        mask: Option<Mask>,
        reusable: &mut Reusable,
    ) -> Result<(), String> {
        for (resource, wanted) in self.wanted(container) {
            let again = reusable.0.entry(resource.clone()).or_default();
            let holder = (pods::uid(pod).to_owned(), container.name.clone());
            let result = self.allocate_one(&holder, &resource, wanted, (mask, again)).await;
            if result.is_err() {
                self.state.lock().release(&holder.0, true);
            }
            result?;
            let state = self.state.lock();
            let ids = state.allocations.get(&holder).and_then(|all| all.get(&resource)).map(|one| one.ids.clone());
            match (ids, pods::ends_before_others(pod, container)) {
                (Some(ids), true) => again.extend(ids),
                (Some(ids), false) => again.retain(|id| !ids.contains(id)),
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Where the devices of containers could come from, for each resource of plugins that know places.
    pub fn hints(&self, pod: &Pod, containers: &[&Container], nodes: Mask, reusable: &Reusable) -> Vec<Hints> {
        let mut wanted: BTreeMap<String, usize> = BTreeMap::new();
        for (resource, count) in containers.iter().flat_map(|container| self.wanted(container)) {
            *wanted.entry(resource).or_default() += count;
        }
        let holders: Vec<Holder> =
            containers.iter().map(|container| (pods::uid(pod).to_owned(), container.name.clone())).collect();
        let state = self.state.lock();
        let none = BTreeSet::new();
        let one = |(resource, count): (&String, &usize)| {
            state.hints(resource, *count, nodes, &holders, reusable.0.get(resource).unwrap_or(&none))
        };
        wanted.iter().map(one).collect()
    }

    /// Resources of plugins that a container asks for.
    fn wanted(&self, container: &Container) -> Vec<(String, usize)> {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        let named = limits.into_iter().flatten().filter(|(name, _)| name.contains('/') && self.knows(name));
        let counted = named.map(|(name, amount)| (name.clone(), resources::number(name, amount)));
        counted.filter_map(|(name, count)| Some((name, usize::try_from(count).ok().filter(|n| *n > 0)?))).collect()
    }

    async fn allocate_one(
        &self,
        holder: &Holder,
        resource: &str,
        wanted: usize,
        (mask, reusable): (Option<Mask>, &BTreeSet<String>),
    ) -> Result<(), String> {
        let Some(choice) = self.state.lock().choice(holder, resource, wanted, reusable)? else { return Ok(()) };
        let endpoint = self.endpoints.lock().get(resource).cloned();
        let Some(endpoint) = endpoint else { return Err(format!("unknown Device Plugin {resource}")) };
        let preferred = match endpoint.options.get_preferred_allocation_available {
            true => self.preferred(&endpoint, &choice).await,
            false => None,
        };
        let ids = {
            // Others may have been quicker while the plugin was asked.
            let mut state = self.state.lock();
            let Some(choice) = state.choice(holder, resource, wanted, reusable)? else { return Ok(()) };
            let ids = preferred
                .and_then(|ids| state::preferred(&choice, &ids))
                .unwrap_or_else(|| state.nearest(resource, &choice, mask));
            state.take(holder, resource, ids.clone());
            ids
        };
        let start = Instant::now();
        let request = v1::AllocateRequest {
            container_requests: vec![v1::ContainerAllocateRequest { devices_ids: ids.into_iter().collect() }],
        };
        let answer = endpoint.allocate(request, ALLOCATE_DEADLINE).await;
        METRICS.device_alloc.with_label_values(&[resource]).observe(start.elapsed().as_secs_f64());
        let responses = answer.map_err(|error| error.to_string())?.container_responses;
        let Some(response) = responses.into_iter().next() else {
            return Err("no containers return in allocation response from device plugin".to_owned());
        };
        self.state.lock().confirm(holder, resource, response);
        self.save();
        Ok(())
    }

    async fn preferred(&self, endpoint: &Endpoint, choice: &state::Choice) -> Option<Vec<String>> {
        let request = v1::ContainerPreferredAllocationRequest {
            available_device_i_ds: choice.available.iter().cloned().collect(),
            must_include_device_i_ds: choice.required.iter().cloned().collect(),
            allocation_size: i32::try_from(choice.needed).unwrap_or(i32::MAX),
        };
        let request = v1::PreferredAllocationRequest { container_requests: vec![request] };
        match endpoint.preferred(request, ALLOCATE_DEADLINE).await {
            Ok(answer) => answer.container_responses.into_iter().next().map(|one| one.device_i_ds),
            Err(error) => {
                tracing::warn!(%error, "device plugin GetPreferredAllocation rpc failed");
                None
            }
        }
    }

    /// What is to be done for a container; plugins that asked for it are told that it starts.
    pub async fn options(&self, uid: &str, container: &str) -> Result<DeviceOptions, CriError> {
        let holder = (uid.to_owned(), container.to_owned());
        let held = self.state.lock().allocations.get(&holder).cloned().unwrap_or_default();
        let mut options = DeviceOptions::default();
        for (resource, one) in held {
            let endpoint = self.endpoints.lock().get(&resource).cloned();
            if let Some(endpoint) = endpoint.filter(|endpoint| endpoint.options.pre_start_required) {
                let request = v1::PreStartContainerRequest { devices_ids: one.ids.iter().cloned().collect() };
                endpoint.pre_start(request, PRE_START_DEADLINE).await?;
            }
            options.add(one.response.unwrap_or_default());
        }
        Ok(options)
    }

    /// What a container holds.
    pub fn held(&self, uid: &str, container: &str) -> Vec<Held> {
        let holder = (uid.to_owned(), container.to_owned());
        let state = self.state.lock();
        let all = state.allocations.get(&holder).into_iter().flatten();
        all.map(|(resource, one)| Held { resource: resource.clone(), places: one.places.clone() }).collect()
    }

    /// Every usable device.
    pub fn usable(&self) -> Vec<Held> {
        let state = self.state.lock();
        let mut out = Vec::new();
        for (resource, known) in state.resources.iter().filter(|(_, known)| known.absent_since.is_none()) {
            let mut places: BTreeMap<i64, Vec<String>> = BTreeMap::new();
            for (id, device) in known.devices.iter().filter(|(_, device)| device.healthy) {
                let nodes = if device.nodes.is_empty() { vec![state::NO_PLACE] } else { device.nodes.clone() };
                nodes.into_iter().for_each(|node| places.entry(node).or_default().push(id.clone()));
            }
            out.push(Held { resource: resource.clone(), places });
        }
        out
    }

    /// Takes everything back from a Pod that is over.
    pub fn release(&self, uid: &str) {
        if self.state.lock().release(uid, false) {
            self.save();
        }
    }

    /// Takes everything back from Pods that are not among these.
    pub fn retain(&self, is_known: impl Fn(&str) -> bool) {
        let holders: BTreeSet<String> = self.state.lock().allocations.keys().map(|(uid, _)| uid.clone()).collect();
        holders.iter().filter(|uid| !is_known(uid)).for_each(|uid| self.release(uid));
    }

    /// Where plugins register.
    fn dir(&self) -> &Path {
        &self.dir
    }
}

impl DeviceOptions {
    fn add(&mut self, response: v1::ContainerAllocateResponse) {
        self.env.extend(response.envs);
        for mount in response.mounts {
            if self.mounts.iter().all(|known| known.container_path != mount.container_path) {
                self.mounts.push(mount);
            }
        }
        for device in response.devices {
            if self.devices.iter().all(|known| known.container_path != device.container_path) {
                self.devices.push(device);
            }
        }
        self.annotations.extend(response.annotations);
        for device in response.cdi_devices {
            if !self.cdi.contains(&device.name) {
                self.cdi.push(device.name);
            }
        }
    }
}
