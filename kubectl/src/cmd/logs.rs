//! `kubectl logs`.

use std::io::Write;

use futures::StreamExt;
use http_body_util::BodyExt;

use crate::{cluster::Call, command::Command, context::Context, error::CommandError, flags::Flag};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("logs", "Print the logs for a container in a pod")
        .usage("[-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]")
        .flags([
            Flag::text("container", "", "Container.").short('c'),
            Flag::switch("follow", "Go on as lines are written.").short('f'),
            Flag::switch("previous", "The logs of the instance before.").short('p'),
            Flag::int("tail", "-1", "Lines of recent log; -1 for all."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let Some(pod) = context.args.first() else {
        return Err(context.usage(
            "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for \
             the logs command",
        ));
    };
    let name = pod.strip_prefix("pod/").or_else(|| pod.strip_prefix("pods/")).unwrap_or(pod);
    let cluster = context.cluster().await?;
    let flags = &context.flags;
    let mut call = Call::get(&format!("/api/v1/namespaces/{}/pods/{name}/log", cluster.namespace))
        .query_if("container", flags.text("container"));
    if flags.int("tail") >= 0 {
        call = call.query("tailLines", flags.text("tail"));
    }
    for flag in ["previous", "follow"] {
        if flags.bool(flag) {
            call = call.query(flag, "true");
        }
    }
    let mut body = cluster.send(&call).await?.into_body().into_data_stream();
    let mut out = context.streams.out.clone();
    while let Some(bytes) = body.next().await {
        out.write_all(&bytes.map_err(|e| CommandError::plain(e.to_string()))?)?;
        out.flush()?;
    }
    Ok(())
}
