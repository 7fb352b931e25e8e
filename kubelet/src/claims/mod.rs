//! ResourceClaims of Pods: asking drivers to prepare what was allocated, and to take it back.
//!
//! What was prepared is written down before a driver is asked, so that whatever happens it is also taken back.

mod drivers;
mod file;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Container, Pod, PodExtendedResourceClaimStatus, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use parking_lot::Mutex;
use proto::dra as v1;
use proto::dra::dra_plugin_client::DraPluginClient;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tonic::transport::Channel;
use tonic::{Response, Status};

pub use drivers::ClaimDrivers;

use crate::cri::CriError;
use crate::metrics::METRICS;
use crate::objects::Objects;
use crate::pods;
use crate::rpc;

const DEADLINE: Duration = Duration::from_secs(45);

/// One device of a claim, as its driver prepared it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimDevice {
    /// Requests of the claim that it is for; none are all.
    #[serde(default)]
    pub requests: Vec<String>,
    /// Pool.
    pub pool: String,
    /// Name in the pool.
    pub device: String,
    /// CDI names.
    #[serde(default)]
    pub cdi: Vec<String>,
}

/// A claim that Pods of this node use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreparedClaim {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// UIDs of the Pods.
    pub users: BTreeSet<String>,
    /// Every driver has prepared it.
    pub prepared: bool,
    /// Devices by driver.
    pub drivers: BTreeMap<String, Vec<ClaimDevice>>,
}

/// The claims of this node.
pub struct Claims {
    path: PathBuf,
    objects: Arc<dyn Objects>,
    state: Mutex<BTreeMap<String, PreparedClaim>>,
    plugins: Mutex<BTreeMap<String, DraPluginClient<Channel>>>,
    /// Preparing and taking back never overlap.
    turn: Semaphore,
}

impl Claims {
    /// Begins with what an earlier kubelet prepared.
    pub fn open(path: PathBuf, objects: Arc<dyn Objects>) -> Arc<Self> {
        let state = file::read(&path).unwrap_or_else(|error| {
            tracing::error!(%error, "prepared claims of the last kubelet cannot be read");
            BTreeMap::new()
        });
        let plugins = Mutex::default();
        Arc::new(Self { path, objects, state: Mutex::new(state), plugins, turn: Semaphore::new(1) })
    }

    fn save(&self) -> Result<(), String> {
        file::write(&self.path, &self.state.lock()).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }

    fn plugin(&self, driver: &str) -> Result<DraPluginClient<Channel>, String> {
        let known = self.plugins.lock().get(driver).cloned();
        known.ok_or_else(|| format!("DRA driver {driver} is not registered"))
    }

