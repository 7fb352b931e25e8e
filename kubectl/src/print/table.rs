//! Tables in aligned columns.

use serde_json::Value;

/// Least width of a column, and blanks between columns.
const MIN_WIDTH: usize = 6;
const PADDING: usize = 3;

/// A cell as it is shown: cut at the first line break, control characters escaped.
pub fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => clean(text),
        Value::Null => "<none>".into(),
        Value::Number(number) if number.is_f64() => number.as_f64().map_or_else(String::new, super::yaml::go_float),
        other => other.to_string(),
    }
}

/// A text on one line.
pub fn clean(text: &str) -> String {
    let line = text.split(['\n', '\r', '\u{c}']).next().unwrap_or("");
    let mut shown = escape(line);
    if line.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

/// Control characters made visible, so that a terminal does not obey them.
pub fn escape(text: &str) -> String {
    if !text.chars().any(|c| c == '\u{1b}') {
        return text.to_owned();
    }
    text.replace('\u{1b}', "^[")
}

/// Rows whose columns are as wide as the widest cell so far: widths are kept over flushes and only grow.
#[derive(Debug)]
pub struct Aligned {
    rows: Vec<Vec<String>>,
    widths: Vec<usize>,
    least: usize,
    padding: usize,
}

impl Default for Aligned {
    fn default() -> Self {
        Self { rows: Vec::new(), widths: Vec::new(), least: MIN_WIDTH, padding: PADDING }
    }
}

impl Aligned {
    /// With its own least width and padding.
    pub fn with(least: usize, padding: usize) -> Self {
        Self { least, padding, ..Self::default() }
    }

    /// Adds a row.
    pub fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// Adds a row of borrowed cells.
    pub fn row(&mut self, cells: &[&str]) {
        self.add(cells.iter().map(|c| (*c).to_owned()).collect());
    }

    /// The lines of the rows added since the last flush. The last cell of a row is not padded.
    pub fn flush(&mut self) -> String {
        let rows = std::mem::take(&mut self.rows);
        for row in &rows {
            // The last cell of a row does not make its column wider.
            for (at, text) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
                let width = (text.chars().count() + self.padding).max(self.least);
                match self.widths.get_mut(at) {
                    Some(known) => *known = width.max(*known),
                    None => self.widths.push(width),
                }
            }
        }
        let mut out = String::new();
        for row in &rows {
            for (at, text) in row.iter().enumerate() {
                out.push_str(text);
                if at + 1 < row.len() {
                    let blanks = self.widths[at].saturating_sub(text.chars().count());
                    out.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            out.push('\n');
        }
        out
    }
}

/// A whole table.
pub fn render(headers: Option<&[String]>, rows: &[Vec<String>]) -> String {
    let mut table = Aligned::default();
    headers.into_iter().for_each(|h| table.add(h.to_vec()));
    rows.iter().for_each(|r| table.add(r.clone()));
    table.flush()
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

    #[test]
    fn widths_are_kept() {
        let mut table = Aligned::default();
        table.row(&["kube-system", "1"]);
        table.flush();
        table.row(&["a", "2"]);
        assert_eq!(table.flush(), "a             2\n");
    }
}
