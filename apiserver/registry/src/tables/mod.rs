//! Table columns of the built-in kinds, as kubectl shows them.
//!
//! A kind's columns are written the way documentation lists them, `Name(s,n) Ready(s) | Containers(s)`: `s` text, `i`
//! integer, `b` truth value, `w` text of wide output, `n` the name format; what follows `|` is shown in wide output only.

mod batch;
mod cells;
mod core;
mod other;
mod pods;
mod workloads;

use generic::print::{Column, Printer};
use machinery::{GroupVersionKind, meta};
use serde_json::Value;
use time::OffsetDateTime;

/// The cells of one object.
type Cells = fn(&Value, OffsetDateTime) -> Vec<Value>;

struct Table {
    columns: Vec<Column>,
    cells: Cells,
    arrange: fn(&mut [Value]),
}

impl Printer for Table {
    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn arrange(&self, objects: &mut [Value]) {
        (self.arrange)(objects);
    }

    fn cells(&self, object: &Value, now: OffsetDateTime) -> Vec<Value> {
        (self.cells)(object, now)
    }
}

/// FlowSchemas stand in the order in which they are tried.
fn by_precedence(objects: &mut [Value]) {
    let precedence = |object: &Value| object.pointer("/spec/matchingPrecedence").and_then(Value::as_i64).unwrap_or(0);
    objects.sort_by(|a, b| (precedence(a), meta::name(a)).cmp(&(precedence(b), meta::name(b))));
}

/// The printer of a kind, or `None` for those with the default columns.
pub fn printer(gvk: &GroupVersionKind) -> Option<Box<dyn Printer>> {
    let (columns, cells) = core::table(gvk)
        .or_else(|| workloads::table(gvk))
        .or_else(|| batch::table(gvk))
        .or_else(|| other::table(gvk))?;
    let arrange = if gvk.kind == "FlowSchema" { by_precedence } else { |_: &mut [Value]| {} };
    Some(Box::new(Table { columns: parse(columns), cells, arrange }))
}

fn parse(text: &'static str) -> Vec<Column> {
    let (shown, wide) = text.split_once(" | ").unwrap_or((text, ""));
    let of = |part: &'static str, priority: i32| {
        part.split(") ").filter(|c| !c.is_empty()).map(move |column| {
            let (name, notation) = column.rsplit_once('(').unwrap_or((column, "s"));
            let (kind, format) =
                notation.trim_end_matches(')').split_once(',').unwrap_or((notation.trim_end_matches(')'), ""));
            Column {
                name,
                kind: match kind {
                    "i" => "integer",
                    "b" => "boolean",
                    _ => "string",
                },
                format: if format == "n" { "name" } else { "" },
                priority: if kind == "w" { 1 } else { priority },
                description: if format == "n" { "Name must be unique within a namespace." } else { name },
            }
        })
    };
    of(shown, 0).chain(of(wide, 1)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_read_from_their_notation() {
        let columns = parse("Name(s,n) Port(s)(s) Desired(i) | Selector(s)");
        let names: Vec<_> = columns.iter().map(|c| (c.name, c.kind, c.format, c.priority)).collect();
        assert_eq!(
            names,
            [
                ("Name", "string", "name", 0),
                ("Port(s)", "string", "", 0),
                ("Desired", "integer", "", 0),
                ("Selector", "string", "", 1),
            ]
        );
    }

    #[test]
    fn flow_schemas_stand_in_the_order_in_which_they_are_tried() {
        let schema = |name: &str, precedence: i64| json!({"metadata": {"name": name}, "spec": {"matchingPrecedence": precedence}});
        let mut objects = vec![schema("a", 10_000), schema("c", 1), schema("b", 1), schema("d", 500)];
        let kind = GroupVersionKind::new("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema");
        printer(&kind).expect("a printer").arrange(&mut objects);
        let names: Vec<_> = objects.iter().map(meta::name).collect();
        assert_eq!(names, ["b", "c", "d", "a"]);
    }

    #[test]
    fn every_table_has_one_cell_per_column() {
        let now = OffsetDateTime::now_utc();
        for kind in api::api().kinds() {
            let Some(printer) = printer(&kind.gvk) else { continue };
            // IPAddress rows are one wider than its columns, as upstream's are.
            let extra = usize::from(kind.gvk.kind == "IPAddress");
            let cells = printer.cells(&json!({"metadata": {"name": "x"}}), now);
            assert_eq!(cells.len(), printer.columns().len() + extra, "{:?}", kind.gvk);
        }
    }
}
