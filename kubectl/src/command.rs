//! The tree of commands: finding the one that is meant, its flags, and help.

use std::io::Write;

use futures::future::LocalBoxFuture;

use crate::{
    context::Context,
    error::CommandError,
    flags::{self, Flag, Kind, Parsed},
    globals,
    streams::Output,
};

/// What runs a command.
pub type Run = for<'a> fn(&'a Context) -> LocalBoxFuture<'a, Result<(), CommandError>>;

/// A command, perhaps with commands below it.
pub struct Command {
    /// Name.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// One line for lists.
    pub short: &'static str,
    /// What help begins with; `short` and a full stop if empty.
    pub long: &'static str,
    /// What follows the command in its usage line.
    pub usage: &'static str,
    /// Examples, a line each.
    pub examples: &'static [&'static str],
    /// Its flags.
    pub flags: Vec<Flag>,
    /// Commands below.
    pub commands: Vec<Command>,
    /// What runs it; a group has nothing to run.
    pub run: Option<Run>,
    /// Exit code of a group without a command.
    pub bare_code: u8,
    /// Whether a group without a command prints its help to standard output.
    pub bare_to_out: bool,
    /// Not shown by help.
    pub hidden: bool,
}

impl Command {
    /// A command that does nothing yet.
    pub fn new(name: &'static str, short: &'static str) -> Self {
        Self {
            name,
            aliases: &[],
            short,
            long: "",
            usage: "",
            examples: &[],
            flags: Vec::new(),
            commands: Vec::new(),
            run: None,
            bare_code: 1,
            bare_to_out: false,
            hidden: false,
        }
    }

    /// With other names.
    #[must_use]
    pub fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// With a longer description.
    #[must_use]
    pub fn long(mut self, long: &'static str) -> Self {
        self.long = long;
        self
    }

    /// With what follows the command in its usage line.
    #[must_use]
    pub fn usage(mut self, usage: &'static str) -> Self {
        self.usage = usage;
        self
    }

    /// With examples.
    #[must_use]
    pub fn examples(mut self, examples: &'static [&'static str]) -> Self {
        self.examples = examples;
        self
    }

    /// With more flags.
    #[must_use]
    pub fn flags(mut self, flags: impl IntoIterator<Item = Flag>) -> Self {
        self.flags.extend(flags);
        self
    }

    /// With commands below.
    #[must_use]
    pub fn commands(mut self, commands: Vec<Command>) -> Self {
        self.commands = commands;
        self
    }

    /// With what runs it.
    #[must_use]
    pub fn runs(mut self, run: Run) -> Self {
        self.run = Some(run);
        self
    }

    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// A command that was found, with the rest of the command line.
pub struct Found<'a> {
    /// The command; `None` is kubectl itself.
    pub command: Option<&'a Command>,
    /// `kubectl create secret`.
    pub path: String,
    /// Arguments without the names of commands.
    pub arguments: Vec<String>,
}

/// Walks down the tree as far as the arguments name commands.
pub fn find<'a>(commands: &'a [Command], arguments: &[String]) -> Found<'a> {
    let mut found = Found { command: None, path: "kubectl".to_owned(), arguments: arguments.to_vec() };
    let globals = globals::flags();
    loop {
        let below = found.command.map_or(commands, |c| &c.commands);
        let own: &[Flag] = found.command.map_or(&[], |c| &c.flags);
        let Some(at) = first_word(&found.arguments, own, &globals).filter(|_| !below.is_empty()) else {
            return found;
        };
        let Some(next) = below.iter().find(|c| c.is_called(&found.arguments[at])) else {
            return found;
        };
        found.arguments.remove(at);
        found.path = format!("{} {}", found.path, next.name);
        found.command = Some(next);
    }
}

/// Index of the first argument that is neither a flag nor the value of one.
pub(crate) fn first_word(arguments: &[String], own: &[Flag], globals: &[Flag]) -> Option<usize> {
    let takes_value = |fits: &dyn Fn(&Flag) -> bool| {
        own.iter().chain(globals).find(|f| fits(f)).is_none_or(|flag| flag.bare.is_none())
    };
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        if argument == "--" {
            return None;
        }
        let skipped = if let Some(long) = argument.strip_prefix("--") {
            !long.contains('=') && takes_value(&|f| f.name == long.replace('_', "-"))
        } else if argument.len() > 1 && argument.starts_with('-') {
            // Only a letter alone takes the next argument.
            argument.chars().count() == 2 && takes_value(&|f| f.short == argument.chars().nth(1))
        } else {
            return Some(at);
        };
        at += if skipped { 2 } else { 1 };
    }
    None
}

/// Parses what is left for a command.
pub fn parse(command: Option<&Command>, path: &str, arguments: &[String]) -> Result<Parsed, CommandError> {
    let mut defined: Vec<Flag> = command.map_or_else(Vec::new, |c| c.flags.clone());
    defined.push(Flag::switch("help", "Help for the command.").short('h').hidden());
    defined.extend(globals::flags());
    let parsed = flags::parse(defined, arguments)
        .map_err(|e| CommandError::plain(format!("{e}\nSee '{path} --help' for usage.")))?;
    Ok(parsed)
}

