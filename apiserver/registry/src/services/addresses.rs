//! Cluster IPs: each is an `IPAddress` object, so that creating it is what reserves it, for all servers of a cluster.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use generic::{
    resource::{Resource, Swap, decode_cached},
    verbs::context::Moment,
};
use ipnet::IpNet;
use machinery::{ApiError, ApiResult, Reason, field::Path, meta};
use rand::Rng;
use serde_json::{Value, json};
use storage::cache::Freshness;

use super::{
    families::{self, family, is_external, is_headless, strings},
    invalid,
    pools::{Pool, is_ready, ranges_of},
    refused, spec, text,
};

/// Random tries before the range is searched in order.
const RANDOM_TRIES: usize = 16;
/// Name of the ServiceCIDR with the server's own ranges.
const DEFAULT: &str = "kubernetes";

/// Allocates cluster IPs.
pub struct Addresses {
    /// `--service-cluster-ip-range`: one, or one of each family. The first one is that of the `kubernetes` Service.
    pub ranges: Vec<IpNet>,
    /// The IPAddress objects.
    pub objects: Arc<Resource>,
    /// The ServiceCIDR objects, which add to the ranges.
    pub cidrs: Arc<Resource>,
}

/// The first address of a range, that of the `kubernetes` Service.
pub fn first_address(range: IpNet) -> IpAddr {
    Pool(range.trunc()).first()
}

/// An address, and whether it was reserved just now.
struct Given(String, bool);

impl Addresses {
    /// The first address, that of the `kubernetes` Service.
    pub fn first(&self) -> Option<IpAddr> {
        self.ranges.first().copied().map(first_address)
    }

