//! Field ownership at the write path: who gets recorded for what.

use machinery::{ApiResult, managed, meta};
use serde_json::Value;

use super::context::Moment;
use crate::{endpoint::Call, options::WriteOptions};

/// How the new object came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Create, update or patch: changed fields go to the writer's `Update` entry.
    Update,
    /// Server-side apply: ownership is settled already.
    Apply,
}

fn writer<'a>(call: &'a Call, manager: &'a str, api_version: &'a str, moment: &'a Moment) -> managed::Writer<'a> {
    managed::Writer { manager, api_version, subresource: &call.info.subresource, now: &moment.text }
}

/// Records the creator as owner of all fields. The object is in the stored version.
pub fn track_create(call: &Call, object: &mut Value, manager: &str, moment: &Moment) -> ApiResult<()> {
    let version = call.endpoint.gvk.api_version();
    managed::update(None, object, &writer(call, manager, &version, moment), call.working_schema())
}

/// Records the writer as owner of what changed.
pub fn track_update(call: &Call, new: &mut Value, old: &Value, manager: &str, moment: &Moment) -> ApiResult<()> {
    if !call.info.subresource.is_empty() {
        keep_entries(new, old);
    }
    let version = call.endpoint.gvk.api_version();
    managed::update(Some(old), new, &writer(call, manager, &version, moment), call.working_schema())
}

/// Applies a configuration. All objects are in the served version.
pub fn apply(
    call: &Call,
    live: Option<&Value>,
    config: &Value,
    options: &WriteOptions,
    moment: &Moment,
) -> ApiResult<Value> {
    let version = call.endpoint.gvk.api_version();
    let writer = writer(call, &options.manager, &version, moment);
    let mut config = config.clone();
    let has_status = call.endpoint.subresources.contains_key("status");
    managed::reset_fields(&mut config, has_status, &call.info.subresource);
    let mut applied = managed::apply(live, &config, &writer, options.force, call.endpoint.schema())?;
    if call.endpoint.custom().is_none() {
        // Quantities and times take the form that a decoded body has; what does not fit was refused before.
        let _known = machinery::decode::check_fields(&mut applied, call.schema_of(&call.endpoint.gvk));
    }
    Ok(applied)
}

/// Undoes changes of `managedFields` that are mere time stamps, so that an idle write stays idle.
pub fn drop_idle_timestamps(new: &mut Value, old: &Value) {
    if same_but_times(new, old) {
        keep_entries(new, old);
    }
}

fn keep_entries(new: &mut Value, old: &Value) {
    let metadata = meta::metadata_mut(new);
    match old.pointer("/metadata/managedFields") {
        Some(entries) => metadata.insert("managedFields".into(), entries.clone()),
        None => metadata.remove("managedFields"),
    };
}

fn same_but_times(new: &Value, old: &Value) -> bool {
    let stripped = |object: &Value| {
        let mut object = object.clone();
        let metadata = meta::metadata_mut(&mut object);
        metadata.remove("resourceVersion");
        if let Some(entries) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
            for entry in entries.iter_mut().filter_map(Value::as_object_mut) {
                entry.remove("time");
            }
        }
        object
    };
    let others_differ = {
        let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
        let rest = |(k, _): &(&String, &Value)| k.as_str() != "metadata";
        !new.iter().filter(rest).eq(old.iter().filter(rest))
    };
    !others_differ && stripped(new) == stripped(old)
}
