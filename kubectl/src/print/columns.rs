//! `-o custom-columns`.

use std::io::Write;

use serde_json::Value;

use super::{
    jsonpath::{self, Template},
    table::Aligned,
};
use crate::{error::CommandError, streams::Output};

/// Headers with the paths of their cells.
#[derive(Debug)]
pub struct Columns {
    headers: Vec<String>,
    paths: Vec<Template>,
    table: Aligned,
    headed: bool,
}

impl Columns {
    /// Parses `HEADER:PATH,...`.
    pub fn parse(spec: &str) -> Result<Self, CommandError> {
        if spec.is_empty() {
            return Err(CommandError::plain("custom-columns format specified but no custom columns given"));
        }
        let (mut headers, mut paths) = (Vec::new(), Vec::new());
        for part in spec.split(',') {
            let (header, path) = part.split_once(':').ok_or_else(|| {
                CommandError::plain(format!(
                    "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
                ))
            })?;
            headers.push(header.to_owned());
            paths.push(relaxed(path)?);
        }
        Ok(Self { headers, paths, table: Aligned::default(), headed: false })
    }

    /// Reads headers and paths from the two lines of a file.
    pub fn parse_file(path: &str) -> Result<Self, CommandError> {
        if path.is_empty() {
            return Err(CommandError::plain("custom-columns format specified but no custom columns given"));
        }
        let text = std::fs::read_to_string(path).map_err(|e| {
            let text = crate::kubeconfig::files::go_io_text(&e);
            CommandError::plain(format!("error reading template {path}, open {path}: {text}\n"))
        })?;
        let words: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        let [headers, paths, ..] = words.as_slice() else {
            return Err(CommandError::plain(
                "invalid template, missing spec line. Expect format is one line of space separated column headers, one \
                 line of space separated column fields from Jsonpath query",
            ));
        };
        if headers.len() != paths.len() {
            return Err(CommandError::plain(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headers.len(),
                paths.len()
            )));
        }
        Ok(Self {
            headers: headers.iter().map(|h| (*h).to_owned()).collect(),
            paths: paths.iter().map(|p| relaxed(p)).collect::<Result<_, _>>()?,
            table: Aligned::default(),
            headed: false,
        })
    }

    /// No headers are to be printed (again).
    pub fn headers_are_done(&mut self) {
        self.headed = true;
    }

    /// Prints an object, or the items of a list.
    pub fn print(&mut self, object: &Value, out: &mut Output) -> Result<(), CommandError> {
        if !std::mem::replace(&mut self.headed, true) {
            self.table.add(self.headers.clone());
        }
        match object.get("items").and_then(Value::as_array) {
            Some(items) => {
                for item in items {
                    let row = self.row(item)?;
                    self.table.add(row);
                }
            }
            None => {
                let row = self.row(object)?;
                self.table.add(row);
            }
        }
        write!(out, "{}", self.table.flush())?;
        Ok(())
    }

    fn row(&self, object: &Value) -> Result<Vec<String>, CommandError> {
        let mut row = Vec::new();
        for path in &self.paths {
            let found = path.find(object).map_err(|e| CommandError::plain(e.to_string()))?;
            let found: Vec<String> = found.into_iter().map(jsonpath::text).collect();
            row.push(if found.is_empty() { "<none>".to_owned() } else { found.join(",") });
        }
        Ok(row)
    }
}

fn relaxed(path: &str) -> Result<Template, CommandError> {
    Template::parse_relaxed(path).map_err(|e| CommandError::plain(e.to_string()))
}