    /// The families that the cluster has addresses of; Services get one of the first by default.
    pub fn families(&self) -> Vec<&'static str> {
        self.ranges.iter().map(|range| family(range.addr().is_ipv4())).collect()
    }

    /// The ranges of the ServiceCIDRs that `wanted` is for, and the server's own as long as they have no object.
    async fn pools(&self, wanted: impl Fn(&Value) -> bool) -> ApiResult<Vec<Pool>> {
        let mut pools = Vec::new();
        let mut has_default = false;
        let listed = self.cidrs.cache().list(&self.cidrs.key_prefix("")?, Freshness::Any).await;
        let snapshot = listed.map_err(|error| self.cidrs.store_error(error))?;
        for (_, cached) in snapshot.range(None) {
            let object = decode_cached(cached)?.object;
            has_default |= meta::name(&object) == DEFAULT;
            if wanted(&object) {
                pools.extend(ranges_of(&object));
            }
        }
        if !has_default {
            let own: Vec<Pool> = self.ranges.iter().copied().filter_map(Pool::new).collect();
            pools.splice(0..0, own);
        }
        Ok(pools)
    }

    /// Whether an address is in one of the ranges.
    pub(super) async fn covers(&self, address: IpAddr) -> ApiResult<bool> {
        Ok(self.pools(|_| true).await?.iter().any(|pool| pool.contains(address)))
    }

    /// Fills `clusterIP`, `clusterIPs`, `ipFamilies`, `ipFamilyPolicy`; answers what was newly reserved. What a Service
    /// has stays: whether it may change is for validation.
    pub(super) async fn assign(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> ApiResult<Vec<String>> {
        families::synchronize(service, old);
        families::settle(service, old, &self.families()).map_err(|errors| refused(service, errors))?;
        if is_external(service) || is_headless(service) {
            return Ok(Vec::new());
        }
        let kept = old.filter(|old| !is_external(old)).map_or(0, |old| strings(old, "clusterIPs").len());
        let mut list: Vec<String> = strings(service, "clusterIPs");
        list.retain(|address| !address.is_empty());
        let mut reserved = Vec::new();
        for (at, family) in strings(service, "ipFamilies").iter().enumerate().skip(kept) {
            let given = match list.get(at) {
                Some(address) => self.given(service, address, dry_run).await,
                None => self.any(service, family, dry_run).await,
            };
            match given {
                Ok(Given(address, new)) => {
                    if new {
                        reserved.push(address.clone());
                    }
                    match list.get_mut(at) {
                        Some(place) => *place = address,
                        None => list.push(address),
                    }
                }
                Err(error) => {
                    self.release(&reserved).await;
                    return Err(error);
                }
            }
        }
        if let Some(first) = list.first() {
            spec(service).insert("clusterIP".into(), json!(first));
            spec(service).insert("clusterIPs".into(), json!(list));
        }
        Ok(reserved)
    }

    async fn given(&self, service: &Value, address: &str, dry_run: bool) -> ApiResult<Given> {
        let path = Path::new("spec").child("clusterIPs");
        let list = json!(strings(service, "clusterIPs"));
        let fail =
            |why: &str| invalid(service, &path, list.clone(), &format!("failed to allocate IP {address}: {why}"));
        let Ok(parsed) = address.parse::<IpAddr>() else {
            return Err(fail("the provided network does not match the current range"));
        };
        let pools = self.pools(is_ready).await?;
        if !pools.iter().any(|pool| pool.gives(parsed)) {
            return Err(match pools.iter().find(|pool| pool.contains(parsed)) {
                Some(pool) => fail(&format!(
                    "the provided IP ({parsed}) is not in the valid range. The range of valid IPs is {}",
                    pool.0
                )),
                None => fail("the provided network does not match the current range"),
            });
        }
        if dry_run {
            return Ok(Given(address.to_owned(), false));
        }
        match self.reserve(parsed, service).await? {
            true => Ok(Given(address.to_owned(), true)),
            false => Err(fail("provided IP is already allocated")),
        }
    }

    async fn any(&self, service: &Value, family: &str, dry_run: bool) -> ApiResult<Given> {
        let pools = self.pools(is_ready).await?;
        for pool in pools.into_iter().filter(|pool| pool.family() == family) {
            if dry_run {
                // One that nobody can have.
                return Ok(Given(pool.0.network().to_string(), false));
            }
            if let Some(address) = self.any_of(pool, service).await? {
                return Ok(Given(address.to_string(), true));
            }
        }
        let text = format!("failed to allocate a serviceIP for Service {:?}: range is full", meta::name(service));
        Err(ApiError::new(500, Reason::InternalError, format!("Internal error occurred: {text}")))
    }

    /// A free address of one range, from its upper part while that has one.
    async fn any_of(&self, pool: Pool, service: &Value) -> ApiResult<Option<IpAddr>> {
        let (upper, lower) = pool.bands();
        let tries = if upper.is_empty() { 0 } else { RANDOM_TRIES };
        for _ in 0..tries {
            let address = pool.address(rand::rng().random_range(upper.clone()));
            if self.reserve(address, service).await? {
                return Ok(Some(address));
            }
        }
        let used = self.used().await?;
        for address in upper.chain(lower).map(|number| pool.address(number)) {
            if !used.contains(&address) && self.reserve(address, service).await? {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Addresses that are in use as far as the cache knows: there is no use in trying those.
    async fn used(&self) -> ApiResult<HashSet<IpAddr>> {
        let listed = self.objects.cache().list(&self.objects.key_prefix("")?, Freshness::Any).await;
        let snapshot = listed.map_err(|error| self.objects.store_error(error))?;
        Ok(snapshot.range(None).filter_map(|(_, cached)| cached.index.name().parse().ok()).collect())
    }

    /// Reserves the first address for the `kubernetes` Service.
    pub async fn claim_first(&self, service: &Value) -> ApiResult<bool> {
        match self.first() {
            Some(first) => self.reserve(first, service).await,
            None => Ok(false),
        }
    }

    /// Creates the IPAddress; false if it exists.
    pub(super) async fn reserve(&self, address: IpAddr, service: &Value) -> ApiResult<bool> {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IPAddress",
            "metadata": {
                "name": address.to_string(),
                "uid": uuid::Uuid::new_v4().to_string(),
                "creationTimestamp": Moment::now().text,
                "labels": {
                    "ipaddress.kubernetes.io/ip-family": family(address.is_ipv4()),
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
                // Objects have the canonical name.
                let name = address.parse::<IpAddr>().map_or_else(|_| address.clone(), |address| address.to_string());
                while let Some(stored) = self.objects.current("", &name).await? {
                    if self.objects.remove("", &name, stored.revision).await?.is_ok() {
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

/// The cluster IPs an object holds, in canonical form.
pub(super) fn held_addresses(service: &Value) -> Vec<String> {
    if text(service, "/spec/type") == "ExternalName" {
        return Vec::new();
    }
    let list = strings(service, "clusterIPs").into_iter().filter(|a| !a.is_empty() && a != "None");
    list.map(|a| a.parse::<IpAddr>().map_or(a, |address| address.to_string())).collect()
}
