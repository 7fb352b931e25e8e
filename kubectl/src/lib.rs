//! kubectl: the command line of the API.
//!
//! [`run`] finds the command, parses its flags, runs it, reports its failure and answers the exit code.
//!
//! # How to add a command
//!
//! 1. Write `cmd/<name>.rs` with `pub(crate) fn command() -> Command`: its name, a line of help, usage, flags (take the
//!    shared ones: [`resolve::file_flags`], [`resolve::selector_flag`], [`print::write_flags`], ...), and what runs it:
//!    `.runs(|context| Box::pin(run(context)))` with `async fn run(context: &Context) -> Result<(), CommandError>`.
//! 2. Add `mod <name>;` and a line in [`cmd::groups`], where help shows it. A group (`rollout`) has `.commands(vec![...])`
//!    and nothing that runs.
//!
//! In `run`:
//! - Flags by name: `context.flags.text("output")`, `.bool`, `.int`, `.list`, `.duration`, `.given`. A name that is not
//!   defined is a bug, which debug builds catch. `context.args`, `context.before_dash()`, `context.after_dash()`.
//! - The server: `let cluster = context.cluster().await?`, then `cluster.json(&Call::get(&path).query("limit", "5"))`,
//!   `.bytes`, `.send` (streams), `.watch`; `cluster.client()` for upgrades; `cluster.namespace`.
//! - Objects: `Query::of(context)` reads the shared flags; `.all()`, `.latest()`, `.unread()` say what is wanted;
//!   `.infos(context).await?` gives [`resolve::Info`]s with their resource, namespace, name, object, `path()`. Collect
//!   failures per object and end with [`error::CommandError::all`].
//! - Output: `let mut out = context.streams.out.clone()` and `writeln!(out, ...)?`; flush after each event of something
//!   that goes on. [`print::Results`] reports what was done (`pod/x created`, `-o`, dry run); [`print::table::Aligned`]
//!   makes columns; [`print::Printer`] prints objects.
//! - Failures: [`error::CommandError::plain`] (printed after `error: `), `context.usage(...)` (adds the line `See ... -h`),
//!   `.during("error when creating \"f\"")`, `.with_code(n)`, [`error::CommandError::Exit`] when all was said.
//! - `context.stop` is cancelled by SIGINT.

pub mod cluster;
pub mod cmd;
pub mod command;
mod content_hash;
pub mod context;
mod describe;
pub mod discovery;
pub mod error;
pub mod flags;
mod follow;
pub mod globals;
pub mod kubeconfig;
pub mod kuberc;
pub mod kustomize;
pub mod last_applied;
mod pods;
pub mod print;
mod remote;
pub mod resolve;
pub mod streams;
mod terminal;
pub mod three_way;

use std::io::Write;

use tokio_util::sync::CancellationToken;

use crate::{command::Command, context::Context, error::CommandError, streams::Streams};

/// Runs a command line; answers the exit code. Output and failures are written to the streams.
pub async fn run(program: &str, arguments: Vec<String>, streams: Streams, stop: CancellationToken) -> u8 {
    let (mut out, mut err) = (streams.out.clone(), streams.err.clone());
    let outcome = dispatch(program, arguments, streams, stop).await;
    let outcome = match (outcome, out.flush()) {
        (Ok(()), Err(error)) => Err(CommandError::from(error)),
        (outcome, _) => outcome,
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            if let Some(text) = error.report() {
                // A closed standard error has no reader to tell.
                let _closed = err.write_all(text.as_bytes()).is_err();
            }
            error.code()
        }
    }
}

async fn dispatch(
    program: &str,
    arguments: Vec<String>,
    streams: Streams,
    stop: CancellationToken,
) -> Result<(), CommandError> {
    if let Some((name, words)) = arguments.split_first().filter(|(name, _)| name.starts_with("__complete"))
        && matches!(name.as_str(), "__complete" | "__completeNoDesc")
    {
        return cmd::completion::live::run(program, words, name == "__complete", streams, stop).await;
    }
    let commands = cmd::commands();
    let preferences = kuberc::Preferences::load(&arguments, &mut streams.err.clone())?;
    let arguments = preferences.expand(program, &commands, arguments)?;
    let found = command::find(&commands, &arguments);
    let mut parsed = command::parse(found.command, &found.path, &found.arguments)?;
    let mut out = streams.out.clone();
    let Some(command) = found.command else {
        if let (Some(name), false) = (parsed.args.first(), parsed.flags.bool("help")) {
            if let Some(failure) = cmd::plugin::run(&parsed.args) {
                return Err(failure);
            }
            return Err(command::unknown(&commands, name));
        }
        return cmd::help::overview(&mut out);
    };
    if parsed.flags.bool("help") {
        return command::help(command, &found.path, &mut out);
    }
    preferences.apply(&commands, &found.path, &mut parsed.flags, &mut streams.err.clone())?;
    globals::check(command, &parsed.flags)?;
    for line in parsed.flags.deprecations() {
        writeln!(streams.err.clone(), "{line}")?;
    }
    let Some(run) = command.run else {
        let mut place = if command.bare_to_out { out } else { streams.err.clone() };
        return group(command, &found.path, &parsed.args, &mut place);
    };
    command::check_required(&parsed)?;
    let context = Context::new(program, found.path, parsed, streams, stop).preferring(preferences);
    run(&context).await?;
    warnings(&context)
}

/// A command that only has commands below it.
fn group(command: &Command, path: &str, arguments: &[String], out: &mut streams::Output) -> Result<(), CommandError> {
    if let Some(name) = arguments.first() {
        return Err(CommandError::Usage { text: format!("unknown command {name:?}"), command: path.to_owned() });
    }
    command::help(command, path, out)?;
    if command.bare_code == 0 { Ok(()) } else { Err(CommandError::Exit(command.bare_code)) }
}

/// `--warnings-as-errors`.
fn warnings(context: &Context) -> Result<(), CommandError> {
    let count = context.connected().map_or(0, |cluster| cluster.warned());
    match count {
        0 => Ok(()),
        _ if !context.flags.bool("warnings-as-errors") => Ok(()),
        1 => Err(CommandError::plain("1 warning received")),
        many => Err(CommandError::plain(format!("{many} warnings received"))),
    }
}
