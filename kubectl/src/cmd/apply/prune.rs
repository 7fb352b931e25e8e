//! `--prune`: objects that were applied before and are not in the manifests any more.

use machinery::meta;
use serde_json::Value;

use super::Options;
use crate::{
    cluster::Call,
    context::Context,
    discovery::Resource,
    error::CommandError,
    last_applied,
    print::{DryRun, Results},
    resolve::{Info, Query, Target},
};

/// Group, version and kind of what is pruned unless the flags name others.
const KINDS: [(&str, &str, &str); 16] = [
    ("", "v1", "ConfigMap"),
    ("", "v1", "Endpoints"),
    ("", "v1", "PersistentVolumeClaim"),
    ("", "v1", "Pod"),
    ("", "v1", "ReplicationController"),
    ("", "v1", "Secret"),
    ("", "v1", "Service"),
    ("batch", "v1", "Job"),
    ("batch", "v1", "CronJob"),
    ("networking.k8s.io", "v1", "Ingress"),
    ("apps", "v1", "DaemonSet"),
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "ReplicaSet"),
    ("apps", "v1", "StatefulSet"),
    ("", "v1", "Namespace"),
    ("", "v1", "PersistentVolume"),
];

/// The resources to prune.
pub(super) async fn kinds(context: &Context) -> Result<Vec<Resource>, CommandError> {
    if !context.flags.bool("prune") {
        return Ok(Vec::new());
    }
    let served = context.cluster().await?.served().await?;
    let of = |group: &str, version: &str, kind: &str| {
        served.resources.iter().find(|r| r.group == group && r.version == version && r.kind == kind).cloned()
    };
    let given = context.flags.list("prune-allowlist");
    if given.is_empty() {
        return Ok(KINDS.iter().filter_map(|(g, v, k)| of(g, v, k)).collect());
    }
    given
        .iter()
        .map(|text| {
            let parts: Vec<&str> = text.split('/').collect();
            let [group, version, kind] = parts.as_slice() else {
                return Err(CommandError::plain(format!(
                    "invalid GroupVersionKind format: {text}, please follow <group/version/kind>"
                )));
            };
            let group = if *group == "core" { "" } else { *group };
            of(group, version, kind).ok_or_else(|| {
                CommandError::plain(format!("no matches for kind {kind:?} in version \"{group}/{version}\""))
            })
        })
        .collect()
}

/// Prunes in the namespaces that were visited, and in the cluster's scope.
pub(super) async fn run(
    context: &Context,
    options: &Options,
    kinds: &[Resource],
    done: &[(Info, Value)],
    results: &mut Results,
) -> Result<(), CommandError> {
    let mut namespaces: Vec<&str> =
        done.iter().map(|(info, _)| info.namespace.as_str()).filter(|n| !n.is_empty()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    for namespace in namespaces {
        for resource in kinds.iter().filter(|r| r.namespaced) {
            one(context, options, resource, namespace, done, results).await?;
        }
    }
    for resource in kinds.iter().filter(|r| !r.namespaced) {
        one(context, options, resource, "", done, results).await?;
    }
    Ok(())
}

async fn one(
    context: &Context,
    options: &Options,
    resource: &Resource,
    namespace: &str,
    done: &[(Info, Value)],
    results: &mut Results,
) -> Result<(), CommandError> {
    let cluster = context.cluster().await?;
    let query = Query { selector: context.flags.text("selector").to_owned(), ..Query::default() };
    let target = Target { resource: resource.clone(), namespace: namespace.to_owned(), name: None, manifest: None };
    for info in query.fetch_list(&cluster, &target).await? {
        let applied_now = done.iter().any(|(_, object)| meta::uid(object) == meta::uid(&info.object));
        if last_applied::read(&info.object).is_none() || applied_now {
            continue;
        }
        if options.dry_run != DryRun::Client {
            let body = super::super::delete::options(context)?;
            let call = Call::delete(&info.path(), &body).query_if("dryRun", options.dry_run.query());
            match cluster.json(&call).await {
                Err(error) if error.is_not_found() => continue,
                answer => answer?,
            };
        }
        results.print(&info.object, "pruned", &mut context.streams.out.clone())?;
    }
    Ok(())
}