    /// Has everything prepared that a Pod's claims were given.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        let wanted = claims_of(pod)?;
        if wanted.is_empty() {
            return Ok(());
        }
        // The semaphore is never closed.
        let turn = self.turn.acquire().await;
        let mut by_driver: BTreeMap<String, Vec<v1::Claim>> = BTreeMap::new();
        for (name, is_own) in wanted {
            let claim = self.objects.resource_claim(pods::namespace(pod), &name).await;
            let claim = claim.map_err(|error| {
                format!("failed to fetch ResourceClaim {name} referenced by pod {}: {error}", pods::name(pod))
            })?;
            let drivers = check(pod, &claim, is_own)?;
            if self.note(pod, &claim, &drivers) {
                let uid = claim.metadata.uid.clone().unwrap_or_default();
                let asked = v1::Claim { namespace: pods::namespace(pod).to_owned(), uid, name };
                drivers.into_iter().for_each(|driver| by_driver.entry(driver).or_default().push(asked.clone()));
            }
        }
        self.save()?;
        let mut all = BTreeSet::new();
        for (driver, claims) in by_driver {
            all.extend(claims.iter().map(|claim| claim.uid.clone()));
            self.ask(&driver, claims).await?;
        }
        for claim in self.state.lock().values_mut().filter(|claim| all.contains(&claim.uid)) {
            claim.prepared = true;
        }
        let saved = self.save();
        drop(turn);
        saved
    }

    /// Notes that a Pod uses a claim; answers whether drivers have to be asked.
    fn note(&self, pod: &Pod, claim: &ResourceClaim, drivers: &[String]) -> bool {
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let mut state = self.state.lock();
        let known = state.entry(uid.clone()).or_insert_with(|| PreparedClaim {
            namespace: pods::namespace(pod).to_owned(),
            name: claim.metadata.name.clone().unwrap_or_default(),
            uid,
            ..PreparedClaim::default()
        });
        known.users.insert(pods::uid(pod).to_owned());
        for driver in drivers {
            known.drivers.entry(driver.clone()).or_default();
        }
        !known.prepared
    }

    async fn ask(&self, driver: &str, claims: Vec<v1::Claim>) -> Result<(), String> {
        let mut client = self.plugin(driver)?;
        let request = v1::NodePrepareResourcesRequest { claims: claims.clone() };
        let call = client.node_prepare_resources(request);
        let answer = called(driver, "NodePrepareResources", call).await;
        let mut answer = answer.map_err(|error| format!("NodePrepareResources failed: {error}"))?.claims;
        for claim in &claims {
            let Some(one) = answer.remove(&claim.uid) else {
                return Err(format!("NodePrepareResources skipped ResourceClaim {}/{}", claim.namespace, claim.name));
            };
            if !one.error.is_empty() {
                let place = format!("{}/{}", claim.namespace, claim.name);
                return Err(format!("NodePrepareResources failed for ResourceClaim {place}: {}", one.error));
            }
            let devices = one.devices.into_iter().map(|device| ClaimDevice {
                requests: device.request_names,
                pool: device.pool_name,
                device: device.device_name,
                cdi: device.cdi_device_ids,
            });
            if let Some(known) = self.state.lock().get_mut(&claim.uid) {
                known.drivers.insert(driver.to_owned(), devices.collect());
            }
        }
        Ok(())
    }

    /// Takes back what only this Pod uses.
    pub async fn unprepare(&self, uid: &str) -> Result<(), String> {
        if !self.state.lock().values().any(|claim| claim.users.contains(uid)) {
            return Ok(());
        }
        let turn = self.turn.acquire().await;
        let mut by_driver: BTreeMap<String, Vec<v1::Claim>> = BTreeMap::new();
        let mut over = Vec::new();
        for claim in self.state.lock().values_mut().filter(|claim| claim.users.contains(uid)) {
            if claim.users.len() > 1 {
                claim.users.remove(uid);
                continue;
            }
            // Should the Pod not end after all, drivers are asked again.
            claim.prepared = false;
            over.push(claim.uid.clone());
            for driver in claim.drivers.keys() {
                let (namespace, name) = (claim.namespace.clone(), claim.name.clone());
                let one = v1::Claim { namespace, uid: claim.uid.clone(), name };
                by_driver.entry(driver.clone()).or_default().push(one);
            }
        }
        self.save()?;
        for (driver, claims) in by_driver {
            self.take_back(&driver, claims).await?;
        }
        self.state.lock().retain(|uid, _| !over.contains(uid));
        let saved = self.save();
        drop(turn);
        saved
    }

    async fn take_back(&self, driver: &str, claims: Vec<v1::Claim>) -> Result<(), String> {
        let mut client = self.plugin(driver)?;
        let call = client.node_unprepare_resources(v1::NodeUnprepareResourcesRequest { claims: claims.clone() });
        let answer = called(driver, "NodeUnprepareResources", call).await;
        let answer = answer.map_err(|error| format!("NodeUnprepareResources failed: {error}"))?.claims;
        for claim in &claims {
            let place = format!("{}/{}", claim.namespace, claim.name);
            match answer.get(&claim.uid) {
                None => return Err(format!("NodeUnprepareResources skipped ResourceClaim {place}")),
                Some(one) if !one.error.is_empty() => {
                    return Err(format!("NodeUnprepareResources failed for ResourceClaim {place}: {}", one.error));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// CDI names for a container.
    pub fn cdi(&self, pod: &Pod, container: &Container) -> Vec<String> {
        let devices = self.devices(pod, container).into_iter().flat_map(|(_, devices)| devices);
        let mut out = Vec::new();
        for name in devices.flat_map(|(_, device)| device.cdi) {
            if !out.contains(&name) {
                out.push(name);
            }
        }
        out
    }

    /// The devices of a container, with driver and by claim.
    pub fn devices(&self, pod: &Pod, container: &Container) -> Vec<(PreparedClaim, Vec<(String, ClaimDevice)>)> {
        let mut out = Vec::new();
        for (name, request) in uses(pod, container) {
            let state = self.state.lock();
            let known = state.values().find(|claim| {
                claim.name == name && claim.namespace == pods::namespace(pod) && claim.users.contains(pods::uid(pod))
            });
            let Some(known) = known else { continue };
            let devices = known.drivers.iter().flat_map(|(driver, devices)| {
                devices
                    .iter()
                    .filter(|device| is_for(device, request.as_deref()))
                    .map(|device| (driver.clone(), device.clone()))
            });
            out.push((known.clone(), devices.collect()));
        }
        out
    }

    /// Pods that have claims.
    pub fn users(&self) -> BTreeSet<String> {
        self.state.lock().values().flat_map(|claim| claim.users.clone()).collect()
    }
}

/// Whether a device is for a request, or for one of the choices that the request left.
fn is_for(device: &ClaimDevice, request: Option<&str>) -> bool {
    let Some(request) = request else { return true };
    let belongs = |name: &String| name == request || name.split_once('/').is_some_and(|(main, _)| main == request);
    device.requests.is_empty() || device.requests.iter().any(belongs)
}

/// All claims of a Pod, and whether they were made for it.
fn claims_of(pod: &Pod) -> Result<Vec<(String, bool)>, String> {
    let listed = pods::spec(pod).resource_claims.iter().flatten();
    let mut out = Vec::new();
    for one in listed {
        out.extend(claim_name(pod, one)?);
    }
    out.extend(extended(pod).map(|claim| (claim.resource_claim_name.clone(), true)));
    Ok(out)
}

/// The claim for extended resources that devices stand for.
fn extended(pod: &Pod) -> Option<&PodExtendedResourceClaimStatus> {
    pod.status.as_ref()?.extended_resource_claim_status.as_ref()
}

/// Claims that a container uses, and the request of the claim, where it is only one.
fn uses(pod: &Pod, container: &Container) -> Vec<(String, Option<String>)> {
    let own = container.resources.iter().flat_map(|resources| resources.claims.iter().flatten());
    let own = own.filter_map(|own| {
        let listed = pods::spec(pod).resource_claims.iter().flatten().find(|one| one.name == own.name)?;
        let (name, _) = claim_name(pod, listed).ok()??;
        Some((name, own.request.clone().filter(|request| !request.is_empty())))
    });
    let extended = extended(pod).into_iter().flat_map(|claim| {
        let mine = claim.request_mappings.iter().filter(|mapping| mapping.container_name == container.name);
        mine.map(|mapping| (claim.resource_claim_name.clone(), Some(mapping.request_name.clone())))
    });
    own.chain(extended).collect()
}

/// The claim that an entry of a Pod stands for, and whether it was made for the Pod; nothing if none is needed.
fn claim_name(pod: &Pod, entry: &PodResourceClaim) -> Result<Option<(String, bool)>, String> {
    if let Some(name) = &entry.resource_claim_name {
        return Ok(Some((name.clone(), false)));
    }
    if entry.resource_claim_template_name.is_none() {
        return Err(format!("pod claim {:?}: unsupported claim source", entry.name));
    }
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref()).unwrap_or_default();
    match statuses.iter().find(|status| status.name == entry.name) {
        None => Err(format!("pod {:?}: resource claim {:?}: not created yet", pods::name(pod), entry.name)),
        Some(status) => Ok(status.resource_claim_name.clone().map(|name| (name, true))),
    }
}

/// Whether the Pod may use a claim; answers the drivers that have to prepare it.
fn check(pod: &Pod, claim: &ResourceClaim, is_own: bool) -> Result<Vec<String>, String> {
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let owned = claim.metadata.owner_references.iter().flatten();
    if is_own && !owned.into_iter().any(|owner| owner.uid == pods::uid(pod) && owner.controller == Some(true)) {
        return Err(format!(
            "ResourceClaim {}/{name} was not created for pod {}/{} (pod is not owner)",
            pods::namespace(pod),
            pods::namespace(pod),
            pods::name(pod)
        ));
    }
    let status = claim.status.as_ref();
    let mut users = status.into_iter().flat_map(|status| status.reserved_for.iter().flatten());
    if !users.any(|user| user.uid == pods::uid(pod)) {
        return Err(format!(
            "pod {} ({}) is not allowed to use ResourceClaim {name} ({})",
            pods::name(pod),
            pods::uid(pod),
            claim.metadata.uid.as_deref().unwrap_or_default()
        ));
    }
    let Some(allocation) = status.and_then(|status| status.allocation.as_ref()) else {
        return Err(format!("ResourceClaim {name} is not allocated"));
    };
    let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    let drivers: BTreeSet<String> = results.map(|result| result.driver.clone()).collect();
    Ok(drivers.into_iter().collect())
}

async fn called<T>(
    driver: &str,
    method: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CriError> {
    let start = Instant::now();
    let result = rpc::limited(DEADLINE, call).await;
    let method = format!("/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/{method}");
    METRICS
        .dra_calls
        .with_label_values(&[driver, &method, &rpc::code_name(&result)])
        .observe(start.elapsed().as_secs_f64());
    Ok(result?.into_inner())
}
