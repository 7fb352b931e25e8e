//! Output formats, once for all commands.

pub mod columns;
pub mod debug;
pub mod declared;
pub mod json;
pub use machinery::jsonpath;
pub mod kyaml;
pub mod table;
pub mod template;
pub mod yaml;

use std::io::Write;

use machinery::meta;
use serde_json::{Value, json};

use crate::{
    context::Context,
    error::CommandError,
    flags::{Flag, Flags},
    streams::Output,
};

/// Formats that every printing command has.
const COMMON: [&str; 11] = [
    "go-template",
    "go-template-file",
    "json",
    "jsonpath",
    "jsonpath-as-json",
    "jsonpath-file",
    "kyaml",
    "name",
    "template",
    "templatefile",
    "yaml",
];

/// The formats that every printing command has, in the order in which they are offered.
pub fn formats() -> [&'static str; 11] {
    [
        "json",
        "yaml",
        "kyaml",
        "name",
        "go-template",
        "go-template-file",
        "template",
        "templatefile",
        "jsonpath",
        "jsonpath-as-json",
        "jsonpath-file",
    ]
}

/// Flags of commands that print objects.
pub fn flags() -> Vec<Flag> {
    vec![
        Flag::text(
            "output",
            "",
            "Output format: json, yaml, kyaml, name, go-template, go-template-file, template, templatefile, jsonpath, \
             jsonpath-as-json or jsonpath-file.",
        )
        .short('o'),
        Flag::text("template", "", "Template, or its file, of the formats that use one."),
        Flag::on("allow-missing-template-keys", "Fields that a template names may be missing."),
        Flag::switch("show-managed-fields", "Keep managedFields in json and yaml."),
    ]
}

/// How objects are printed.
#[derive(Debug)]
pub enum Format {
    /// `kind.group/name`.
    Name,
    /// JSON.
    Json,
    /// YAML documents.
    Yaml,
    /// YAML in braces and brackets.
    KYaml,
    /// A Go template.
    Template(template::GoTemplate),
    /// A jsonpath template.
    JsonPath(jsonpath::Template),
    /// The results of a jsonpath template as a JSON list.
    JsonPathAsJson(jsonpath::Template),
    /// `custom-columns`.
    Columns(columns::Columns),
}

/// Prints objects one after the other.
#[derive(Debug)]
pub struct Printer {
    format: Format,
    show_managed_fields: bool,
    allow_missing: bool,
    printed: usize,
}

impl Printer {
    /// The printer that the flags name; `None` if they name none. `more` are formats of the command itself.
    pub fn of(flags: &Flags, more: &[&str]) -> Result<Option<Self>, CommandError> {
        let mut output = flags.text("output").to_owned();
        let template = if flags.has("template") { flags.text("template") } else { "" };
        if output.is_empty() && !template.is_empty() {
            output = "go-template".to_owned();
        }
        if output.is_empty() {
            return Ok(None);
        }
        let (name, argument) = match output.split_once('=') {
            Some((name, argument)) => (name.to_owned(), argument.to_owned()),
            None => (output.clone(), template.to_owned()),
        };
        let known = COMMON.contains(&name.as_str()) || more.contains(&name.as_str());
        let plain = matches!(name.as_str(), "json" | "yaml" | "kyaml" | "name");
        if !known || (plain && output.contains('=')) {
            let allowed: Vec<&str> = COMMON.iter().chain(more).copied().collect();
            return Err(unknown_format(&output, &allowed));
        }
        let missing = flags.has("allow-missing-template-keys");
        let format = match name.as_str() {
            "json" => Format::Json,
            "yaml" => Format::Yaml,
            "kyaml" => Format::KYaml,
            "go-template" | "go-template-file" | "template" | "templatefile" => {
                let lenient = !missing || flags.bool("allow-missing-template-keys");
                template_format(&name, &argument, lenient)?
            }
            "name" => Format::Name,
            "custom-columns" => Format::Columns(columns::Columns::parse(&argument)?),
            "custom-columns-file" => Format::Columns(columns::Columns::parse_file(&argument)?),
            _ => path_format(&name, &argument)?,
        };
        Ok(Some(Self {
            format,
            show_managed_fields: flags.has("show-managed-fields") && flags.bool("show-managed-fields"),
            allow_missing: !missing || flags.bool("allow-missing-template-keys"),
            printed: 0,
        }))
    }

    /// Without the line of headers, for `custom-columns`.
    pub fn without_headers(&mut self) {
        if let Format::Columns(columns) = &mut self.format {
            columns.headers_are_done();
        }
    }

    /// The format.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Whether a list has to be there as a whole before it can be printed.
    pub fn needs_whole(&self) -> bool {
        !matches!(self.format, Format::Name | Format::Json | Format::Yaml)
    }

    /// The text of an item of a list, in JSON or YAML.
    pub fn item(&self, item: &Value) -> String {
        let shown = shown(item, self.show_managed_fields);
        match self.format {
            Format::Json => json::indented(&shown),
            Format::Yaml => yaml::encode(&Value::Array(vec![shown])),
            _ => String::new(),
        }
    }

