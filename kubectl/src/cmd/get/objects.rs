//! Objects in the formats of `-o`.

use std::io::Write;

use machinery::meta;
use serde_json::{Value, json};

use super::{Options, call, is_ignored};
use crate::{
    cluster::Cluster,
    context::Context,
    error::CommandError,
    print::{Format, Printer},
    resolve::{Target, known_namespace},
    streams::Output,
};

/// Prints the objects of all targets.
pub(super) async fn run(
    context: &Context,
    options: &Options,
    mut printer: Printer,
    targets: Vec<Target>,
    mut errors: Vec<CommandError>,
) -> Result<(), CommandError> {
    if targets.is_empty() {
        return CommandError::all(errors);
    }
    let cluster = context.cluster().await?;
    let mut out = context.streams.out.clone();
    if let [target] = targets.as_slice()
        && target.name.is_some()
    {
        let mut found = Vec::new();
        pages(&cluster, options, target, &mut errors, &mut |items| {
            found.extend(items);
            Ok(())
        })
        .await?;
        if let Some(object) = found.pop() {
            printer.print(&object, &mut out)?;
        }
        return CommandError::all(errors);
    }
    if options.sort.is_none() && !printer.needs_whole() {
        let mut list = List { printer: &mut printer, out: &mut out, begun: false };
        for target in &targets {
            pages(&cluster, options, target, &mut errors, &mut |items| list.add(&items)).await?;
        }
        if list.begun || !options.ignore_not_found {
            list.end()?;
        }
        return CommandError::all(errors);
    }
    let mut all = Vec::new();
    for target in &targets {
        pages(&cluster, options, target, &mut errors, &mut |items| {
            all.extend(items);
            Ok(())
        })
        .await?;
    }
    if let Some(sort) = &options.sort {
        sort.sort(&mut all, |object| object)?;
    }
    if !(all.is_empty() && options.ignore_not_found) {
        let whole = json!({"apiVersion": "v1", "items": all, "kind": "List", "metadata": {"resourceVersion": ""}});
        printer.print(&whole, &mut out)?;
    }
    CommandError::all(errors)
}

/// Gives the objects of a target to `take`, page by page.
async fn pages(
    cluster: &Cluster,
    options: &Options,
    target: &Target,
    errors: &mut Vec<CommandError>,
    take: &mut dyn FnMut(Vec<Value>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let mut token = String::new();
    loop {
        let answer = cluster.json(&call(options, target).query_if("continue", &token)).await;
        let answer = match target.name {
            Some(_) => known_namespace(cluster, &target.namespace, answer).await,
            None => answer,
        };
        let mut page = match answer {
            Ok(page) => page,
            Err(error) if is_ignored(options, &error) => return Ok(()),
            Err(error) => {
                errors.push(options.query.list_failure(target, error));
                return Ok(());
            }
        };
        if target.name.is_some() {
            return take(vec![page]);
        }
        token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
        let mut items = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        for object in &mut items {
            let root = meta::object_mut(object);
            root.insert("apiVersion".into(), target.resource.api_version().into());
            root.insert("kind".into(), target.resource.kind.clone().into());
        }
        take(items)?;
        if token.is_empty() {
            return Ok(());
        }
    }
}

/// A `v1 List` that is printed while it is fetched.
struct List<'a> {
    printer: &'a mut Printer,
    out: &'a mut Output,
    begun: bool,
}

impl List<'_> {
    fn add(&mut self, items: &[Value]) -> Result<(), CommandError> {
        for item in items {
            let first = !std::mem::replace(&mut self.begun, true);
            let text = self.printer.item(item);
            match self.printer.format() {
                Format::Json => {
                    let head = if first { "{\n    \"apiVersion\": \"v1\",\n    \"items\": [\n" } else { ",\n" };
                    let indented: Vec<String> = text.trim_end().lines().map(|l| format!("        {l}")).collect();
                    write!(self.out, "{head}{}", indented.join("\n"))?;
                }
                Format::Yaml => {
                    let head = if first { "apiVersion: v1\nitems:\n" } else { "" };
                    write!(self.out, "{head}{text}")?;
                }
                _ => self.printer.print(item, self.out)?,
            }
        }
        Ok(())
    }

    fn end(self) -> Result<(), CommandError> {
        match (self.printer.format(), self.begun) {
            (Format::Json, true) => write!(
                self.out,
                "\n    ],\n    \"kind\": \"List\",\n    \"metadata\": {{\n        \"resourceVersion\": \"\"\n    }}\n}}\n"
            )?,
            (Format::Yaml, true) => write!(self.out, "kind: List\nmetadata:\n  resourceVersion: \"\"\n")?,
            (_, true) => {}
            (_, false) => {
                let empty =
                    json!({"apiVersion": "v1", "items": [], "kind": "List", "metadata": {"resourceVersion": ""}});
                self.printer.print(&empty, self.out)?;
            }
        }
        Ok(())
    }
}
