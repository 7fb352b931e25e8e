//! `kubectl kustomize`.

use std::io::Write;

use crate::{command::Command, context::Context, error::CommandError, flags::Flag, kustomize, print::yaml};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("kustomize", "Build a kustomization target from a directory or URL")
        .usage("[DIR]")
        .flags([Flag::text("output", "", "If specified, write output to this path.").short('o')])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let directory = match context.args.as_slice() {
        [] => ".",
        [one] => one.as_str(),
        _ => return Err(CommandError::plain("specify one path to kustomization.yaml")),
    };
    let built = kustomize::build(directory).map_err(|e| CommandError::plain(e.to_string()))?;
    for warning in &built.warnings {
        writeln!(context.streams.err.clone(), "{warning}")?;
    }
    let text: Vec<String> = built.objects.iter().map(yaml::encode).collect();
    let text = text.join("---\n");
    match context.flags.text("output") {
        "" => context.streams.out.clone().write_all(text.as_bytes())?,
        path => std::fs::write(path, text)?,
    }
    Ok(())
}
