//! Flags: their definitions, the parser, and what was given. Syntax and error texts are those of pflag.

use std::{collections::BTreeMap, time::Duration};

use machinery::duration;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; alone it means true.
    Bool,
    /// Text.
    Text,
    /// A 32-bit or 64-bit integer.
    Int,
    /// A Go duration.
    Duration,
    /// Comma-separated, may be repeated.
    List,
    /// May be repeated; commas belong to the value.
    Array,
    /// Comma-separated pairs, may be repeated.
    Pairs,
    /// The same, checked when they are read.
    Map,
}

/// A flag of a command.
#[derive(Clone, Debug)]
pub struct Flag {
    /// Name without dashes.
    pub name: &'static str,
    /// One letter.
    pub short: Option<char>,
    /// What it takes.
    pub kind: Kind,
    /// Value when it is not given; empty for lists.
    pub default: &'static str,
    /// Value when it is given without one.
    pub bare: Option<&'static str>,
    /// For people.
    pub usage: &'static str,
    /// Not shown by help.
    pub hidden: bool,
    /// What is said when a deprecated flag is used.
    pub deprecated: Option<&'static str>,
    /// Whether the command cannot do without.
    pub required: bool,
}

impl Flag {
    const fn new(name: &'static str, kind: Kind, default: &'static str, usage: &'static str) -> Self {
        let bare = if matches!(kind, Kind::Bool) { Some("true") } else { None };
        Self { name, short: None, kind, default, bare, usage, hidden: false, deprecated: None, required: false }
    }

    /// A switch that is off.
    pub const fn switch(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Bool, "false", usage)
    }

    /// A switch that is on.
    pub const fn on(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Bool, "true", usage)
    }

    /// A text.
    pub const fn text(name: &'static str, default: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Text, default, usage)
    }

    /// A number.
    pub const fn int(name: &'static str, default: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Int, default, usage)
    }

    /// A duration.
    pub const fn duration(name: &'static str, default: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Duration, default, usage)
    }

    /// Comma-separated values.
    pub const fn list(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::List, "", usage)
    }

    /// Comma-separated `key=value` pairs.
    pub const fn pairs(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Pairs, "", usage)
    }

    /// Comma-separated `key=value` pairs, of which each has to have a key.
    pub const fn map(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Map, "", usage)
    }

    /// Repeated values.
    pub const fn array(name: &'static str, usage: &'static str) -> Self {
        Self::new(name, Kind::Array, "", usage)
    }

    /// With one letter.
    #[must_use]
    pub const fn short(mut self, letter: char) -> Self {
        self.short = Some(letter);
        self
    }

    /// Without a letter.
    #[must_use]
    pub const fn without_short(mut self) -> Self {
        self.short = None;
        self
    }

    /// With another default.
    #[must_use]
    pub const fn preset(mut self, value: &'static str) -> Self {
        self.default = value;
        self
    }

    /// With a value that it has when none is given.
    #[must_use]
    pub const fn bare(mut self, value: &'static str) -> Self {
        self.bare = Some(value);
        self
    }

    /// Not shown by help.
    #[must_use]
    pub const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// Not to be used any more.
    #[must_use]
    pub const fn deprecated(mut self, text: &'static str) -> Self {
        self.deprecated = Some(text);
        self.hidden = true;
        self
    }

    /// The command fails without it.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// How errors call it: `--name` or `-n, --name`.
    fn title(&self) -> String {
        match self.short {
            Some(letter) => format!("-{letter}, --{}", self.name),
            None => format!("--{}", self.name),
        }
    }

    fn check(&self, value: &str) -> Result<(), String> {
        let problem = match self.kind {
            Kind::Text | Kind::Array => None,
            Kind::List | Kind::Pairs => (!value.matches('"').count().is_multiple_of(2)).then(|| {
                format!("parse error on line 1, column {}: extraneous or missing \" in quoted-field", value.len() + 1)
            }),
            Kind::Map => split_map(value)
                .into_iter()
                .find(|pair| !pair.contains('='))
                .map(|pair| format!("{pair} must be formatted as key=value")),
            Kind::Bool => {
                parse_bool(value).is_none().then(|| format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))
            }
            Kind::Int => {
                parse_int(value).is_none().then(|| format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
            }
            Kind::Duration => duration::parse(value).err().map(|e| e.to_string()),
        };
        match problem {
            None => Ok(()),
            Some(text) => Err(format!("invalid argument {value:?} for {:?} flag: {text}", self.title())),
        }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_int(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.strip_prefix('+').unwrap_or(text).parse().ok(),
    }
}

