//! `kubectl rollout undo`.

use serde_json::{Map, Value, json};

use super::{
    flags, objects,
    revisions::{self, REVISION, Revision},
    unknown,
};
use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    describe,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::Info,
};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const HASH_LABEL: &str = "pod-template-hash";
/// Annotations that belong to the Deployment, not to its revisions.
const OWN_ANNOTATIONS: [&str; 6] = [
    LAST_APPLIED,
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// The command.
pub(super) fn command() -> Command {
    Command::new("undo", "Undo a previous rollout")
        .usage("(TYPE NAME | TYPE/NAME) [flags]")
        .examples(&["kubectl rollout undo deployment/abc", "kubectl rollout undo daemonset/abc --to-revision=3"])
        .flags(flags("File, directory or URL with the resource."))
        .flags(print::flags())
        .flags([DryRun::flag(), Flag::int("to-revision", "0", "The revision to go back to; 0 for the one before.")])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let (infos, mut errors) = objects(context).await?;
    let cluster = context.cluster().await?;
    for info in infos {
        match undo(&cluster, &info, context.flags.int("to-revision"), dry_run).await {
            Ok(text) => {
                if info.object["metadata"]["annotations"][LAST_APPLIED].is_string() {
                    cluster.warn(&format!(
                        "resource {}/{} was previously managed with 'kubectl apply'. Rolling back will not update the \
                         kubectl.kubernetes.io/last-applied-configuration annotation, which may cause unexpected \
                         behavior on future 'kubectl apply' operations. Consider using 'kubectl apply' with your \
                         previous configuration file instead.",
                        info.resource.plural, info.name
                    ))?;
                }
                results.print(&info.object, &text, &mut out)?;
            }
            Err(error) => errors.push(error),
        }
    }
    CommandError::all(errors)
}

async fn undo(cluster: &Cluster, info: &Info, to: i64, dry_run: DryRun) -> Result<String, CommandError> {
    let Some(revisions) = revisions::of(cluster, info).await? else {
        return Err(unknown(info, "rollbacker"));
    };
    let is_deployment = info.resource.kind == "Deployment";
    if is_deployment && revisions.is_empty() {
        return Err(CommandError::plain(format!("no rollout history found for deployment {:?}", info.name)));
    }
    let revision = choose(&revisions, to)?;
    if dry_run == DryRun::Client {
        return Ok(describe::template_text(&revision.template));
    }
    if is_deployment && info.object["spec"]["paused"] == true {
        return Err(CommandError::plain(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again",
        ));
    }
    let mut template = revision.template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut().filter(|_| is_deployment) {
        labels.remove(HASH_LABEL);
    }
    if describe::same(&template, &info.object["spec"]["template"]) {
        return Ok(format!("skipped rollback (current template already matches revision {to})"));
    }
    let (media_type, patch) = match is_deployment {
        true => ("application/json-patch+json", deployment_patch(&info.object, revision, &template)),
        false => ("application/strategic-merge-patch+json", revision.object["data"].clone()),
    };
    let call = Call::patch(&info.path(), media_type, &patch).query_if("dryRun", dry_run.query());
    match cluster.json(&call).await {
        Ok(_) => Ok("rolled back".to_owned()),
        Err(error) => Err(match error.status() {
            Some(status) => {
                let text = format!("failed restoring revision {to}: {}", status.message);
                CommandError::plain(text)
            }
            None => error,
        }),
    }
}

fn choose(revisions: &[Revision], to: i64) -> Result<&Revision, CommandError> {
    if to == 0 {
        let before = revisions.len().checked_sub(2).and_then(|at| revisions.get(at));
        return before.ok_or_else(|| CommandError::plain("no last revision to roll back to"));
    }
    let found = revisions.iter().find(|revision| revision.number == to);
    found.ok_or_else(|| CommandError::plain(format!("unable to find specified revision {to} in history")))
}

/// The template of a revision with its annotations; those of the Deployment itself stay.
fn deployment_patch(deployment: &Value, revision: &Revision, template: &Value) -> Value {
    let annotations = |object: &Value, own: bool| -> Map<String, Value> {
        let all = object["metadata"]["annotations"].as_object().into_iter().flatten();
        let chosen = all.filter(|(key, _)| OWN_ANNOTATIONS.contains(&key.as_str()) == own);
        chosen.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let mut merged = annotations(deployment, true);
    merged.extend(annotations(&revision.object, false));
    json!([
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "replace", "path": "/metadata/annotations", "value": merged},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: i64) -> Revision {
        let object = json!({"metadata": {"annotations": {REVISION: number.to_string(), "note": "then"}}});
        Revision { number, object, template: Value::Null }
    }

    #[test]
    fn the_revision_before_the_latest_is_chosen() {
        let revisions = [revision(2), revision(5), revision(9)];
        assert_eq!(choose(&revisions, 0).expect("one").number, 5);
        assert_eq!(choose(&revisions, 2).expect("one").number, 2);
        assert_eq!(
            choose(&revisions, 3).expect_err("none").to_string(),
            "unable to find specified revision 3 in history"
        );
        assert_eq!(choose(&revisions[..1], 0).expect_err("none").to_string(), "no last revision to roll back to");
    }

    #[test]
    fn annotations_of_the_deployment_stay() {
        let deployment = json!({"metadata": {"annotations": {REVISION: "9", "note": "now", "other": "x"}}});
        let patch = deployment_patch(&deployment, &revision(5), &Value::Null);
        assert_eq!(patch[1]["value"], json!({REVISION: "9", "note": "then"}));
    }
}
