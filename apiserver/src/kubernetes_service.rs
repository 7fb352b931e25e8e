//! The `kubernetes` Service of namespace `default`: the Service itself, and which servers it leads to.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use generic::resource::Resource;
use machinery::{ApiError, ApiResult};
use registry::services::Addresses;
use serde_json::{Value, json};
use storage::contract::{Expect, Range, Store, StoreError, Written};
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{ensure, keep};

/// Pause before a failed round is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the endpoints are looked after.
const ROUND: Duration = Duration::from_secs(10);
/// Time after which a server that does not say that it is there is taken for gone.
const LEASE: Duration = Duration::from_secs(15);
/// Time that a stopping server takes to leave.
const LEAVING: Duration = Duration::from_secs(5);
const SERVICE: &str = "kubernetes";

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
    pub(crate) async fn run(self, stop: CancellationToken) {
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
        match tokio::time::timeout(LEAVING, self.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot remove this server from the kubernetes Service"),
            Err(_) => tracing::warn!("no time to remove this server from the kubernetes Service"),
        }
    }

    async fn reconcile(&self) -> ApiResult<()> {
        let range = self.addresses.range.to_string();
        let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": SERVICE}, "spec": {"cidrs": [range]}});
        ensure(&self.cidrs, cidr).await?;
        let service = self.service();
        if ensure(&self.services, service.clone()).await?.is_none() {
            self.addresses.claim_first(&service).await?;
        }
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

    fn service(&self) -> Value {
        let first = self.addresses.first();
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let mut port = json!({"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.port});
        let mut kind = "ClusterIP";
        if self.node_port != 0 {
            port["nodePort"] = json!(self.node_port);
            kind = "NodePort";
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": SERVICE, "namespace": "default", "labels": labels},
            "spec": {
                "type": kind, "clusterIP": first, "clusterIPs": [first],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "ports": [port],
            },
        })
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
        let skip = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
        let addresses: Vec<Value> = servers.iter().map(|ip| json!({"ip": ip})).collect();
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": SERVICE, "namespace": "default", "labels": skip},
            "subsets": [{
                "addresses": addresses,
                "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
            }],
        });
        keep(&self.endpoints, endpoints, "subsets").await?;
        let ready = |ip: &IpAddr| json!({"addresses": [ip], "conditions": {"ready": true}});
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": SERVICE, "namespace": "default", "labels": {"kubernetes.io/service-name": SERVICE}},
            "addressType": if self.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": servers.iter().map(ready).collect::<Vec<_>>(),
            "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
        });
        keep(&self.slices, slice, "endpoints").await
    }

    /// Takes this server out. The last one stays: no endpoints at all would be worse.
    async fn leave(&self) -> ApiResult<()> {
        let mut others = match self.reconciler {
            Reconciler::None => return Ok(()),
            Reconciler::Lease => {
                if let (Some(own), _) = self.store.get(&self.key()).await.map_err(failed)? {
                    // Whoever wrote it since is another server with our address: it is there.
                    let _gone =
                        self.store.delete(&self.key(), Expect::Revision(own.mod_revision)).await.map_err(failed)?;
                }
                self.leased().await?
            }
            Reconciler::Count(_) => self.present().await?,
        };
        others.remove(&self.advertise);
        if others.is_empty() {
            tracing::info!("the last server stays among the endpoints of the kubernetes Service");
            return Ok(());
        }
        self.publish(&others).await
    }
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
}