/// The flags of a command line.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    defined: Vec<Flag>,
    given: BTreeMap<&'static str, Vec<String>>,
}

/// A command line taken apart.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The flags.
    pub flags: Flags,
    /// Everything else.
    pub args: Vec<String>,
    /// How many arguments came before `--`.
    pub dash: Option<usize>,
}

/// Parses arguments; flags and other arguments may be mixed.
pub fn parse(defined: Vec<Flag>, arguments: &[String]) -> Result<Parsed, String> {
    let mut parsed = Parsed { flags: Flags { defined, given: BTreeMap::new() }, ..Parsed::default() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            parsed.dash = Some(parsed.args.len());
            parsed.args.extend(rest.cloned());
            break;
        }
        if let Some(long) = argument.strip_prefix("--") {
            parsed.flags.long(long, argument, &mut rest)?;
        } else if argument.len() > 1 && argument.starts_with('-') {
            parsed.flags.letters(&argument[1..], &mut rest)?;
        } else {
            parsed.args.push(argument.clone());
        }
    }
    Ok(parsed)
}

impl Flags {
    fn position(&self, fits: impl Fn(&Flag) -> bool) -> Option<usize> {
        self.defined.iter().position(fits)
    }

    fn long(&mut self, text: &str, whole: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<(), String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        if name.is_empty() || name.starts_with('-') {
            return Err(format!("bad flag syntax: {whole}"));
        }
        let normal = name.replace('_', "-");
        let Some(at) = self.position(|f| f.name == normal) else {
            return Err(format!("unknown flag: --{name}"));
        };
        let value = match (value, self.defined[at].bare) {
            (Some(value), _) => value.to_owned(),
            (None, Some(bare)) => bare.to_owned(),
            (None, None) => rest.next().cloned().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        self.set(at, value)
    }

    fn letters(&mut self, letters: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<(), String> {
        for (start, letter) in letters.char_indices() {
            let Some(at) = self.position(|f| f.short == Some(letter)) else {
                return Err(format!("unknown shorthand flag: {letter:?} in -{letters}"));
            };
            let after = &letters[start + letter.len_utf8()..];
            if let Some(value) = after.strip_prefix('=') {
                return self.set(at, value.to_owned());
            }
            if let Some(bare) = self.defined[at].bare {
                self.set(at, bare.to_owned())?;
                continue;
            }
            let value = match after {
                "" => {
                    rest.next().cloned().ok_or_else(|| format!("flag needs an argument: {letter:?} in -{letters}"))?
                }
                value => value.to_owned(),
            };
            return self.set(at, value);
        }
        Ok(())
    }

    fn set(&mut self, at: usize, value: String) -> Result<(), String> {
        let flag = &self.defined[at];
        flag.check(&value)?;
        let values = self.given.entry(flag.name).or_default();
        match flag.kind {
            Kind::List | Kind::Pairs => values.extend(split_list(&value)),
            Kind::Map => values.extend(split_map(&value)),
            Kind::Array => values.push(value),
            _ => *values = vec![value],
        }
        Ok(())
    }

    fn definition(&self, name: &str) -> Option<&Flag> {
        let found = self.defined.iter().find(|f| f.name == name);
        debug_assert!(found.is_some(), "the flag --{name} is not defined");
        found
    }

    /// Whether the command has such a flag.
    pub fn has(&self, name: &str) -> bool {
        self.defined.iter().any(|f| f.name == name)
    }

    /// Whether it was given.
    pub fn given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// A text; the default if it was not given.
    pub fn text(&self, name: &str) -> &str {
        let given = self.given.get(name).and_then(|values| values.last());
        given.map_or_else(|| self.definition(name).map_or("", |f| f.default), String::as_str)
    }

    /// A text that was given and is not empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        // A list of the command may bear the name of a global text, such as `user`.
        let is_text = self.definition(name).is_some_and(|f| f.kind == Kind::Text);
        Some(self.text(name)).filter(|text| is_text && !text.is_empty())
    }

    /// A switch.
    pub fn bool(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or(false)
    }

    /// A number.
    pub fn int(&self, name: &str) -> i64 {
        parse_int(self.text(name)).unwrap_or(0)
    }

    /// A duration; a negative one is zero, see [`Flags::negative`].
    pub fn duration(&self, name: &str) -> Duration {
        let parsed = duration::parse(self.text(name)).map_or(0, |d| d.0);
        Duration::from_nanos(u64::try_from(parsed).unwrap_or(0))
    }

    /// Whether a duration or number is below zero.
    pub fn negative(&self, name: &str) -> bool {
        self.text(name).starts_with('-')
    }

    /// All values of a list.
    pub fn list(&self, name: &str) -> &[String] {
        let _known = self.definition(name);
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// Required flags that are absent.
    pub fn missing(&self) -> Vec<&'static str> {
        self.defined.iter().filter(|f| f.required && !self.given(f.name)).map(|f| f.name).collect()
    }

    /// Flags that were given, in order of their names, with what is said of deprecated ones.
    pub fn deprecations(&self) -> Vec<String> {
        let used = self.defined.iter().filter(|f| self.given(f.name));
        used.filter_map(|f| Some(format!("Flag --{} has been deprecated, {}", f.name, f.deprecated?))).collect()
    }

    /// Sets a value as if it was given.
    pub fn put(&mut self, name: &str, value: String) -> Result<(), String> {
        match self.position(|f| f.name == name) {
            Some(at) => self.set(at, value),
            None => Err(format!("unknown flag: --{name}")),
        }
    }
}

/// Splits pairs; the value of a single one may hold commas.
fn split_map(value: &str) -> Vec<String> {
    if value.matches('=').count() == 1 { vec![value.to_owned()] } else { split_list(value) }
}

/// Splits one comma-separated value; a part in double quotes may hold commas.
fn split_list(value: &str) -> Vec<String> {
    if value.is_empty() {
        return Vec::new();
    }
    let (mut parts, mut part, mut quoted) = (Vec::new(), String::new(), false);
    for c in value.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => parts.push(std::mem::take(&mut part)),
            other => part.push(other),
        }
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Parsed, String> {
        let flags = vec![
            Flag::switch("watch", "").short('w'),
            Flag::text("output", "", "").short('o'),
            Flag::int("chunk-size", "500", ""),
            Flag::list("filename", "").short('f'),
            Flag::text("dry-run", "none", "").bare("unchanged"),
        ];
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(flags, &words)
    }

