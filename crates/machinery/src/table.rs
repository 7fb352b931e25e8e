//! `meta.k8s.io/v1` Table and PartialObjectMetadata on the wire.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::meta;

/// `apiVersion` of tables and partial objects.
pub const API_VERSION: &str = "meta.k8s.io/v1";

/// One column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `name` for the column of names.
    pub format: String,
    /// Text for people.
    pub description: String,
    /// 0 is always shown.
    pub priority: i32,
}

/// One row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Row {
    /// A value per column.
    pub cells: Vec<Value>,
    /// Object, its metadata, or null.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub object: Value,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Table {
    /// Always `Table`.
    pub kind: String,
    /// Always `meta.k8s.io/v1`.
    pub api_version: String,
    /// List metadata.
    pub metadata: Map<String, Value>,
    /// Columns; only in the first event of a watch.
    pub column_definitions: Vec<Column>,
    /// Rows.
    pub rows: Vec<Row>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            kind: "Table".into(),
            api_version: API_VERSION.into(),
            metadata: Map::new(),
            column_definitions: Vec::new(),
            rows: Vec::new(),
        }
    }
}

/// The `PartialObjectMetadata` of an object.
pub fn partial(object: &Value) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": API_VERSION, "metadata": metadata})
}

/// The `PartialObjectMetadataList` of a list; its items carry kind and version.
pub fn partial_list(list: &Value) -> Value {
    let items: Vec<Value> = list.get("items").and_then(Value::as_array).into_iter().flatten().map(partial).collect();
    let metadata = list.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadataList", "apiVersion": API_VERSION, "metadata": metadata, "items": items})
}

/// Cells of a kind without columns of its own: name and creation time.
pub fn default_cells(object: &Value) -> Vec<Value> {
    let created = meta::text(object, "creationTimestamp");
    let created = if created.is_empty() { Value::Null } else { json!(created) };
    vec![json!(meta::name(object)), created]
}

/// Columns of a kind without columns of its own.
pub fn default_columns() -> Vec<Column> {
    let column = |name: &str, kind: &str, format: &str, description: &str| Column {
        name: name.into(),
        kind: kind.into(),
        format: format.into(),
        description: description.into(),
        priority: 0,
    };
    vec![
        column(
            "Name",
            "string",
            "name",
            "Name must be unique within a namespace. Is required when creating resources, although some resources may \
             allow a client to request the generation of an appropriate name automatically. Name is primarily \
             intended for creation idempotence and configuration definition. Cannot be updated. More info: \
             https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
        ),
        column(
            "Created At",
            "date",
            "",
            "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
             guaranteed to be set in happens-before order across separate operations. Clients may not set this value. \
             It is represented in RFC3339 form and is in UTC.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_objects_keep_metadata_only() {
        let list = json!({"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}, "spec": {}}]});
        let partial = partial_list(&list);
        assert_eq!(partial["metadata"]["resourceVersion"], "7");
        assert_eq!(
            partial["items"][0],
            json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "a"}})
        );
    }

    #[test]
    fn tables_round_trip() {
        let table = Table { column_definitions: default_columns(), ..Table::default() };
        let value = serde_json::to_value(&table).expect("json");
        assert_eq!(value["columnDefinitions"][1]["type"], "date");
        assert_eq!(serde_json::from_value::<Table>(value).expect("table"), table);
    }
}
