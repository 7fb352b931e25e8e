//! `kubectl completion`: scripts for shells, which ask the hidden `kubectl __complete` what may follow.

pub(crate) mod live;
mod scripts;

use std::io::Write;

use crate::{command::Command, context::Context, error::CommandError};

/// Shells with a script.
const SHELLS: [&str; 4] = ["powershell", "bash", "zsh", "fish"];

/// The command.
pub(crate) fn command() -> Command {
    Command::new("completion", "Output shell completion code for the specified shell (bash, zsh, fish, or powershell)")
        .usage("SHELL")
        .examples(&["source <(kubectl completion bash)", "kubectl completion zsh > \"${fpath[1]}/_kubectl\""])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let shell = match context.args.as_slice() {
        [] => return Err(context.usage("Shell not specified.")),
        [shell] => shell.as_str(),
        _ => return Err(context.usage("Too many arguments. Expected only the shell type.")),
    };
    let script = scripts::of(shell).ok_or_else(|| context.usage(format!("Unsupported shell type {shell:?}.")))?;
    context.streams.out.clone().write_all(script.as_bytes())?;
    Ok(())
}