    #[test]
    fn values_are_found() {
        let parsed = line("get -wo yaml pods --chunk_size=3 -f a,b -fc --dry-run x -- -w").expect("parsed");
        let flags = &parsed.flags;
        assert!(flags.bool("watch") && flags.given("watch"));
        assert_eq!((flags.text("output"), flags.int("chunk-size")), ("yaml", 3));
        assert_eq!(flags.list("filename"), ["a", "b", "c"]);
        assert_eq!(flags.text("dry-run"), "unchanged");
        assert_eq!(parsed.args, ["get", "pods", "x", "-w"]);
        assert_eq!(parsed.dash, Some(3));
    }

    #[test]
    fn errors_are_pflags() {
        for (text, want) in [
            ("--foo", "unknown flag: --foo"),
            ("-Z", "unknown shorthand flag: 'Z' in -Z"),
            ("-o", "flag needs an argument: 'o' in -o"),
            ("--output", "flag needs an argument: --output"),
            ("--=x", "bad flag syntax: --=x"),
            (
                "--chunk-size=x",
                "invalid argument \"x\" for \"--chunk-size\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            ),
            (
                "-w=x",
                "invalid argument \"x\" for \"-w, --watch\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(line(text).map(|p| p.args), Err(want.to_owned()));
        }
    }
}
