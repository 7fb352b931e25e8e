//! The `kubernetes` Service of namespace `default`: the Service itself, and which servers it leads to.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use generic::{
    resource::{Resource, Swap},
    verbs::context::Moment,
};
use machinery::{ApiError, ApiResult, meta};
use registry::services::{Addresses, Events};
use runtime::health::HealthChecks;
use serde_json::{Value, json};
use storage::contract::{Expect, Range, Store, StoreError, Written};
use tokio_util::sync::CancellationToken;

use crate::bootstrap::ensure;

/// Pause before a failed round is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the endpoints are looked after.
const ROUND: Duration = Duration::from_secs(10);
/// Time after which a server that does not say that it is there is taken for gone.
const LEASE: Duration = Duration::from_secs(15);
/// Time that a stopping server takes to leave.
const LEAVING: Duration = Duration::from_secs(20);
/// How often it is looked whether the server is ready.
const READY_POLL: Duration = Duration::from_millis(100);
const SERVICE: &str = "kubernetes";
/// Who tells of the default ServiceCIDR, and what.
const RANGES: &str = "kubernetes-service-cidr-controller";
const INCONSISTENT: &str = "KubernetesDefaultServiceCIDRInconsistent";
const SKIP_LABEL: &str = "endpointslice.kubernetes.io/skip-mirror";
const SLICE_LABEL: &str = "kubernetes.io/service-name";

/// How it is known which servers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reconciler {
    /// Every server keeps a key of its own that expires.
    Lease,
    /// There are as many as `--apiserver-count` says, and each adds itself.
    Count(usize),
    /// Somebody else looks after the endpoints.
    None,
}

/// What is kept.
pub(crate) struct KubernetesService {
    pub(crate) services: Arc<Resource>,
    pub(crate) endpoints: Arc<Resource>,
    pub(crate) slices: Arc<Resource>,
    pub(crate) cidrs: Arc<Resource>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) events: Arc<Events>,
    pub(crate) advertise: IpAddr,
    pub(crate) port: u16,
    /// Port of the Service on every node; 0 for none.
    pub(crate) node_port: u16,
    pub(crate) reconciler: Reconciler,
    pub(crate) store: Arc<dyn Store>,
    /// What the keys of servers begin with.
    pub(crate) leases: String,
}

fn failed(error: StoreError) -> ApiError {
    ApiError::internal(error)
}

