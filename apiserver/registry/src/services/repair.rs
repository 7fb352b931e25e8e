//! What allocations and Services say of each other is made to agree: a server may die between the two.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use generic::resource::{Resource, decode_cached};
use machinery::{ApiResult, meta};
use serde_json::Value;
use storage::cache::Freshness;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{Addresses, NodePorts, held_addresses, held_ports, text};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(3 * 60);
/// Age from which an address without its Service is no longer one that is being created.
const GRACE: time::Duration = time::Duration::seconds(60);
/// Looks after which a port that nobody has is given back.
const SIGHTINGS: u8 = 3;
const MANAGED_BY: &str = "/metadata/labels/ipaddress.kubernetes.io~1managed-by";

/// Repairs allocations.
pub struct Repair {
    /// Cluster IPs.
    pub addresses: Arc<Addresses>,
    /// Node ports.
    pub ports: Arc<NodePorts>,
    /// The Services.
    pub services: Arc<Resource>,
}

impl Repair {
    /// Looks again and again until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut leaks = HashMap::new();
        loop {
            if let Err(error) = self.look(&mut leaks).await {
                tracing::warn!(%error, "allocations of Services are not repaired");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// One look. Addresses are read before Services: one that has its Service by then is not taken for a leak.
    async fn look(&self, leaks: &mut HashMap<u16, u8>) -> ApiResult<()> {
        let allocated = list(&self.addresses.objects).await?;
        let services = list(&self.services).await?;
        self.missing(&allocated, &services).await?;
        self.leaked(&allocated, &services).await?;
        let used: HashSet<u16> = services.iter().flat_map(held_ports).collect();
        self.ports.repair(&used, leaks, SIGHTINGS).await
    }

    /// Addresses that Services have without an allocation.
    async fn missing(&self, allocated: &[Value], services: &[Value]) -> ApiResult<()> {
        let known: BTreeMap<&str, &Value> = allocated.iter().map(|object| (meta::name(object), object)).collect();
        let mut seen: HashMap<Ipv4Addr, String> = HashMap::new();
        for service in services {
            let who = format!("{}/{}", meta::namespace(service), meta::name(service));
            for address in held_addresses(service) {
                let Ok(IpAddr::V4(parsed)) = address.parse::<IpAddr>() else { continue };
                if let Some(other) = seen.insert(parsed, who.clone()) {
                    tracing::warn!(service = %who, %address, %other, "ClusterIPAlreadyAllocated");
                    continue;
                }
                if !self.addresses.covers(parsed).await? {
                    tracing::warn!(service = %who, %address, "ClusterIPOutOfRange");
                    continue;
                }
                match known.get(address.as_str()) {
                    Some(object) if owner(object) == Some((meta::namespace(service), meta::name(service))) => {}
                    Some(object) if !self.is_orphan(object, services) => {
                        tracing::warn!(service = %who, %address, "ClusterIPAlreadyAllocated");
                    }
                    present => {
                        tracing::warn!(service = %who, %address, "ClusterIPNotAllocated");
                        if present.is_some() {
                            self.addresses.release(std::slice::from_ref(&address)).await;
                        }
                        self.addresses.reserve(parsed, service).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Allocations of Services that are gone or have another address.
    async fn leaked(&self, allocated: &[Value], services: &[Value]) -> ApiResult<()> {
        for object in allocated.iter().filter(|object| self.is_orphan(object, services)) {
            let address = meta::name(object).to_owned();
            if services.iter().any(|service| held_addresses(service).contains(&address)) {
                continue;
            }
            tracing::warn!(%address, "IPAddressNotAllocated");
            self.addresses.release(&[address]).await;
        }
        Ok(())
    }

    /// Whether an allocation of ours has been without its Service for a while.
    fn is_orphan(&self, object: &Value, services: &[Value]) -> bool {
        let ours = object.pointer(MANAGED_BY).and_then(Value::as_str) == Some("ipallocator.k8s.io");
        let created = machinery::time::parse(meta::text(object, "creationTimestamp")).ok();
        let old = created.is_none_or(|created| OffsetDateTime::now_utc() - created > GRACE);
        let address = meta::name(object);
        let held = owner(object).is_some_and(|(namespace, name)| {
            services.iter().any(|service| {
                meta::namespace(service) == namespace
                    && meta::name(service) == name
                    && held_addresses(service).iter().any(|held| held == address)
            })
        });
        ours && old && !held
    }
}

/// Namespace and name of the Service that an address belongs to.
fn owner(object: &Value) -> Option<(&str, &str)> {
    let parent = object.pointer("/spec/parentRef")?;
    let of_services = text(parent, "/group").is_empty() && text(parent, "/resource") == "services";
    of_services.then(|| (text(parent, "/namespace"), text(parent, "/name")))
}

async fn list(resource: &Resource) -> ApiResult<Vec<Value>> {
    let listed = resource.cache().list(&resource.key_prefix("")?, Freshness::Latest).await;
    let snapshot = listed.map_err(|error| resource.store_error(error))?;
    snapshot.range(None).map(|(_, cached)| decode_cached(cached).map(|stored| stored.object)).collect()
}
