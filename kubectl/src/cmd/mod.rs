//! The commands.

pub mod api;
pub mod change;
pub mod delete;
pub mod get;
pub mod logs;
pub mod manifests;

use machinery::meta;
use serde_json::Value;

use crate::{
    cluster::{Cluster, Resource},
    error::CommandError,
};

/// `kind.group/name`, as results are reported.
pub fn title(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("").to_lowercase();
    let group =
        object["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or(String::new(), |(g, _)| format!(".{g}"));
    format!("{kind}{group}/{}", meta::name(object))
}

/// A named object, or all of a resource.
#[derive(Clone, Debug)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// The name; `None` for all.
    pub name: Option<String>,
}

/// Reads `TYPE[,TYPE] [NAME...]` or `TYPE/NAME...`.
pub async fn targets(cluster: &Cluster, arguments: &[String]) -> Result<Vec<Target>, CommandError> {
    let Some(first) = arguments.first() else {
        return Err(CommandError::Verbatim(
            "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of \
             supported resources.\n\nerror: Required resource not specified.\nUse \"kubectl explain <resource>\" for a \
             detailed description of that resource (e.g. kubectl explain pods)."
                .into(),
        ));
    };
    let all = cluster.resources().await?;
    let resolve = |word: &str| {
        crate::cluster::find(&all, word)
            .cloned()
            .ok_or_else(|| CommandError::plain(format!("the server doesn't have a resource type {word:?}")))
    };
    if first.contains('/') {
        return arguments
            .iter()
            .map(|argument| {
                let Some((kind, name)) = argument.split_once('/') else {
                    return Err(CommandError::plain(
                        "there is no need to specify a resource type as a separate argument when passing arguments in \
                         resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get \
                         resource resource/<resource_name>'",
                    ));
                };
                Ok(Target { resource: resolve(kind)?, name: Some(name.to_owned()) })
            })
            .collect();
    }
    let mut found = Vec::new();
    for word in first.split(',') {
        let members: Vec<Resource> = all.iter().filter(|r| r.categories.iter().any(|c| c == word)).cloned().collect();
        let resources = if members.is_empty() { vec![resolve(word)?] } else { members };
        for resource in resources {
            match &arguments[1..] {
                [] => found.push(Target { resource, name: None }),
                names => {
                    found.extend(names.iter().map(|n| Target { resource: resource.clone(), name: Some(n.clone()) }))
                }
            }
        }
    }
    Ok(found)
}

/// The one object that a command is about.
pub async fn single(cluster: &Cluster, arguments: &[String]) -> Result<(Resource, String), CommandError> {
    let mut found = targets(cluster, arguments).await?;
    match (found.len(), found.pop()) {
        (1, Some(Target { resource, name: Some(name) })) => Ok((resource, name)),
        _ => Err(CommandError::plain("exactly one resource type and name is required")),
    }
}
