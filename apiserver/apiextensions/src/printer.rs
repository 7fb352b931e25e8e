//! Tables of custom resources.

use generic::print::{Column as BuiltInColumn, Printer};
use machinery::{duration::human, jsonpath::Template, meta, time::parse};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::definition::Column;

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources \
    may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for \
    creation idempotence and configuration definition. Cannot be updated. More info: \
    https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is \
    not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is \
    represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// Columns as a definition gives them, after the name.
pub(crate) struct ColumnPrinter {
    columns: Vec<(Column, Option<Template>)>,
}

impl ColumnPrinter {
    pub(crate) fn new(columns: &[Column]) -> Self {
        let age = [Column {
            name: "Age".into(),
            kind: "date".into(),
            description: CREATED.into(),
            json_path: ".metadata.creationTimestamp".into(),
            ..Column::default()
        }];
        let columns = if columns.is_empty() { &age[..] } else { columns };
        let compiled = |column: &Column| {
            let template = Template::parse(&format!("{{{}}}", column.json_path)).ok();
            (column.clone(), template)
        };
        Self { columns: columns.iter().map(compiled).collect() }
    }
}

impl Printer for ColumnPrinter {
    fn columns(&self) -> &[BuiltInColumn] {
        &[]
    }

    fn definitions(&self) -> Value {
        let name = json!({"name": "Name", "type": "string", "format": "name", "description": NAME, "priority": 0});
        let given = self.columns.iter().map(|(column, _)| {
            let description = match column.description.as_str() {
                "" => format!("Custom resource definition column (in JSONPath format): {}", column.json_path),
                text => text.to_owned(),
            };
            json!({"name": column.name, "type": column.kind, "format": column.format, "description": description,
                   "priority": column.priority})
        });
        std::iter::once(name).chain(given).collect()
    }

    fn cells(&self, object: &Value, now: OffsetDateTime) -> Vec<Value> {
        let mut cells = vec![json!(meta::name(object))];
        for (column, template) in &self.columns {
            let found = template.as_ref().and_then(|t| t.find(object).ok()).and_then(|f| f.first().copied().cloned());
            cells.push(found.map_or(Value::Null, |value| cell(&column.kind, &value, now)));
        }
        cells
    }
}

fn cell(kind: &str, value: &Value, now: OffsetDateTime) -> Value {
    match (kind, value) {
        ("string", Value::Null) | (_, Value::Null) => Value::Null,
        ("string", value) => json!(machinery::jsonpath::text(value)),
        ("integer", Value::Number(number)) if number.is_f64() => {
            number.as_f64().map_or(Value::Null, |f| json!(f.trunc() as i64))
        }
        ("integer" | "number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(stamp)) => match parse(stamp) {
            Ok(at) => json!(human((now - at).whole_seconds())),
            Err(_) => json!("<invalid>"),
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, kind: &str, path: &str) -> Column {
        Column { name: name.into(), kind: kind.into(), json_path: path.into(), ..Column::default() }
    }

    #[test]
    fn cells_have_the_type_of_their_column() {
        let printer = ColumnPrinter::new(&[
            column("Replicas", "integer", ".spec.replicas"),
            column("Ready", "string", ".status.conditions[?(@.type==\"Ready\")].status"),
            column("Absent", "string", ".spec.none"),
            column("Since", "date", ".spec.at"),
            column("Wrong", "boolean", ".spec.replicas"),
        ]);
        let object = json!({"metadata": {"name": "a"}, "spec": {"replicas": 3, "at": "2024-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let now = parse("2024-01-01T00:05:00Z").expect("time");
        assert_eq!(
            printer.cells(&object, now),
            [json!("a"), json!(3), json!("True"), json!(null), json!("5m"), json!(null)]
        );
        let definitions = printer.definitions();
        assert_eq!(definitions[2]["name"], "Ready");
        assert!(definitions[1]["description"].as_str().is_some_and(|d| d.ends_with(".spec.replicas")));
    }

    #[test]
    fn without_columns_the_age_is_shown() {
        let definitions = ColumnPrinter::new(&[]).definitions();
        assert_eq!((&definitions[0]["name"], &definitions[1]["name"]), (&json!("Name"), &json!("Age")));
    }
}
