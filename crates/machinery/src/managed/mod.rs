//! Field ownership: `metadata.managedFields` and server-side apply (KEP-555).

mod set;
#[cfg(test)]
mod tests;
mod typed;

use serde_json::{Map, Value, json};

pub use set::Set;

use crate::{
    meta,
    schema::SchemaRef,
    status::{ApiError, ApiResult, Reason, StatusCause, StatusDetails},
};

/// Update managers beyond this many are merged into one.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    manager: String,
    operation: Operation,
    api_version: String,
    subresource: String,
    time: String,
    fields: Set,
}

impl Entry {
    fn is(&self, writer: &Writer<'_>, operation: Operation) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.subresource == writer.subresource
            && (operation == Operation::Apply || self.api_version == writer.api_version)
    }

    fn new(writer: &Writer<'_>, operation: Operation, fields: Set) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            operation,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.now.to_owned(),
            fields,
        }
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: Set::from_fields(value.get("fieldsV1").unwrap_or(&Value::Null)),
        })
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("manager".into(), json!(self.manager));
        map.insert("operation".into(), json!(self.operation.as_str()));
        map.insert("apiVersion".into(), json!(self.api_version));
        if !self.time.is_empty() {
            map.insert("time".into(), json!(self.time));
        }
        map.insert("fieldsType".into(), json!("FieldsV1"));
        map.insert("fieldsV1".into(), self.fields.to_fields());
        if !self.subresource.is_empty() {
            map.insert("subresource".into(), json!(self.subresource));
        }
        Value::Object(map)
    }

    fn describe(&self) -> String {
        let mut text = format!("conflict with {:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
            if !self.time.is_empty() {
                text.push_str(&format!(" at {}", self.time));
            }
        }
        text
    }
}

fn read(object: &Value) -> Option<Vec<Entry>> {
    let list = object.pointer("/metadata/managedFields")?.as_array()?;
    list.iter().map(Entry::parse).collect()
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    entries.sort_by(|a, b| {
        let key =
            |e: &Entry| (e.operation, e.time.clone(), e.manager.clone(), e.api_version.clone(), e.subresource.clone());
        key(a).cmp(&key(b))
    });
    let metadata = meta::metadata_mut(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.iter().map(Entry::to_value).collect());
    }
}

/// Metadata that nobody owns.
const UNTRACKED: [&str; 8] =
    ["name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"];

/// The object without what is never tracked.
fn tracked(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in UNTRACKED {
                metadata.remove(field);
            }
        }
        if map.get("metadata").and_then(Value::as_object).is_some_and(Map::is_empty) {
            map.remove("metadata");
        }
    }
    object
}

