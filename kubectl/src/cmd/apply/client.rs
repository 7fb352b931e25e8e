//! Apply by the client: a three-way patch from the annotation, the manifest and the live object.

use std::{io::Write, time::Duration};

use machinery::meta;
use serde_json::{Value, json};

use super::{Applied, Options};
use crate::{
    cluster::Call,
    context::Context,
    error::CommandError,
    last_applied,
    print::DryRun,
    resolve::Info,
    three_way::{self, Patch},
};

/// Times a patch is tried again after a conflict.
const RETRIES: u32 = 5;
/// Time between tries, after the first.
const BACK_OFF: Duration = Duration::from_secs(1);
/// Time to wait for an object that `--force` deletes.
const DELETION: Duration = Duration::from_secs(120);

pub(super) async fn apply(context: &Context, options: &Options, info: &Info) -> Result<Applied, CommandError> {
    let cluster = context.cluster().await?;
    let mut manifest = info.object.clone();
    last_applied::write(&mut manifest);
    let current = match cluster.get(&info.path()).await {
        Ok(current) => current,
        Err(error) if error.is_not_found() => return create(context, options, info, manifest).await,
        Err(error) => {
            return Err(error.during(format!(
                "error when retrieving current configuration of:\n{}\nfrom server for: {:?}",
                described(info),
                info.source
            )));
        }
    };
    if options.dry_run == DryRun::Client {
        let patch = patch(info, &manifest, &current);
        let operation = if patch.is_empty() { "unchanged" } else { "configured" };
        return Ok(Applied { object: local(&current, &patch), operation });
    }
    if last_applied::read(&current).is_none() {
        let title = format!("{}/{}", info.resource.title(), info.name);
        writeln!(
            context.streams.err.clone(),
            "Warning: resource {title} is missing the {} annotation which is required by kubectl apply. kubectl apply \
             should only be used on resources created declaratively by either kubectl create --save-config or kubectl \
             apply. The missing annotation will be patched automatically.",
            last_applied::ANNOTATION
        )?;
    }
    update(context, options, info, manifest, current).await
}

/// `Resource: "...", GroupVersionKind: ...`, as failures describe an object.
pub(super) fn described(info: &Info) -> String {
    let resource = &info.resource;
    format!(
        "Resource: \"{0}, Resource={1}\", GroupVersionKind: \"{0}, Kind={2}\"\nName: {3:?}, Namespace: {4:?}",
        gv(info),
        resource.plural,
        resource.kind,
        info.name,
        info.namespace
    )
}

fn gv(info: &Info) -> String {
    format!("{}/{}", info.resource.group, info.resource.version)
}

async fn create(
    context: &Context,
    options: &Options,
    info: &Info,
    mut manifest: Value,
) -> Result<Applied, CommandError> {
    if options.dry_run != DryRun::Client {
        prune_nulls(&mut manifest);
        let call = Call::post(&info.collection(), &manifest)
            .query_if("dryRun", options.dry_run.query())
            .query("fieldManager", &options.manager)
            .query("fieldValidation", options.validation);
        manifest = context
            .cluster()
            .await?
            .json(&call)
            .await
            .map_err(|e| e.during(format!("error when creating {:?}", info.source)))?;
    }
    Ok(Applied { object: manifest, operation: "created" })
}

