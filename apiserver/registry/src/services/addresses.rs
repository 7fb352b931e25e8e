//! Cluster IPs: each is an `IPAddress` object, so that creating it is what reserves it, for all servers of a cluster.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use generic::{
    resource::{Resource, Swap, decode_cached},
    verbs::context::Moment,
};
use ipnet::Ipv4Net;
use machinery::{ApiError, ApiResult, Reason, field::Path, meta};
use rand::Rng;
use serde_json::{Value, json};
use storage::cache::Freshness;

use super::{invalid, needs_cluster_ip, spec, text};

/// Random tries before the range is searched in order.
const RANDOM_TRIES: usize = 16;

/// Allocates cluster IPs of IPv4 ranges.
pub struct Addresses {
    /// `--service-cluster-ip-range`.
    pub range: Ipv4Net,
    /// The IPAddress objects.
    pub objects: Arc<Resource>,
    /// The ServiceCIDR objects, which add to the range.
    pub cidrs: Arc<Resource>,
}

/// One range that addresses are given out from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pool(Ipv4Net);

impl Pool {
    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.0.network()).wrapping_add(offset))
    }

    /// Addresses that can be given out: all but the network's and the broadcast address.
    fn size(self) -> u32 {
        let bits = 32 - u32::from(self.0.prefix_len());
        1_u32.checked_shl(bits).unwrap_or(u32::MAX).saturating_sub(2)
    }

    /// The lower part, left to those who ask for an address.
    fn reserved(self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() / 2)
    }

    fn gives(self, address: Ipv4Addr) -> bool {
        self.0.contains(&address) && address != self.0.network() && address != self.0.broadcast()
    }
}

/// The IPv4 ranges of a ServiceCIDR that is not being deleted.
fn ranges_of(object: &Value) -> impl Iterator<Item = Ipv4Net> {
    let deleting = meta::is_deleting(object);
    let list = object.pointer("/spec/cidrs").and_then(Value::as_array).filter(|_| !deleting);
    list.into_iter().flatten().filter_map(|range| range.as_str().and_then(|range| range.parse().ok()))
}

/// The first address of a range, that of the `kubernetes` Service.
pub fn first_address(range: Ipv4Net) -> Ipv4Addr {
    Pool(range).at(1)
}

impl Addresses {
    /// The first address, that of the `kubernetes` Service.
    pub fn first(&self) -> Ipv4Addr {
        first_address(self.range)
    }

    /// The server's own range, then those of the ServiceCIDRs.
    async fn pools(&self) -> ApiResult<Vec<Pool>> {
        let mut pools = vec![Pool(self.range)];
        let listed = self.cidrs.cache().list(&self.cidrs.key_prefix("")?, Freshness::Any).await;
        let snapshot = listed.map_err(|error| self.cidrs.store_error(error))?;
        for (_, cached) in snapshot.range(None) {
            for range in ranges_of(&decode_cached(cached)?.object) {
                if !pools.contains(&Pool(range)) {
                    pools.push(Pool(range));
                }
            }
        }
        Ok(pools)
    }

    /// Whether an address is in one of the ranges.
    pub(super) async fn covers(&self, address: Ipv4Addr) -> ApiResult<bool> {
        Ok(self.pools().await?.iter().any(|pool| pool.0.contains(&address)))
    }

    /// Fills `clusterIP`, `clusterIPs`, `ipFamilies`, `ipFamilyPolicy`; answers what was newly reserved.
    pub(super) async fn assign(&self, service: &mut Value, kept: &[String], dry_run: bool) -> ApiResult<Vec<String>> {
        if text(service, "/spec/type") == "ExternalName" {
            return Ok(Vec::new());
        }
        let first = match (text(service, "/spec/clusterIP"), text(service, "/spec/clusterIPs/0")) {
            ("", given) => given.to_owned(),
            (given, _) => given.to_owned(),
        };
        self.families(service)?;
        if !first.is_empty() {
            spec(service).insert("clusterIP".into(), json!(first));
            spec(service).insert("clusterIPs".into(), json!([first]));
        }
        if !needs_cluster_ip(service) || kept.contains(&first) {
            return Ok(Vec::new());
        }
        if dry_run {
            return Ok(Vec::new());
        }
        let address = match first.as_str() {
            "" => self.any(service).await?,
            given => self.given(service, given).await?,
        };
        spec(service).insert("clusterIP".into(), json!(address));
        spec(service).insert("clusterIPs".into(), json!([address]));
        Ok(vec![address])
    }

