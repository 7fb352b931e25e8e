//! `kubectl set subject`.

use serde_json::{Value, json};

use super::{Change, apply, flags};
use crate::{command::Command, context::Context, error::CommandError, flags::Flag, resolve};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The command.
pub(super) fn command() -> Command {
    Command::new("subject", "Update the user, group, or service account in a role binding or cluster role binding")
        .usage("(-f FILENAME | TYPE NAME) [--user=username] [--group=groupname] [--serviceaccount=namespace:serviceaccountname] [--dry-run=server|client|none]")
        .examples(&["kubectl set subject clusterrolebinding admin --serviceaccount=namespace:serviceaccount1"])
        .flags(flags())
        .flags([resolve::selector_flag()])
        .flags([
            Flag::list("user", "Users to bind."),
            Flag::list("group", "Groups to bind."),
            Flag::list("serviceaccount", "ServiceAccounts to bind, as namespace:name."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let mut wanted: Vec<Value> = Vec::new();
    for (flag, kind) in [("user", "User"), ("group", "Group")] {
        wanted.extend(flags.list(flag).iter().map(|name| json!({"apiGroup": GROUP, "kind": kind, "name": name})));
    }
    for account in flags.list("serviceaccount") {
        let parts = account.split_once(':').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty());
        let (namespace, name) =
            parts.ok_or_else(|| CommandError::plain("serviceaccount must be <namespace>:<name>"))?;
        wanted.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
    }
    if wanted.is_empty() {
        return Err(CommandError::plain("you must specify at least one value of user, group or serviceaccount"));
    }
    apply(context, &context.args, "subjects updated", "failed to patch subjects to rolebinding", |info| {
        if !["RoleBinding", "ClusterRoleBinding"].contains(&info.resource.kind.as_str()) {
            return Err(CommandError::plain(format!(
                "{}/{} setting subjects is only supported for RoleBinding/ClusterRoleBinding",
                info.resource.plural, info.name
            )));
        }
        let mut subjects = info.object["subjects"].as_array().cloned().unwrap_or_default();
        let before = subjects.len();
        let added: Vec<Value> = wanted.iter().filter(|subject| !subjects.contains(subject)).cloned().collect();
        subjects.extend(added);
        if subjects.len() == before {
            return Ok(Change::None);
        }
        let mut object = info.object.clone();
        object["subjects"] = Value::Array(subjects.clone());
        Ok(Change::To { object, patch: json!({"subjects": subjects}) })
    })
    .await
}
