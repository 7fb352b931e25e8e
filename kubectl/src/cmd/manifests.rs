//! `create`, `apply`: objects from files.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use http::Method;
use machinery::{decode::decode_yaml, meta};
use serde_json::{Value, json};

use super::title;
use crate::{
    cli::{Apply, Files},
    cluster::{Cluster, Resource},
    error::CommandError,
};

/// An object with the name of where it was read.
pub struct Manifest {
    /// The object.
    pub object: Value,
    /// Path, or `STDIN`.
    pub source: String,
}

/// Reads files, directories (their .json, .yaml and .yml files) and standard input; lists are taken apart.
pub fn read(paths: &[PathBuf]) -> Result<Vec<Manifest>, CommandError> {
    let mut all = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|e| CommandError::plain(e.to_string()))?;
            parse(&text, "STDIN", &mut all)?;
            continue;
        }
        let missing = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::NotFound => {
                CommandError::plain(format!("the path {:?} does not exist", path.display().to_string()))
            }
            _ => CommandError::plain(format!("{}: {e}", path.display())),
        };
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = std::fs::read_dir(path).map_err(missing)?;
            let wanted = |p: &PathBuf| p.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml");
            files = entries.filter_map(Result::ok).map(|e| e.path()).filter(wanted).collect();
            files.sort();
        }
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(missing)?;
            parse(&text, &file.display().to_string(), &mut all)?;
        }
    }
    Ok(all)
}

fn parse(text: &str, source: &str, all: &mut Vec<Manifest>) -> Result<(), CommandError> {
    for document in text.split("\n---").map(|d| d.strip_prefix("---").unwrap_or(d)) {
        let bare = document.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
        if bare {
            continue;
        }
        let (object, _) = decode_yaml(document.as_bytes())
            .map_err(|e| CommandError::plain(format!("error parsing {source}: {e}")))?;
        let items = object.get("items").and_then(Value::as_array).filter(|_| object["kind"] == "List");
        match items {
            Some(items) => {
                all.extend(items.iter().cloned().map(|object| Manifest { object, source: source.to_owned() }))
            }
            None => all.push(Manifest { object, source: source.to_owned() }),
        }
    }
    Ok(())
}

/// The resource of an object.
pub fn resource_of<'a>(all: &'a [Resource], manifest: &Manifest) -> Result<&'a Resource, CommandError> {
    let text = |key: &str| manifest.object[key].as_str().unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    all.iter().find(|r| r.api_version() == version && r.kind == kind).ok_or_else(|| {
        CommandError::plain(format!(
            "unable to recognize {:?}: no matches for kind {kind:?} in version {version:?}",
            manifest.source
        ))
    })
}

fn namespace_of(cluster: &Cluster, object: &Value) -> String {
    match meta::namespace(object) {
        "" => cluster.namespace.clone(),
        namespace => namespace.to_owned(),
    }
}

fn query(files: &Files, more: &str) -> String {
    let validation = match files.validate.as_str() {
        "warn" => "Warn",
        "ignore" => "Ignore",
        _ => "Strict",
    };
    let dry_run = if files.dry_run == "server" { "&dryRun=All" } else { "" };
    format!("?fieldValidation={validation}{dry_run}{more}")
}

fn suffix(files: &Files) -> &'static str {
    if files.dry_run == "server" { " (server dry run)" } else { "" }
}

/// Runs `create -f`.
pub async fn create(cluster: &Cluster, files: &Files) -> Result<String, CommandError> {
    let resources = cluster.resources().await?;
    let mut out = String::new();
    for manifest in read(&files.filename)? {
        let resource = resource_of(&resources, &manifest)?;
        let namespace = namespace_of(cluster, &manifest.object);
        let path = resource.path(Some(&namespace)) + &query(files, "&fieldManager=kubectl-create");
        let body = manifest.object.to_string().into_bytes();
        let created = cluster
            .send(Method::POST, &path, &[("content-type", "application/json")], body)
            .await
            .map_err(|e| e.during(format!("error when creating {:?}", manifest.source)))?;
        out.push_str(&format!("{} created{}\n", title(&created), suffix(files)));
    }
    Ok(out)
}

/// Runs `apply`.
pub async fn apply(cluster: &Cluster, options: &Apply) -> Result<String, CommandError> {
    if !options.server_side {
        return Err(CommandError::plain("client-side apply is not built in; give --server-side"));
    }
    let resources = cluster.resources().await?;
    let manifests = read(&options.files.filename)?;
    if manifests.is_empty() {
        return Err(CommandError::plain("no objects passed to apply"));
    }
    let mut out = String::new();
    for manifest in manifests {
        let resource = resource_of(&resources, &manifest)?;
        let name = meta::name(&manifest.object);
        if name.is_empty() {
            let prefix = meta::text(&manifest.object, "generateName");
            return Err(CommandError::plain(format!("from {prefix}: cannot use generate name with apply")));
        }
        let namespace = namespace_of(cluster, &manifest.object);
        let more =
            format!("&fieldManager={}&force={}", super::get::escape(&options.field_manager), options.force_conflicts);
        let path = format!("{}/{name}{}", resource.path(Some(&namespace)), query(&options.files, &more));
        let mut object = manifest.object.clone();
        if resource.namespaced {
            meta::metadata_mut(&mut object).insert("namespace".into(), json!(namespace));
        }
        let headers = [("content-type", "application/apply-patch+yaml")];
        let applied = cluster
            .send(Method::PATCH, &path, &headers, object.to_string().into_bytes())
            .await
            .map_err(|e| e.during(format!("error when applying {:?}", manifest.source)))?;
        out.push_str(&format!("{} serverside-applied{}\n", title(&applied), suffix(&options.files)));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let mut all = Vec::new();
        parse("# c\n---\nkind: A\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n", "f", &mut all).expect("YAML");
        let kinds: Vec<&str> = all.iter().filter_map(|m| m.object["kind"].as_str()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
    }
}