    fn families(&self, service: &mut Value) -> ApiResult<()> {
        let path = Path::new("spec");
        let headless = text(service, "/spec/clusterIP") == "None" || text(service, "/spec/clusterIPs/0") == "None";
        let unselected = service.pointer("/spec/selector").and_then(Value::as_object).is_none_or(|s| s.is_empty());
        let policy = text(service, "/spec/ipFamilyPolicy").to_owned();
        if headless && unselected && policy.is_empty() {
            spec(service).insert("ipFamilyPolicy".into(), json!("RequireDualStack"));
            spec(service).insert("ipFamilies".into(), json!(["IPv4", "IPv6"]));
            return Ok(());
        }
        let families = service.pointer("/spec/ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
        if let Some(at) = families.iter().position(|f| f == "IPv6").filter(|_| !(headless && unselected)) {
            let value = json!("IPv6");
            return Err(invalid(service, &path.child("ipFamilies").index(at), value, "not configured on this cluster"));
        }
        if policy == "RequireDualStack" && !(headless && unselected) {
            let detail = "this cluster is not configured for dual-stack services";
            return Err(invalid(service, &path.child("ipFamilyPolicy"), json!(policy), detail));
        }
        if policy.is_empty() {
            spec(service).insert("ipFamilyPolicy".into(), json!("SingleStack"));
        }
        if families.is_empty() {
            spec(service).insert("ipFamilies".into(), json!(["IPv4"]));
        }
        Ok(())
    }

    async fn given(&self, service: &Value, address: &str) -> ApiResult<String> {
        let path = Path::new("spec").child("clusterIPs");
        let Ok(IpAddr::V4(parsed)) = address.parse::<IpAddr>() else {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            return Err(invalid(service, &path.index(0), json!(address), detail));
        };
        let pools = self.pools().await?;
        if !pools.iter().any(|pool| pool.gives(parsed)) {
            let why = match pools.iter().find(|pool| pool.0.contains(&parsed)) {
                Some(pool) => format!(
                    "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                    pool.0
                ),
                None => "the provided network does not match the current range".to_owned(),
            };
            let detail = format!("failed to allocate IP {address}: {why}");
            return Err(invalid(service, &path, json!([address]), &detail));
        }
        match self.reserve(parsed, service).await? {
            true => Ok(parsed.to_string()),
            false => {
                let detail = format!("failed to allocate IP {address}: provided IP is already allocated");
                Err(invalid(service, &path, json!([address]), &detail))
            }
        }
    }

    async fn any(&self, service: &Value) -> ApiResult<String> {
        for pool in self.pools().await? {
            if let Some(address) = self.any_of(pool, service).await? {
                return Ok(address.to_string());
            }
        }
        let text = format!("failed to allocate a serviceIP for Service {:?}: range is full", meta::name(service));
        Err(ApiError::new(500, Reason::InternalError, format!("Internal error occurred: {text}")))
    }

    /// A free address of one range, from its upper part while that has one.
    async fn any_of(&self, pool: Pool, service: &Value) -> ApiResult<Option<Ipv4Addr>> {
        let (reserved, size) = (pool.reserved(), pool.size());
        let tries = if reserved < size { RANDOM_TRIES } else { 0 };
        for _ in 0..tries {
            let address = pool.at(rand::rng().random_range(reserved..size) + 1);
            if self.reserve(address, service).await? {
                return Ok(Some(address));
            }
        }
        for offset in (reserved + 1..=size).chain(1..=reserved) {
            if self.reserve(pool.at(offset), service).await? {
                return Ok(Some(pool.at(offset)));
            }
        }
        Ok(None)
    }

    /// Reserves the first address for the `kubernetes` Service.
    pub async fn claim_first(&self, service: &Value) -> ApiResult<bool> {
        self.reserve(self.first(), service).await
    }

    /// Creates the IPAddress; false if it exists.
    pub(super) async fn reserve(&self, address: Ipv4Addr, service: &Value) -> ApiResult<bool> {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IPAddress",
            "metadata": {
                "name": address.to_string(),
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": Moment::now().text,
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": "IPv4",
                    "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                },
            },
            "spec": {"parentRef": {
                "group": "", "resource": "services", "namespace": meta::namespace(service), "name": meta::name(service),
            }},
        });
        Ok(matches!(self.objects.insert(&object).await?, Swap::Done(_)))
    }

    /// Gives addresses back. A failure leaves an IPAddress without its Service, which is logged.
    pub(super) async fn release(&self, addresses: &[String]) {
        for address in addresses {
            let outcome = async {
                while let Some(stored) = self.objects.current("", address).await? {
                    if self.objects.remove("", address, stored.revision).await?.is_ok() {
                        break;
                    }
                }
                Ok::<_, ApiError>(())
            };
            if let Err(error) = outcome.await {
                tracing::warn!(address, %error, "cluster IP is not released");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_give_all_but_their_ends() {
        let pool = Pool("10.0.0.0/28".parse().expect("a range"));
        let given: Vec<bool> = ["10.0.0.0", "10.0.0.1", "10.0.0.14", "10.0.0.15", "10.0.0.16"]
            .iter()
            .map(|address| pool.gives(address.parse().expect("an address")))
            .collect();
        assert_eq!(given, [false, true, true, false, false]);
        assert_eq!((pool.size(), pool.reserved(), pool.at(1).to_string()), (14, 7, "10.0.0.1".to_owned()));
    }

    #[test]
    fn ranges_that_are_going_give_nothing() {
        let mut object = json!({"metadata": {}, "spec": {"cidrs": ["10.1.0.0/24", "fd00::/112"]}});
        assert_eq!(ranges_of(&object).map(|range| range.to_string()).collect::<Vec<_>>(), ["10.1.0.0/24"]);
        object["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        assert_eq!(ranges_of(&object).count(), 0);
    }
}
