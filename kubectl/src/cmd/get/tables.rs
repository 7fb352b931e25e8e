//! Tables as the server makes them.

use std::io::Write;

use machinery::meta;
use serde_json::{Value, json};

use super::{Options, call, is_ignored, nothing};
use crate::{
    context::Context,
    discovery::Resource,
    error::CommandError,
    print::table::{Aligned, cell, clean},
    resolve::{Target, known_namespace},
    streams::Output,
};

/// Asks for tables.
const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;\
    g=meta.k8s.io,application/json";

/// What is asked for.
pub(super) fn accept(options: &Options) -> &'static str {
    if options.server_print { ACCEPT } else { "application/json" }
}

/// Prints rows under the headers of their resource.
pub(super) struct Writer<'a> {
    options: &'a Options,
    /// Whether names are written with their kind.
    with_kind: bool,
    aligned: Aligned,
    resource: Option<Resource>,
    /// Headings of the block, known from its first table.
    columns: Vec<Value>,
    wrote: bool,
    /// Whether the next row needs a blank line and headers before it.
    pending: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(options: &'a Options, with_kind: bool) -> Self {
        Self {
            options,
            with_kind,
            aligned: Aligned::default(),
            resource: None,
            columns: Vec::new(),
            wrote: false,
            pending: false,
        }
    }

    /// Whether any row was written.
    pub(super) fn wrote(&self) -> bool {
        self.wrote
    }

    /// Adds the rows of a table; `event` is put before each.
    pub(super) fn add(
        &mut self,
        resource: &Resource,
        table: &Value,
        event: Option<&str>,
        out: &mut Output,
    ) -> Result<(), CommandError> {
        if self.resource.as_ref() != Some(resource) {
            self.flush(out)?;
            self.resource = Some(resource.clone());
            self.columns.clear();
            self.aligned = Aligned::default();
            self.pending = true;
        }
        if let Some(columns) = table["columnDefinitions"].as_array().filter(|c| !c.is_empty()) {
            self.columns.clone_from(columns);
        }
        let with_namespace = self.options.query.all_namespaces && resource.namespaced;
        for row in table["rows"].as_array().into_iter().flatten() {
            if std::mem::take(&mut self.pending) && !self.options.no_headers {
                if self.wrote {
                    writeln!(out)?;
                }
                let headers = self.headers(event.is_some(), with_namespace);
                self.aligned.add(headers);
            }
            let line = self.line(resource, row, event, with_namespace);
            self.aligned.add(line);
            self.wrote = true;
        }
        Ok(())
    }

    /// Writes what was added.
    pub(super) fn flush(&mut self, out: &mut Output) -> Result<(), CommandError> {
        let text = self.aligned.flush();
        out.write_all(text.as_bytes())?;
        Ok(())
    }

    fn is_shown(&self, column: &Value) -> bool {
        self.options.wide || column["priority"].as_i64().unwrap_or(0) == 0
    }

    fn headers(&self, event: bool, namespace: bool) -> Vec<String> {
        let mut headers: Vec<String> = Vec::new();
        if event {
            headers.push("EVENT".into());
        }
        if namespace {
            headers.push("NAMESPACE".into());
        }
        let shown = self.columns.iter().filter(|c| self.is_shown(c));
        headers.extend(shown.map(|c| c["name"].as_str().unwrap_or("").to_uppercase()));
        let last = |label: &String| label.rsplit('/').next().unwrap_or("").to_uppercase();
        headers.extend(self.options.label_columns.iter().map(last));
        if self.options.show_labels {
            headers.push("LABELS".into());
        }
        headers
    }

    fn line(&self, resource: &Resource, row: &Value, event: Option<&str>, namespace: bool) -> Vec<String> {
        let object = &row["object"];
        let mut line = Vec::new();
        if let Some(event) = event {
            line.push(format!("{event:8}"));
        }
        if namespace {
            line.push(clean(meta::namespace(object)));
        }
        let cells = row["cells"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        for (at, value) in cells.iter().enumerate() {
            let Some(column) = self.columns.get(at) else { break };
            if !self.is_shown(column) {
                continue;
            }
            let text = cell(value);
            // Kinds stand before the first column that is a name.
            let is_name = column["format"] == "name" && self.columns[..at].iter().all(|c| c["format"] != "name");
            line.push(if self.with_kind && is_name { format!("{}/{text}", resource.kind_title()) } else { text });
        }
        let labels: Vec<(&str, &str)> = meta::text_map(object, "labels").collect();
        for wanted in &self.options.label_columns {
            let value = labels.iter().find(|(key, _)| key == wanted).map_or("", |(_, value)| value);
            line.push(clean(value));
        }
        if self.options.show_labels {
            let mut all: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
            all.sort();
            line.push(if all.is_empty() { "<none>".into() } else { all.join(",") });
        }
        line
    }
}

/// An answer as a table: servers that make none answer the objects.
pub(super) fn table_of(answer: Value) -> Value {
    if answer["kind"] == "Table" {
        return answer;
    }
    let items = match answer.get("items").and_then(Value::as_array) {
        Some(items) => items.clone(),
        None => vec![answer],
    };
    let now = time::OffsetDateTime::now_utc();
    let rows: Vec<Value> = items
        .into_iter()
        .map(|object| {
            let created = meta::text(&object, "creationTimestamp");
            let age = machinery::time::parse(created)
                .map_or("<unknown>".to_owned(), |at| machinery::duration::human((now - at).whole_seconds()));
            json!({"cells": [meta::name(&object), age], "object": object})
        })
        .collect();
    json!({
        "kind": "Table",
        "columnDefinitions": [
            {"name": "Name", "type": "string", "format": "name", "priority": 0},
            {"name": "Age", "type": "string", "format": "", "priority": 0},
        ],
        "rows": rows,
    })
}

/// Prints tables of all targets.
pub(super) async fn run(
    context: &Context,
    options: &Options,
    targets: Vec<Target>,
    mut errors: Vec<CommandError>,
) -> Result<(), CommandError> {
    if targets.is_empty() {
        return CommandError::all(errors);
    }
    let cluster = context.cluster().await?;
    let mut out = context.streams.out.clone();
    let several = targets.iter().any(|t| t.resource != targets[0].resource);
    let mut writer = Writer::new(options, options.show_kind || several);
    for target in &targets {
        let mut token = String::new();
        loop {
            let object = if options.sort.is_some() { "Object" } else { "" };
            let request = call(options, target)
                .accept(accept(options))
                .query_if("continue", &token)
                .query_if("includeObject", object);
            let answer = cluster.json(&request).await;
            let answer = match target.name {
                Some(_) => known_namespace(&cluster, &target.namespace, answer).await,
                None => answer,
            };
            let mut table = match answer {
                Ok(answer) => table_of(answer),
                Err(error) => {
                    if !is_ignored(options, &error) {
                        errors.push(options.query.list_failure(target, error));
                    }
                    break;
                }
            };
            if let (Some(sort), Some(rows)) = (&options.sort, table["rows"].as_array_mut()) {
                // Rows that cannot be sorted are none, as other clients have it.
                if sort.sort(rows, |row| &row["object"]).is_err() {
                    rows.clear();
                }
            }
            writer.add(&target.resource, &table, None, &mut out)?;
            token = table["metadata"]["continue"].as_str().unwrap_or("").to_owned();
            if token.is_empty() || target.name.is_some() {
                break;
            }
        }
    }
    writer.flush(&mut out)?;
    if !writer.wrote() && errors.is_empty() {
        nothing(context, options, &targets, &cluster.namespace)?;
    }
    CommandError::all(errors)
}
