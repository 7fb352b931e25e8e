//! ServiceAccount: every Pod runs as one, with a token mounted unless it declines.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::{Resource, decode_cached},
};
use machinery::{ApiResult, meta};
use rand::Rng;
use serde_json::{Value, json};
use storage::cache::Freshness;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The `default` account of a new namespace may be on its way: tries and pause between them.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(150);

/// The plugin.
pub(super) struct ServiceAccounts {
    pub(super) accounts: Arc<Resource>,
}

#[async_trait]
impl Plugin for ServiceAccounts {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.is("", "pods") && request.subresource.is_empty() && request.operation == Operation::Create
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        if meta::text_map(pod, "annotations").any(|(k, _)| k == MIRROR) {
            return mirror(request, pod);
        }
        let name = match pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or("") {
            "" => "default".to_owned(),
            name => name.to_owned(),
        };
        pod["spec"]["serviceAccountName"] = json!(name);
        pod["spec"]["serviceAccount"] = json!(name);
        let account = self.account(request, pod, &name).await?;
        let flag = |value: Option<&Value>| value.and_then(Value::as_bool);
        let automount = flag(pod.pointer("/spec/automountServiceAccountToken"))
            .or_else(|| flag(account.get("automountServiceAccountToken")))
            .unwrap_or(true);
        if automount {
            mount_token(pod);
        }
        let own = pod.pointer("/spec/imagePullSecrets").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
        let secrets = account.get("imagePullSecrets").and_then(Value::as_array).filter(|l| !l.is_empty());
        if let (false, Some(secrets)) = (own, secrets) {
            pod["spec"]["imagePullSecrets"] = json!(secrets);
        }
        Ok(())
    }
}

fn mirror(request: &AdmissionRequest, pod: &Value) -> ApiResult<()> {
    let named = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    if named {
        return Err(request.reject(Some(pod), "a mirror pod may not reference service accounts"));
    }
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    for source in volumes.flat_map(|v| v.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten())
    {
        if source.get("serviceAccountToken").is_some() {
            return Err(request.reject(Some(pod), "a mirror pod may not use ServiceAccountToken volume projections"));
        }
    }
    Ok(())
}

impl ServiceAccounts {
    async fn account(&self, request: &AdmissionRequest, pod: &Value, name: &str) -> ApiResult<Value> {
        let tries = if name == "default" { TRIES } else { 1 };
        for attempt in 1..=tries {
            match self.accounts.get(&request.namespace, name, Freshness::Latest).await {
                Ok(found) => return decode_cached(&found).map(|s| s.object),
                Err(error) if !error.is_not_found() => return Err(error),
                Err(_) if attempt < tries => tokio::time::sleep(PAUSE).await,
                Err(_) => {}
            }
        }
        let text = format!(
            "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
            request.namespace
        );
        Err(request.reject(Some(pod), &text))
    }
}

/// Mounts a projected token in every container that has nothing at the path yet.
fn mount_token(pod: &mut Value) {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let present = volumes.filter_map(|v| v["name"].as_str()).find(|n| n.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let name = present.clone().unwrap_or_else(|| {
        let mut rng = rand::rng();
        let suffix: String = (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect();
        format!("{VOLUME_PREFIX}{suffix}")
    });
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mounts = meta::object_mut(container).entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if !mounts.iter().any(|m| m["mountPath"] == MOUNT_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                mounted = true;
            }
        }
    }
    if mounted && present.is_none() {
        let volumes = meta::object_mut(&mut pod["spec"]).entry("volumes").or_insert_with(|| json!([]));
        if let Some(list) = volumes.as_array_mut() {
            list.push(token_volume(&name));
        }
    }
}

fn token_volume(name: &str) -> Value {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_mounted_once_and_only_where_nothing_is() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "volumeMounts": [
            {"name": "own", "mountPath": MOUNT_PATH}]}]}});
        mount_token(&mut pod);
        mount_token(&mut pod);
        assert_eq!(pod["spec"]["volumes"].as_array().map(Vec::len), Some(1));
        assert_eq!(pod["spec"]["containers"][0]["volumeMounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(pod["spec"]["containers"][1]["volumeMounts"][0]["name"], "own");
    }
}
