//! DELETE of one object and of collections: grace, finalizers, propagation, preconditions.

use std::sync::Arc;

use axum::body::Body;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Response, StatusCode};
use machinery::{ApiError, ApiResult, Status, StatusDetails, meta};
use rules::strategy::DefaultPropagation;
use serde_json::{Value, json};
use storage::cache::Freshness;

use super::{body, context::Moment, list};
use crate::{
    admission::Operation,
    endpoint::Call,
    negotiate::{self, Target},
    options::{DeleteOptions, ListOptions},
    resource::{self, Resource, Stored, Swap},
    selection::Selection,
};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const ATTEMPTS: usize = 32;

/// Options from the body or the query.
pub fn options(call: &Call) -> ApiResult<DeleteOptions> {
    if call.body.is_empty() {
        return DeleteOptions::parse(None, &call.query);
    }
    let media = negotiate::input(&call.headers)?;
    let decoded = body::parse(media, &call.body).map_err(ApiError::bad_request)?;
    if decoded.object.is_null() {
        return DeleteOptions::parse(None, &call.query);
    }
    DeleteOptions::parse(Some(decoded.object), &call.query)
}

/// Serves DELETE on one object.
pub async fn delete(call: &Call) -> ApiResult<Response<Body>> {
    let options = options(call)?;
    let resource = call.resource()?;
    let writer = call.writer(Target::Item)?;
    warn_about_orphans(call, &options);
    let deleted = delete_object(call, &call.info.namespace, &call.info.name, &options).await?;
    let code = match deleted {
        Deleted::Marked(_) if options.orphan_dependents == Some(false) => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    match deleted {
        Deleted::Marked(object) => writer.object(code, call.endpoint.served(object).await?),
        Deleted::Removed(object) if resource.strategy.delete_returns_object() => {
            writer.object(code, call.endpoint.served(object).await?)
        }
        Deleted::Removed(object) => {
            let mut status = Status::success(200);
            status.details = Some(StatusDetails {
                name: call.info.name.clone(),
                group: resource.group_resource.group.clone(),
                kind: resource.group_resource.resource.clone(),
                uid: meta::uid(&object).to_owned(),
                ..StatusDetails::default()
            });
            let mut status = serde_json::to_value(status).map_err(ApiError::internal)?;
            if let Some(map) = status.as_object_mut() {
                map.remove("code");
            }
            writer.value(code, &status)
        }
    }
}

fn warn_about_orphans(call: &Call, options: &DeleteOptions) {
    let silent = options.propagation_policy.is_none() && options.orphan_dependents.is_none();
    if silent && call.endpoint.gvk.kind == "Job" && call.endpoint.gvk.group == "batch" {
        call.warnings.add(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
             them or set propagationPolicy=Orphan to suppress this warning",
        );
    }
}

/// Deletes a stored object on behalf of the server itself: no admission, but finalizers count. `false`: somebody else
/// wrote it meanwhile.
pub async fn delete_stored(resource: &Resource, stored: &Stored) -> ApiResult<bool> {
    match marked_object(resource, &stored.object, &DeleteOptions::default()) {
        Some(new) if new == stored.object => Ok(true),
        Some(new) => Ok(matches!(resource.replace(&new, stored.revision).await?, Swap::Done(_))),
        None => {
            let (namespace, name) = (meta::namespace(&stored.object), meta::name(&stored.object));
            Ok(resource.remove(namespace, name, stored.revision).await?.is_ok())
        }
    }
}

/// What a delete did.
pub enum Deleted {
    /// The object stays for now, with a deletionTimestamp.
    Marked(Value),
    /// The object is gone; its last state.
    Removed(Value),
}

/// Deletes one object, retrying when others write in between.
pub async fn delete_object(call: &Call, namespace: &str, name: &str, options: &DeleteOptions) -> ApiResult<Deleted> {
    let resource = call.resource()?;
    let missing = || ApiError::not_found(&call.group_resource(), name);
    let mut stored = resource.starting_point(namespace, name).await?.ok_or_else(missing)?;
    let mut fresh = false;
    for _ in 0..ATTEMPTS {
        let current = match attempt(call, resource, &stored, options).await {
            Ok(Attempt::Done(deleted)) => return Ok(deleted),
            Ok(Attempt::Lost(current)) => current,
            Ok(Attempt::Unanswered(error)) => return Err(error),
            Err(error) if fresh => return Err(error),
            Err(error) => {
                let current = resource.current(namespace, name).await?;
                if current.as_ref().is_some_and(|c| c.revision == stored.revision) {
                    return Err(error);
                }
                current
            }
        };
        stored = current.ok_or_else(missing)?;
        fresh = true;
    }
    Err(ApiError::stale(&call.group_resource(), name))
}

enum Attempt {
    Done(Deleted),
    /// Somebody else was first; the present state.
    Lost(Option<Stored>),
    /// The store has not said whether it wrote: another attempt could take its own write for somebody else's.
    Unanswered(ApiError),
}

async fn attempt(call: &Call, resource: &Resource, stored: &Stored, options: &DeleteOptions) -> ApiResult<Attempt> {
    let old = &stored.object;
    check_preconditions(call, old, options)?;
    let dry_run = options.is_dry_run();
    let mut request = call.admission(Operation::Delete, meta::name(old), dry_run);
    request.namespace = meta::namespace(old).to_owned();
    let converted;
    let shown = match call.works_elsewhere() {
        true => {
            converted = call.working(old.clone()).await?;
            &converted
        }
        false => old,
    };
    // An eviction has been admitted as what it is.
    if call.info.subresource.is_empty() {
        call.server.plugins.admit(&request, None, Some(shown)).await?;
        call.server.plugins.validate(&request, None, Some(shown)).await?;
    }

    let marked = marked_object(resource, old, options);
    if let Some(new) = marked {
        if new == *old || dry_run {
            return Ok(Attempt::Done(Deleted::Marked(new)));
        }
        return Ok(match resource.replace(&new, stored.revision).await {
            Ok(Swap::Done(json)) => {
                Attempt::Done(Deleted::Marked(serde_json::from_slice(&json).map_err(ApiError::internal)?))
            }
            Ok(Swap::Lost(current)) => Attempt::Lost(current),
            Err(error) => Attempt::Unanswered(error),
        });
    }
    if dry_run {
        return Ok(Attempt::Done(Deleted::Removed(old.clone())));
    }
    match resource.remove(meta::namespace(old), meta::name(old), stored.revision).await {
        Ok(Ok(revision)) => {
            let mut last = old.clone();
            meta::set_text(&mut last, "resourceVersion", &revision.to_string());
            if let Some(hooks) = &call.endpoint.hooks {
                hooks.deleted(&last).await;
            }
            Ok(Attempt::Done(Deleted::Removed(last)))
        }
        Ok(Err(current)) => Ok(Attempt::Lost(current)),
        Err(error) => Ok(Attempt::Unanswered(error)),
    }
}

fn check_preconditions(call: &Call, old: &Value, options: &DeleteOptions) -> ApiResult<()> {
    let Some(wanted) = &options.preconditions else { return Ok(()) };
    let kind = machinery::GroupResource::new(call.endpoint.gvk.group.clone(), call.endpoint.gvk.kind.clone());
    if let Some(uid) = wanted.uid.as_deref().filter(|uid| *uid != meta::uid(old)) {
        let text = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). \
             The object might have been deleted and then recreated",
            meta::uid(old)
        );
        return Err(ApiError::conflict(&kind, meta::name(old), &text));
    }
    let present = meta::resource_version(old);
    if let Some(version) = wanted.resource_version.as_deref().filter(|v| *v != present) {
        let text = format!(
            "the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record \
             ({present}). The object might have been modified"
        );
        return Err(ApiError::conflict(&kind, meta::name(old), &text));
    }
    Ok(())
}

