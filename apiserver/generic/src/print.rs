//! Server-side printing: `Table` and `PartialObjectMetadata` forms of objects.

use machinery::{ApiError, ApiResult};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

/// One column of a kind's table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Header.
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the name column.
    pub format: &'static str,
    /// 0 for always, above 0 for wide output only.
    pub priority: i32,
    /// Description shown by clients that ask.
    pub description: &'static str,
}

/// How objects of a kind become table rows.
pub trait Printer: Send + Sync {
    /// The columns, in order.
    fn columns(&self) -> &[Column];

    /// The columns as `columnDefinitions`.
    fn definitions(&self) -> Value {
        let columns = self.columns().iter().map(|c| {
            json!({"name": c.name, "type": c.kind, "format": c.format, "description": c.description,
                   "priority": c.priority})
        });
        Value::Array(columns.collect())
    }

    /// Brings the objects of a list into the order of its rows, where that is not the order of their keys.
    fn arrange(&self, _objects: &mut [Value]) {}

    /// The cells of one object, one per column. Usually one row; kinds may print several.
    fn cells(&self, object: &Value, now: OffsetDateTime) -> Vec<Value>;
}

/// Columns of kinds without a printer: name and creation time.
pub struct DefaultPrinter;

const DEFAULT_COLUMNS: [Column; 2] = [
    Column {
        name: "Name",
        kind: "string",
        format: "name",
        priority: 0,
        description: "Name must be unique within a namespace.",
    },
    Column {
        name: "Created At",
        kind: "date",
        format: "",
        priority: 0,
        description: "CreationTimestamp is a timestamp representing the server time when this object was created.",
    },
];

impl Printer for DefaultPrinter {
    fn columns(&self) -> &[Column] {
        &DEFAULT_COLUMNS
    }

    fn cells(&self, object: &Value, _now: OffsetDateTime) -> Vec<Value> {
        vec![json!(machinery::meta::name(object)), json!(machinery::meta::text(object, "creationTimestamp"))]
    }
}

/// What stands in `rows[].object`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// Parses `includeObject`.
    pub fn parse(text: &str) -> ApiResult<Self> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => Err(ApiError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: \
                 must be 'Metadata', 'Object', 'None', or empty"
            ))),
        }
    }
}

/// The row of one object.
pub fn row(
    printer: &dyn Printer,
    object: Value,
    include: IncludeObject,
    meta_version: &str,
    now: OffsetDateTime,
) -> Value {
    let cells = printer.cells(&object, now);
    let mut row = json!({"cells": cells});
    match include {
        IncludeObject::None => row["object"] = Value::Null,
        IncludeObject::Metadata => row["object"] = partial(object, meta_version),
        IncludeObject::Object => row["object"] = object,
    }
    row
}

/// A `Table` of rows. `metadata` is that of the list or the object.
pub fn table(columns: Value, rows: Vec<Value>, metadata: Map<String, Value>, meta_version: &str) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{meta_version}"),
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// List metadata for the table of one object.
pub fn table_metadata(object: &Value) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), json!(machinery::meta::resource_version(object)));
    metadata
}

/// The `PartialObjectMetadata` of an object.
pub fn partial(mut object: Value, meta_version: &str) -> Value {
    let metadata = object.get_mut("metadata").map(Value::take).unwrap_or_else(|| json!({}));
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{meta_version}"),
        "metadata": metadata,
    })
}
