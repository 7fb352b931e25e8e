//! The Lease that says which servers there are: `kube-system/apiserver-<hash>`. Leases of servers that are long gone are
//! removed by those that are there.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use generic::{resource::Resource, verbs::context::Moment};
use machinery::{ApiResult, meta};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::ensure;

/// Time after which a server that does not renew its Lease is taken for gone.
const DURATION: i64 = 3600;
/// How often the Lease is renewed.
const ROUND: Duration = Duration::from_secs(10);
/// What a round may be longer, so that servers do not all renew at once.
const JITTER: f64 = 0.04;
/// Pause before a failed round is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Rounds between looks for Leases of servers that are gone.
const ROUNDS_PER_CLEANING: u32 = 360;
const NAMESPACE: &str = "kube-system";
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// RFC 4648 base 32 in lower case, without padding.
fn base32(bytes: &[u8]) -> String {
    let bit = |at: usize| bytes.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let digit = |from: usize| (from..from + 5).fold(0, |value, at| value << 1 | usize::from(bit(at)));
    (0..bytes.len() * 8).step_by(5).map(|from| char::from(ALPHABET[digit(from) % ALPHABET.len()])).collect()
}

/// Name of the Lease of the server on a host.
fn name_of(host: &str) -> String {
    let mut hash = Sha256::new();
    for part in [host, COMPONENT] {
        let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
        hash.update(length.to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    format!("apiserver-{}", base32(digest.get(..16).unwrap_or_default()))
}

/// Whether the holder of a Lease has not been there for longer than the Lease says.
fn is_expired(lease: &Value, now: OffsetDateTime) -> bool {
    let renewed = lease["spec"]["renewTime"].as_str().and_then(|text| machinery::time::parse_micro(text).ok());
    let lasts = lease["spec"]["leaseDurationSeconds"].as_i64();
    match (renewed, lasts) {
        (Some(renewed), Some(lasts)) => renewed + Duration::from_secs(lasts.unsigned_abs()) < now,
        _ => true,
    }
}

/// Keeps the Lease of this server.
pub(crate) struct IdentityLease {
    leases: Arc<Resource>,
    host: String,
    name: String,
    holder: String,
}

impl IdentityLease {
    /// For this host; `id` tells this process from those before it.
    pub(crate) fn new(leases: Arc<Resource>, id: &str) -> std::io::Result<Self> {
        let host = runtime::env::hostname()?;
        let name = name_of(&host);
        Ok(Self { leases, host, holder: format!("{name}_{id}"), name })
    }

    /// Renews the Lease until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut round: u32 = 0;
        loop {
            let mut outcome = self.renew().await;
            if outcome.is_ok() && round.is_multiple_of(ROUNDS_PER_CLEANING) {
                outcome = self.clean().await;
            }
            let pause = match outcome {
                Ok(()) => ROUND.mul_f64(1.0 + JITTER * rand::random::<f64>()),
                Err(error) => {
                    tracing::warn!(%error, "failed to keep the identity lease");
                    RETRY
                }
            };
            round = round.wrapping_add(1);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn renew(&self) -> ApiResult<()> {
        let now = machinery::time::format_micro(Moment::now().at);
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {
                "name": self.name, "namespace": NAMESPACE,
                "labels": {LABEL: COMPONENT, "kubernetes.io/hostname": self.host},
            },
            "spec": {
                "holderIdentity": self.holder, "leaseDurationSeconds": DURATION,
                "acquireTime": now, "renewTime": now,
            },
        });
        let Some(present) = ensure(&self.leases, lease.clone()).await? else { return Ok(()) };
        let mut new = present.object;
        let is_own = new["spec"]["holderIdentity"] == self.holder.as_str();
        for field in ["holderIdentity", "leaseDurationSeconds", "renewTime", "acquireTime"] {
            if field != "acquireTime" || !is_own {
                new["spec"][field] = lease["spec"][field].clone();
            }
        }
        for (label, value) in [(LABEL, COMPONENT), ("kubernetes.io/hostname", &self.host)] {
            new["metadata"]["labels"][label] = value.into();
        }
        // Who was faster has renewed it.
        let _swapped = self.leases.replace(&new, present.revision).await?;
        Ok(())
    }

    /// Removes Leases of servers that are gone.
    async fn clean(&self) -> ApiResult<()> {
        let prefix = self.leases.key_prefix(NAMESPACE)?;
        let listed = self.leases.cache().list(&prefix, storage::cache::Freshness::Any).await;
        let listed = listed.map_err(|error| self.leases.store_error(error))?;
        let now = Moment::now().at;
        for (_, cached) in listed.range(None) {
            let stored = generic::resource::decode_cached(cached)?;
            let is_identity =
                meta::text_map(&stored.object, "labels").any(|(key, value)| key == LABEL && value == COMPONENT);
            if is_identity && is_expired(&stored.object, now) {
                let name = stored.object["metadata"]["name"].as_str().unwrap_or_default();
                tracing::info!(lease = name, "the server is gone");
                let _removed = self.leases.remove(NAMESPACE, name, stored.revision).await?;
            }
        }
        Ok(())
    }
}
