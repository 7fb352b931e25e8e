//! Tables in aligned columns.

use serde_json::Value;

/// Least width of a column, and blanks between columns.
const MIN_WIDTH: usize = 6;
const PADDING: usize = 3;

/// A cell as it is shown: cut at the first line break, control characters escaped.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".into(),
        other => other.to_string(),
    };
    let line = text.split(['\n', '\r', '\u{c}']).next().unwrap_or("");
    let mut shown: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if line.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

/// Lines of a table; the last column is not padded.
pub fn render(headers: Option<&[String]>, rows: &[Vec<String>]) -> String {
    let all: Vec<&[String]> = headers.into_iter().chain(rows.iter().map(Vec::as_slice)).collect();
    let columns = all.iter().map(|r| r.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|at| {
            let widest = all.iter().filter_map(|r| r.get(at)).map(|c| c.chars().count()).max().unwrap_or(0);
            (widest + PADDING).max(MIN_WIDTH)
        })
        .collect();
    let mut out = String::new();
    for row in all {
        for (at, text) in row.iter().enumerate() {
            out.push_str(text);
            if at + 1 < row.len() {
                let blanks = widths[at].saturating_sub(text.chars().count());
                out.push_str(&" ".repeat(blanks));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let text = render(Some(&row(&["NAME", "AGE"])), &[row(&["kube-system", "5m"])]);
        assert_eq!(text, "NAME          AGE\nkube-system   5m\n");
        assert_eq!(cell(&json!("a\nb")), "a...");
        assert_eq!(cell(&json!(3)), "3");
    }
}
