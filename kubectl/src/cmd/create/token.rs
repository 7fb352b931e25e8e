//! `create token`.

use std::io::Write;

use serde_json::{Value, json};

use super::failed;
use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, Printer},
};

pub(super) fn command() -> Command {
    Command::new("token", "Request a service account token")
        .usage("SERVICE_ACCOUNT_NAME")
        .examples(&[
            "kubectl create token myapp",
            "kubectl create token myapp --duration 10m --audience https://example.com",
        ])
        .flags(print::flags())
        .flags([
            Flag::array("audience", "Audience of the token; may be repeated."),
            Flag::text(
                "bound-object-kind",
                "",
                "Kind of the object that the token lives as long as: Node, Pod or Secret.",
            ),
            Flag::text("bound-object-name", "", "Name of that object."),
            Flag::text("bound-object-uid", "", "UID of that object."),
            Flag::duration("duration", "0s", "How long the token is valid; the server chooses if it is zero."),
        ])
        .runs(|context| Box::pin(run(context)))
}

fn request(context: &Context) -> Result<Value, CommandError> {
    let flags = &context.flags;
    let mut spec = json!({"audiences": null});
    if !flags.list("audience").is_empty() {
        spec["audiences"] = json!(flags.list("audience"));
    }
    if flags.negative("duration") {
        return Err(CommandError::plain("--duration must be greater than or equal to 0"));
    }
    let duration = flags.duration("duration");
    if !duration.is_zero() {
        if duration.subsec_nanos() != 0 {
            return Err(CommandError::plain("--duration cannot be expressed in units less than seconds"));
        }
        spec["expirationSeconds"] = json!(duration.as_secs());
    }
    let (name, uid) = (flags.text("bound-object-name"), flags.text("bound-object-uid"));
    match flags.text("bound-object-kind") {
        "" if !name.is_empty() => {
            return Err(CommandError::plain("--bound-object-name can only be set if --bound-object-kind is provided"));
        }
        "" if !uid.is_empty() => {
            return Err(CommandError::plain("--bound-object-uid can only be set if --bound-object-kind is provided"));
        }
        "" => {}
        kind @ ("Node" | "Pod" | "Secret") => {
            if name.is_empty() {
                return Err(CommandError::plain("--bound-object-name is required if --bound-object-kind is provided"));
            }
            spec["boundObjectRef"] = json!({"kind": kind, "apiVersion": "v1", "name": name});
            if !uid.is_empty() {
                spec["boundObjectRef"]["uid"] = json!(uid);
            }
        }
        _ => return Err(CommandError::plain("supported --bound-object-kind values are Node, Pod, Secret")),
    }
    Ok(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let printer = Printer::of(&context.flags, &[])?;
    let request = request(context)?;
    let cluster = context.cluster().await?;
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{name}/token", cluster.namespace);
    let answer =
        cluster.json(&Call::post(&path, &request)).await.map_err(|e| failed("failed to create token: ", &e))?;
    let mut out = context.streams.out.clone();
    if let Some(mut printer) = printer {
        return printer.print_declared(&answer, &mut out);
    }
    let token = answer["status"]["token"].as_str().unwrap_or("");
    if token.is_empty() {
        return Err(CommandError::plain("failed to create token: no token in server response"));
    }
    writeln!(out, "{token}")?;
    Ok(())
}
