//! Background garbage collection of Pods, ReplicaSets, EndpointSlices and Jobs whose controller is gone.

use std::{collections::BTreeMap, time::Duration};

use machinery::meta;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    objects::text,
    rest::{Rest, RestError},
};

/// Time between rounds.
const PERIOD: Duration = Duration::from_secs(2);
/// Dependents that are looked at: path, apiVersion, kind.
const DEPENDENTS: [(&str, &str, &str); 4] = [
    ("/api/v1", "v1", "Pod"),
    ("/apis/apps/v1", "apps/v1", "ReplicaSet"),
    ("/apis/discovery.k8s.io/v1", "discovery.k8s.io/v1", "EndpointSlice"),
    ("/apis/batch/v1", "batch/v1", "Job"),
];

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

/// Runs the collector until `stop`.
pub async fn run(rest: Rest, stop: CancellationToken) {
    loop {
        if let Err(error) = round(&rest).await {
            tracing::warn!(%error, "garbage collection failed, trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn round(rest: &Rest) -> Result<(), RestError> {
    let mut known = BTreeMap::new();
    for (root, version, kind) in DEPENDENTS {
        for object in rest.list(&format!("{root}/{}", plural(kind)), version, kind).await? {
            if meta::is_deleting(&object) || !orphaned(rest, &object, &mut known).await? {
                continue;
            }
            let path = format!("{root}/namespaces/{}/{}/{}", meta::namespace(&object), plural(kind), meta::name(&object));
            let options = json!({"propagationPolicy": "Background", "preconditions": {"uid": meta::uid(&object)}});
            match rest.delete(&path, &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether the object has owners, and none of them exists any more (with the uid that it names).
async fn orphaned(rest: &Rest, object: &Value, known: &mut BTreeMap<String, bool>) -> Result<bool, RestError> {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array).cloned().unwrap_or_default();
    for owner in &owners {
        let uid = text(owner, "/uid").to_owned();
        let exists = match known.get(&uid) {
            Some(exists) => *exists,
            None => {
                let exists = exists(rest, object, owner).await?;
                known.insert(uid, exists);
                exists
            }
        };
        if exists {
            return Ok(false);
        }
    }
    Ok(!owners.is_empty())
}

async fn exists(rest: &Rest, object: &Value, owner: &Value) -> Result<bool, RestError> {
    let (version, kind, name) = (text(owner, "/apiVersion"), text(owner, "/kind"), text(owner, "/name"));
    let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
    let scope = if kind == "Node" { String::new() } else { format!("/namespaces/{}", meta::namespace(object)) };
    let plural = if kind == "Endpoints" { "endpoints".to_owned() } else { plural(kind) };
    match rest.get(&format!("{root}{scope}/{plural}/{name}")).await {
        Ok(found) => Ok(meta::uid(&found) == text(owner, "/uid")),
        Err(error) if error.is_not_found() => {
            // A 404 means a missing owner only if the kind itself is served; else nothing is known of it.
            let served = rest.get(&root).await?;
            Ok(!served["resources"].as_array().into_iter().flatten().any(|r| r["kind"] == kind))
        }
        Err(error) => Err(error),
    }
}
