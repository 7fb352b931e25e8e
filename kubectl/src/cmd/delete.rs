//! `kubectl delete`.

use std::time::Duration;

use http::Method;
use machinery::meta;
use serde_json::{Value, json};

use super::{get::escape, manifests, targets};
use crate::{
    cli::Delete,
    cluster::{Cluster, Resource},
    error::CommandError,
};

/// Time between looks at an object that is going.
const POLL: Duration = Duration::from_millis(250);

/// Runs the command.
pub async fn run(cluster: &Cluster, options: &Delete) -> Result<String, CommandError> {
    let chosen = objects(cluster, options).await?;
    let mut out = String::new();
    let mut going = Vec::new();
    for (resource, namespace, name) in chosen {
        let path = format!("{}/{name}", resource.path(Some(&namespace)));
        let policy = match options.cascade.as_str() {
            "foreground" => "Foreground",
            "orphan" => "Orphan",
            _ => "Background",
        };
        let mut body = json!({"propagationPolicy": policy});
        if let Some(grace) = options.grace_period.filter(|g| *g >= 0) {
            body["gracePeriodSeconds"] = json!(grace);
        }
        let headers = [("content-type", "application/json")];
        match cluster.send(Method::DELETE, &path, &headers, body.to_string().into_bytes()).await {
            Err(error) if error.is_not_found() && options.ignore_not_found => continue,
            answer => answer?,
        };
        let group = if resource.group.is_empty() { String::new() } else { format!(".{}", resource.group) };
        let place = if resource.namespaced { format!(" from {namespace} namespace") } else { String::new() };
        out.push_str(&format!("{}{group} {name:?} deleted{place}\n", resource.singular));
        going.push(path);
    }
    if options.wait {
        for path in going {
            until_gone(cluster, &path).await?;
        }
    }
    Ok(out)
}

async fn until_gone(cluster: &Cluster, path: &str) -> Result<(), CommandError> {
    let mut uid: Option<String> = None;
    loop {
        match cluster.send(Method::GET, path, &[], Vec::new()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
            // An object of the same name that was made since is another one.
            Ok(object) if uid.as_deref().is_some_and(|uid| uid != meta::uid(&object)) => return Ok(()),
            Ok(object) => uid = Some(meta::uid(&object).to_owned()),
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn objects(cluster: &Cluster, options: &Delete) -> Result<Vec<(Resource, String, String)>, CommandError> {
    let mut chosen = Vec::new();
    if !options.filename.is_empty() {
        let resources = cluster.resources().await?;
        for manifest in manifests::read(&options.filename)? {
            let resource = manifests::resource_of(&resources, &manifest)?.clone();
            let namespace = match meta::namespace(&manifest.object) {
                "" => cluster.namespace.clone(),
                namespace => namespace.to_owned(),
            };
            chosen.push((resource, namespace, meta::name(&manifest.object).to_owned()));
        }
        return Ok(chosen);
    }
    for target in targets(cluster, &options.arguments).await? {
        if let Some(name) = target.name {
            chosen.push((target.resource, cluster.namespace.clone(), name));
            continue;
        }
        if options.selector.is_none() && !options.all {
            return Err(CommandError::plain("resource(s) were provided, but no name was specified"));
        }
        let selector = options.selector.as_deref().map(|s| format!("?labelSelector={}", escape(s))).unwrap_or_default();
        let path = target.resource.path(Some(&cluster.namespace)) + &selector;
        let list = cluster.send(Method::GET, &path, &[], Vec::new()).await?;
        for item in list["items"].as_array().into_iter().flatten() {
            let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("").to_owned();
            chosen.push((target.resource.clone(), cluster.namespace.clone(), name));
        }
    }
    Ok(chosen)
}
