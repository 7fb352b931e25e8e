//! `create job` and `create cronjob`.

use machinery::meta;
use serde_json::{Value, json};

use super::{Generated, generator_flags};
use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    resolve::{Query, arguments::resource},
};

pub(super) fn job() -> Command {
    Command::new("job", "Create a job with the specified name")
        .usage("NAME --image=image [--from=cronjob/name] -- [COMMAND] [args...]")
        .examples(&[
            "kubectl create job my-job --image=busybox -- date",
            "kubectl create job test-job --from=cronjob/a-cronjob",
        ])
        .flags(generator_flags())
        .flags([
            Flag::text("from", "", "CronJob to take the template from."),
            Flag::text("image", "", "Image of the container."),
        ])
        .runs(|context| Box::pin(run_job(context)))
}

pub(super) fn cron_job() -> Command {
    Command::new("cronjob", "Create a cron job with the specified name")
        .aliases(&["cj"])
        .usage("NAME --image=image --schedule='0/5 * * * ?' -- [COMMAND] [args...] [flags]")
        .examples(&["kubectl create cronjob my-job --image=busybox --schedule=\"*/1 * * * *\" -- date"])
        .flags(generator_flags())
        .flags([
            Flag::text("image", "", "Image of the container.").required(),
            Flag::text("restart", "", "Restart policy: OnFailure or Never."),
            Flag::text("schedule", "", "When the Jobs run, in the format of cron.").required(),
        ])
        .runs(|context| Box::pin(run_cron_job(context)))
}

fn pod_spec(context: &Context, name: &str, restart: &str) -> Value {
    let mut container = json!({"name": name, "image": context.flags.text("image"), "resources": {}});
    if !context.after_dash().is_empty() {
        container["command"] = json!(context.after_dash());
    }
    json!({"containers": [container], "restartPolicy": restart})
}

async fn run_job(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let (image, from) = (context.flags.text("image"), context.flags.text("from"));
    if image.is_empty() == from.is_empty() {
        return Err(CommandError::plain("either --image or --from must be specified"));
    }
    if !from.is_empty() && !context.after_dash().is_empty() {
        return Err(CommandError::plain("cannot specify --from and command"));
    }
    let mut object =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {}, "status": {}});
    if from.is_empty() {
        object["spec"] = json!({"template": {"metadata": {}, "spec": pod_spec(context, name, "Never")}});
    } else {
        take_over(&mut object, &cron_job_of(context, from).await?);
    }
    Generated::new(object, "failed to create job: ").finish(context).await
}

/// The CronJob that `--from` names.
async fn cron_job_of(context: &Context, from: &str) -> Result<Value, CommandError> {
    let cluster = context.cluster().await?;
    let (kind, name) = from.split_once('/').unwrap_or((from, ""));
    let found = resource(&cluster, kind).await?;
    if name.is_empty() {
        return Err(CommandError::plain("resource(s) were provided, but no name was specified"));
    }
    let query = Query { arguments: vec![from.to_owned()], ..Query::default() };
    let mut infos = query.infos(context).await?.all()?;
    let object = infos.pop().map(|i| i.object).unwrap_or_default();
    if found.kind != "CronJob" {
        let package = if found.group.is_empty() { "v1".to_owned() } else { found.version.clone() };
        return Err(CommandError::plain(format!("unknown object type *{package}.{}", found.kind)));
    }
    Ok(object)
}

fn take_over(job: &mut Value, cron_job: &Value) {
    let template = &cron_job["spec"]["jobTemplate"];
    job["metadata"]["annotations"] = json!({"cronjob.kubernetes.io/instantiate": "manual"});
    for (key, value) in meta::text_map(template, "annotations") {
        job["metadata"]["annotations"][key] = json!(value);
    }
    for (key, value) in meta::text_map(template, "labels") {
        job["metadata"]["labels"][key] = json!(value);
    }
    job["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": meta::name(cron_job), "uid": meta::uid(cron_job),
        "controller": true,
    }]);
    job["spec"] = template["spec"].clone();
}

async fn run_cron_job(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let restart = context.flags.non_empty("restart").unwrap_or("OnFailure");
    let object = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {
            "schedule": context.flags.text("schedule"),
            "jobTemplate": {
                "metadata": {"name": name},
                "spec": {"template": {"metadata": {}, "spec": pod_spec(context, name, restart)}},
            },
        },
        "status": {},
    });
    Generated::new(object, "failed to create cronjob: ").finish(context).await
}
