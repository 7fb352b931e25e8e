//! Entries of `metadata.managedFields`.

use serde_json::{Map, Value, json};

use super::{Writer, set::Set};
use crate::{field::go_quote, meta};

/// How fields were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
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

/// One manager's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) manager: String,
    pub(super) operation: Operation,
    pub(super) api_version: String,
    pub(super) subresource: String,
    pub(super) time: String,
    pub(super) fields: Set,
}

impl Entry {
    pub(super) fn new(writer: &Writer<'_>, operation: Operation, fields: Set) -> Self {
        Self {
            manager: writer.manager.to_owned(),
            operation,
            api_version: writer.api_version.to_owned(),
            subresource: writer.subresource.to_owned(),
            time: writer.now.to_owned(),
            fields,
        }
    }

    /// Whether this is the entry that the writer's operation goes to.
    pub(super) fn is(&self, writer: &Writer<'_>, operation: Operation) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.subresource == writer.subresource
            && (operation == Operation::Apply || self.api_version == writer.api_version)
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("");
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        if text("fieldsType") != "FieldsV1" {
            return None;
        }
        Some(Self {
            manager: text("manager").to_owned(),
            operation,
            api_version: text("apiVersion").to_owned(),
            subresource: text("subresource").to_owned(),
            time: text("time").to_owned(),
            fields: match value.get("fieldsV1") {
                Some(fields) => Set::parse(fields)?,
                None => Set::default(),
            },
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

    /// The manager as conflicts name it: `"kubectl" with subresource "scale" using v1 at <time>`.
    pub(super) fn describe(&self) -> String {
        let mut text = go_quote(&self.manager);
        if !self.subresource.is_empty() {
            text.push_str(" with subresource ");
            text.push_str(&go_quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(" using ");
            text.push_str(&self.api_version);
            if !self.time.is_empty() {
                text.push_str(" at ");
                text.push_str(&self.time);
            }
        }
        text
    }
}

/// The entries of an object; `None` when one of them is not valid.
pub(super) fn read(object: &Value) -> Option<Vec<Entry>> {
    match object.pointer("/metadata/managedFields") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(Entry::parse).collect(),
        Some(_) => None,
    }
}

/// Writes the entries that own something, sorted.
pub(super) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|e| !e.fields.is_empty());
    entries.sort_by(|a, b| {
        let key = |e: &'_ Entry| (e.operation, e.time.clone(), e.manager.clone(), e.api_version.clone());
        key(a).cmp(&key(b)).then_with(|| a.subresource.cmp(&b.subresource))
    });
    let metadata = meta::metadata_mut(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.iter().map(Entry::to_value).collect());
    }
}

/// Update managers beyond this many are merged.
const MAX_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// Merges the oldest Update entries of each version into one when there are too many.
pub(super) fn cap_updaters(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|e| !e.fields.is_empty());
    let mut count = entries.iter().filter(|e| e.operation == Operation::Update).count();
    if count <= MAX_UPDATERS {
        return entries;
    }
    let (mut updaters, mut others): (Vec<Entry>, Vec<Entry>) =
        entries.into_iter().partition(|e| e.operation == Operation::Update);
    updaters.sort_by(|a, b| (&a.time, &a.manager).cmp(&(&b.time, &b.manager)));
    let mut merged: Vec<Entry> = Vec::new();
    for entry in updaters {
        let bucket = merged.iter_mut().find(|e| e.api_version == entry.api_version);
        match bucket {
            Some(bucket) if count > MAX_UPDATERS => {
                bucket.manager = ANCIENT.to_owned();
                bucket.subresource.clear();
                bucket.fields = std::mem::take(&mut bucket.fields).union(&entry.fields);
                bucket.time = entry.time;
                count -= 1;
            }
            Some(_) => others.push(entry),
            None => merged.push(entry),
        }
    }
    others.append(&mut merged);
    others
}
