//! `--prune`: objects that were applied before and are not in the manifests any more.

use std::time::Duration;

use machinery::meta;
use serde_json::Value;

use super::Options;
use crate::{
    cluster::Call,
    context::Context,
    discovery::Resource,
    error::CommandError,
    flags::Flag,
    last_applied,
    print::{DryRun, Results},
    resolve::{Info, Query, Target},
};

/// Time to wait for deletions when no other was given.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
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

/// `--prune-allowlist`.
pub(in crate::cmd) fn allow_flag() -> Flag {
    Flag::array("prune-allowlist", "Kind to prune instead of the usual ones, <group>/<version>/<kind>.")
}

/// The resources to prune.
pub(in crate::cmd) async fn kinds(context: &Context) -> Result<Vec<Resource>, CommandError> {
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

/// Deletes what is left over.
pub(super) async fn run(
    context: &Context,
    options: &Options,
    left: Vec<Info>,
    results: &mut Results,
) -> Result<(), CommandError> {
    let cluster = context.cluster().await?;
    let mut gone = Vec::new();
    for info in left {
        if options.dry_run != DryRun::Client {
            let body = options.dry_run.in_options(super::super::delete::options(context)?);
            match cluster.json(&Call::delete(&info.path(), &body)).await {
                Err(error) if error.is_not_found() => continue,
                answer => answer?,
            };
        }
        results.print(&info.object, "pruned", &mut context.streams.out.clone())?;
        gone.push(info);
    }
    if context.flags.bool("wait") && options.dry_run == DryRun::None {
        let limit = context.flags.duration("timeout");
        for info in &gone {
            super::super::delete::until_gone(&cluster, info, if limit.is_zero() { WEEK } else { limit }).await?;
        }
    }
    Ok(())
}

/// Objects that were applied before and are not among what was applied now, in the namespaces that were visited and in the
/// cluster's scope.
pub(in crate::cmd) async fn left_over(
    context: &Context,
    kinds: &[Resource],
    done: &[(Info, Value)],
) -> Result<Vec<Info>, CommandError> {
    let cluster = context.cluster().await?;
    let mut namespaces: Vec<&str> =
        done.iter().map(|(info, _)| info.namespace.as_str()).filter(|n| !n.is_empty()).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    let namespaced = namespaces.iter().flat_map(|n| kinds.iter().filter(|r| r.namespaced).map(move |r| (r, *n)));
    let others = kinds.iter().filter(|r| !r.namespaced).map(|r| (r, ""));
    let query = Query { selector: context.flags.text("selector").to_owned(), ..Query::default() };
    let mut left = Vec::new();
    for (resource, namespace) in namespaced.chain(others) {
        let target = Target { resource: resource.clone(), namespace: namespace.to_owned(), name: None, manifest: None };
        let found = query.fetch_list(&cluster, &target).await?;
        left.extend(found.into_iter().filter(|info| {
            last_applied::read(&info.object).is_some()
                && !done.iter().any(|(_, object)| meta::uid(object) == meta::uid(&info.object))
        }));
    }
    Ok(left)
}
