//! Preferences: defaults of flags, aliases of commands, and which credential plugins may run.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use machinery::decode::decode_yaml;
use runtime::env;
use serde_json::{Value, json};

use crate::{
    command::{self, Command},
    error::CommandError,
    flags::Flags,
    kubeconfig::files::go_io_text,
    streams::Output,
};

/// Version of the files that are written.
pub const VERSION: &str = "kubectl.config.k8s.io/v1beta1";
const FIRST_VERSION: &str = "kubectl.config.k8s.io/v1alpha1";
/// The kind of the file.
pub const KIND: &str = "Preference";

/// A default of a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FlagDefault {
    name: String,
    value: String,
}

/// Defaults of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Defaults {
    command: Vec<String>,
    flags: Vec<FlagDefault>,
}

/// Another name of a command, with arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alias {
    name: String,
    defaults: Defaults,
    prepended: Vec<String>,
    appended: Vec<String>,
}

/// Which credential plugins may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Plugins {
    #[default]
    All,
    None,
    Listed(Vec<String>),
}

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    defaults: Vec<Defaults>,
    aliases: Vec<Alias>,
    plugins: Plugins,
}

/// The file that is used, and whether it has to exist; nothing if preferences are turned off.
pub fn file(given: Option<&str>) -> Option<(PathBuf, bool)> {
    let off =
        env::non_empty("KUBECTL_KUBERC").is_some_and(|v| matches!(v.to_lowercase().as_str(), "false" | "0" | "f"));
    let named = env::non_empty("KUBERC");
    if off || (given.is_none() && named.as_deref() == Some("off")) {
        return None;
    }
    match given.map(str::to_owned).or(named) {
        Some(path) => Some((PathBuf::from(path), true)),
        None => Some((Path::new(&env::non_empty("HOME")?).join(".kube").join("kuberc"), false)),
    }
}

/// The value of `--kuberc` on a command line that was not parsed yet.
fn given(arguments: &[String]) -> Option<&str> {
    let mut rest = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = rest.next() {
        match argument.strip_prefix("--kuberc") {
            Some("") => return rest.next().map(String::as_str).filter(|path| !path.is_empty()),
            Some(value) if value.starts_with('=') => return Some(&value[1..]).filter(|path| !path.is_empty()),
            _ => {}
        }
    }
    None
}

