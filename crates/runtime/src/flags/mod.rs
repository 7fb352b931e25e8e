//! The command line of the daemons, with the conventions of Go's pflag on top of clap.
//!
//! A component declares its flags with `#[derive(clap::Args)]`; [`CommandLine`] adapts the declaration:
//! - `bool` fields are switches that also take `=true` and `=false` (default by `default_value_t`);
//! - `Vec` fields with `value_delimiter = ','` are lists: the first use replaces the default, later ones append, and a
//!   value with a comma may be quoted;
//! - [`StringMap`], [`BoolMap`] and [`ThresholdMap`] fields add up over repeated use;
//! - any other flag given twice keeps its last value; `_` in a name is read as `-`.

mod compatibility;
mod groups;
mod values;

use std::any::TypeId;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, parser::ValueSource};

pub use compatibility::CompatibilityArgs;
pub use groups::{
    ClientArgs, DelegatedAuthArgs, LeaderElectionArgs, LoggingArgs, MetricsArgs, ProfilingArgs, SecureServingArgs,
};
pub use values::{BoolMap, StringMap, ThresholdMap, boolean, comma_separated, duration, format_duration};

/// Stands between list items on the way to clap; no flag value has it.
const ITEM: char = '\u{1f}';

/// Why a command line is not run.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// A flag is unknown or has a bad value. Usage is shown with it.
    #[error("{0}")]
    Usage(String),
    /// `--help`: the text to print.
    #[error("help requested")]
    Help(String),
}

/// A flag and its effective value, as `/flagz` and the start-up log show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagValue {
    /// Name without dashes.
    pub name: String,
    /// Value as text.
    pub value: String,
    /// Whether it was given on the command line.
    pub given: bool,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Parsed<A> {
    /// The component's arguments.
    pub args: A,
    /// All flags with their values, sorted by name.
    pub flags: Vec<FlagValue>,
    /// Warnings about deprecated flags, one line each.
    pub warnings: Vec<String>,
}

impl<A> Parsed<A> {
    /// Whether a flag was given on the command line; such a flag wins over a configuration file.
    pub fn given(&self, name: &str) -> bool {
        self.flags.iter().any(|f| f.name == name && f.given)
    }
}

/// Declaration of a daemon's command line.
pub struct CommandLine {
    command: Command,
    deprecated: &'static [(&'static str, &'static str)],
}

impl CommandLine {
    /// The command line of component `name` with the flags of `A`. `deprecated` lists flags with what to say of them.
    pub fn new<A: Args>(
        name: &'static str,
        about: &'static str,
        deprecated: &'static [(&'static str, &'static str)],
    ) -> Self {
        let command = A::augment_args(Command::new(name).no_binary_name(true))
            .about(about)
            .long_about(None)
            .args_override_self(true)
            .disable_version_flag(true)
            .mut_args(adapt);
        Self { command, deprecated }
    }

    /// Parses arguments (without the program name).
    pub fn parse<A: Args>(mut self, argv: impl IntoIterator<Item = String>) -> Result<Parsed<A>, FlagError> {
        let (tokens, warnings) = self.canonical(argv)?;
        let matches = self.command.clone().try_get_matches_from(tokens).map_err(|e| usage_error(&e))?;
        let flags = self.effective(&matches);
        let args = A::from_arg_matches(&matches).map_err(|e| usage_error(&e))?;
        Ok(Parsed { args, flags, warnings })
    }

    /// The short usage text.
    pub fn usage(&mut self) -> String {
        format!("Usage:\n  {} [flags]\n", self.command.get_name())
    }

    fn find(&self, name: &str) -> Option<&Arg> {
        self.command
            .get_arguments()
            .find(|a| a.get_long() == Some(name) || a.get_all_aliases().is_some_and(|aliases| aliases.contains(&name)))
    }

    /// Brings arguments into the one form `--name=value`, lists and maps joined.
    fn canonical(&mut self, argv: impl IntoIterator<Item = String>) -> Result<(Vec<String>, Vec<String>), FlagError> {
        let mut given: Vec<(String, String)> = Vec::new();
        let mut warnings = Vec::new();
        let mut argv = argv.into_iter();
        while let Some(token) = argv.next() {
            if token == "-h" || token == "--help" {
                return Err(FlagError::Help(self.command.render_long_help().to_string()));
            }
            let (spelled, inline) = self.split(&token)?;
            let name = spelled.replace('_', "-");
            let arg = self.find(&name).ok_or_else(|| FlagError::Usage(format!("unknown flag: --{name}")))?;
            let value = match inline {
                Some(value) => value,
                None if arg.is_require_equals_set() => "true".to_owned(),
                None => argv.next().ok_or_else(|| FlagError::Usage(format!("flag needs an argument: --{name}")))?,
            };
            let name = arg.get_long().unwrap_or(&name).to_owned();
            if let Some((_, text)) = self.deprecated.iter().find(|(n, _)| *n == name) {
                warnings.push(format!("Flag --{name} has been deprecated, {text}"));
            }
            let value = if is_list(arg) {
                let items = comma_separated(&value).map_err(|e| invalid(&value, &name, &e))?;
                items.join(&ITEM.to_string())
            } else {
                value
            };
            join(&mut given, arg_kind(arg), name, value);
        }
        let mut tokens = Vec::with_capacity(given.len());
        for (name, value) in given {
            if value.is_empty() && self.find(&name).is_some_and(is_list) {
                self.command = std::mem::take(&mut self.command).mut_arg(id_of(&name), |a| a.default_value(None));
            } else {
                tokens.push(format!("--{name}={value}"));
            }
        }
        Ok((tokens, warnings))
    }