/// The object as it stays after this delete, or `None` if it goes at once.
fn marked_object(resource: &Resource, old: &Value, options: &DeleteOptions) -> Option<Value> {
    let mut new = old.clone();
    let kept = propagation_finalizers(resource, old, options);
    meta::metadata_mut(&mut new).remove("finalizers");
    if !kept.is_empty() {
        meta::metadata_mut(&mut new).insert("finalizers".into(), json!(kept));
    }
    let wish = options.grace_period_seconds.map(|s| if s < 0 { 1 } else { s });
    let holds = !kept.is_empty() || resource.strategy.holds_deletion(old);
    match resource.strategy.grace_period(old, wish) {
        Some(grace) if grace > 0 => {
            if !mark_graceful(&mut new, old, grace, wish) {
                return Some(old.clone());
            }
            resource.strategy.mark_deleting(&mut new);
            Some(new)
        }
        _ if holds => {
            mark(&mut new, old, 0, &Moment::now());
            resource.strategy.mark_deleting(&mut new);
            Some(new)
        }
        _ => None,
    }
}

/// Sets or shortens the deadline of a graceful delete. False if nothing changes.
fn mark_graceful(new: &mut Value, old: &Value, grace: i64, wish: Option<i64>) -> bool {
    if !meta::is_deleting(old) {
        mark(new, old, grace, &Moment::now().plus(grace));
        return true;
    }
    let present = old.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    if wish.is_none() || grace >= present {
        return false;
    }
    let Some(deadline) = Moment::parse(meta::text(old, "deletionTimestamp")) else { return false };
    let now = Moment::now();
    let earlier = deadline.plus(grace - present);
    let (grace, deadline) = if earlier.at < now.at { (1, now) } else { (grace, earlier) };
    mark(new, old, grace, &deadline);
    true
}