/// Reads a file; `None` if it need not exist and does not.
pub fn read(path: &Path, required: bool) -> Result<Option<Value>, CommandError> {
    match std::fs::read(path) {
        Ok(text) => {
            let decoded = decode_yaml(&text).ok().map(|(object, _)| object);
            let known = |object: &Value| {
                object["kind"] == KIND
                    && [VERSION, FIRST_VERSION].iter().any(|version| object["apiVersion"] == *version)
            };
            decoded.filter(known).map(Some).ok_or_else(|| {
                failed(&format!(
                    "kuberc error kuberc: no valid preferences found in {}, use --v=5 to see details",
                    path.display()
                ))
            })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(None),
        Err(error) => {
            Err(failed(&format!("kuberc error kuberc: open {}: {}", path.display(), go_io_text(&error).to_lowercase())))
        }
    }
}

fn failed(text: &str) -> CommandError {
    CommandError::Verbatim(format!("error occurred while applying preferences {text}"))
}

impl Preferences {
    /// The preferences of a command line.
    pub fn load(arguments: &[String], err: &mut Output) -> Result<Self, CommandError> {
        let Some((path, required)) = file(given(arguments)) else { return Ok(Self::default()) };
        let Some(object) = read(&path, required)? else { return Ok(Self::default()) };
        if let Some(field) = unknown_field(&object) {
            write!(
                err,
                "kuberc: ignoring strict decoding error in {}: strict decoding error: unknown field {field:?}",
                path.display()
            )?;
        }
        let preferences = Self::parse(&object);
        preferences.check()?;
        Ok(preferences)
    }

    fn parse(object: &Value) -> Self {
        // The first version called them otherwise.
        let (defaults, options) =
            if object["apiVersion"] == FIRST_VERSION { ("overrides", "flags") } else { ("defaults", "options") };
        let items = |key: &str| object[key].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let texts = |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().map(text).collect() };
        let of = |item: &Value| Defaults {
            command: text(&item["command"]).split_whitespace().map(str::to_owned).collect(),
            flags: item[options]
                .as_array()
                .into_iter()
                .flatten()
                .map(|flag| FlagDefault { name: text(&flag["name"]), value: text(&flag["default"]) })
                .collect(),
        };
        let alias = |item: &Value| Alias {
            name: text(&item["name"]),
            defaults: of(item),
            prepended: texts(&item["prependArgs"]),
            appended: texts(&item["appendArgs"]),
        };
        let listed = |entry: &Value| {
            let key = if entry["command"].is_null() { "name" } else { "command" };
            text(&entry[key])
        };
        Self {
            defaults: items(defaults).iter().map(of).collect(),
            aliases: items("aliases").iter().map(alias).collect(),
            plugins: match object["credentialPluginPolicy"].as_str() {
                Some("DenyAll") => Plugins::None,
                Some("Allowlist") => Plugins::Listed(items("credentialPluginAllowlist").iter().map(listed).collect()),
                _ => Plugins::All,
            },
        }
    }

    fn check(&self) -> Result<(), CommandError> {
        for (at, alias) in self.aliases.iter().enumerate() {
            if alias.name.is_empty() || !alias.name.chars().all(char::is_alphabetic) {
                return Err(failed("invalid alias name, can only include alphabetical characters"));
            }
            if self.aliases[..at].iter().any(|other| other.name == alias.name) {
                return Err(failed(&format!("duplicate alias name {}", alias.name)));
            }
        }
        Ok(())
    }

    /// The command line that is meant: what an alias stands for, if the first word is one. Commands come before aliases.
    pub fn expand(
        &self,
        program: &str,
        commands: &[Command],
        arguments: Vec<String>,
    ) -> Result<Vec<String>, CommandError> {
        let Some(at) = command::first_word(&arguments, &[], &crate::globals::flags()) else { return Ok(arguments) };
        let known = commands.iter().any(|command| command.is_called(&arguments[at]));
        let Some(alias) = self.aliases.iter().find(|alias| !known && alias.name == arguments[at]) else {
            return Ok(arguments);
        };
        let words = &alias.defaults.command;
        let found = command::find(commands, words);
        let Some(target) = found.command.filter(|_| found.arguments.is_empty()) else {
            let (name, list) = (words.join(" "), words.join(" "));
            return Err(failed(&format!("command {name:?} not found to set alias {:?}: [{list}]", alias.name)));
        };
        let parsed = command::parse(Some(target), &found.path, &arguments);
        let mut flags = Vec::new();
        for flag in &alias.defaults.flags {
            let defined = target.flags.iter().any(|f| f.name == flag.name);
            if !defined && !crate::globals::flags().iter().any(|f| f.name == flag.name) {
                return Err(failed(&format!("invalid alias flag {} in alias {program}", flag.name)));
            }
            // What was given on the command line wins.
            if parsed.as_ref().is_ok_and(|parsed| !parsed.flags.given(&flag.name)) {
                flags.push(format!("--{}={}", flag.name, flag.value));
            }
        }
        let mut line = arguments[..at].to_vec();
        line.extend(words.iter().cloned());
        line.extend(flags);
        line.extend(alias.prepended.iter().cloned());
        line.extend(arguments[at + 1..].iter().cloned());
        line.extend(alias.appended.iter().cloned());
        Ok(line)
    }

    /// Gives flags that were not given their defaults of the file.
    pub fn apply(
        &self,
        commands: &[Command],
        path: &str,
        flags: &mut Flags,
        err: &mut Output,
    ) -> Result<(), CommandError> {
        for defaults in &self.defaults {
            let found = command::find(commands, &defaults.command);
            if found.command.is_none() || !found.arguments.is_empty() {
                writeln!(err, "Warning: command {:?} not found to set kuberc override", defaults.command.join(" "))?;
                continue;
            }
            if found.path != path {
                continue;
            }
            let name = defaults.command.last().map_or("", String::as_str);
            for flag in &defaults.flags {
                if !flags.has(&flag.name) {
                    return Err(failed(&format!("invalid flag {} for command {name}", flag.name)));
                }
                if flags.given(&flag.name) {
                    continue;
                }
                flags.put(&flag.name, flag.value.clone()).map_err(|e| {
                    failed(&format!(
                        "could not apply override value {} to flag {} in command {name} err: {e}",
                        flag.value, flag.name
                    ))
                })?;
            }
        }
        Ok(())
    }

    /// Whether a credential plugin may run.
    pub fn permits(&self, plugin: &str) -> bool {
        match &self.plugins {
            Plugins::All => true,
            Plugins::None => false,
            // An entry without directories means the program wherever the PATH finds it.
            Plugins::Listed(listed) => listed.iter().any(|entry| entry == plugin),
        }
    }
}

