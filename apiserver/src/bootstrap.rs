//! Objects that every cluster has: namespaces, priority classes, RBAC policy.

use std::{sync::Arc, time::Duration};

use generic::{
    projection::Projection,
    resource::{Resource, Stored, Swap},
    user::User,
    verbs::context::Moment,
};
use machinery::{ApiResult, meta};
use rules::rbac::{PolicyRule, uncovered};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{options::Options, resources::Resources};

/// Pause before a failed round is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the namespaces are looked after if nothing changes.
const ROUND: Duration = Duration::from_secs(60);
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// Creates an object unless it exists; answers the present one.
pub(crate) async fn ensure(resource: &Resource, mut object: Value) -> ApiResult<Option<Stored>> {
    let moment = Moment::now();
    let metadata = meta::metadata_mut(&mut object);
    metadata.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".into(), json!(moment.text));
    resource.strategy.defaults(&mut object);
    moment.with_context(&User::server(), |context| resource.strategy.prepare_create(&mut object, context));
    match resource.insert(&object).await? {
        Swap::Done(_) => Ok(None),
        Swap::Lost(present) => Ok(present),
    }
}

async fn system_namespaces(namespaces: &Resource) -> ApiResult<()> {
    for name in NAMESPACES {
        if namespaces.starting_point("", name).await?.is_none() {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            ensure(namespaces, object).await?;
        }
    }
    Ok(())
}

/// Makes the namespaces that every cluster has again when one is gone, until `stop`.
pub(crate) async fn keep_namespaces(namespaces: Arc<Resource>, stop: CancellationToken) {
    let mut changes = Projection::<serde::de::IgnoredAny>::follow(&namespaces, &stop).changes();
    loop {
        let pause = match system_namespaces(&namespaces).await {
            Ok(()) => ROUND,
            Err(error) => {
                tracing::warn!(%error, "unable to create required kubernetes system namespaces");
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Namespaces and priority classes.
pub(crate) async fn basics(resources: &Resources) -> Result<(), crate::StartError> {
    system_namespaces(&*resources.get("", "namespaces")?).await?;
    let classes = resources.get("scheduling.k8s.io", "priorityclasses")?;
    for (name, value, what) in [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ] {
        let object = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": what,
        });
        ensure(&classes, object).await?;
    }
    Ok(())
}

/// RBAC policy: missing objects are made, missing rules and subjects added unless the object declines.
pub(crate) async fn policy(resources: &Resources) -> Result<(), crate::StartError> {
    for object in rules::bootstrap::objects() {
        let plural = format!("{}s", object["kind"].as_str().unwrap_or("").to_lowercase());
        let resource = resources.get("rbac.authorization.k8s.io", &plural)?;
        let present = ensure(&resource, object.clone()).await?;
        resource.amend(present, |stored| completed(stored, &object)).await?;
    }
    Ok(())
}

/// The stored object with what it lacks, or `None` if it lacks nothing or wants none of it.
fn completed(stored: &Value, wanted: &Value) -> Option<Value> {
    let declines = meta::text_map(stored, "annotations")
        .any(|(k, v)| k == "rbac.authorization.kubernetes.io/autoupdate" && v == "false");
    if declines {
        return None;
    }
    let mut new = stored.clone();
    let rules = |object: &Value| -> Vec<PolicyRule> {
        object.get("rules").and_then(|r| serde_json::from_value(r.clone()).ok()).unwrap_or_default()
    };
    // Aggregated roles get their rules from a controller.
    if wanted.get("aggregationRule").is_none() {
        let missing = uncovered(&rules(stored), &rules(wanted));
        if !missing.is_empty() {
            let mut all = rules(stored);
            all.extend(missing);
            new["rules"] = json!(all);
        }
    }
    let list = |object: &Value| object.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut subjects = list(stored);
    subjects.extend(list(wanted).into_iter().filter(|s| !list(stored).contains(s)));
    if subjects.len() > list(stored).len() {
        new["subjects"] = json!(subjects);
    }
    (new != *stored).then_some(new)
}

/// `kube-system/extension-apiserver-authentication`: whom components that delegate authentication may trust.
pub(crate) async fn authentication(
    resources: &Resources,
    options: &Options,
    client_ca: Option<&[u8]>,
) -> Result<(), crate::StartError> {
    let mut data = serde_json::Map::new();
    if let Some(pem) = client_ca {
        data.insert("client-ca-file".into(), json!(String::from_utf8_lossy(pem)));
    }
    if let Some(file) = &options.requestheader_client_ca_file {
        let pem = runtime::tls::read(file)?;
        data.insert("requestheader-client-ca-file".into(), json!(String::from_utf8_lossy(&pem)));
        for (key, list) in [
            ("requestheader-allowed-names", &options.requestheader_allowed_names),
            ("requestheader-username-headers", &options.requestheader_username_headers),
            ("requestheader-uid-headers", &options.requestheader_uid_headers),
            ("requestheader-group-headers", &options.requestheader_group_headers),
            ("requestheader-extra-headers-prefix", &options.requestheader_extra_headers_prefix),
        ] {
            data.insert(key.into(), json!(json!(list).to_string()));
        }
    }
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}});
    Ok(keep(&*resources.get("", "configmaps")?, object, "data").await?)
}

/// Creates the object, or makes one field of the present one right.
pub(crate) async fn keep(resource: &Resource, wanted: Value, field: &str) -> ApiResult<()> {
    let present = ensure(resource, wanted.clone()).await?;
    let correct = |stored: &Value| {
        let mut new = stored.clone();
        new[field] = wanted[field].clone();
        (stored.get(field) != wanted.get(field)).then_some(new)
    };
    resource.amend(present, correct).await
}
