//! `TYPE`, `TYPE NAME...`, `TYPE/NAME...`, `TYPE,TYPE NAME...`.

use serde_json::Value;

use super::{Query, Target};
use crate::{
    cluster::Cluster,
    context::Context,
    discovery::{Resource, Served, unknown_type},
    error::CommandError,
};

/// Nothing was named.
pub const NOTHING: &str = "You must provide one or more resources by argument or filename.\nExample resource \
    specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'";
const MIXED: &str = "there is no need to specify a resource type as a separate argument when passing arguments in \
    resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource \
    resource/<resource_name>'";

/// Resolves the arguments of a query.
pub async fn targets(query: &Query, context: &Context) -> Result<(Vec<Target>, Vec<CommandError>), CommandError> {
    let arguments = &query.arguments;
    let Some(first) = arguments.first() else {
        return Err(CommandError::plain(NOTHING));
    };
    let selecting = !query.selector.is_empty() || !query.field_selector.is_empty();
    if arguments.iter().any(|a| a.contains('/')) {
        let pairs = pairs(arguments)?;
        if selecting {
            return Err(CommandError::plain("name cannot be provided when a selector is specified"));
        }
        if query.all_namespaces {
            return Err(CommandError::plain("a resource cannot be retrieved by name across all namespaces"));
        }
        let cluster = context.cluster().await?;
        let mut targets: Vec<Target> = Vec::new();
        for (kind, name) in pairs {
            let resource = resource(&cluster, kind).await?;
            targets.push(named(&cluster, &resource, name));
        }
        return Ok((targets, Vec::new()));
    }
    let names = &arguments[1..];
    if !names.is_empty() && selecting {
        return Err(CommandError::plain("name cannot be provided when a selector is specified"));
    }
    let cluster = context.cluster().await?;
    let resources = types(&cluster, first).await?;
    if names.is_empty() {
        if !selecting && !query.all {
            return Err(CommandError::plain("resource(s) were provided, but no name was specified"));
        }
        let all = resources.into_iter().map(|resource| Target {
            namespace: if query.all_namespaces || !resource.namespaced {
                String::new()
            } else {
                cluster.namespace.clone()
            },
            resource,
            name: None,
            manifest: None,
        });
        return Ok((all.collect(), Vec::new()));
    }
    if query.all_namespaces && resources.iter().any(|r| r.namespaced) {
        return Err(CommandError::plain("a resource cannot be retrieved by name across all namespaces"));
    }
    let mut targets = Vec::new();
    for resource in &resources {
        for name in names {
            if name.is_empty() {
                return Err(CommandError::plain("resource name may not be empty"));
            }
            targets.push(named(&cluster, resource, name));
        }
    }
    Ok((targets, Vec::new()))
}

fn named(cluster: &Cluster, resource: &Resource, name: &str) -> Target {
    let namespace = if resource.namespaced { cluster.namespace.clone() } else { String::new() };
    Target { resource: resource.clone(), namespace, name: Some(name.to_owned()), manifest: None }
}

/// Takes `TYPE/NAME` arguments apart.
fn pairs(arguments: &[String]) -> Result<Vec<(&str, &str)>, CommandError> {
    let mut pairs = Vec::new();
    for argument in arguments {
        let parts: Vec<&str> = argument.split('/').collect();
        match parts.as_slice() {
            [kind, name] if !kind.is_empty() && !name.is_empty() && !kind.contains(',') => pairs.push((*kind, *name)),
            [_, _] => {
                return Err(CommandError::plain(
                    "arguments in resource/name form must have a single resource and name",
                ));
            }
            [_] => return Err(CommandError::plain(MIXED)),
            _ => return Err(CommandError::plain("arguments in resource/name form may not have more than one slash")),
        }
    }
    Ok(pairs)
}

/// The resource of a word.
pub async fn resource(cluster: &Cluster, word: &str) -> Result<Resource, CommandError> {
    let served = cluster.served_with(|served| served.find(word).is_some()).await?;
    known(cluster, &served, word).cloned()
}

/// The resource of a word; other ones that it may mean are told.
fn known<'a>(cluster: &Cluster, served: &'a Served, word: &str) -> Result<&'a Resource, CommandError> {
    let found = served.find(word).ok_or_else(|| unknown_type(word.split('.').next().unwrap_or(word)))?;
    for other in served.of_lower_priority(word, found) {
        cluster
            .warn_once(&format!("short name {word:?} could also match lower priority resource {}", other.title()))?;
    }
    Ok(found)
}

/// The resource of an object's kind.
pub async fn of_kind(cluster: &Cluster, object: &Value) -> Result<Resource, CommandError> {
    let text = |key: &str| object[key].as_str().unwrap_or("");
    let known = |served: &Served| served.of_kind(text("apiVersion"), text("kind")).is_some();
    let served = cluster.served_with(known).await?;
    served.of_kind(text("apiVersion"), text("kind")).cloned().ok_or_else(|| {
        CommandError::plain(format!("no matches for kind {:?} in version {:?}", text("kind"), text("apiVersion")))
    })
}

/// The resources of a comma-separated list of words and categories, each once.
async fn types(cluster: &Cluster, words: &str) -> Result<Vec<Resource>, CommandError> {
    let known = |served: &Served, word: &str| !expand(served, word).is_empty() || served.find(word).is_some();
    let served = cluster.served_with(|served| words.split(',').all(|word| known(served, word))).await?;
    let mut resources: Vec<Resource> = Vec::new();
    let mut add = |resource: &Resource| {
        if !resources.contains(resource) {
            resources.push(resource.clone());
        }
    };
    for word in words.split(',') {
        if word.is_empty() {
            return Err(CommandError::plain(format!(
                "arguments in resource/name form must have a single resource and name: {words:?}"
            )));
        }
        match expand(&served, word) {
            members if !members.is_empty() => members.into_iter().for_each(&mut add),
            _ => add(self::known(cluster, &served, word)?),
        }
    }
    Ok(resources)
}

/// The members of a category that can be listed.
fn expand<'a>(served: &'a Served, word: &str) -> Vec<&'a Resource> {
    served.category(word).into_iter().filter(|r| r.has_verb("list")).collect()
}
