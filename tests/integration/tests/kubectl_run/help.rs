//! What help texts say of commands; their words are each program's own.

use std::{collections::BTreeMap, path::Path, process::Command};

/// A command as its help shows it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Help {
    /// Letter and default of each flag.
    pub(super) flags: BTreeMap<String, (String, String)>,
    /// Commands below.
    pub(super) commands: Vec<String>,
    usage: Vec<String>,
    aliases: Vec<String>,
}

impl Help {
    fn parse(text: &str) -> Self {
        let mut help = Self::default();
        let mut section = "";
        for line in text.lines() {
            if let Some(title) = line.strip_suffix(':').filter(|title| title.starts_with(char::is_uppercase)) {
                section = title;
                continue;
            }
            if let Some(flag) = line.strip_prefix("    ").filter(|flag| flag.starts_with('-')) {
                let (letter, long) = flag.split_once(", ").unwrap_or(("", flag));
                let (name, default) = long.trim_end_matches(':').split_once('=').unwrap_or((long, ""));
                help.flags.insert(name.to_owned(), (letter.to_owned(), default.to_owned()));
                continue;
            }
            let Some(inner) = line.strip_prefix("  ").filter(|inner| !inner.starts_with(' ')) else {
                if section == "Aliases" && !line.is_empty() {
                    help.aliases.push(line.to_owned());
                }
                continue;
            };
            match section {
                "Usage" => help.usage.push(inner.trim_end().to_owned()),
                title if title.contains("Commands") => {
                    help.commands.extend(inner.split_whitespace().next().map(str::to_owned));
                }
                _ => {}
            }
        }
        help
    }

    /// The help of a command.
    pub(super) fn of(program: &Path, command: &[String]) -> Self {
        let mut words = command.to_vec();
        // The flags of all commands have a text of their own.
        if command.first().is_none_or(|first| first != "options") {
            words.push("--help".to_owned());
        }
        let output = Command::new(program).args(&words).env("HOME", "/nowhere").output().expect("kubectl runs");
        Self::parse(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
    }
}
