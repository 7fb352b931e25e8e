//! Writes with the retries that are safe.

use std::{fmt::Debug, time::Duration};

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use util::Backoff;

use crate::error::{ApiErrorExt, CallError};

/// Attempts and delays of writes that may lose against others.
pub const RETRY: (u32, Backoff) =
    (5, Backoff { base: Duration::from_millis(10), max: Duration::from_millis(10), factor: 1.0, jitter: 0.1 });

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The object without its status.
    Object,
    /// Its status.
    Status,
}

/// Calls `attempt` until it does not end in a conflict, five times at most.
pub async fn retry_on_conflict<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let (attempts, backoff) = RETRY;
    let mut tried = 0;
    loop {
        match attempt().await {
            Err(error) if error.is_conflict() && tried + 1 < attempts => {
                tokio::time::sleep(backoff.jittered(tried)).await;
                tried += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Reads an object, lets `change` edit it, writes it, and starts over after a conflict. `change` says whether there is
/// anything to write; if not, the object is returned as it was read.
pub async fn modify<K>(api: &Api<K>, name: &str, change: impl Fn(&mut K) -> bool + Sync) -> Result<K, CallError>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    modify_scope(api, name, Scope::Object, &change).await
}

/// [`modify`] for the status.
pub async fn modify_status<K>(api: &Api<K>, name: &str, change: impl Fn(&mut K) -> bool + Sync) -> Result<K, CallError>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    modify_scope(api, name, Scope::Status, &change).await
}

async fn modify_scope<K>(
    api: &Api<K>,
    name: &str,
    scope: Scope,
    change: &(impl Fn(&mut K) -> bool + Sync),
) -> Result<K, CallError>
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    let once = || async {
        let mut object = api.get(name).await?;
        if !change(&mut object) {
            return Ok(object);
        }
        match scope {
            Scope::Object => api.replace(name, &PostParams::default(), &object).await,
            Scope::Status => api.replace_status(name, &PostParams::default(), &object).await,
        }
    };
    retry_on_conflict(once).await.map_err(|e| CallError::new(format!("update {name}"), e))
}

/// Server-side apply of an object that carries its name, apiVersion and kind; conflicts are taken over.
pub async fn apply<K, P>(api: &Api<K>, name: &str, manager: &str, object: &P) -> Result<K, CallError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    P: Serialize + Debug,
{
    let params = PatchParams::apply(manager).force();
    api.patch(name, &params, &Patch::Apply(object)).await.map_err(|e| CallError::new(format!("apply {name}"), e))
}

/// Server-side apply of a status.
pub async fn apply_status<K, P>(api: &Api<K>, name: &str, manager: &str, object: &P) -> Result<K, CallError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
    P: Serialize + Debug,
{
    let params = PatchParams::apply(manager).force();
    let done = api.patch_status(name, &params, &Patch::Apply(object)).await;
    done.map_err(|e| CallError::new(format!("apply status of {name}"), e))
}

/// A JSON merge patch.
pub async fn merge_patch<K>(api: &Api<K>, name: &str, scope: Scope, patch: &Value) -> Result<K, CallError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    patched(api, name, scope, &Patch::Merge(patch)).await
}

/// A strategic merge patch.
pub async fn strategic_patch<K>(api: &Api<K>, name: &str, scope: Scope, patch: &Value) -> Result<K, CallError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    patched(api, name, scope, &Patch::Strategic(patch)).await
}

async fn patched<K>(api: &Api<K>, name: &str, scope: Scope, patch: &Patch<&Value>) -> Result<K, CallError>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let params = PatchParams::default();
    let done = match scope {
        Scope::Object => api.patch(name, &params, patch).await,
        Scope::Status => api.patch_status(name, &params, patch).await,
    };
    done.map_err(|e| CallError::new(format!("patch {name}"), e))
}

/// Name of an object for messages: `namespace/name`, or the name alone.
pub fn object_name<K: Resource>(object: &K) -> String {
    match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    }
}