    /// Prints an object that was made here: JSON has its fields in the order of their declaration.
    pub fn print_declared(&mut self, object: &Value, out: &mut Output) -> Result<(), CommandError> {
        let shown = match self.format {
            Format::Json | Format::KYaml => shown(object, self.show_managed_fields),
            _ => return self.print(object, out),
        };
        self.printed += 1;
        match self.format {
            Format::KYaml => write!(out, "---\n{}", kyaml::encode_declared(&shown))?,
            _ => write!(out, "{}", declared::indented(&shown))?,
        }
        Ok(())
    }

    /// Prints an object with keys in a given order, where the format keeps an order.
    pub fn print_ordered(&mut self, object: &Value, order: &[&str], out: &mut Output) -> Result<(), CommandError> {
        match self.format {
            Format::Json => write!(out, "{}", json::ordered(object, order))?,
            Format::KYaml => write!(out, "---\n{}", kyaml::encode_ordered(object, order))?,
            _ => return self.print(object, out),
        }
        self.printed += 1;
        Ok(())
    }

    /// Prints an object or a list.
    pub fn print(&mut self, object: &Value, out: &mut Output) -> Result<(), CommandError> {
        self.printed += 1;
        match &mut self.format {
            Format::Name => match object.get("items").and_then(Value::as_array) {
                Some(items) if object["kind"].as_str().is_some_and(|k| k.ends_with("List")) => {
                    for item in items {
                        writeln!(out, "{}", title(item))?;
                    }
                }
                _ => writeln!(out, "{}", title(object))?,
            },
            Format::Json => {
                let shown = shown(object, self.show_managed_fields);
                write!(out, "{}", json::indented(&shown))?;
            }
            Format::Yaml => {
                if self.printed > 1 {
                    writeln!(out, "---")?;
                }
                let shown = shown(object, self.show_managed_fields);
                write!(out, "{}", yaml::encode(&shown))?;
            }
            Format::KYaml => {
                let shown = shown(object, self.show_managed_fields);
                write!(out, "---\n{}", kyaml::encode(&shown))?;
            }
            Format::Template(template) => {
                let (text, outcome) = template.execute(object);
                write!(out, "{text}")?;
                if let Err(error) = outcome {
                    write!(
                        out,
                        "Error executing template: {error}. Printing more information for debugging the template:\n\
                         \ttemplate was:\n\t\t{}\n\traw data was:\n\t\t{}\n\tobject given to template engine \
                         was:\n\t\t{}\n\n",
                        template.text(),
                        json::compact(object),
                        debug::go_text(object)
                    )?;
                    return Err(CommandError::plain(format!(
                        "error executing template {:?}: {error}",
                        template.text()
                    )));
                }
            }
            Format::JsonPath(template) => {
                let text =
                    template.print(object, self.allow_missing).map_err(|e| jsonpath_failure(template, object, &e))?;
                write!(out, "{text}")?;
            }
            Format::JsonPathAsJson(template) => {
                let found =
                    template.results(object, self.allow_missing).map_err(|e| jsonpath_failure(template, object, &e))?;
                for list in found {
                    write!(out, "{}", json::indented(&Value::Array(list)))?;
                }
            }
            Format::Columns(columns) => columns.print(object, out)?,
        }
        Ok(())
    }
}

fn jsonpath_failure(template: &jsonpath::Template, object: &Value, error: &jsonpath::PathError) -> CommandError {
    CommandError::plain(format!(
        "error executing jsonpath {0:?}: Error executing template: {error}. Printing more information for debugging the \
         template:\n\ttemplate was:\n\t\t{0}\n\tobject given to jsonpath engine was:\n\t\t{1}\n\n\n",
        template.text(),
        debug::go_syntax(object)
    ))
}

fn path_format(name: &str, argument: &str) -> Result<Format, CommandError> {
    if argument.is_empty() {
        return Err(CommandError::plain("template format specified but no template given"));
    }
    let text = match name {
        "jsonpath-file" => read_template(argument)?,
        _ => argument.to_owned(),
    };
    let template = jsonpath::Template::parse(&text)
        .map_err(|e| CommandError::plain(format!("error parsing jsonpath {text}, {e}")))?;
    Ok(if name == "jsonpath-as-json" { Format::JsonPathAsJson(template) } else { Format::JsonPath(template) })
}

fn template_format(name: &str, argument: &str, lenient: bool) -> Result<Format, CommandError> {
    if argument.is_empty() {
        return Err(CommandError::plain("template format specified but no template given"));
    }
    let text = match name {
        "go-template-file" | "templatefile" => read_template(argument)?,
        _ => argument.to_owned(),
    };
    let template = template::GoTemplate::parse(&text, lenient)
        .map_err(|e| CommandError::plain(format!("error parsing template {text}, {e}")))?;
    Ok(Format::Template(template))
}

fn read_template(path: &str) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|e| {
        let text = crate::kubeconfig::files::go_io_text(&e);
        CommandError::plain(format!("error reading --template {path}, open {path}: {text}\n"))
    })
}