fn unknown_field(object: &Value) -> Option<String> {
    let defaults = if object["apiVersion"] == FIRST_VERSION { "overrides" } else { "defaults" };
    let known = ["kind", "apiVersion", defaults, "aliases", "credentialPluginPolicy", "credentialPluginAllowlist"];
    object.as_object()?.keys().find(|key| !known.contains(&key.as_str())).cloned()
}

/// A file without preferences.
pub fn empty() -> Value {
    json!({"kind": KIND, "apiVersion": VERSION, "defaults": null, "aliases": null})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flags::Flag, streams::Output};

    fn commands() -> Vec<Command> {
        let runs: command::Run = |_| Box::pin(async { Ok(()) });
        vec![
            Command::new("get", "")
                .flags([Flag::text("output", "", "").short('o'), Flag::int("chunk-size", "5", "")])
                .runs(runs),
        ]
    }

    fn preferences() -> Preferences {
        Preferences::parse(&json!({"kind": KIND, "apiVersion": VERSION,
            "defaults": [{"command": "get", "options": [{"name": "output", "default": "wide"}]}],
            "aliases": [{"name": "getn", "command": "get", "prependArgs": ["nodes"], "appendArgs": ["--", "x"],
                "options": [{"name": "chunk-size", "default": "7"}]},
                {"name": "get", "command": "nope"}, {"name": "xx", "command": "nope"}],
            "credentialPluginPolicy": "Allowlist", "credentialPluginAllowlist": [{"command": "good"}]}))
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn aliases_stand_for_commands() {
        let expand = |text: &str| preferences().expand("kubectl", &commands(), words(text)).map(|line| line.join(" "));
        assert_eq!(expand("-n x getn a").expect("a line"), "-n x get --chunk-size=7 nodes a -- x");
        assert_eq!(expand("getn --chunk-size=9").expect("a line"), "get nodes --chunk-size=9 -- x");
        assert_eq!(expand("get pods").expect("a line"), "get pods");
        let refused = expand("xx").expect_err("refused").to_string();
        assert_eq!(
            refused,
            "error occurred while applying preferences command \"nope\" not found to set alias \"xx\": [nope]"
        );
    }

    #[test]
    fn defaults_are_for_flags_that_were_not_given() {
        let applied = |text: &str| {
            let (commands, mut err) = (commands(), Output::new(Vec::new(), false));
            let mut parsed = command::parse(commands.first(), "kubectl get", &words(text)).expect("parsed");
            preferences().apply(&commands, "kubectl get", &mut parsed.flags, &mut err).expect("applied");
            parsed.flags.text("output").to_owned()
        };
        assert_eq!((applied("pods").as_str(), applied("pods -o name").as_str()), ("wide", "name"));
    }

    #[test]
    fn plugins_are_permitted_by_the_list() {
        assert!(preferences().permits("good") && !preferences().permits("bad"));
        assert!(Preferences::default().permits("any"));
    }

    #[test]
    fn the_file_is_named_on_the_command_line() {
        assert_eq!(given(&words("get --kuberc=a pods")), Some("a"));
        assert_eq!(given(&words("get --kuberc b pods")), Some("b"));
        assert_eq!(given(&words("exec p -- --kuberc=a")), None);
    }
}
