//! `kubectl attach`.

use std::io::Write;

use machinery::meta;
use serde_json::Value;

use super::exec::{check_phase, usable_tty};
use crate::{
    cluster::Cluster,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    pods::{self, Prefer},
    remote::{self, Session},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("attach", "Attach to a running container")
        .usage("(POD | TYPE/NAME) -c CONTAINER")
        .examples(&["kubectl attach mypod", "kubectl attach mypod -c ruby-container -i -t"])
        .flags([
            Flag::duration("pod-running-timeout", "1m0s", "Time to wait until a Pod runs."),
            Flag::text("container", "", "Container.").short('c'),
            Flag::switch("stdin", "Pass standard input on.").short('i'),
            Flag::switch("tty", "Standard input is a terminal.").short('t'),
            Flag::switch("quiet", "Print the output of the session only.").short('q'),
            crate::remote::detach_flag(),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let argument = match context.args.as_slice() {
        [] => return Err(CommandError::plain("at least 1 argument is required for attach")),
        [one] => one.clone(),
        [kind, name] => format!("{kind}/{name}"),
        many => {
            return Err(CommandError::plain(format!(
                "expected POD, TYPE/NAME, or TYPE NAME, (at most 2 arguments) saw {}: [{}]",
                many.len(),
                many.join(" ")
            )));
        }
    };
    let flags = &context.flags;
    let cluster = context.cluster().await?;
    let info = pods::named(context, &argument, "expected a resource to attach to").await?;
    pods::check_attachable(&info)?;
    let (pod, _) = pods::of_object(&cluster, info, Prefer::Oldest, flags.duration("pod-running-timeout")).await?;
    let wanted = Wanted {
        container: flags.text("container"),
        stdin: flags.bool("stdin"),
        tty: flags.bool("tty"),
        quiet: flags.bool("quiet"),
    };
    to_pod(context, &cluster, &pod, &wanted).await
}

/// What to attach to and how.
pub(super) struct Wanted<'a> {
    pub(super) container: &'a str,
    pub(super) stdin: bool,
    pub(super) tty: bool,
    pub(super) quiet: bool,
}

/// Attaches to a container of a Pod.
pub(super) async fn to_pod(
    context: &Context,
    cluster: &Cluster,
    pod: &Value,
    wanted: &Wanted<'_>,
) -> Result<(), CommandError> {
    check_phase(pod, "attach")?;
    let container = match wanted.container {
        "" => pods::default_container(context, pod, wanted.quiet)?,
        name => pods::valid_container(pod, name)
            .map_err(|error| CommandError::plain(format!("cannot attach to the container: {error}")))?,
    };
    let mut err = context.streams.err.clone();
    let mut tty = wanted.tty;
    if tty && pods::container(pod, &container).is_some_and(|c| c["tty"] != true) {
        tty = false;
        if !wanted.quiet {
            writeln!(err, "error: Unable to use a TTY - container {container} did not allocate one")?;
        }
    }
    tty = usable_tty(context, wanted.stdin, tty, wanted.quiet)?;
    if !wanted.quiet {
        writeln!(
            err,
            "All commands and output from this session will be recorded in container logs, including credentials and \
             sensitive information passed through the command prompt."
        )?;
        writeln!(err, "If you don't see a command prompt, try pressing enter.")?;
    }
    let keys = if context.flags.has("detach-keys") { context.flags.text("detach-keys") } else { "" };
    let session = Session {
        detach: remote::keys(keys)?,
        namespace: meta::namespace(pod).to_owned(),
        pod: meta::name(pod).to_owned(),
        container,
        command: Vec::new(),
        stdin: wanted.stdin,
        tty,
        stderr: true,
    };
    session.run(context, cluster).await
}
