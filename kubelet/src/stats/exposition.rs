//! The text form of metrics that are made per scrape.

use std::fmt::Write;

use jiff::Timestamp;

/// A text that grows family by family.
pub(super) struct Exposition {
    text: String,
    family: String,
    prefix: &'static str,
}

impl Exposition {
    /// Nothing yet; every help text begins with `prefix`.
    pub(super) fn new(prefix: &'static str) -> Self {
        Self { text: String::new(), family: String::new(), prefix }
    }

    /// The samples that follow belong to this family.
    pub(super) fn family(&mut self, name: &str, help: &str, kind: &str) {
        name.clone_into(&mut self.family);
        let line = format!("# HELP {name} {}{help}\n# TYPE {name} {kind}\n", self.prefix);
        self.text.push_str(&line);
    }

    /// One sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64, at: Option<Timestamp>) {
        self.text.push_str(&self.family);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.text.push_str(&value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\""));
            self.text.push('"');
        }
        self.text.push_str(if labels.is_empty() { " " } else { "} " });
        // Writing to a string cannot fail.
        let mut _written = write!(self.text, "{value}").is_ok();
        if let Some(at) = at {
            _written = write!(self.text, " {}", at.as_millisecond()).is_ok();
        }
        self.text.push('\n');
    }

    /// The text.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}
