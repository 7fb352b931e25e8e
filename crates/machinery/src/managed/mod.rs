//! Field ownership: `metadata.managedFields` and server-side apply.

mod compare;
mod entry;
mod fit;
mod last_applied;
mod merge;
mod parts;
mod set;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

pub use set::Set;

use self::{
    compare::{compare, field_set},
    entry::{Entry, Operation, cap_updaters, read, write},
};
use crate::{
    meta,
    schema::SchemaRef,
    status::{ApiError, ApiResult, Reason, StatusCause, StatusDetails},
};

const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// Manager name.
    pub manager: &'a str,
    /// `apiVersion` of the request.
    pub api_version: &'a str,
    /// Subresource or empty.
    pub subresource: &'a str,
    /// Time of the write, RFC 3339, seconds.
    pub now: &'a str,
}

/// Whether the client asks to forget all ownership: an empty list, or one empty entry.
fn is_reset(object: &Value) -> bool {
    match object.pointer("/metadata/managedFields").and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Records a create (`old` absent) or update: what changed goes to the writer, removed fields to nobody.
///
/// The object may carry managedFields of the client: an empty list (or `[{}]`) clears, a valid one replaces, an
/// invalid one is ignored. Objects whose ownership was cleared stay untracked until the next apply.
pub fn update(old: Option<&Value>, new: &mut Value, writer: &Writer<'_>, schema: SchemaRef<'_>) -> ApiResult<()> {
    if is_reset(new) {
        meta::metadata_mut(new).remove("managedFields");
        if old.is_some() {
            return Ok(());
        }
    }
    let sent = read(new).filter(|entries| !entries.is_empty());
    let mut entries = match (sent, old) {
        (Some(entries), _) => entries,
        (None, Some(old)) => read(old).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    if old.is_some() && entries.is_empty() {
        meta::metadata_mut(new).remove("managedFields");
        return Ok(());
    }
    let changes = compare(old, new, schema);
    let mut found = false;
    for entry in &mut entries {
        if entry.is(writer, Operation::Update) {
            found = true;
            let fields = entry.fields.clone().union(&changes.written).recursive_difference(&changes.removed);
            if fields != entry.fields {
                entry.fields = fields;
                entry.time = writer.now.to_owned();
            }
        } else {
            entry.fields = entry.fields.difference(&changes.written).recursive_difference(&changes.removed);
        }
    }
    if !found && !changes.written.is_empty() {
        entries.push(Entry::new(writer, Operation::Update, changes.written));
    }
    write(new, cap_updaters(entries));
    Ok(())
}

/// Removes from an applied configuration what its endpoint resets, so that it is neither written nor owned: `status`
/// at the main resource of a kind with a status subresource, all but `status` and `metadata` at `/status`.
pub fn reset_fields(config: &mut Value, has_status: bool, subresource: &str) {
    let Some(map) = config.as_object_mut().filter(|_| has_status) else { return };
    match subresource {
        "" => {
            map.remove("status");
        }
        "status" => map.retain(|field, _| matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status")),
        _ => {}
    }
}

/// Applies a configuration to the live object (`None`: creates). Answers the new object with its ownership.
///
/// Errors: 409 with one cause per conflicting field unless `force`; 500 when the configuration does not fit the
/// schema.
pub fn apply(
    live: Option<&Value>,
    config: &Value,
    writer: &Writer<'_>,
    force: bool,
    schema: SchemaRef<'_>,
) -> ApiResult<Value> {
    fit::check(config, schema)?;
    let applied = field_set(config, schema);
    let mut entries = live.map(|l| entries_before_apply(l, writer, schema)).unwrap_or_default();
    let previous = entries.iter().position(|e| e.is(writer, Operation::Apply)).map(|at| entries.remove(at));

    let mut object = merged(live, config, schema);
    if let Some(previous) = &previous {
        let kept = entries.iter().fold(applied.clone(), |all, e| all.union(&e.fields));
        merge::prune(&mut object, &previous.fields, &kept, schema);
    }
    let changes = compare(live, &object, schema);
    let conflicts: Vec<(&Entry, Set)> = entries
        .iter()
        .map(|e| (e, e.fields.intersection(&changes.written)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        let all = conflicts.iter().fold(Set::default(), |all, (_, set)| all.union(set));
        if !live.is_some_and(|live| last_applied::allows(live, writer.manager, &all, schema)) {
            return Err(conflict(&conflicts));
        }
    }
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&changes.written).recursive_difference(&changes.removed);
    }
    let unchanged = previous.filter(|p| p.fields == applied && p.api_version == writer.api_version);
    let time = match unchanged {
        Some(previous) if changes.written.is_empty() && changes.removed.is_empty() => previous.time,
        _ => writer.now.to_owned(),
    };
    entries.push(Entry { time, ..Entry::new(writer, Operation::Apply, applied) });
    last_applied::refresh(&mut object, live, config, writer.manager);
    write(&mut object, entries);
    Ok(object)
}

/// Merges a configuration over an object without regard to owners, as mutating policies do. What is owned as a whole
/// (atomic lists, maps and structs) may not be part of it.
pub fn merge_configuration(object: &Value, config: &Value, schema: SchemaRef<'_>) -> ApiResult<Value> {
    fit::check(config, schema)?;
    let wholes = fit::wholes(config, schema);
    if !wholes.is_empty() {
        let text =
            format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}", wholes.join(", "));
        return Err(ApiError::bad_request(text));
    }
    let mut merged = object.clone();
    merge::merge(&mut merged, config, schema);
    Ok(merged)
}

/// The configuration over the live object, which keeps its identity.
fn merged(live: Option<&Value>, config: &Value, schema: SchemaRef<'_>) -> Value {
    let Some(live) = live else {
        let mut object = json!({});
        merge::merge(&mut object, config, schema);
        return object;
    };
    let mut object = live.clone();
    merge::merge(&mut object, config, schema);
    let metadata = meta::metadata_mut(&mut object);
    for field in ["resourceVersion", "uid"] {
        match live.pointer(&format!("/metadata/{field}")) {
            Some(own) => metadata.insert(field.to_owned(), own.clone()),
            None => metadata.remove(field),
        };
    }
    object
}

/// The live object's entries; an object without any gets one for all that was there before.
fn entries_before_apply(live: &Value, writer: &Writer<'_>, schema: SchemaRef<'_>) -> Vec<Entry> {
    match read(live) {
        Some(entries) if !entries.is_empty() => entries,
        _ => {
            let before = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..*writer };
            vec![Entry::new(&before, Operation::Update, compare(None, live, schema).written)]
        }
    }
}

/// 409 with a cause per field, fields grouped by their manager.
fn conflict(conflicts: &[(&Entry, Set)]) -> ApiError {
    let mut groups: Vec<(String, Vec<String>)> =
        conflicts.iter().map(|(entry, set)| (entry.describe(), set.paths())).collect();
    groups.sort();
    let causes: Vec<StatusCause> = groups
        .iter()
        .flat_map(|(who, paths)| {
            paths.iter().map(move |path| StatusCause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {who}"),
                field: path.clone(),
            })
        })
        .collect();
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => {
            let blocks: Vec<String> = groups
                .iter()
                .map(|(who, paths)| {
                    let lines: String = paths.iter().map(|p| format!("\n- {p}")).collect();
                    format!("conflicts with {who}:{lines}")
                })
                .collect();
            format!("Apply failed with {} conflicts: {}", many.len(), blocks.join("\n"))
        }
    };
    ApiError::new(409, Reason::Conflict, message).with_details(StatusDetails { causes, ..StatusDetails::default() })
}
