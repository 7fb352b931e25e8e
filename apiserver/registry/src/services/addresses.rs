//! Cluster IPs: each is an `IPAddress` object, so that creating it is what reserves it, for all servers of a cluster.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use generic::{
    resource::{Resource, Swap},
    verbs::context::Moment,
};
use ipnet::Ipv4Net;
use machinery::{ApiError, ApiResult, Reason, field::Path, meta};
use rand::Rng;
use serde_json::{Value, json};

use super::{invalid, needs_cluster_ip, spec, text};

/// Random tries before the range is searched in order.
const RANDOM_TRIES: usize = 16;

/// Allocates cluster IPs of one IPv4 range.
pub struct Addresses {
    /// `--service-cluster-ip-range`.
    pub range: Ipv4Net,
    /// The IPAddress objects.
    pub objects: Arc<Resource>,
}

impl Addresses {
    /// The first address, that of the `kubernetes` Service.
    pub fn first(&self) -> Ipv4Addr {
        self.at(1)
    }

    fn at(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.range.network()).wrapping_add(offset))
    }

    /// Addresses that can be given out: all but the network's and the broadcast address.
    fn size(&self) -> u32 {
        let bits = 32 - u32::from(self.range.prefix_len());
        1_u32.checked_shl(bits).unwrap_or(u32::MAX).saturating_sub(2)
    }

    /// The lower part, left to those who ask for an address.
    fn reserved(&self) -> u32 {
        (self.size() / 16).clamp(16, 256).min(self.size() / 2)
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
        if !self.range.contains(&parsed) || parsed == self.range.network() || parsed == self.range.broadcast() {
            let detail = format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. \
                 The range of valid IPs is {}",
                self.range
            );
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
        let (reserved, size) = (self.reserved(), self.size());
        for _ in 0..RANDOM_TRIES {
            let offset = rand::rng().random_range(reserved..size) + 1;
            if self.reserve(self.at(offset), service).await? {
                return Ok(self.at(offset).to_string());
            }
        }
        for offset in (reserved + 1..=size).chain(1..=reserved) {
            if self.reserve(self.at(offset), service).await? {
                return Ok(self.at(offset).to_string());
            }
        }
        let text = format!("failed to allocate a serviceIP for Service {:?}: range is full", meta::name(service));
        Err(ApiError::new(500, Reason::InternalError, format!("Internal error occurred: {text}")))
    }

    /// Reserves the first address for the `kubernetes` Service.
    pub async fn claim_first(&self, service: &Value) -> ApiResult<bool> {
        self.reserve(self.first(), service).await
    }

    /// Creates the IPAddress; false if it exists.
    async fn reserve(&self, address: Ipv4Addr, service: &Value) -> ApiResult<bool> {
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
