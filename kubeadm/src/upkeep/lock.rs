//! One host at a time: a Lease in `kube-system`.

use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    client::{Cluster, collection_path, error_text},
    error::{Error, Result},
};

use client::ApiErrorExt;

const NAME: &str = "kubeadm-upkeep";
/// Seconds after which a lock counts as forgotten.
const LONGEST: i64 = 3600;

/// The lock, held.
pub(super) struct Lock(Value);

/// Whether a lease says that somebody else is at work.
pub(super) fn is_held(lease: &Value, own: &str, now: OffsetDateTime) -> bool {
    let text = |field: &str| lease.pointer("/spec")?.get(field)?.as_str();
    let holder = text("holderIdentity").unwrap_or_default();
    let since = text("renewTime").and_then(|at| machinery::time::parse(at).ok());
    !holder.is_empty() && holder != own && since.is_some_and(|at| (now - at).whole_seconds() < LONGEST)
}

fn held(node: &str, now: OffsetDateTime) -> Value {
    let at = machinery::time::format(now).replace('Z', ".000000Z");
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": NAME, "namespace": "kube-system"},
        "spec": {"holderIdentity": node, "leaseDurationSeconds": LONGEST, "acquireTime": at, "renewTime": at},
    })
}

impl Lock {
    /// Takes it; `None` if another host has it.
    pub(super) async fn take(api: &Cluster, node: &str, now: OffsetDateTime) -> Result<Option<Self>> {
        let mut wanted = held(node, now);
        let path = format!("{}/{NAME}", collection_path(&wanted));
        let written = match api.get(&path).await? {
            None => api.create_once(&wanted).await,
            Some(present) if is_held(&present, node, now) => return Ok(None),
            Some(present) => {
                let version = machinery::meta::resource_version(&present);
                machinery::meta::set_text(&mut wanted, "resourceVersion", version);
                api.replace_once(&wanted).await
            }
        };
        match written {
            Ok(lease) => Ok(Some(Self(lease))),
            // Another host was quicker.
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(None),
            Err(error) => Err(Error::new(format!("cannot take the lock: {}", error_text(&error)))),
        }
    }

    /// Gives it back. If that fails, the others wait until it counts as forgotten.
    pub(super) async fn release(mut self, api: &Cluster) {
        self.0["spec"]["holderIdentity"] = "".into();
        if let Err(error) = api.replace_once(&self.0).await {
            tracing::warn!(error = error_text(&error), "cannot give back the lock");
        }
    }
}