    fn split(&self, token: &str) -> Result<(String, Option<String>), FlagError> {
        if let Some(body) = token.strip_prefix("--").filter(|b| !b.is_empty()) {
            let (name, value) = body.split_once('=').map_or((body, None), |(n, v)| (n, Some(v.to_owned())));
            return Ok((name.to_owned(), value));
        }
        let short = token.strip_prefix('-').and_then(|b| b.chars().next());
        let Some(short) = short else {
            let name = self.command.get_name();
            return Err(FlagError::Usage(format!("{name:?} does not take any arguments, got [{token:?}]")));
        };
        let arg = self.command.get_arguments().find(|a| a.get_short() == Some(short));
        let Some(long) = arg.and_then(Arg::get_long) else {
            return Err(FlagError::Usage(format!("unknown shorthand flag: {short:?} in {token}")));
        };
        let rest = &token[1 + short.len_utf8()..];
        let value = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest).to_owned());
        Ok((long.to_owned(), value))
    }

    fn effective(&self, matches: &ArgMatches) -> Vec<FlagValue> {
        let mut flags: Vec<FlagValue> = self
            .command
            .get_arguments()
            .filter_map(|arg| {
                let raw = matches.get_raw(arg.get_id().as_str()).into_iter().flatten();
                let items: Vec<String> = raw.map(|v| v.to_string_lossy().into_owned()).collect();
                let given = matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
                let value = if is_list(arg) { format!("[{}]", items.join(",")) } else { items.join(",") };
                Some(FlagValue { name: arg.get_long()?.to_owned(), value, given })
            })
            .collect();
        flags.sort_by(|a, b| a.name.cmp(&b.name));
        flags
    }
}

/// Clap's id of a flag: the field name.
fn id_of(name: &str) -> String {
    name.replace('-', "_")
}

enum Repeat {
    Last,
    AppendItems,
    AppendUses,
    AddPairs,
}

fn arg_kind(arg: &Arg) -> Repeat {
    let parser = arg.get_value_parser().type_id();
    let maps = [TypeId::of::<StringMap>(), TypeId::of::<BoolMap>(), TypeId::of::<ThresholdMap>()];
    if is_list(arg) {
        Repeat::AppendItems
    } else if maps.iter().any(|m| parser == *m) {
        Repeat::AddPairs
    } else if matches!(arg.get_action(), ArgAction::Append) {
        Repeat::AppendUses
    } else {
        Repeat::Last
    }
}

fn join(given: &mut Vec<(String, String)>, repeat: Repeat, name: String, value: String) {
    let earlier = given.iter_mut().find(|(n, _)| *n == name);
    match (earlier, repeat) {
        (None, _) | (_, Repeat::AppendUses) => given.push((name, value)),
        (Some((_, old)), Repeat::Last) => *old = value,
        (Some((_, old)), Repeat::AppendItems) if old.is_empty() => *old = value,
        (Some((_, old)), Repeat::AppendItems) => *old = format!("{old}{ITEM}{value}"),
        (Some((_, old)), Repeat::AddPairs) => *old = format!("{old},{value}"),
    }
}

fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_value_delimiter(), Some(ITEM | ','))
}

fn adapt(arg: Arg) -> Arg {
    let defaults: Vec<String> = arg.get_default_values().iter().map(|v| v.to_string_lossy().into_owned()).collect();
    if arg.get_value_delimiter() == Some(',') {
        let items: Vec<String> = defaults.iter().flat_map(|d| d.split(',')).map(str::to_owned).collect();
        let arg = arg.value_delimiter(ITEM).num_args(1).allow_hyphen_values(true);
        return if items.is_empty() { arg } else { arg.default_values(items) };
    }
    let switch = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    if switch || arg.get_value_parser().type_id() == TypeId::of::<bool>() {
        let arg = arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(boolean);
        return match defaults.into_iter().next() {
            None if switch => arg.default_value("false"),
            None => arg,
            Some(default) => arg.default_value(default),
        };
    }
    match arg.get_action() {
        ArgAction::Set | ArgAction::Append => arg.allow_hyphen_values(true),
        _ => arg,
    }
}

fn invalid(value: &str, name: &str, reason: &str) -> FlagError {
    FlagError::Usage(format!("invalid argument {value:?} for \"--{name}\" flag: {reason}"))
}

fn usage_error(error: &clap::Error) -> FlagError {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(s)) => s.clone(),
        _ => String::new(),
    };
    let flag = text(ContextKind::InvalidArg);
    let name = flag.trim_start_matches('-').split([' ', '=', '[']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let reason = std::error::Error::source(error).map_or_else(|| "invalid value".to_owned(), |s| s.to_string());
            invalid(&text(ContextKind::InvalidValue), name, &reason)
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(all)) => all.join(", "),
                _ => flag,
            };
            FlagError::Usage(format!("required flag(s) {missing:?} not set"))
        }
        _ => FlagError::Usage(error.to_string().trim_start_matches("error: ").trim_end().to_owned()),
    }
}

#[cfg(test)]
mod tests;
