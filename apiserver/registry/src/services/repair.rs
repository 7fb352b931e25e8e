//! What allocations and Services say of each other is made to agree: a server may die between the two.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use generic::resource::{Resource, decode_cached};
use machinery::{ApiResult, meta};
use serde_json::Value;
use storage::cache::Freshness;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::{Addresses, Events, NodePorts, families::family, held_addresses, held_ports, text};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(3 * 60);
/// Age from which an address without its Service is no longer one that is being created.
const GRACE: time::Duration = time::Duration::seconds(60);
/// Looks after which a port that nobody has is given back.
const SIGHTINGS: u8 = 3;
/// Who tells of addresses, and of ports.
const ADDRESSES: &str = "ipallocator-repair-controller";
const PORTS: &str = "portallocator-repair-controller";
const MANAGED_BY: &str = "/metadata/labels/ipaddress.kubernetes.io~1managed-by";

/// Repairs allocations.
pub struct Repair {
    /// Cluster IPs.
    pub addresses: Arc<Addresses>,
    /// Node ports.
    pub ports: Arc<NodePorts>,
    /// The Services.
    pub services: Arc<Resource>,
    /// Where the operator is told.
    pub events: Arc<Events>,
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
        self.ports(&services, leaks).await
    }

    async fn tell_address(&self, about: &Value, reason: &str, note: &str) {
        let action = if reason == "ClusterIPNotValid" { "ClusterIPValidation" } else { "ClusterIPAllocation" };
        self.events.warn(ADDRESSES, about, (reason, action), note).await;
    }

    async fn tell_port(&self, about: &Value, reason: &str, note: &str) {
        self.events.warn(PORTS, about, (reason, "PortAllocation"), note).await;
    }

    async fn ports(&self, services: &[Value], leaks: &mut HashMap<u16, u8>) -> ApiResult<()> {
        let mut owners: HashMap<u16, &Value> = HashMap::new();
        for service in services {
            for port in held_ports(service) {
                if !self.ports.range.contains(&port) {
                    let (first, last) = (self.ports.range.start(), self.ports.range.end());
                    let note =
                        format!("Port {port} is not within the port range {first}-{last}; please recreate service");
                    self.tell_port(service, "PortOutOfRange", &note).await;
                } else if owners.insert(port, service).is_some() {
                    let note = format!("Port {port} was assigned to multiple services; please recreate service");
                    self.tell_port(service, "PortAlreadyAllocated", &note).await;
                }
            }
        }
        let used: HashSet<u16> = owners.keys().copied().collect();
        for port in self.ports.repair(&used, leaks, SIGHTINGS).await? {
            if let Some(service) = owners.get(&port) {
                self.tell_port(service, "PortNotAllocated", &format!("Port {port} is not allocated; repairing")).await;
            }
        }
        Ok(())
    }

    /// Addresses that Services have without an allocation.
    async fn missing(&self, allocated: &[Value], services: &[Value]) -> ApiResult<()> {
        let known: BTreeMap<&str, &Value> = allocated.iter().map(|object| (meta::name(object), object)).collect();
        let mut seen: HashSet<IpAddr> = HashSet::new();
        for service in services {
            for address in held_addresses(service) {
                let Ok(parsed) = address.parse::<IpAddr>() else {
                    let note = format!("Cluster IP {address} is not a valid IP; please recreate Service");
                    self.tell_address(service, "ClusterIPNotValid", &note).await;
                    continue;
                };
                self.address(service, parsed, known.get(address.as_str()).copied(), seen.insert(parsed), services)
                    .await?;
            }
        }
        Ok(())
    }

    /// One address of a Service. `first` says that no other Service with it was seen.
    async fn address(
        &self,
        service: &Value,
        address: IpAddr,
        present: Option<&Value>,
        first: bool,
        services: &[Value],
    ) -> ApiResult<()> {
        let family = family(address.is_ipv4());
        if !self.addresses.covers(address).await? {
            let note = format!(
                "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
            );
            self.tell_address(service, "ClusterIPOutOfRange", &note).await;
            return Ok(());
        }
        let own = present.is_some_and(|p| owner(p) == Some((meta::namespace(service), meta::name(service))));
        let taken = present.is_some_and(|object| !own && !self.is_orphan(object, services));
        if !first || taken {
            let note =
                format!("Cluster IP [{family}]: {address} was assigned to multiple services; please recreate service");
            self.tell_address(service, "ClusterIPAlreadyAllocated", &note).await;
        } else if !own {
            let note = format!("Cluster IP [{family}]: {address} is not allocated; repairing");
            self.tell_address(service, "ClusterIPNotAllocated", &note).await;
            if present.is_some() {
                self.addresses.release(&[address.to_string()]).await;
            }
            self.addresses.reserve(address, service).await?;
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
            let (namespace, name) = owner(object).unwrap_or_default();
            let note =
                format!("IPAddress: {address} for Service {namespace}/{name} appears to have leaked: cleaning up");
            self.events.warn(ADDRESSES, object, ("IPAddressNotAllocated", "IPAddressAllocation"), &note).await;
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
