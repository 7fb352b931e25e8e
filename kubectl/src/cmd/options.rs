//! `kubectl options`.

use std::io::Write;

use crate::{
    command::{self, Command},
    context::Context,
    error::CommandError,
    globals,
};

/// The command.
pub(crate) fn command() -> Command {
    let mut command = Command::new("options", "Print the flags of all commands").runs(|context| Box::pin(run(context)));
    command.hidden = true;
    command
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    writeln!(out, "The following options can be passed to any command:\n")?;
    let flags = globals::flags();
    command::describe(&flags.iter().filter(|f| !f.hidden).collect::<Vec<_>>(), &mut out)
}
