//! `patch`, `scale`, `label`, `annotate`.

use http::Method;
use machinery::decode::decode_yaml;
use serde_json::{Map, Value, json};

use super::{single, targets, title};
use crate::{
    cli::{Metadata, Patch, Scale},
    cluster::Cluster,
    error::CommandError,
};

const MERGE: &str = "application/merge-patch+json";

/// Runs `patch`.
pub async fn patch(cluster: &Cluster, options: &Patch) -> Result<String, CommandError> {
    let (resource, name) = single(cluster, &options.arguments).await?;
    let (patch, _) = decode_yaml(options.patch.as_bytes())
        .map_err(|e| CommandError::plain(format!("unable to parse {:?}: {e}", options.patch)))?;
    let path = format!("{}/{name}", resource.path(Some(&cluster.namespace)));
    let before = cluster.send(Method::GET, &path, &[], Vec::new()).await?;
    let media = match options.r#type.as_str() {
        "merge" => MERGE,
        "json" => "application/json-patch+json",
        _ => "application/strategic-merge-patch+json",
    };
    let body = patch.to_string().into_bytes();
    let path = format!("{path}?fieldManager=kubectl-patch");
    let after = cluster.send(Method::PATCH, &path, &[("content-type", media)], body).await?;
    let idle = if before == after { " (no change)" } else { "" };
    Ok(format!("{} patched{idle}\n", title(&after)))
}

/// Runs `scale`.
pub async fn scale(cluster: &Cluster, options: &Scale) -> Result<String, CommandError> {
    let (resource, name) = single(cluster, &options.arguments).await?;
    let path = format!("{}/{name}/scale", resource.path(Some(&cluster.namespace)));
    let body = json!({"spec": {"replicas": options.replicas}}).to_string().into_bytes();
    cluster.send(Method::PATCH, &path, &[("content-type", MERGE)], body).await?;
    let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
    Ok(format!("{}{group}/{name} scaled\n", resource.singular))
}

/// Runs `label` (`field` = `labels`) or `annotate` (`annotations`).
pub async fn metadata(cluster: &Cluster, options: &Metadata, field: &str) -> Result<String, CommandError> {
    let is_change = |a: &String| !a.contains('/') && a.ends_with('-') || a.contains('=');
    let (changes, objects): (Vec<String>, Vec<String>) = options.arguments.iter().cloned().partition(is_change);
    if changes.is_empty() {
        return Err(CommandError::plain(format!("at least one {} update is required", field.trim_end_matches('s'))));
    }
    let mut values = Map::new();
    for change in &changes {
        match change.split_once('=') {
            Some((key, value)) => values.insert(key.to_owned(), json!(value)),
            None => values.insert(change.trim_end_matches('-').to_owned(), Value::Null),
        };
    }
    let done = if field == "labels" { "labeled" } else { "annotated" };
    let undone = if field == "labels" { "unlabeled" } else { "annotated" };
    let mut out = String::new();
    for target in targets(cluster, &objects).await? {
        let Some(name) = &target.name else {
            return Err(CommandError::plain(
                "one or more resources must be specified as <resource> <name> or <resource>/<name>",
            ));
        };
        let path = format!("{}/{name}", target.resource.path(Some(&cluster.namespace)));
        let before = cluster.send(Method::GET, &path, &[], Vec::new()).await?;
        for (key, value) in values.iter().filter(|(_, v)| !v.is_null() && !options.overwrite) {
            let present = before.pointer(&format!("/metadata/{field}")).and_then(|m| m.get(key));
            if let Some(present) = present.filter(|p| *p != value) {
                let present = present.as_str().unwrap_or("");
                return Err(CommandError::plain(format!(
                    "'{key}' already has a value ({present}), and --overwrite is false"
                )));
            }
        }
        let body = json!({"metadata": {field: values}}).to_string().into_bytes();
        let verb = if field == "labels" { "label" } else { "annotate" };
        let path = format!("{path}?fieldManager=kubectl-{verb}");
        let after = cluster.send(Method::PATCH, &path, &[("content-type", MERGE)], body).await?;
        let word = match (before == after, values.values().all(Value::is_null)) {
            (true, _) => "not labeled",
            (false, true) => undone,
            (false, false) => done,
        };
        out.push_str(&format!("{} {word}\n", title(&after)));
    }
    Ok(out)
}