/// Fields that are null ask for nothing when there is no object yet.
fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(prune_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

fn patch(info: &Info, manifest: &Value, current: &Value) -> Patch {
    let original = last_applied::read(current).and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    let mut live = current.clone();
    // Lists of the server name neither kind nor version of their items.
    meta::object_mut(&mut live).insert("apiVersion".into(), json!(info.resource.api_version()));
    meta::object_mut(&mut live).insert("kind".into(), json!(info.resource.kind));
    three_way::patch(&original, manifest, &live)
}

/// The patch applied here.
fn local(current: &Value, patch: &Patch) -> Value {
    let schema = crate::print::declared::schema(current);
    let applied = match schema {
        Some(schema) if patch.media_type == three_way::STRATEGIC => {
            machinery::patch::strategic::apply(current, &patch.body, schema)
        }
        _ => machinery::patch::merge::apply(current, &patch.body),
    };
    applied.unwrap_or_else(|_| current.clone())
}

async fn update(
    context: &Context,
    options: &Options,
    info: &Info,
    manifest: Value,
    mut current: Value,
) -> Result<Applied, CommandError> {
    let cluster = context.cluster().await?;
    let mut tried = 0;
    loop {
        let made = patch(info, &manifest, &current);
        if made.is_empty() {
            return Ok(Applied { object: current, operation: "unchanged" });
        }
        if !context.flags.bool("overwrite") {
            check_conflicts(info, &made, &current)?;
        }
        let mut body = made.body.clone();
        if tried > 0 {
            body["metadata"]["resourceVersion"] = json!(meta::resource_version(&current));
        }
        let call = Call::patch(&info.path(), made.media_type, &body)
            .query_if("dryRun", options.dry_run.query())
            .query("fieldManager", &options.manager)
            .query("fieldValidation", options.validation);
        match cluster.json(&call).await {
            Ok(object) => return Ok(Applied { object, operation: "configured" }),
            Err(error) if error.has_reason("Conflict") && tried < RETRIES => {
                if tried > 0 {
                    tokio::time::sleep(BACK_OFF).await;
                }
                tried += 1;
                current = cluster.get(&info.path()).await?;
            }
            Err(error)
                if context.flags.bool("force") && (error.has_reason("Conflict") || error.has_reason("Invalid")) =>
            {
                return recreate(context, options, info, manifest, &current).await;
            }
            Err(error) => {
                return Err(error.during(format!(
                    "error when applying patch:\n{}\nto:\n{}\nfor: {:?}",
                    crate::print::json::compact(&made.body),
                    described(info),
                    info.source
                )));
            }
        }
    }
}

/// `--overwrite=false`: what was changed by others since the last time is not written over.
fn check_conflicts(info: &Info, made: &Patch, current: &Value) -> Result<(), CommandError> {
    let Some(original) = last_applied::read(current).and_then(|t| serde_json::from_str::<Value>(t).ok()) else {
        return Ok(());
    };
    let theirs = three_way::merge::diff(&original, current);
    if conflicts(&made.body, &theirs) {
        return Err(CommandError::plain(format!(
            "creating patch with:\noriginal:\n{original}\nmodified:\n{}\ncurrent:\n{current}\nfor: {:?}: patch conflicts \
             with changes made from original to current",
            info.object, info.source
        )));
    }
    Ok(())
}

fn conflicts(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => ours.iter().any(|(key, value)| {
            key != last_applied::ANNOTATION && theirs.get(key).is_some_and(|other| conflicts(value, other))
        }),
        (a, b) => a != b,
    }
}

/// `--force`: deletes the object and creates it anew; puts the old one back if that fails.
async fn recreate(
    context: &Context,
    options: &Options,
    info: &Info,
    manifest: Value,
    old: &Value,
) -> Result<Applied, CommandError> {
    let cluster = context.cluster().await?;
    let body = super::super::delete::options(context)?;
    cluster.json(&Call::delete(&info.path(), &body)).await?;
    let mut going = info.clone();
    going.object = old.clone();
    let limit = context.flags.duration("timeout");
    let limit = if limit.is_zero() { DELETION } else { limit };
    super::super::delete::until_gone(&cluster, &going, limit).await?;
    match create(context, options, info, manifest).await {
        Ok(applied) => Ok(Applied { operation: "configured", ..applied }),
        Err(error) => {
            let mut back = old.clone();
            for field in ["resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"] {
                meta::metadata_mut(&mut back).remove(field);
            }
            // The failure that is told is the first one.
            let _restored = cluster.json(&Call::post(&info.collection(), &back)).await.is_ok();
            Err(error)
        }
    }
}
