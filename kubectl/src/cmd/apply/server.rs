//! Apply on the server.

use machinery::meta;
use serde_json::{Map, Value, json};

use super::{Applied, CLIENT_MANAGER, Options, SERVER_MANAGER};
use crate::{
    cluster::{Call, Cluster},
    context::Context,
    error::CommandError,
    last_applied,
    print::DryRun,
    resolve::Info,
};

/// The manager of the annotation while objects are handed over from the client's apply.
const MIGRATION_MANAGER: &str = "kubectl-last-applied";
const ADVICE: &str = "Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts";

async fn send(cluster: &Cluster, options: &Options, info: &Info) -> Result<Value, CommandError> {
    let path = match options.subresource.as_str() {
        "" => info.path(),
        below => format!("{}/{below}", info.path()),
    };
    let call = Call::patch(&path, "application/apply-patch+yaml", &info.object)
        .query_if("dryRun", options.dry_run.query())
        .query("fieldManager", &options.manager)
        .query("fieldValidation", options.validation)
        .query("force", options.force_conflicts.to_string());
    cluster.json(&call).await.map_err(|error| match error.has_reason("Conflict") {
        true => {
            let message = error.status().map_or_else(String::new, |s| s.message.clone());
            CommandError::plain(format!("{message}\n{ADVICE}"))
        }
        false => error,
    })
}

pub(super) async fn apply(context: &Context, options: &Options, info: &Info) -> Result<Applied, CommandError> {
    let cluster = context.cluster().await?;
    let mut object = send(&cluster, options, info).await?;
    if options.dry_run != DryRun::Server
        && options.subresource.is_empty()
        && migrate(&cluster, options, info, &object).await?
    {
        object = send(&cluster, options, info).await?;
    }
    Ok(Applied { object, operation: "serverside-applied" })
}

/// Hands an object over that the client applied before; tells whether anything was written.
async fn migrate(cluster: &Cluster, options: &Options, info: &Info, live: &Value) -> Result<bool, CommandError> {
    let mut written = false;
    let is_old = |entry: &Value| {
        entry["manager"] == CLIENT_MANAGER
            && entry["operation"] == "Update"
            && entry.get("subresource").is_none_or(|s| s == "")
    };
    let managed = |live: &Value| live["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    if managed(live).iter().any(is_old) {
        let annotated = annotate(cluster, options, info, live).await?;
        let live = annotated.as_ref().unwrap_or(live);
        let managed = managed(live);
        let patch = json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": hand_over(managed, &options.manager, &is_old)},
            {"op": "replace", "path": "/metadata/resourceVersion", "value": meta::resource_version(live)},
        ]);
        let call = Call::patch(&info.path(), "application/json-patch+json", &patch);
        match cluster.json(&call).await {
            Ok(_) => written = true,
            // Somebody else was faster: the next apply hands over.
            Err(error) if error.has_reason("Conflict") => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// Keeps the annotation with a manager of its own, so that the hand-over does not remove it.
async fn annotate(
    cluster: &Cluster,
    options: &Options,
    info: &Info,
    live: &Value,
) -> Result<Option<Value>, CommandError> {
    if options.manager != SERVER_MANAGER || last_applied::read(live).is_none() {
        return Ok(None);
    }
    let text = last_applied::plain_text(&info.object);
    let mut metadata = json!({"name": info.name, "annotations": {last_applied::ANNOTATION: text}});
    if !info.namespace.is_empty() {
        metadata["namespace"] = json!(info.namespace);
    }
    let body = json!({"apiVersion": info.resource.api_version(), "kind": info.resource.kind, "metadata": metadata});
    let call = Call::patch(&info.path(), "application/apply-patch+yaml", &body)
        .query("fieldManager", MIGRATION_MANAGER)
        .query("force", "true");
    cluster.json(&call).await.map(Some)
}

/// The entries with the old manager's fields given to the new one.
fn hand_over(managed: Vec<Value>, manager: &str, is_old: &dyn Fn(&Value) -> bool) -> Vec<Value> {
    let (old, mut kept): (Vec<Value>, Vec<Value>) = managed.into_iter().partition(|e| is_old(e));
    let target = kept.iter_mut().find(|e| e["manager"] == manager && e["operation"] == "Apply");
    match target {
        Some(target) => old.iter().for_each(|entry| union(&mut target["fieldsV1"], &entry["fieldsV1"])),
        None => kept.extend(old.into_iter().take(1).map(|mut entry| {
            entry["manager"] = json!(manager);
            entry["operation"] = json!("Apply");
            entry
        })),
    }
    kept
}

fn union(target: &mut Value, more: &Value) {
    let Some(more) = more.as_object() else { return };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in more {
        match target.get_mut(key) {
            Some(held) => union(held, value),
            None => target[key] = value.clone(),
        }
    }
}