impl KubernetesService {
    /// Keeps the Service and its endpoints right until `stop`, and takes this server out then.
    ///
    /// What an earlier process with this address has left goes first: clients shall not be sent here before the server
    /// is ready.
    pub(crate) async fn run(self, health: HealthChecks, stop: CancellationToken) {
        if let Err(error) = self.leave(Leaving::Stale).await {
            tracing::warn!(%error, "cannot remove what an earlier server left of the kubernetes Service");
        }
        if let Err(error) = self.keep_service().await {
            tracing::info!(%error, "the kubernetes Service is not there yet");
        }
        while !stop.is_cancelled() && !health.is_ready() {
            stop.run_until_cancelled(tokio::time::sleep(READY_POLL)).await;
        }
        while !stop.is_cancelled() {
            let pause = match self.reconcile().await {
                Ok(()) => ROUND,
                Err(error) => {
                    tracing::warn!(%error, "the kubernetes Service is not up to date");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        match tokio::time::timeout(LEAVING, self.leave(Leaving::Stopping)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot remove this server from the kubernetes Service"),
            Err(_) => tracing::warn!("no time to remove this server from the kubernetes Service"),
        }
    }

    async fn reconcile(&self) -> ApiResult<()> {
        self.keep_service().await?;
        let servers = match self.reconciler {
            Reconciler::None => return Ok(()),
            Reconciler::Lease => {
                self.renew().await?;
                self.leased().await?
            }
            Reconciler::Count(count) => counted(self.present().await?, self.advertise, count),
        };
        self.publish(&servers).await
    }

    /// Makes the Service if it is not there; one that is there is left alone.
    async fn keep_service(&self) -> ApiResult<()> {
        self.keep_range().await?;
        let Some(service) = self.service() else { return Ok(()) };
        // The address first: a Service without one would be taken for broken.
        if self.services.starting_point("default", SERVICE).await?.is_none() {
            self.addresses.claim_first(&service).await?;
            ensure(&self.services, service).await?;
        }
        Ok(())
    }

    /// Makes the ServiceCIDR of the ranges that the server was started with, and says that it is ready. One that lacks
    /// the second range gets it; one with other ranges stays as it is, and the operator hears of it.
    async fn keep_range(&self) -> ApiResult<()> {
        let wanted: Vec<String> = self.addresses.ranges.iter().map(ToString::to_string).collect();
        let fresh = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": SERVICE}, "spec": {"cidrs": wanted}});
        let mut present = self.cidrs.starting_point("", SERVICE).await?;
        if present.is_none() {
            ensure(&self.cidrs, fresh).await?;
            present = self.cidrs.current("", SERVICE).await?;
        }
        let Some(stored) = &present else { return Ok(()) };
        if let Some(other) = inconsistent(&stored.object, &wanted) {
            let note = format!(
                "The default ServiceCIDR [{}] does not match the flag configurations [{}]",
                other.join(" "),
                wanted.join(" ")
            );
            self.events.warn(RANGES, &stored.object, (INCONSISTENT, INCONSISTENT), &note).await;
        }
        let now = Moment::now().text;
        self.cidrs.amend(present, |stored| kept_range(stored, &wanted, &now)).await
    }

    fn service(&self) -> Option<Value> {
        let first = self.addresses.first()?;
        let family = *self.addresses.families().first()?;
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let mut port = json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.port});
        let mut kind = "ClusterIP";
        if self.node_port != 0 {
            port["nodePort"] = json!(self.node_port);
            kind = "NodePort";
        }
        Some(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": SERVICE, "namespace": "default", "labels": labels},
            "spec": {
                "type": kind, "clusterIP": first, "clusterIPs": [first],
                "ipFamilies": [family], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "ports": [port],
            },
        }))
    }

    fn key(&self) -> String {
        format!("{}{}", self.leases, self.advertise)
    }

    /// Says that this server is there.
    async fn renew(&self) -> ApiResult<()> {
        let key = self.key();
        let object = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {},
            "subsets": [{"addresses": [{"ip": self.advertise}]}]});
        let value = Bytes::from(api::encode::encode(&object).map_err(ApiError::internal)?);
        let mut expect = match self.store.get(&key).await.map_err(failed)?.0 {
            Some(present) => Expect::Revision(present.mod_revision),
            None => Expect::Absent,
        };
        loop {
            match self.store.put(&key, value.clone(), expect, Some(LEASE)).await.map_err(failed)? {
                Written::Done { .. } => return Ok(()),
                Written::Mismatch { current: Some(current) } => expect = Expect::Revision(current.mod_revision),
                Written::Mismatch { current: None } => expect = Expect::Absent,
            }
        }
    }

    /// Servers that say that they are there.
    async fn leased(&self) -> ApiResult<BTreeSet<IpAddr>> {
        let range = Range { prefix: &self.leases, ..Range::default() };
        let page = self.store.range(range).await.map_err(failed)?;
        Ok(page.items.iter().filter_map(|item| item.key.strip_prefix(&self.leases)?.parse().ok()).collect())
    }

    /// Servers among the endpoints.
    async fn present(&self) -> ApiResult<BTreeSet<IpAddr>> {
        let Some(stored) = self.endpoints.starting_point("default", SERVICE).await? else { return Ok(BTreeSet::new()) };
        let addresses = stored.object.pointer("/subsets/0/addresses").and_then(Value::as_array);
        let ip = |address: &Value| address["ip"].as_str()?.parse().ok();
        Ok(addresses.into_iter().flatten().filter_map(ip).collect())
    }

    async fn publish(&self, servers: &BTreeSet<IpAddr>) -> ApiResult<()> {
        let fresh = endpoints(servers, self.port);
        let mut subset = fresh["subsets"][0].clone();
        let present = ensure(&self.endpoints, fresh).await?;
        let correct = |stored: &Value| {
            let new = corrected(stored, servers, self.port);
            subset = new["subsets"][0].clone();
            (new != *stored).then_some(new)
        };
        self.endpoints.amend(present, correct).await?;
        self.publish_slice(servers, &subset["ports"]).await
    }

    /// The slice says what the Endpoints say.
    async fn publish_slice(&self, servers: &BTreeSet<IpAddr>, ports: &Value) -> ApiResult<()> {
        let ready = |ip: &IpAddr| json!({"addresses": [ip], "conditions": {"ready": true}});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": SERVICE, "namespace": "default", "labels": {SLICE_LABEL: SERVICE}},
            "addressType": if self.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": servers.iter().map(ready).collect::<Vec<_>>(),
            "ports": ports,
        });
        let mut present = ensure(&self.slices, slice.clone()).await?;
        while let Some(stored) = present.take() {
            // The type of addresses cannot change.
            if stored.object["addressType"] != slice["addressType"] {
                present = match self.slices.remove("default", SERVICE, stored.revision).await? {
                    Ok(_) => ensure(&self.slices, slice.clone()).await?,
                    Err(current) => current,
                };
                continue;
            }
            let mut new = stored.object.clone();
            for field in ["endpoints", "ports"] {
                new[field] = slice[field].clone();
            }
            set_label(&mut new, SLICE_LABEL, SERVICE);
            if new == stored.object {
                break;
            }
            if let Swap::Lost(current) = self.slices.replace(&new, stored.revision).await? {
                present = current;
            }
        }
        Ok(())
    }

    /// Takes this server out. The last one stays: no endpoints at all would be worse.
    async fn leave(&self, why: Leaving) -> ApiResult<()> {
        let mut others = match self.reconciler {
            Reconciler::None => return Ok(()),
            Reconciler::Lease => {
                match self.store.get(&self.key()).await.map_err(failed)?.0 {
                    Some(own) => {
                        // Whoever wrote it since is another server with our address: it is there.
                        let _gone =
                            self.store.delete(&self.key(), Expect::Revision(own.mod_revision)).await.map_err(failed)?;
                    }
                    None if why == Leaving::Stale => return Ok(()),
                    None => {}
                }
                self.leased().await?
            }
            Reconciler::Count(_) => self.present().await?,
        };
        let was_there = others.remove(&self.advertise);
        if others.is_empty() {
            tracing::info!("the last server stays among the endpoints of the kubernetes Service");
            return Ok(());
        }
        if why == Leaving::Stale && !was_there && matches!(self.reconciler, Reconciler::Count(_)) {
            return Ok(());
        }
        self.publish(&others).await
    }
}

