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
use machinery::GroupVersionKind;
use serde_json::Value;
use time::OffsetDateTime;

/// The cells of one object.
type Cells = fn(&Value, OffsetDateTime) -> Vec<Value>;

struct Table {
    columns: Vec<Column>,
    cells: Cells,
}

impl Printer for Table {
    fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn cells(&self, object: &Value, now: OffsetDateTime) -> Vec<Value> {
        (self.cells)(object, now)
    }
}

/// The printer of a kind, or `None` for those with the default columns.
pub fn printer(gvk: &GroupVersionKind) -> Option<Box<dyn Printer>> {
    let (columns, cells) = core::table(gvk)
        .or_else(|| workloads::table(gvk))
        .or_else(|| batch::table(gvk))
        .or_else(|| other::table(gvk))?;
    Some(Box::new(Table { columns: parse(columns), cells }))
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
