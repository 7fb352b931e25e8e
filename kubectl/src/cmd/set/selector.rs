//! `kubectl set selector` and `kubectl set serviceaccount`.

use serde_json::{Map, Value, json};

use super::{Change, apply, common_flags, flags, nested, pod_spec, split, with_pod_spec};
use crate::{command::Command, context::Context, error::CommandError, flags::Flag, resolve};

/// The command.
pub(super) fn command() -> Command {
    Command::new("selector", "Set the selector on a resource")
        .usage("(-f FILENAME | TYPE NAME) EXPRESSIONS [--resource-version=version]")
        .examples(&["kubectl set selector service my-svc 'environment=qa'"])
        .flags(resolve::file_flags(super::FILES).into_iter().filter_map(|flag| match flag.name {
            "kustomize" => None,
            "recursive" => Some(flag.preset("true")),
            _ => Some(flag),
        }))
        .flags(common_flags())
        .flags([Flag::text("resource-version", "", "Update only if the object has this version.")])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let (resources, pairs) = split(&context.args, |argument| argument.contains('='));
    let wanted: Map<String, Value> = pairs
        .iter()
        .flat_map(|pair| pair.split(','))
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    let version = context.flags.text("resource-version");
    apply(context, &resources, "selector updated", "failed to patch selector", |info| {
        if info.object["kind"] != "Service" {
            return Err(CommandError::plain("setting a selector is only supported for Services"));
        }
        let mut object = info.object.clone();
        object["spec"]["selector"] = Value::Object(wanted.clone());
        let mut patch = wanted.clone();
        let present = info.object["spec"]["selector"].as_object().into_iter().flatten();
        for (key, _) in present.filter(|(key, _)| !wanted.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        let mut patch = nested(&["spec", "selector"], Value::Object(patch));
        if !version.is_empty() {
            patch["metadata"] = json!({"resourceVersion": version});
        }
        Ok(Change::To { object, patch })
    })
    .await
}

/// `kubectl set serviceaccount`.
pub(super) fn service_account() -> Command {
    Command::new("serviceaccount", "Update the service account of a resource")
        .aliases(&["sa"])
        .usage("(-f FILENAME | TYPE NAME) SERVICE_ACCOUNT")
        .examples(&["kubectl set serviceaccount deployment nginx-deployment serviceaccount1"])
        .flags(flags())
        .runs(|context| Box::pin(set_account(context)))
}

async fn set_account(context: &Context) -> Result<(), CommandError> {
    let Some((account, resources)) = context.args.split_last() else {
        return Err(CommandError::plain("serviceaccount is required"));
    };
    apply(context, resources, "serviceaccount updated", "failed to patch ServiceAccountName", |info| {
        let (path, spec) = pod_spec(info)?;
        let mut spec = spec.clone();
        spec["serviceAccountName"] = account.as_str().into();
        let patch = nested(path, json!({"serviceAccountName": account}));
        Ok(Change::To { object: with_pod_spec(&info.object, path, spec), patch })
    })
    .await
}
