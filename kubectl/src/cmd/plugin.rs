//! Plugins: programs called `kubectl-NAME` on the PATH.

use std::{
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command as Process,
};

use runtime::env;

use crate::{command::Command, context::Context, error::CommandError, flags::Flag};

const PREFIX: &str = "kubectl-";

/// The command.
pub(crate) fn command() -> Command {
    Command::new("plugin", "Provides utilities for interacting with plugins")
        .usage("[flags]")
        .long(
            "Provides utilities for interacting with plugins.\n\n A plugin is a program on the PATH whose name begins with \
             'kubectl-': 'kubectl foo bar' runs 'kubectl-foo-bar', or 'kubectl-foo' with the argument 'bar'.",
        )
        .commands(vec![
            Command::new("list", "List all visible plugin executables on a user's PATH")
                .usage("[flags]")
                .flags([Flag::switch("name-only", "Only names, no paths.")])
                .runs(|context| Box::pin(list(context))),
        ])
}

fn directories() -> Vec<PathBuf> {
    let path = env::var("PATH").unwrap_or_default();
    path.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect()
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

async fn list(context: &Context) -> Result<(), CommandError> {
    let (mut out, mut err) = (context.streams.out.clone(), context.streams.err.clone());
    let mut seen: Vec<(String, PathBuf)> = Vec::new();
    let mut warnings = 0;
    let commands = super::commands();
    for directory in directories() {
        let entries = std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
        let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        for name in names.into_iter().filter(|n| n.starts_with(PREFIX)) {
            let path = directory.join(&name);
            if seen.is_empty() {
                writeln!(out, "The following compatible plugins are available:\n")?;
            }
            match context.flags.bool("name-only") {
                true => writeln!(out, "{name}")?,
                false => writeln!(out, "{}", path.display())?,
            }
            let mut warn = |text: String| -> Result<(), CommandError> {
                warnings += 1;
                writeln!(err, "  - warning: {text}")?;
                Ok(())
            };
            if !is_executable(&path) {
                warn(format!("{} identified as a kubectl plugin, but it is not executable", path.display()))?;
            }
            if let Some((_, other)) = seen.iter().find(|(n, _)| *n == name) {
                warn(format!("{} is overshadowed by a similarly named plugin: {}", path.display(), other.display()))?;
            }
            let words: Vec<String> = name[PREFIX.len()..].split('-').map(str::to_owned).collect();
            let found = crate::command::find(&commands, &words);
            if found.command.is_some() && found.arguments.is_empty() {
                warn(format!("{name} overwrites existing command: {:?}", found.path))?;
            }
            seen.push((name, path));
        }
    }
    match (seen.is_empty(), warnings) {
        (true, _) => Err(CommandError::plain("unable to find any kubectl plugins in your PATH")),
        (_, 0) => Ok(()),
        (_, 1) => Err(CommandError::plain("one plugin warning was found")),
        (_, many) => Err(CommandError::plain(format!("{many} plugin warnings were found"))),
    }
}

/// Commands that plugins add.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for directory in directories() {
        let entries = std::fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok);
        names.extend(entries.filter(|entry| is_executable(&entry.path())).filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix(PREFIX)?.split('-').next().map(|first| first.replace('_', "-"))
        }));
    }
    names.sort();
    names.dedup();
    names
}

/// Becomes the plugin that an unknown command names; returns if there is none.
pub(crate) fn run(arguments: &[String]) -> Option<CommandError> {
    let words: Vec<String> =
        arguments.iter().take_while(|a| !a.starts_with('-')).map(|a| a.replace('-', "_")).collect();
    for taken in (1..=words.len()).rev() {
        let name = format!("{PREFIX}{}", words[..taken].join("-"));
        let Some(path) = directories().into_iter().map(|d| d.join(&name)).find(|p| is_executable(p)) else { continue };
        let failure = Process::new(&path).args(&arguments[taken..]).exec();
        return Some(CommandError::plain(format!("{}: {failure}", path.display())));
    }
    None
}
