//! `get --watch` and `--watch-only`.

use std::io::Write;

use machinery::meta;
use serde_json::{Value, json};

use super::{
    Options, call,
    tables::{self, Writer, table_of},
};
use crate::{cluster::Call, context::Context, error::CommandError, print::Printer, resolve::Target, streams::Output};

/// Where events are printed.
enum Sink<'a> {
    Tables(Writer<'a>),
    Objects(Printer),
}

struct Session<'a> {
    target: &'a Target,
    sink: Sink<'a>,
    /// Whether events are shown with what happened.
    events: bool,
    out: Output,
}

/// Prints what there is, then what happens until the server ends the watch or the user does.
pub(super) async fn run(
    context: &Context,
    options: &Options,
    printer: Option<Printer>,
    targets: &[Target],
) -> Result<(), CommandError> {
    let [target] = targets else {
        return Err(CommandError::plain("you may only specify a single resource type"));
    };
    let cluster = context.cluster().await?;
    let sink = match printer {
        Some(printer) => Sink::Objects(printer),
        None => Sink::Tables(Writer::new(options, options.show_kind)),
    };
    let accept = if matches!(sink, Sink::Tables(_)) { tables::accept(options) } else { "application/json" };
    let mut session = Session { target, sink, events: options.output_watch_events, out: context.streams.out.clone() };
    let version = session.begin(context, options, accept).await?;
    let mut request = Call::get(&target.resource.path(&target.namespace)).accept(accept);
    request = match &target.name {
        Some(name) => request.query("fieldSelector", format!("metadata.name={name}")),
        None => request
            .query_if("fieldSelector", &options.query.field_selector)
            .query_if("labelSelector", &options.query.selector),
    };
    let request = request.query("resourceVersion", version).query("watch", "true");
    let mut watch = cluster.watch(&request).await?;
    // The first event of a watch from "0" tells of the object as it is.
    let mut skip = target.name.is_some();
    loop {
        let event = tokio::select! {
            event = watch.next() => event?,
            () = context.stop.cancelled() => return Ok(()),
        };
        let Some(event) = event else { return Ok(()) };
        if event.kind == "BOOKMARK" || std::mem::take(&mut skip) {
            continue;
        }
        session.show(&event.kind, event.object)?;
        session.out.flush()?;
    }
}

impl Session<'_> {
    /// Shows what there is unless only changes are wanted; answers the version to watch from.
    async fn begin(
        &mut self,
        context: &Context,
        options: &Options,
        accept: &'static str,
    ) -> Result<String, CommandError> {
        let cluster = context.cluster().await?;
        let (mut token, mut version) = (String::new(), String::new());
        loop {
            let request = call(options, self.target).accept(accept).query_if("continue", &token);
            let page = cluster.json(&request).await?;
            token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
            if version.is_empty() {
                version = meta::resource_version(&page).to_owned();
            }
            if !options.watch_only {
                match page.get("items").and_then(Value::as_array) {
                    Some(items) if page["kind"] != "Table" => {
                        for item in items {
                            let mut item = item.clone();
                            let root = meta::object_mut(&mut item);
                            root.insert("apiVersion".into(), self.target.resource.api_version().into());
                            root.insert("kind".into(), self.target.resource.kind.clone().into());
                            self.show("ADDED", item)?;
                        }
                    }
                    _ => self.show("ADDED", page)?,
                }
            }
            if token.is_empty() || self.target.name.is_some() {
                break;
            }
        }
        self.out.flush()?;
        Ok(if self.target.name.is_some() { "0".to_owned() } else { version })
    }

    fn show(&mut self, kind: &str, object: Value) -> Result<(), CommandError> {
        match &mut self.sink {
            Sink::Tables(writer) => {
                let event = self.events.then_some(kind);
                writer.add(&self.target.resource, &table_of(object), event, &mut self.out)?;
                writer.flush(&mut self.out)
            }
            Sink::Objects(printer) if self.events => {
                printer.print(&json!({"type": kind, "object": object}), &mut self.out)
            }
            Sink::Objects(printer) => printer.print(&object, &mut self.out),
        }
    }
}