fn mark(new: &mut Value, old: &Value, grace: i64, deadline: &Moment) {
    let first = !meta::is_deleting(old);
    let metadata = meta::metadata_mut(new);
    if first || grace > 0 {
        metadata.insert("deletionTimestamp".into(), json!(deadline.text));
    }
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
    let generation = metadata.get("generation").and_then(Value::as_i64).unwrap_or(0);
    if first && generation > 0 {
        metadata.insert("generation".into(), json!(generation + 1));
    }
}

/// The finalizers after the propagation policy has its say.
fn propagation_finalizers(resource: &Resource, old: &Value, options: &DeleteOptions) -> Vec<String> {
    let present = meta::finalizers(old);
    let default = resource.strategy.default_propagation();
    let untouched = || present.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
    if default == DefaultPropagation::Unsupported || !resource.collects_garbage {
        return untouched();
    }
    let policy = match (options.propagation_policy.as_deref().filter(|p| !p.is_empty()), options.orphan_dependents) {
        (Some(policy), _) => policy,
        (None, Some(true)) => "Orphan",
        (None, Some(false)) => "Background",
        (None, None) if present.contains(&ORPHAN) || present.contains(&FOREGROUND) => return untouched(),
        (None, None) if default == DefaultPropagation::Orphan => "Orphan",
        (None, None) => "Background",
    };
    let mut kept: Vec<String> =
        present.iter().filter(|f| **f != ORPHAN && **f != FOREGROUND).map(|f| (*f).to_owned()).collect();
    match policy {
        "Orphan" => kept.push(ORPHAN.into()),
        "Foreground" => kept.push(FOREGROUND.into()),
        _ => {}
    }
    kept
}

/// Serves DELETE on a collection: each matching object is deleted; answers the list as it was.
pub async fn delete_collection(call: &Call) -> ApiResult<Response<Body>> {
    let options = options(call)?;
    let list_options = ListOptions::parse(&call.query, false)?;
    let resource = call.resource()?;
    let selection = Selection::parse(&list_options.label_selector, &list_options.field_selector, &call.endpoint)?;
    let prefix = resource.key_prefix(&call.info.namespace)?;
    let snapshot = resource.cache().list(&prefix, Freshness::Latest).await.map_err(|e| resource.store_error(e))?;
    let limit = if list_options.limit == 0 { usize::MAX } else { list_options.limit };
    let matching: Vec<_> = snapshot
        .range(None)
        .map(|(_, object)| Arc::clone(object))
        .filter(|o| selection.matches(o))
        .take(limit)
        .collect();
    let deletes = stream::iter(matching.clone()).map(|object| {
        let options = &options;
        async move {
            match delete_object(call, object.index.namespace(), object.index.name(), options).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(()),
            }
        }
    });
    let workers = call.server.collection_workers.max(1);
    deletes.buffer_unordered(workers).try_collect::<()>().await?;
    let items = matching.iter().map(|o| resource::decode_cached(o).map(|s| s.object)).collect::<ApiResult<Vec<_>>>()?;
    list::respond_with(call, items, snapshot.revision).await
}
