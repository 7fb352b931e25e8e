//! The node's heartbeat.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client};
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::api::{CallError, Reconnect, limited};

const NAMESPACE: &str = "kube-node-lease";
const UPDATE_TRIES: u32 = 5;
/// Calls without an answer after which connections are no longer trusted.
const DEAD_AFTER: u32 = 2;
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(7));

/// Renews the lease of a node.
pub struct LeaseLoop {
    client: Client,
    node: String,
    seconds: i32,
    reconnect: Reconnect,
    unanswered: AtomicU32,
}

impl LeaseLoop {
    /// For a node; `seconds` until others think it gone. Connections that carry no answers are given up for all.
    pub fn new(client: Client, node: String, seconds: i32, reconnect: Reconnect) -> Self {
        Self { client, node, seconds, reconnect, unanswered: AtomicU32::new(0) }
    }

    /// Renews a quarter of the duration apart, until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let period = Duration::from_secs(u64::try_from(self.seconds).unwrap_or(40)) / 4;
        let mut latest: Option<Lease> = None;
        loop {
            match self.renew(latest.take()).await {
                Ok(lease) => latest = Some(lease),
                Err(error) => tracing::warn!(%error, "failed to update node lease"),
            }
            let jittered = period.mul_f64(rand::rng().random_range(1.0..1.04));
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(jittered) => {}
            }
        }
    }

    async fn renew(&self, latest: Option<Lease>) -> Result<Lease, CallError> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), NAMESPACE);
        let mut lease = match latest {
            Some(lease) => lease,
            None => self.ensure(&api).await?,
        };
        let mut tries = 0;
        loop {
            let next = self.renewed(&lease).await;
            match self.call(api.replace(&self.node, &PostParams::default(), &next)).await {
                Err(error) if tries + 1 < UPDATE_TRIES => {
                    tries += 1;
                    tracing::debug!(%error, "lease update");
                    lease = self.ensure(&api).await?;
                }
                other => return other,
            }
        }
    }

    /// A call; several in a row that nobody answers end all connections, watches included.
    async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallError> {
        let result = limited(call).await;
        let unanswered = result.as_ref().is_err_and(|error| error.code().is_none());
        if !unanswered {
            self.unanswered.store(0, Ordering::Relaxed);
        } else if self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 == DEAD_AFTER {
            tracing::warn!("no answers from the apiserver, closing all connections to it");
            self.unanswered.store(0, Ordering::Relaxed);
            self.reconnect.reconnect().await;
        }
        result
    }

    /// Reads the lease, or makes it.
    async fn ensure(&self, api: &Api<Lease>) -> Result<Lease, CallError> {
        let mut delay = BACKOFF.0;
        let mut tries = 0;
        loop {
            let result = match self.call(api.get_opt(&self.node)).await {
                Ok(Some(lease)) => return Ok(lease),
                Ok(None) => {
                    let empty = Lease {
                        metadata: ObjectMeta {
                            name: Some(self.node.clone()),
                            namespace: Some(NAMESPACE.to_owned()),
                            ..ObjectMeta::default()
                        },
                        spec: None,
                    };
                    let fresh = self.renewed(&empty).await;
                    self.call(api.create(&PostParams::default(), &fresh)).await
                }
                Err(error) => Err(error),
            };
            tries += 1;
            match result {
                Err(_) if tries < UPDATE_TRIES => {
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(BACKOFF.1);
                }
                other => return other,
            }
        }
    }

    async fn renewed(&self, lease: &Lease) -> Lease {
        let mut next = lease.clone();
        let spec = next.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.node.clone());
        spec.lease_duration_seconds = Some(self.seconds);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        if next.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
            let nodes: Api<Node> = Api::all(self.client.clone());
            if let Ok(Some(node)) = limited(nodes.get_opt(&self.node)).await {
                next.metadata.owner_references = Some(vec![OwnerReference {
                    api_version: "v1".to_owned(),
                    kind: "Node".to_owned(),
                    name: self.node.clone(),
                    uid: node.metadata.uid.unwrap_or_default(),
                    ..OwnerReference::default()
                }]);
            }
        }
        next
    }
}