/// Why a server is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// An earlier process with its address did not take itself out.
    Stale,
    /// It stops.
    Stopping,
}

fn ranges_of(cidr: &Value) -> Vec<String> {
    let list = cidr.pointer("/spec/cidrs").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether a ServiceCIDR is to get the second range.
fn lacks_second(present: &[String], wanted: &[String]) -> bool {
    present.len() == 1 && wanted.len() == 2 && present.first() == wanted.first()
}

/// The ranges of a ServiceCIDR that are not the wanted ones and cannot be made so.
fn inconsistent(cidr: &Value, wanted: &[String]) -> Option<Vec<String>> {
    let present = ranges_of(cidr);
    (!meta::is_deleting(cidr) && present != wanted && !lacks_second(&present, wanted)).then_some(present)
}

/// The ServiceCIDR as it has to be, if it is not so.
fn kept_range(cidr: &Value, wanted: &[String], now: &str) -> Option<Value> {
    if meta::is_deleting(cidr) {
        return None;
    }
    let mut new = cidr.clone();
    let present = ranges_of(cidr);
    if lacks_second(&present, wanted) {
        new["spec"]["cidrs"] = json!(wanted);
        let generation = cidr["metadata"]["generation"].as_i64().unwrap_or(0);
        new["metadata"]["generation"] = json!(generation.saturating_add(1));
    }
    let conditions = cidr.pointer("/status/conditions").and_then(Value::as_array);
    let told = conditions.is_some_and(|list| list.iter().any(|condition| condition["type"] == "Ready"));
    if !told && (present == wanted || lacks_second(&present, wanted)) {
        let mut list = conditions.cloned().unwrap_or_default();
        list.push(json!({"type": "Ready", "status": "True", "reason": "", "lastTransitionTime": now,
            "message": "Kubernetes default Service CIDR is ready"}));
        if !new["status"].is_object() {
            new["status"] = json!({});
        }
        new["status"]["conditions"] = json!(list);
    }
    (new != *cidr).then_some(new)
}

fn addresses_of(servers: &BTreeSet<IpAddr>) -> Value {
    servers.iter().map(|ip| json!({"ip": ip})).collect()
}

/// The Endpoints of servers.
fn endpoints(servers: &BTreeSet<IpAddr>, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": SERVICE, "namespace": "default", "labels": {SKIP_LABEL: "true"}},
        "subsets": [{
            "addresses": addresses_of(servers),
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    })
}

/// Endpoints that are there, with these servers. Ports stay as they are where there is one subset.
fn corrected(present: &Value, servers: &BTreeSet<IpAddr>, port: u16) -> Value {
    let mut new = present.clone();
    set_label(&mut new, SKIP_LABEL, "true");
    match new["subsets"].as_array().map_or(0, Vec::len) {
        1 => {
            let ips = |list: &Value| -> BTreeSet<IpAddr> {
                let ip = |address: &Value| address["ip"].as_str()?.parse().ok();
                list.as_array().into_iter().flatten().filter_map(ip).collect()
            };
            let subset = &mut new["subsets"][0];
            if ips(&subset["addresses"]) != *servers {
                subset["addresses"] = addresses_of(servers);
            }
        }
        _ => new["subsets"] = endpoints(servers, port)["subsets"].clone(),
    }
    new
}

fn set_label(object: &mut Value, key: &str, value: &str) {
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"][key] = json!(value);
}

/// The servers when this one has joined: at most `count`, and this one among them.
fn counted(mut present: BTreeSet<IpAddr>, own: IpAddr, count: usize) -> BTreeSet<IpAddr> {
    present.insert(own);
    while present.len() > count.max(1) {
        let Some(surplus) = present.iter().copied().find(|ip| *ip != own) else { break };
        present.remove(&surplus);
    }
    present
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_servers_as_were_told() {
        let ip = |n: u8| IpAddr::from([10, 0, 0, n]);
        for (present, count, expected) in [
            (vec![], 1, vec![5]),
            (vec![1], 1, vec![5]),
            (vec![1], 2, vec![1, 5]),
            (vec![1, 2, 3], 3, vec![2, 3, 5]),
            (vec![5, 7], 2, vec![5, 7]),
            (vec![7], 0, vec![5]),
        ] {
            let set = |list: &[u8]| list.iter().map(|n| ip(*n)).collect::<BTreeSet<_>>();
            assert_eq!(counted(set(&present), ip(5), count), set(&expected), "{present:?} {count}");
        }
    }

    #[test]
    fn the_default_range_gains_a_second_one() {
        let cidr = |ranges: &[&str], ready: bool| {
            let mut object = json!({"metadata": {"name": SERVICE, "generation": 1}, "spec": {"cidrs": ranges}});
            if ready {
                object["status"] = json!({"conditions": [{"type": "Ready", "status": "False"}]});
            }
            object
        };
        let both = ["10.0.0.0/24", "fd00::/112"];
        let wanted = both.map(str::to_owned);
        let kept = |object: &Value| kept_range(object, &wanted, "now").map(|new| (ranges_of(&new), new));
        let (ranges, new) = kept(&cidr(&both[..1], false)).expect("it changes");
        assert_eq!((ranges.as_slice(), &new["metadata"]["generation"]), (wanted.as_slice(), &json!(2)));
        assert_eq!(new["status"]["conditions"][0]["message"], "Kubernetes default Service CIDR is ready");
        assert_eq!(kept(&new), None);
        assert_eq!(kept(&cidr(&both, true)), None, "what somebody else said stays");
        for (ranges, expected) in [
            (&both[..1], None),
            (&both[..], None),
            (&both[1..], Some(1)),
            (&["fd00::/112", "10.0.0.0/24"][..], Some(2)),
            (&["10.1.0.0/24"][..], Some(1)),
        ] {
            assert_eq!(inconsistent(&cidr(ranges, false), &wanted).map(|list| list.len()), expected, "{ranges:?}");
        }
        assert_eq!(kept(&cidr(&["10.1.0.0/24"], false)), None);
        let mut going = cidr(&both[..1], false);
        going["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        assert_eq!((kept(&going), inconsistent(&going, &wanted)), (None, None));
    }

    #[test]
    fn ports_stay_where_the_form_is_right() {
        let servers: BTreeSet<IpAddr> = [IpAddr::from([10, 0, 0, 1])].into();
        let fresh = endpoints(&servers, 6443);
        assert_eq!(corrected(&fresh, &servers, 7443), fresh);
        let mut other = fresh.clone();
        other["subsets"][0]["addresses"] = json!([{"ip": "10.0.0.9"}]);
        other["metadata"]["labels"] = Value::Null;
        assert_eq!(corrected(&other, &servers, 7443), fresh);
        for subsets in [json!([]), json!([fresh["subsets"][0], fresh["subsets"][0]]), Value::Null] {
            other["subsets"] = subsets;
            assert_eq!(corrected(&other, &servers, 7443)["subsets"], endpoints(&servers, 7443)["subsets"]);
        }
    }
}
