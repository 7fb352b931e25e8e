//! `create role`, `create clusterrole` and their bindings.

use std::io::Write;

use serde_json::{Value, json};

use super::{Generated, generator_flags};
use crate::{cluster::Cluster, command::Command, context::Context, error::CommandError, flags::Flag};

const VERBS: [&str; 15] = [
    "get",
    "delete",
    "list",
    "create",
    "update",
    "patch",
    "watch",
    "proxy",
    "deletecollection",
    "use",
    "bind",
    "escalate",
    "impersonate",
    "approve",
    "sign",
];
const NON_RESOURCE_VERBS: [&str; 7] = ["get", "put", "post", "head", "options", "delete", "patch"];
const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";

fn rule_flags() -> [Flag; 3] {
    [
        Flag::list("resource", "Resources of the rule, such as pods, deployments.apps or pods/log."),
        Flag::array("resource-name", "Name of an object that the rule is limited to; may be repeated."),
        Flag::list("verb", "Verbs of the rule."),
    ]
}

fn subject_flags() -> [Flag; 3] {
    [
        Flag::array("group", "Group that gets the role; may be repeated."),
        Flag::array("serviceaccount", "Service account that gets the role, <namespace>:<name>; may be repeated."),
        Flag::array("user", "User that gets the role; may be repeated."),
    ]
}

pub(super) fn role() -> Command {
    Command::new("role", "Create a role with single rule")
        .usage("NAME --verb=verb --resource=resource.group/subresource [--resource-name=resourcename] [--dry-run=server|client|none]")
        .examples(&["kubectl create role pod-reader --verb=get --verb=list --resource=pods"])
        .flags(generator_flags())
        .flags(rule_flags())
        .runs(|context| Box::pin(run_role(context)))
}

pub(super) fn cluster_role() -> Command {
    Command::new("clusterrole", "Create a cluster role")
        .usage(
            "NAME --verb=verb --resource=resource.group [--resource-name=resourcename] [--dry-run=server|client|none]",
        )
        .examples(&[
            "kubectl create clusterrole pod-reader --verb=get,list,watch --resource=pods",
            "kubectl create clusterrole foo --verb=get --non-resource-url=/logs/*",
        ])
        .flags(generator_flags())
        .flags(rule_flags())
        .flags([
            Flag::pairs("aggregation-rule", "Label selectors of the cluster roles to combine, as key=value pairs."),
            Flag::list("non-resource-url", "Paths that are no resources."),
        ])
        .runs(|context| Box::pin(run_cluster_role(context)))
}

pub(super) fn role_binding() -> Command {
    Command::new("rolebinding", "Create a role binding for a particular role or cluster role")
        .usage("NAME --clusterrole=NAME|--role=NAME [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname] [--dry-run=server|client|none]")
        .examples(&["kubectl create rolebinding admin --clusterrole=admin --user=user1 --group=group1"])
        .flags(generator_flags())
        .flags(subject_flags())
        .flags([Flag::text("clusterrole", "", "The cluster role."), Flag::text("role", "", "The role.")])
        .runs(|context| Box::pin(run_role_binding(context)))
}

pub(super) fn cluster_role_binding() -> Command {
    Command::new("clusterrolebinding", "Create a cluster role binding for a particular cluster role")
        .usage("NAME --clusterrole=NAME [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname] [--dry-run=server|client|none]")
        .examples(&["kubectl create clusterrolebinding cluster-admin --clusterrole=cluster-admin --user=user1"])
        .flags(generator_flags())
        .flags(subject_flags())
        .flags([Flag::text("clusterrole", "", "The cluster role.").required()])
        .runs(|context| Box::pin(run_cluster_role_binding(context)))
}

/// The verbs, each once; `*` stands for all.
fn verbs(context: &Context) -> Vec<String> {
    let mut verbs: Vec<String> = Vec::new();
    for verb in context.flags.list("verb") {
        if verb == "*" {
            return vec![verb.clone()];
        }
        if !verbs.contains(verb) {
            verbs.push(verb.clone());
        }
    }
    verbs
}

/// A rule per API group of the resources that the flags name.
async fn resource_rules(context: &Context, verbs: &[String]) -> Result<Vec<Value>, CommandError> {
    let names = context.flags.list("resource-name");
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    let mut add = |group: String, resource: String| match groups.iter_mut().find(|(g, _)| *g == group) {
        Some((_, list)) if list.contains(&resource) => {}
        Some((_, list)) => list.push(resource),
        None => groups.push((group, vec![resource])),
    };
    let resources = context.flags.list("resource");
    if resources.iter().any(|r| r == "*") {
        add(String::new(), "*".into());
    } else {
        let cluster = context.cluster().await?;
        for text in resources {
            let (resource, below) = text.split_once('/').map_or((text.as_str(), ""), |(r, s)| (r, s));
            let (group, plural) = find(&cluster, resource).await?;
            let whole = if below.is_empty() { plural } else { format!("{plural}/{below}") };
            add(group, whole);
        }
    }
    groups.sort();
    Ok(groups
        .into_iter()
        .map(|(group, resources)| {
            let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
            if !names.is_empty() {
                rule["resourceNames"] = json!(names);
            }
            rule
        })
        .collect())
}

