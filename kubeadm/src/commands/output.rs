//! Structured output.

use serde_json::Value;

use crate::{
    error::{Context, Result, fail},
    yaml,
};

/// Version of the printed kinds.
pub(super) const API_VERSION: &str = "output.kubeadm.k8s.io/v1alpha3";

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
    Yaml,
}

impl Format {
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text {
            "text" | "" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            other => fail!("invalid output format {other:?}, supported formats: json|text|yaml"),
        }
    }

    /// One object in this format.
    pub(super) fn render(self, object: &Value) -> Result<String> {
        match self {
            Self::Yaml => yaml::to_yaml(object),
            _ => Ok(format!("{}\n", indented(object)?)),
        }
    }
}

/// JSON with four blanks for each level.
fn indented(value: &Value) -> Result<String> {
    use serde::Serialize;
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).context("cannot encode")?;
    String::from_utf8(out).context("cannot encode")
}

/// Columns at least `least` wide with three blanks between them; the last one is not padded.
pub(super) fn table(rows: &[Vec<String>], least: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|i| rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count() + 3).max().unwrap_or(0).max(least))
        .collect();
    let mut out = String::new();
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            if i + 1 == row.len() {
                out.push_str(cell);
            } else {
                out.push_str(&format!("{cell:width$}", width = widths[i]));
            }
        }
        out.push('\n');
    }
    out
}

/// The time until something, in its greatest unit.
pub(super) fn remaining(seconds: i64) -> String {
    match seconds {
        ..0 => "<invalid>".into(),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        86_400..63_072_000 => format!("{}d", seconds / 86_400),
        _ => format!("{}y", seconds / 31_536_000),
    }
}