/// Records a create (`old` absent) or update: what changed goes to the writer, removed fields to nobody.
///
/// The object may carry managedFields of the client: an empty list (or `[{}]`) clears, a valid one replaces.
pub fn update(old: Option<&Value>, new: &mut Value, writer: &Writer<'_>, schema: SchemaRef<'_>) -> ApiResult<()> {
    let sent = new.pointer("/metadata/managedFields").and_then(Value::as_array);
    let cleared = sent.is_some_and(|l| l.is_empty() || (l.len() == 1 && l[0].as_object().is_some_and(Map::is_empty)));
    if cleared && old.is_some() {
        meta::metadata_mut(new).remove("managedFields");
        return Ok(());
    }
    let before = match (read(new).filter(|e| !e.is_empty()), old) {
        (Some(entries), _) => entries,
        (None, Some(old)) => read(old).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    let empty = json!({});
    let old = old.map(tracked);
    let comparison = typed::compare(Some(old.as_ref().unwrap_or(&empty)), Some(&tracked(new)), schema);
    let mut entries = before;
    let mut found = false;
    for entry in &mut entries {
        if entry.is(writer, Operation::Update) {
            found = true;
            let fields = entry.fields.clone().union(&comparison.written).recursive_difference(&comparison.removed);
            if fields != entry.fields {
                entry.fields = fields;
                entry.time = writer.now.to_owned();
            }
        } else {
            entry.fields = entry.fields.difference(&comparison.written).recursive_difference(&comparison.removed);
        }
    }
    if !found && !comparison.written.is_empty() {
        entries.push(Entry::new(writer, Operation::Update, comparison.written));
    }
    write(new, cap_updaters(entries));
    Ok(())
}

/// Merges the oldest Update entries into one per version when there are too many.
fn cap_updaters(mut entries: Vec<Entry>) -> Vec<Entry> {
    let updaters = entries.iter().filter(|e| e.operation == Operation::Update).count();
    let Some(surplus) = updaters.checked_sub(MAX_UPDATERS).filter(|n| *n > 0) else { return entries };
    entries.sort_by(|a, b| (a.operation, &a.time).cmp(&(b.operation, &b.time)));
    let first = entries.iter().position(|e| e.operation == Operation::Update).unwrap_or(0);
    let old: Vec<Entry> = entries.drain(first..=first + surplus).collect();
    for entry in old {
        let bucket = entries
            .iter_mut()
            .find(|e| e.manager == ANCIENT && e.operation == Operation::Update && e.api_version == entry.api_version);
        match bucket {
            Some(bucket) => {
                bucket.fields = std::mem::take(&mut bucket.fields).union(&entry.fields);
                bucket.time = entry.time.max(bucket.time.clone());
            }
            None => entries.push(Entry { manager: ANCIENT.into(), subresource: String::new(), ..entry }),
        }
    }
    entries
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
    let mut problems = Vec::new();
    typed::check(config, schema, &mut String::new(), &mut problems);
    typed::unfit(&describe(config), &problems)?;

    let config_tracked = tracked(config);
    let applied = typed::field_set(&config_tracked, schema);
    let applied = if is_blank_root(&config_tracked) { Set::default() } else { applied };
    let mut entries = live.map(|l| entries_before_apply(l, writer, schema)).unwrap_or_default();
    let previous = entries.iter().position(|e| e.is(writer, Operation::Apply)).map(|at| entries.remove(at));

    let mut merged = live.cloned().unwrap_or_else(|| json!({}));
    let mut wanted = config.clone();
    for field in ["resourceVersion", "uid"] {
        if live.is_some() {
            meta::metadata_mut(&mut wanted).remove(field);
        }
    }
    typed::merge(&mut merged, &wanted, schema);
    if let Some(previous) = &previous {
        let mut others = applied.clone();
        for entry in &entries {
            others = others.union(&entry.fields);
        }
        let gone = previous.fields.difference(&others);
        typed::remove(&mut merged, &gone, &others, schema);
    }

    let old = live.map(tracked).unwrap_or_else(|| json!({}));
    let comparison = typed::compare(Some(&old), Some(&tracked(&merged)), schema);
    let conflicts: Vec<(Entry, Set)> = entries
        .iter()
        .map(|e| (e.clone(), e.fields.intersection(&comparison.written)))
        .filter(|(_, set)| !set.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    for entry in &mut entries {
        entry.fields = entry.fields.difference(&comparison.written).recursive_difference(&comparison.removed);
    }
    let unchanged = previous.as_ref().filter(|p| p.fields == applied && p.api_version == writer.api_version);
    let time = unchanged.map_or(writer.now, |p| p.time.as_str()).to_owned();
    entries.push(Entry { time, ..Entry::new(writer, Operation::Apply, applied) });
    write(&mut merged, entries);
    Ok(merged)
}

fn is_blank_root(config: &Value) -> bool {
    config.as_object().is_none_or(Map::is_empty)
}

/// The live object's entries; an object without any gets one for all that was there before.
fn entries_before_apply(live: &Value, writer: &Writer<'_>, schema: SchemaRef<'_>) -> Vec<Entry> {
    match read(live) {
        Some(entries) if !entries.is_empty() => entries,
        _ => {
            let fields = typed::field_set(&tracked(live), schema);
            let old = Writer { manager: BEFORE_FIRST_APPLY, subresource: "", ..*writer };
            let time = meta::text(live, "creationTimestamp").to_owned();
            vec![Entry { time, ..Entry::new(&old, Operation::Update, fields) }]
        }
    }
}

fn describe(config: &Value) -> String {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or("");
    let place = match meta::namespace(config) {
        "" => format!("/{}", meta::name(config)),
        namespace => format!("{namespace}/{}", meta::name(config)),
    };
    format!("{place}; {}, Kind={}", text("apiVersion"), text("kind"))
}

fn conflict(conflicts: &[(Entry, Set)]) -> ApiError {
    let mut causes = Vec::new();
    let mut blocks = Vec::new();
    for (entry, set) in conflicts {
        let paths = set.paths();
        for path in &paths {
            causes.push(StatusCause {
                reason: "FieldManagerConflict".into(),
                message: entry.describe(),
                field: path.clone(),
            });
        }
        blocks.push((entry.describe().replacen("conflict with", "", 1).trim_start().to_owned(), paths));
    }
    let count = causes.len();
    let message = if count == 1 {
        let (entry, set) = &conflicts[0];
        format!("Apply failed with 1 conflict: {}: {}", entry.describe(), set.paths().join(""))
    } else {
        blocks.sort();
        let texts = blocks.iter().map(|(who, paths)| {
            let lines: Vec<String> = paths.iter().map(|p| format!("- {p}")).collect();
            format!("conflicts with {who}:\n{}", lines.join("\n"))
        });
        format!("Apply failed with {count} conflicts: {}", texts.collect::<Vec<_>>().join("\n"))
    };
    ApiError::new(409, Reason::Conflict, message).with_details(StatusDetails { causes, ..StatusDetails::default() })
}
