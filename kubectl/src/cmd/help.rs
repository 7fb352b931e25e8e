//! `kubectl help`, and what kubectl alone prints.

use std::io::Write;

use crate::{
    command::{self, Command},
    context::Context,
    error::CommandError,
    streams::Output,
};

/// The command.
pub(crate) fn command() -> Command {
    let mut command =
        Command::new("help", "Help about any command").usage("[command]").runs(|context| Box::pin(run(context)));
    command.hidden = true;
    command
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let commands = super::commands();
    let mut out = context.streams.out.clone();
    let found = command::find(&commands, &context.args);
    match found.command {
        Some(command) => command::help(command, &found.path, &mut out),
        None if context.args.is_empty() => overview(&mut out),
        None => {
            let topic: Vec<String> = context.args.iter().map(|a| format!("{a:?}")).collect();
            writeln!(context.streams.err.clone(), "Unknown help topic [{}]", topic.join(" "))?;
            overview(&mut out)
        }
    }
}

/// All commands in their groups.
pub(crate) fn overview(out: &mut Output) -> Result<(), CommandError> {
    writeln!(out, "kubectl controls the Kubernetes cluster manager.")?;
    for group in super::groups().iter().filter(|g| g.commands.iter().any(|c| !c.hidden)) {
        writeln!(out, "\n{}:", group.title)?;
        let width = group.commands.iter().map(|c| c.name.len()).max().unwrap_or(0).max(13);
        for command in group.commands.iter().filter(|c| !c.hidden) {
            writeln!(out, "  {:width$}   {}", command.name, command.short)?;
        }
    }
    writeln!(out, "\nUsage:\n  kubectl [flags] [options]\n")?;
    writeln!(out, "Use \"kubectl <command> --help\" for more information about a given command.")?;
    writeln!(out, "Use \"kubectl options\" for a list of global command-line options (applies to all commands).")?;
    Ok(())
}