/// Group and plural of a resource that the server has to know.
async fn find(cluster: &Cluster, text: &str) -> Result<(String, String), CommandError> {
    let served = cluster.served().await?;
    let (name, group) = text.split_once('.').unwrap_or((text, ""));
    if name == "*" {
        return Ok((group.to_owned(), name.to_owned()));
    }
    let found = served.find(text).ok_or_else(|| {
        let of_group = if group.is_empty() { String::new() } else { format!(" in group {group:?}") };
        CommandError::Verbatim(format!("the server doesn't have a resource type {name:?}{of_group}"))
    })?;
    Ok((found.group.clone(), found.plural.clone()))
}

/// Verbs that no resource knows are told, not refused.
fn check_verbs(context: &Context, verbs: &[String]) -> Result<(), CommandError> {
    let mut err = context.streams.err.clone();
    for verb in verbs.iter().filter(|v| *v != "*" && !VERBS.contains(&v.as_str())) {
        writeln!(err, "Warning: '{verb}' is not a standard resource verb")?;
    }
    Ok(())
}

async fn run_role(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let verbs = verbs(context);
    if verbs.is_empty() {
        return Err(CommandError::plain("at least one verb must be specified"));
    }
    check_verbs(context, &verbs)?;
    if context.flags.list("resource").is_empty() {
        return Err(CommandError::plain("at least one resource must be specified"));
    }
    let rules = resource_rules(context, &verbs).await?;
    let object = json!({"apiVersion": VERSION, "kind": "Role", "metadata": {"name": name}, "rules": rules});
    Generated::new(object, "").finish(context).await
}

async fn run_cluster_role(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let flags = &context.flags;
    let mut object = json!({"apiVersion": VERSION, "kind": "ClusterRole", "metadata": {"name": name}, "rules": null});
    let (verbs, urls) = (verbs(context), flags.list("non-resource-url"));
    if !flags.list("aggregation-rule").is_empty() {
        if !urls.is_empty() || !verbs.is_empty() || !flags.list("resource").is_empty() {
            return Err(CommandError::plain(
                "aggregation rule must be specified without nonResourceURLs, resources or verbs",
            ));
        }
        let mut labels = json!({});
        for pair in flags.list("aggregation-rule") {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| CommandError::plain(format!("invalid aggregation rule {pair}, expected key=value")))?;
            labels[key] = json!(value);
        }
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
        return Generated::new(object, "").in_cluster_scope().finish(context).await;
    }
    if verbs.is_empty() {
        return Err(CommandError::plain("at least one verb must be specified"));
    }
    if urls.is_empty() || !flags.list("resource").is_empty() {
        check_verbs(context, &verbs)?;
        if flags.list("resource").is_empty() {
            return Err(CommandError::plain("at least one resource must be specified"));
        }
    }
    let mut rules = resource_rules(context, &verbs).await?;
    if !urls.is_empty() {
        for verb in verbs.iter().filter(|v| *v != "*") {
            if !NON_RESOURCE_VERBS.contains(&verb.as_str()) {
                return Err(CommandError::plain(format!("invalid verb: '{verb}' for nonResourceURL")));
            }
        }
        if let Some(url) = urls.iter().find(|u| *u != "*" && !u.starts_with('/')) {
            return Err(CommandError::plain(format!("nonResourceURL should start with /, got {url}")));
        }
        rules.push(json!({"verbs": verbs, "nonResourceURLs": urls}));
    }
    object["rules"] = json!(rules);
    Generated::new(object, "").in_cluster_scope().finish(context).await
}

/// Users, groups and service accounts in the form of bindings.
fn subjects(context: &Context) -> Result<Vec<Value>, CommandError> {
    let flags = &context.flags;
    let of = |kind: &str, name: &String| json!({"kind": kind, "apiGroup": GROUP, "name": name});
    let mut all: Vec<Value> = flags.list("user").iter().map(|u| of("User", u)).collect();
    all.extend(flags.list("group").iter().map(|g| of("Group", g)));
    for account in flags.list("serviceaccount") {
        let parts: Vec<&str> = account.split(':').collect();
        let [namespace, name] = parts.as_slice() else {
            return Err(CommandError::plain("serviceaccount must be <namespace>:<name>"));
        };
        if namespace.is_empty() || name.is_empty() {
            return Err(CommandError::plain("serviceaccount must be <namespace>:<name>"));
        }
        all.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    Ok(all)
}

fn binding(context: &Context, kind: &str, role_kind: &str, role: &str) -> Result<Value, CommandError> {
    let mut object = json!({
        "apiVersion": VERSION,
        "kind": kind,
        "metadata": {"name": context.one_name()?},
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    });
    let subjects = subjects(context)?;
    if !subjects.is_empty() {
        object["subjects"] = json!(subjects);
    }
    Ok(object)
}

async fn run_role_binding(context: &Context) -> Result<(), CommandError> {
    context.one_name()?;
    let (role, cluster_role) = (context.flags.text("role"), context.flags.text("clusterrole"));
    if role.is_empty() == cluster_role.is_empty() {
        return Err(CommandError::plain("exactly one of clusterrole or role must be specified"));
    }
    let (kind, name) = if role.is_empty() { ("ClusterRole", cluster_role) } else { ("Role", role) };
    let object = binding(context, "RoleBinding", kind, name)?;
    Generated::new(object, "failed to create rolebinding: ").finish(context).await
}

async fn run_cluster_role_binding(context: &Context) -> Result<(), CommandError> {
    let object = binding(context, "ClusterRoleBinding", "ClusterRole", context.flags.text("clusterrole"))?;
    Generated::new(object, "failed to create clusterrolebinding: ").in_cluster_scope().finish(context).await
}
