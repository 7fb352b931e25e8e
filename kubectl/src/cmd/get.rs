//! `kubectl get`.

use http::Method;
use machinery::meta;
use serde_json::{Value, json};

use super::{Target, targets, title};
use crate::{
    cli::Get,
    cluster::Cluster,
    error::CommandError,
    jsonpath::{self, Template},
    table::{cell, render},
};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Runs the command; answers what goes to standard output and to standard error.
pub async fn run(cluster: &Cluster, options: &Get) -> Result<(String, String), CommandError> {
    if let Some(path) = &options.raw {
        return Ok((cluster.text(path).await?, String::new()));
    }
    let targets = targets(cluster, &options.arguments).await?;
    match options.output.as_deref() {
        None | Some("wide") => tables(cluster, options, &targets).await,
        Some(format @ ("json" | "yaml" | "name")) => objects(cluster, options, &targets, format).await,
        Some(format) if is_template(format) => objects(cluster, options, &targets, format).await,
        Some(other) => Err(CommandError::plain(format!(
            "unable to match a printer suitable for the output format {other:?}, allowed formats are: \
             custom-columns,json,jsonpath,jsonpath-file,name,wide,yaml"
        ))),
    }
}

fn is_template(format: &str) -> bool {
    matches!(format.split_once('=').map_or(format, |(name, _)| name), "jsonpath" | "jsonpath-file" | "custom-columns")
}

fn path(cluster: &Cluster, options: &Get, target: &Target) -> String {
    let namespace = (!options.selection.all_namespaces || target.name.is_some()).then_some(cluster.namespace.as_str());
    let collection = target.resource.path(namespace);
    if let Some(name) = &target.name {
        return format!("{collection}/{name}");
    }
    let mut query = vec!["limit=500".to_owned()];
    if let Some(selector) = &options.selection.selector {
        query.push(format!("labelSelector={}", escape(selector)));
    }
    if let Some(selector) = &options.selection.field_selector {
        query.push(format!("fieldSelector={}", escape(selector)));
    }
    format!("{collection}?{}", query.join("&"))
}

/// Percent-encodes a query value.
pub fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// All pages of a GET, merged: `items` or `rows` of later pages are added to the first.
async fn pages(cluster: &Cluster, path: &str, accept: &str) -> Result<Value, CommandError> {
    let mut whole = cluster.send(Method::GET, path, &[("accept", accept)], Vec::new()).await?;
    loop {
        let token = whole.pointer("/metadata/continue").and_then(Value::as_str).unwrap_or("").to_owned();
        if token.is_empty() {
            return Ok(whole);
        }
        let next = format!("{path}&continue={}", escape(&token));
        let mut page = cluster.send(Method::GET, &next, &[("accept", accept)], Vec::new()).await?;
        for list in ["items", "rows"] {
            let more = page.get_mut(list).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
            if let Some(all) = whole.get_mut(list).and_then(Value::as_array_mut) {
                all.extend(more);
            }
        }
        whole["metadata"] = page["metadata"].take();
    }
}

