//! `kubectl events`.

use std::io::Write;

use machinery::{meta, time as stamps};
use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{
        self, Printer,
        table::{Aligned, clean},
    },
    resolve::{self, CHUNK, arguments::resource},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("events", "List events")
        .usage("[(-o|--output=)json|yaml|kyaml|name|go-template|go-template-file|template|templatefile|jsonpath|jsonpath-as-json|jsonpath-file] [--for TYPE/NAME] [--watch] [--types=Normal,Warning]")
        .examples(&[
            "kubectl events",
            "kubectl events --for pod/web-pod-13je7 --watch",
            "kubectl events --types=Warning",
        ])
        .flags(print::flags())
        .flags([
            resolve::all_namespaces_flag(),
            resolve::chunk_flag(),
            Flag::text("for", "", "Only events of this resource, TYPE/NAME."),
            Flag::switch("no-headers", "Leave the headers out."),
            Flag::list("types", "Only events of these types: Normal, Warning."),
            Flag::switch("watch", "After listing, go on with new events.").short('w'),
        ])
        .runs(|context| Box::pin(run(context)))
}

/// Which events are wanted.
struct Filter {
    fields: String,
    types: Vec<String>,
}

impl Filter {
    fn admits(&self, event: &Value) -> bool {
        let kind = event["type"].as_str().unwrap_or("");
        self.types.is_empty() || self.types.iter().any(|t| t.eq_ignore_ascii_case(kind))
    }
}

async fn filter(context: &Context) -> Result<Filter, CommandError> {
    let types = context.flags.list("types").to_vec();
    if types.iter().any(|t| !t.eq_ignore_ascii_case("Normal") && !t.eq_ignore_ascii_case("Warning")) {
        return Err(CommandError::plain("valid --types are Normal or Warning"));
    }
    let Some(target) = context.flags.non_empty("for") else {
        return Ok(Filter { fields: String::new(), types });
    };
    let Some((word, name)) = target.split_once('/').filter(|(w, n)| !w.is_empty() && !n.is_empty()) else {
        return Err(CommandError::plain("--for must be in resource/name form"));
    };
    let found = resource(&*context.cluster().await?, word).await?;
    let fields = format!(
        "involvedObject.kind={},involvedObject.name={name},involvedObject.apiVersion={}",
        found.kind,
        found.api_version()
    );
    Ok(Filter { fields, types })
}

async fn run(context: &Context) -> Result<(), CommandError> {
    if !context.args.is_empty() {
        return Err(context.usage(format!("unexpected arguments: [{}]", context.args.join(" "))));
    }
    let filter = filter(context).await?;
    let mut printer = Printer::of(&context.flags, &["wide"])?;
    let cluster = context.cluster().await?;
    let everywhere = context.flags.bool("all-namespaces");
    let path = match everywhere {
        true => "/api/v1/events".to_owned(),
        false => format!("/api/v1/namespaces/{}/events", cluster.namespace),
    };
    let watching = context.flags.bool("watch");
    let (mut events, version) = list(context, &path, &filter).await?;
    let mut out = context.streams.out.clone();
    if events.is_empty() && !watching {
        let mut err = context.streams.err.clone();
        match everywhere {
            true => writeln!(err, "No events found.")?,
            false => writeln!(err, "No events found in {} namespace.", cluster.namespace)?,
        }
        return Ok(());
    }
    events.sort_by_key(last_seen);
    let mut table = Aligned::default();
    if printer.is_none() && !context.flags.bool("no-headers") {
        let headers = ["NAMESPACE", "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
        table.row(if everywhere { &headers } else { &headers[1..] });
    }
    match &mut printer {
        Some(printer) if !watching => {
            let whole = json!({"apiVersion": "v1", "kind": "EventList", "metadata": {"resourceVersion": version}, "items": events});
            return printer.print_declared(&whole, &mut out);
        }
        Some(printer) => {
            for event in &events {
                printer.print_declared(event, &mut out)?;
            }
        }
        None => {
            events.iter().for_each(|e| table.add(row(e, everywhere)));
            write!(out, "{}", table.flush())?;
        }
    }
    if !watching {
        return Ok(());
    }
    out.flush()?;
    let request = Call::get(&path)
        .query_if("fieldSelector", &filter.fields)
        .query("resourceVersion", version)
        .query("watch", "true");
    let mut watch = cluster.watch(&request).await?;
    loop {
        let event = tokio::select! {
            event = watch.next() => event?,
            () = context.stop.cancelled() => return Ok(()),
        };
        let Some(event) = event else { return Ok(()) };
        if matches!(event.kind.as_str(), "DELETED" | "BOOKMARK") || !filter.admits(&event.object) {
            continue;
        }
        match &mut printer {
            Some(printer) => printer.print_declared(&event.object, &mut out)?,
            None => {
                table.add(row(&event.object, everywhere));
                write!(out, "{}", table.flush())?;
            }
        }
        out.flush()?;
    }
}

async fn list(context: &Context, path: &str, filter: &Filter) -> Result<(Vec<Value>, String), CommandError> {
    let cluster = context.cluster().await?;
    let chunk = if context.flags.given("chunk-size") { context.flags.int("chunk-size") } else { CHUNK };
    let (mut events, mut token, mut version) = (Vec::new(), String::new(), String::new());
    loop {
        let mut call = Call::get(path).query_if("fieldSelector", &filter.fields).query_if("continue", &token);
        if chunk > 0 {
            call = call.query("limit", chunk.to_string());
        }
        let mut page = cluster.json(&call).await?;
        token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
        if version.is_empty() {
            version = meta::resource_version(&page).to_owned();
        }
        let items = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        for mut event in items.into_iter().filter(|e| filter.admits(e)) {
            meta::object_mut(&mut event).insert("apiVersion".into(), json!("v1"));
            meta::object_mut(&mut event).insert("kind".into(), json!("Event"));
            events.push(event);
        }
        if token.is_empty() {
            return Ok((events, version));
        }
    }
}

fn stamp(value: &Value) -> Option<time::OffsetDateTime> {
    let text = value.as_str()?;
    stamps::parse(text).or_else(|_| stamps::parse_micro(text)).ok()
}

fn last_seen(event: &Value) -> Option<time::OffsetDateTime> {
    [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"], &event["firstTimestamp"]]
        .into_iter()
        .find_map(stamp)
}

fn since(value: &Value) -> String {
    match stamp(value) {
        Some(at) => machinery::duration::human((time::OffsetDateTime::now_utc() - at).whole_seconds()),
        None => "<unknown>".to_owned(),
    }
}

fn row(event: &Value, namespace: bool) -> Vec<String> {
    let text = |value: &Value| clean(value.as_str().unwrap_or("").trim());
    let first = match stamp(&event["firstTimestamp"]) {
        Some(_) => since(&event["firstTimestamp"]),
        None => since(&event["eventTime"]),
    };
    let interval = if event["series"].is_object() {
        let count = event["series"]["count"].as_i64().unwrap_or(0);
        format!("{} (x{count} over {first})", since(&event["series"]["lastObservedTime"]))
    } else if event["count"].as_i64().unwrap_or(0) > 1 {
        format!("{} (x{} over {first})", since(&event["lastTimestamp"]), event["count"])
    } else {
        first
    };
    let object = &event["involvedObject"];
    let mut row = vec![
        interval,
        text(&event["type"]),
        text(&event["reason"]),
        format!("{}/{}", text(&object["kind"]), text(&object["name"])),
        text(&event["message"]),
    ];
    if namespace {
        row.insert(0, meta::namespace(event).to_owned());
    }
    row
}