/// Flags that are required and absent.
pub fn check_required(parsed: &Parsed) -> Result<(), CommandError> {
    let missing: Vec<String> = parsed.flags.missing().iter().map(|name| format!("{name:?}")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(CommandError::plain(format!("required flag(s) {} not set", missing.join(", "))))
}

/// `unknown command`, with what may have been meant.
pub fn unknown(commands: &[Command], name: &str) -> CommandError {
    let near: Vec<&str> = commands
        .iter()
        .filter(|c| !c.hidden)
        .map(|c| c.name)
        .filter(|c| distance(&name.to_lowercase(), c) <= 2 || c.starts_with(&name.to_lowercase()))
        .collect();
    let mut text = format!("unknown command {name:?} for \"kubectl\"");
    if !near.is_empty() {
        text.push_str("\n\nDid you mean this?");
        near.iter().for_each(|c| text.push_str(&format!("\n\t{c}")));
    }
    CommandError::plain(text)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Prints the help of a command.
pub fn help(command: &Command, path: &str, out: &mut Output) -> Result<(), CommandError> {
    match command.long {
        "" => writeln!(out, "{}.", command.short)?,
        long => writeln!(out, "{long}")?,
    }
    if !command.aliases.is_empty() {
        writeln!(out, "\nAliases:\n{}, {}", command.name, command.aliases.join(", "))?;
    }
    if !command.examples.is_empty() {
        writeln!(out, "\nExamples:")?;
        for example in command.examples {
            writeln!(out, "  {example}")?;
        }
    }
    if !command.commands.is_empty() {
        writeln!(out, "\nAvailable Commands:")?;
        list(&command.commands, out)?;
    }
    let shown: Vec<&Flag> = command.flags.iter().filter(|f| !f.hidden).collect();
    if !shown.is_empty() {
        writeln!(out, "\nOptions:")?;
        describe(&shown, out)?;
    } else {
        writeln!(out)?;
    }
    let line = match (command.usage, command.commands.is_empty()) {
        ("", false) => format!("{path} SUBCOMMAND"),
        ("", true) => path.to_owned(),
        (usage, _) => format!("{path} {usage}"),
    };
    let options = if line.contains("[options]") { "" } else { " [options]" };
    writeln!(out, "Usage:\n  {line}{options}")?;
    if !command.commands.is_empty() {
        writeln!(out, "\nUse \"{path} <command> --help\" for more information about a given command.")?;
    } else {
        writeln!(out)?;
    }
    writeln!(out, "Use \"kubectl options\" for a list of global command-line options (applies to all commands).")?;
    Ok(())
}

/// Lists commands with what they do.
pub fn list(commands: &[Command], out: &mut Output) -> Result<(), CommandError> {
    let shown = || commands.iter().filter(|c| !c.hidden);
    let width = shown().map(|c| c.name.len()).max().unwrap_or(0).max(11);
    for command in shown() {
        writeln!(out, "  {:width$}   {}", command.name, command.short)?;
    }
    Ok(())
}

/// Describes flags in order of their names.
pub fn describe(flags: &[&Flag], out: &mut Output) -> Result<(), CommandError> {
    let mut sorted = flags.to_vec();
    sorted.sort_by_key(|f| f.name);
    for flag in sorted {
        let letter = flag.short.map_or(String::new(), |c| format!("-{c}, "));
        let default = match flag.kind {
            Kind::Text => format!("'{}'", flag.default),
            Kind::Pairs => String::new(),
            Kind::List | Kind::Array | Kind::Map => format!("[{}]", flag.default),
            _ => flag.default.to_owned(),
        };
        writeln!(out, "    {letter}--{}={default}:\n\t{}\n", flag.name, flag.usage)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Vec<Command> {
        vec![
            Command::new("get", "Get").flags([Flag::text("output", "", "").short('o')]),
            Command::new("create", "Create")
                .commands(vec![Command::new("secret", "S").commands(vec![Command::new("tls", "T")])]),
        ]
    }

    #[test]
    fn commands_are_found_among_flags() {
        let tree = tree();
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let found = find(&tree, &words("-n kube-system create --v=3 secret x tls"));
        assert_eq!((found.path.as_str(), found.arguments.len()), ("kubectl create secret", 5));
        let found = find(&tree, &words("--as get get pods"));
        assert_eq!((found.path.as_str(), found.arguments.join(" ").as_str()), ("kubectl get", "--as get pods"));
        assert!(find(&tree, &words("nothing")).command.is_none());
    }

    #[test]
    fn similar_commands_are_suggested() {
        assert_eq!(unknown(&tree(), "gett").to_string().lines().last(), Some("\tget"));
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
