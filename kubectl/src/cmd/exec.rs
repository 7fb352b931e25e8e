//! `kubectl exec`.

use std::io::Write;

use machinery::meta;
use serde_json::Value;

use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    pods::{self, Prefer},
    remote::Session,
    resolve::{self, Query},
};

const EXPECTED: &str = "pod, type/name or --filename must be specified";

/// The command.
pub(crate) fn command() -> Command {
    Command::new("exec", "Execute a command in a container")
        .usage("(POD | TYPE/NAME) [-c CONTAINER] [flags] -- COMMAND [args...]")
        .examples(&["kubectl exec mypod -- date", "kubectl exec mypod -c ruby-container -i -t -- bash -il"])
        .flags([
            Flag::list("filename", "File that names the Pod.").short('f'),
            Flag::duration("pod-running-timeout", "1m0s", "Time to wait until a Pod runs."),
            Flag::text("container", "", "Container.").short('c'),
            Flag::switch("stdin", "Pass standard input on.").short('i'),
            Flag::switch("tty", "Standard input is a terminal.").short('t'),
            Flag::switch("quiet", "Print the output of the session only.").short('q'),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let files = resolve::Sources::of(&context.flags);
    let (before, command) = (context.before_dash(), context.after_dash());
    if before.is_empty() && files.is_empty() {
        return Err(CommandError::plain(EXPECTED));
    }
    if context.dash.is_none() && before.len() > 1 {
        return Err(context.usage("exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead"));
    }
    if command.is_empty() {
        return Err(CommandError::plain("you must specify at least one command for the container"));
    }
    let flags = &context.flags;
    let cluster = context.cluster().await?;
    let info = match before.first() {
        Some(argument) => pods::named(context, argument, EXPECTED).await?,
        None => {
            let query = Query { arguments: Vec::new(), ..Query::of(context) };
            let mut infos = query.latest().infos(context).await?.all()?;
            if infos.is_empty() {
                return Err(CommandError::plain(EXPECTED));
            }
            infos.remove(0)
        }
    };
    pods::check_attachable(&info)?;
    let (pod, _) = pods::of_object(&cluster, info, Prefer::Oldest, flags.duration("pod-running-timeout")).await?;
    check_phase(&pod, "exec into")?;
    let container = match flags.text("container") {
        "" => pods::default_container(context, &pod, flags.bool("quiet"))?,
        name => pods::valid_container(&pod, name)?,
    };
    let stdin = flags.bool("stdin");
    let tty = usable_tty(context, stdin, flags.bool("tty"), flags.bool("quiet"))?;
    let session = Session {
        detach: Vec::new(),
        namespace: meta::namespace(&pod).to_owned(),
        pod: meta::name(&pod).to_owned(),
        container,
        command: command.to_vec(),
        stdin,
        tty,
        stderr: true,
    };
    session.run(context, &cluster).await
}

/// Nothing can be done in Pods that ended.
pub(super) fn check_phase(pod: &Value, what: &str) -> Result<(), CommandError> {
    let phase = pod["status"]["phase"].as_str().unwrap_or("");
    if ["Succeeded", "Failed"].contains(&phase) {
        return Err(CommandError::plain(format!(
            "cannot {what} a container in a completed pod; current phase is {phase}"
        )));
    }
    Ok(())
}

/// A terminal is used only if there is one.
pub(super) fn usable_tty(context: &Context, stdin: bool, tty: bool, quiet: bool) -> Result<bool, CommandError> {
    if tty && !context.streams.stdin.is_terminal() {
        if !quiet && stdin {
            writeln!(
                context.streams.err.clone(),
                "Unable to use a TTY - input is not a terminal or the right kind of file"
            )?;
        }
        return Ok(false);
    }
    Ok(tty)
}