async fn tables(cluster: &Cluster, options: &Get, targets: &[Target]) -> Result<(String, String), CommandError> {
    let several = targets.iter().any(|t| t.resource.plural != targets[0].resource.plural);
    let mut blocks = Vec::new();
    let mut failure = None;
    // Named objects of one resource stand in one table.
    let mut by_resource: Vec<(&Target, Vec<Value>, Value)> = Vec::new();
    for target in targets {
        let table = match pages(cluster, &path(cluster, options, target), TABLE).await {
            Ok(table) => table,
            Err(error) if error.is_not_found() && options.ignore_not_found => continue,
            Err(error) if error.is_not_found() && target.name.is_some() => {
                failure = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        let rows = table["rows"].as_array().cloned().unwrap_or_default();
        match by_resource.iter_mut().find(|(t, ..)| t.resource == target.resource) {
            Some((_, all, _)) => all.extend(rows),
            None => by_resource.push((target, rows, table["columnDefinitions"].clone())),
        }
    }
    for (target, rows, columns) in &by_resource {
        if !rows.is_empty() {
            blocks.push(block(options, target, rows, columns, several));
        }
    }
    if let Some(error) = failure {
        // What was found is shown before the failure.
        print!("{}", blocks.join("\n"));
        return Err(error);
    }
    if blocks.is_empty() && !options.ignore_not_found {
        let namespaced = targets.iter().all(|t| t.resource.namespaced) && !options.selection.all_namespaces;
        let place = if namespaced { format!(" in {} namespace.", cluster.namespace) } else { String::new() };
        return Ok((String::new(), format!("No resources found{place}\n")));
    }
    Ok((blocks.join("\n"), String::new()))
}

fn block(options: &Get, target: &Target, rows: &[Value], columns: &Value, several: bool) -> String {
    let wide = options.output.as_deref() == Some("wide");
    let columns: Vec<&Value> = columns.as_array().into_iter().flatten().collect();
    let shown: Vec<usize> =
        (0..columns.len()).filter(|at| wide || columns[*at]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let with_namespace = options.selection.all_namespaces && target.resource.namespaced;
    let mut headers: Vec<String> = Vec::new();
    if with_namespace {
        headers.push("NAMESPACE".into());
    }
    headers.extend(shown.iter().map(|at| columns[*at]["name"].as_str().unwrap_or("").to_uppercase()));
    if options.show_labels {
        headers.push("LABELS".into());
    }
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let object = &row["object"];
            let mut line = Vec::new();
            if with_namespace {
                line.push(meta::namespace(object).to_owned());
            }
            for at in &shown {
                let mut text = cell(&row["cells"][*at]);
                if several && columns[*at]["format"] == "name" {
                    let group = if target.resource.group.is_empty() {
                        String::new()
                    } else {
                        format!(".{}", target.resource.group)
                    };
                    text = format!("{}{group}/{text}", target.resource.singular);
                }
                line.push(text);
            }
            if options.show_labels {
                let labels: Vec<String> = meta::text_map(object, "labels").map(|(k, v)| format!("{k}={v}")).collect();
                line.push(if labels.is_empty() { "<none>".into() } else { labels.join(",") });
            }
            line
        })
        .collect();
    render((!options.no_headers).then_some(headers.as_slice()), &lines)
}

async fn objects(
    cluster: &Cluster,
    options: &Get,
    targets: &[Target],
    format: &str,
) -> Result<(String, String), CommandError> {
    let mut items = Vec::new();
    for target in targets {
        let answer = match pages(cluster, &path(cluster, options, target), "application/json").await {
            Err(error) if error.is_not_found() && options.ignore_not_found => continue,
            answer => answer?,
        };
        match answer.get("items").and_then(Value::as_array) {
            Some(list) if target.name.is_none() => items.extend(list.iter().cloned().map(|mut item| {
                item["apiVersion"] = json!(target.resource.api_version());
                item["kind"] = json!(target.resource.kind);
                item
            })),
            _ => items.push(answer),
        }
    }
    if !is_template(format) {
        for item in &mut items {
            meta::metadata_mut(item).remove("managedFields");
        }
    }
    if format == "name" {
        return Ok((items.iter().map(|i| format!("{}\n", title(i))).collect(), String::new()));
    }
    if let Some(spec) = format.strip_prefix("custom-columns") {
        return columns(spec.trim_start_matches('='), &items, options.no_headers).map(|out| (out, String::new()));
    }
    let single = targets.len() == 1 && targets[0].name.is_some();
    let value = match items.len() {
        1 if single => items.remove(0),
        0 if single => return Ok((String::new(), String::new())),
        _ => json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}}),
    };
    let out = if is_template(format) { template(format, &value)? } else { encode(&value, format)? };
    Ok((out, String::new()))
}

/// Prints by `jsonpath=TEMPLATE` or `jsonpath-file=PATH`.
fn template(format: &str, value: &Value) -> Result<String, CommandError> {
    let (name, argument) = format.split_once('=').unwrap_or((format, ""));
    if argument.is_empty() {
        return Err(CommandError::plain("template format specified but no template given"));
    }
    let text = match name {
        "jsonpath-file" => std::fs::read_to_string(argument)
            .map_err(|e| CommandError::plain(format!("error reading --template {argument}, {e}")))?,
        _ => argument.to_owned(),
    };
    let parsed =
        Template::parse(&text).map_err(|e| CommandError::plain(format!("error parsing jsonpath {text}, {e}")))?;
    parsed.print(value).map_err(|e| CommandError::plain(format!("error executing jsonpath {text:?}: {e}")))
}

/// Prints by `custom-columns=HEADER:PATH,...`.
fn columns(spec: &str, items: &[Value], no_headers: bool) -> Result<String, CommandError> {
    if spec.is_empty() {
        return Err(CommandError::plain("custom-columns format specified but no custom columns given"));
    }
    let (mut headers, mut paths) = (Vec::new(), Vec::new());
    for part in spec.split(',') {
        let (header, path) = part.split_once(':').ok_or_else(|| {
            CommandError::plain(format!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"))
        })?;
        headers.push(header.to_owned());
        paths.push(Template::parse_relaxed(path).map_err(|e| CommandError::plain(e.to_string()))?);
    }
    let mut rows = Vec::new();
    for item in items {
        let mut row = Vec::new();
        for path in &paths {
            let found = path.find(item).map_err(|e| CommandError::plain(e.to_string()))?;
            let found: Vec<String> = found.into_iter().map(jsonpath::text).collect();
            row.push(if found.is_empty() { "<none>".into() } else { found.join(",") });
        }
        rows.push(row);
    }
    Ok(render((!no_headers).then_some(headers.as_slice()), &rows))
}

/// JSON with four blanks of indentation, or YAML.
fn encode(value: &Value, format: &str) -> Result<String, CommandError> {
    if format == "yaml" {
        return serde_yaml::to_string(value).map_err(|e| CommandError::plain(e.to_string()));
    }
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    serde::Serialize::serialize(value, &mut serializer).map_err(|e| CommandError::plain(e.to_string()))?;
    out.push(b'\n');
    let text = String::from_utf8_lossy(&out).into_owned();
    Ok(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}