/// `-o` names no format.
pub fn unknown_format(output: &str, allowed: &[&str]) -> CommandError {
    let mut allowed = allowed.to_vec();
    allowed.sort_unstable();
    CommandError::plain(format!(
        "unable to match a printer suitable for the output format {output:?}, allowed formats are: {}",
        allowed.join(",")
    ))
}

/// An object without `managedFields`, unless they are wanted.
fn shown(object: &Value, managed_fields: bool) -> Value {
    let mut shown = object.clone();
    if managed_fields {
        return shown;
    }
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    if let Some(items) = shown.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip);
    }
    strip(&mut shown);
    shown
}

/// `kind.group` in lower case.
pub fn kind_title(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or("").to_lowercase();
    match object["apiVersion"].as_str().and_then(|v| v.split_once('/')) {
        Some((group, _)) => format!("{kind}.{group}"),
        None => kind,
    }
}

/// `kind.group/name`, as results are reported.
pub fn title(object: &Value) -> String {
    format!("{}/{}", kind_title(object), meta::name(object))
}

/// Whether a write is only tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    /// It is done.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server does everything but keep it.
    Server,
}

impl DryRun {
    /// The flag.
    pub fn flag() -> Flag {
        Flag::text("dry-run", "none", "none, client (print what would be sent) or server (send it, keep nothing).")
            .bare("unchanged")
    }

    /// What the flag says.
    pub fn of(context: &Context) -> Result<Self, CommandError> {
        let value = context.flags.text("dry-run");
        let deprecated = |replacement: &str| -> Result<(), CommandError> {
            let text = match value {
                "unchanged" => format!("--dry-run is deprecated and can be replaced with --dry-run={replacement}."),
                _ => format!(
                    "--dry-run={value} is deprecated (boolean value) and can be replaced with --dry-run={replacement}."
                ),
            };
            context.streams.err.clone().log('W', "helpers.go:719", &text)?;
            Ok(())
        };
        match value {
            "none" => Ok(Self::None),
            "client" => Ok(Self::Client),
            "server" => Ok(Self::Server),
            "unchanged" | "true" | "TRUE" | "True" | "t" | "T" | "1" => deprecated("client").map(|()| Self::Client),
            "false" | "FALSE" | "False" | "f" | "F" | "0" => deprecated("none").map(|()| Self::None),
            other => Err(CommandError::plain(format!(
                "Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."
            ))),
        }
    }

    /// What is appended to results.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }

    /// Adds it to the options of a deletion, whose query parameters do not count.
    pub fn in_options(self, mut options: Value) -> Value {
        if self == Self::Server {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    /// The query parameter.
    pub fn query(self) -> &'static str {
        if self == Self::Server { "All" } else { "" }
    }
}

/// Reports what was done to objects: `deployment.apps/web created`, or in the format that `-o` names.
#[derive(Debug)]
pub struct Results {
    printer: Option<Printer>,
    dry_run: DryRun,
}

impl Results {
    /// As the flags say.
    pub fn of(context: &Context, dry_run: DryRun) -> Result<Self, CommandError> {
        let printer = if context.flags.has("output") { Printer::of(&context.flags, &[])? } else { None };
        Ok(Self { printer, dry_run })
    }

    /// Sentences, whatever `-o` says.
    pub fn text(dry_run: DryRun) -> Self {
        Self { printer: None, dry_run }
    }

    /// Whether results are sentences.
    pub fn is_text(&self) -> bool {
        self.printer.is_none()
    }

    /// Reports an object that was made here, see [`Printer::print_declared`].
    pub fn print_declared(&mut self, object: &Value, operation: &str, out: &mut Output) -> Result<(), CommandError> {
        match &mut self.printer {
            Some(printer) => printer.print_declared(object, out),
            None => self.print(object, operation, out),
        }
    }

    /// Reports one object.
    pub fn print(&mut self, object: &Value, operation: &str, out: &mut Output) -> Result<(), CommandError> {
        match &mut self.printer {
            Some(printer) => printer.print(object, out),
            None => {
                writeln!(out, "{} {operation}{}", title(object), self.dry_run.suffix())?;
                Ok(())
            }
        }
    }
}

/// Flags of commands that write: `--dry-run`, `--field-manager`, and those of printers.
pub fn write_flags(manager: &'static str) -> Vec<Flag> {
    let mut all = flags();
    all.push(DryRun::flag());
    all.push(Flag::text("field-manager", manager, "Name that the changed fields are owned by."));
    all
}

/// `--validate`.
pub fn validate_flag() -> Flag {
    Flag::text(
        "validate",
        "strict",
        "What happens to unknown and duplicate fields: strict (true) refuses them, warn warns, ignore (false) drops them.",
    )
    .bare("strict")
}

/// The `fieldValidation` parameter.
pub fn field_validation(flags: &Flags) -> Result<&'static str, CommandError> {
    match flags.text("validate") {
        "true" | "strict" => Ok("Strict"),
        "warn" => Ok("Warn"),
        "false" | "ignore" => Ok("Ignore"),
        other => Err(CommandError::plain(format!(
            "invalid - validate option {other:?}; must be one of: strict (or true), warn, ignore (or false)"
        ))),
    }
}
