//! Objects in the formats of `-o`.

use machinery::meta;
use serde_json::{Value, json};

use super::{Options, call, is_ignored};
use crate::{context::Context, error::CommandError, print::Printer, resolve::Target};

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
    let mut items = Vec::new();
    for target in &targets {
        match fetch(context, options, target).await {
            Ok(found) => items.extend(found),
            Err(error) if is_ignored(options, &error) => {}
            Err(error) => errors.push(error),
        }
    }
    let single = targets.len() == 1 && targets[0].name.is_some();
    let mut out = context.streams.out.clone();
    let skipped = items.is_empty() && (single || options.ignore_not_found);
    if !skipped {
        let whole = match single.then(|| items.pop()).flatten() {
            Some(object) => object,
            None => json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}),
        };
        printer.print(&whole, &mut out)?;
    }
    CommandError::all(errors)
}

async fn fetch(context: &Context, options: &Options, target: &Target) -> Result<Vec<Value>, CommandError> {
    let cluster = context.cluster().await?;
    if target.name.is_some() {
        return Ok(vec![cluster.json(&call(options, target)).await?]);
    }
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let mut page = cluster.json(&call(options, target).query_if("continue", &token)).await?;
        token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
        let found = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        items.extend(found.into_iter().map(|mut object| {
            let root = meta::object_mut(&mut object);
            root.insert("apiVersion".into(), target.resource.api_version().into());
            root.insert("kind".into(), target.resource.kind.clone().into());
            object
        }));
        if token.is_empty() {
            return Ok(items);
        }
    }
}
