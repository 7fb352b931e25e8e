//! `kubectl kuberc`.

use std::{io::Write, path::Path};

use serde_json::{Map, Value, json};

use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    globals, kuberc,
    print::{self, Printer, yaml},
};

/// Fields in the order of their declaration.
const ORDER: [&str; 12] = [
    "kind",
    "apiVersion",
    "defaults",
    "aliases",
    "name",
    "command",
    "default",
    "prependArgs",
    "appendArgs",
    "options",
    "credentialPluginPolicy",
    "credentialPluginAllowlist",
];
const POLICIES: [&str; 3] = ["AllowAll", "DenyAll", "Allowlist"];

/// The group.
pub(crate) fn command() -> Command {
    Command::new("kuberc", "Manage kuberc configuration files")
        .long("Shows and changes the file of preferences: defaults of flags, aliases, and the policy of credential plugins.")
        .commands(vec![
            Command::new("set", "Set values in the kuberc configuration")
                .usage("--section (defaults|aliases) --command COMMAND")
                .examples(&[
                    "kubectl kuberc set --section defaults --command get --option output=wide",
                    "kubectl kuberc set --section aliases --name getn --command get --prependarg nodes",
                ])
                .flags(globals::some(&["kuberc"]))
                .flags([
                    Flag::array("allowlist-entry", "Credential plugin that may run, field=value; may be repeated."),
                    Flag::array("appendarg", "Argument behind those of the user; may be repeated."),
                    Flag::text("command", "", "Command that it is about."),
                    Flag::text("name", "", "Name of the alias."),
                    Flag::array("option", "Default of a flag, flag=value; may be repeated."),
                    Flag::switch("overwrite", "Present entries may be replaced."),
                    Flag::text("policy", "", "Credential plugins that may run: AllowAll, DenyAll or Allowlist."),
                    Flag::array("prependarg", "Argument before those of the user; may be repeated."),
                    Flag::text("section", "", "Section: defaults, aliases or credentialplugin.").required(),
                ])
                .runs(|context| Box::pin(set(context))),
            Command::new("view", "Display the current kuberc configuration")
                .flags(globals::some(&["kuberc"]))
                .flags(print::flags().into_iter().map(|f| if f.name == "output" { f.preset("yaml") } else { f }))
                .runs(|context| Box::pin(view(context))),
        ])
}

fn turned_off() -> CommandError {
    CommandError::plain("preferences are turned off")
}

async fn view(context: &Context) -> Result<(), CommandError> {
    let (path, required) = kuberc::file(context.flags.non_empty("kuberc")).ok_or_else(turned_off)?;
    let Some(mut object) = kuberc::read(&path, required)? else { return generate(context, &path) };
    for list in ["defaults", "aliases"] {
        if object[list].is_null() {
            object[list] = json!([]);
        }
    }
    let mut printer =
        Printer::of(&context.flags, &[])?.ok_or_else(|| CommandError::plain("an output format is required"))?;
    printer.print_ordered(&object, &ORDER, &mut context.streams.out.clone())
}

/// Offers a file that makes deletions ask and applies go to the server.
fn generate(context: &Context, path: &Path) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    writeln!(out, "kuberc file not found at {}", path.display())?;
    write!(out, "Would you like to generate a default kuberc file with recommended options? (y/N): ")?;
    out.flush()?;
    let answer = context.streams.stdin.line()?.unwrap_or_default();
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    let mut object = kuberc::empty();
    object["defaults"] = json!([
        {"command": "apply", "options": [{"name": "server-side", "default": "true"}]},
        {"command": "delete", "options": [{"name": "interactive", "default": "true"}]},
    ]);
    store(context, path, &object)
}

async fn set(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let section = flags.text("section");
    let arguments = !flags.list("prependarg").is_empty() || !flags.list("appendarg").is_empty();
    match section {
        "defaults" | "aliases" => {
            if flags.text("command").is_empty() {
                let text = "--command is required when --section=aliases or --section=defaults";
                return Err(CommandError::plain(text));
            }
            if section == "aliases" && flags.text("name").is_empty() {
                return Err(CommandError::plain("--name is required when --section=aliases"));
            }
            if section == "defaults" && arguments {
                let text = "--prependarg and --appendarg are only valid for --section=aliases";
                return Err(CommandError::plain(text));
            }
        }
        "credentialplugin" => {
            let policy = flags.text("policy");
            if !POLICIES.contains(&policy) {
                let text = r#" --policy must be  "AllowAll", "DenyAll", or "Allowlist", got: "#;
                return Err(CommandError::plain(format!("{text}{policy}")));
            }
        }
        other => {
            let text = r#"--section must be "defaults", "aliases", or "credentialplugin", got: "#;
            return Err(CommandError::plain(format!("{text}{other}")));
        }
    }
    let (path, _) = kuberc::file(flags.non_empty("kuberc")).ok_or_else(turned_off)?;
    let mut object = kuberc::read(&path, false)?.unwrap_or_else(kuberc::empty);
    object["apiVersion"] = json!(kuberc::VERSION);
    match section {
        "credentialplugin" => plugins(context, &mut object)?,
        section => entry(context, section, &mut object)?,
    }
    store(context, &path, &object)
}

/// Pairs of a list, as objects of two fields.
fn pairs(list: &[String], what: &str) -> Result<Vec<(String, String)>, CommandError> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| {
            let (kind, expected) = (what, if what == "option" { "flag=value" } else { "field=value" });
            CommandError::plain(format!("invalid {kind} format {text:?}, expected {expected}"))
        })?;
        Ok((key.to_owned(), value.to_owned()))
    };
    list.iter().map(pair).collect()
}

fn entry(context: &Context, section: &str, object: &mut Value) -> Result<(), CommandError> {
    let flags = &context.flags;
    let (command, name) = (flags.text("command"), flags.text("name"));
    let options = pairs(flags.list("option"), "option")?;
    let options: Vec<Value> =
        options.into_iter().map(|(name, default)| json!({"name": name, "default": default})).collect();
    let mut entry = json!({"command": command});
    if !options.is_empty() || section == "defaults" {
        entry["options"] = options.into();
    }
    let (key, value) = if section == "aliases" { ("name", name) } else { ("command", command) };
    if section == "aliases" {
        entry["name"] = json!(name);
        for (flag, field) in [("prependarg", "prependArgs"), ("appendarg", "appendArgs")] {
            if !flags.list(flag).is_empty() {
                entry[field] = json!(flags.list(flag));
            }
        }
    }
    let mut list = object[section].as_array().cloned().unwrap_or_default();
    match list.iter_mut().find(|present| present[key] == value) {
        Some(_) if !flags.bool("overwrite") => {
            return Err(CommandError::plain(match section {
                "aliases" => format!("alias {name:?} already exists, use --overwrite to replace"),
                _ => format!("defaults for command {command:?} already exist, use --overwrite to replace"),
            }));
        }
        Some(present) => *present = entry,
        None => list.push(entry),
    }
    object[section] = list.into();
    Ok(())
}

fn plugins(context: &Context, object: &mut Value) -> Result<(), CommandError> {
    let flags = &context.flags;
    let entries: Vec<Value> = pairs(flags.list("allowlist-entry"), "allowlist entry")?
        .into_iter()
        .map(|(key, value)| Value::Object(Map::from_iter([(key, json!(value))])))
        .collect();
    object["credentialPluginPolicy"] = json!(flags.text("policy"));
    if entries.is_empty() {
        if let Some(object) = object.as_object_mut() {
            object.remove("credentialPluginAllowlist");
        }
    } else {
        object["credentialPluginAllowlist"] = entries.into();
    }
    Ok(())
}

/// Puts the file in its place at once.
fn store(context: &Context, path: &Path, object: &Value) -> Result<(), CommandError> {
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(yaml::encode(object).as_bytes())?;
    file.persist(path).map_err(|e| CommandError::from(e.error))?;
    writeln!(context.streams.out.clone(), "Updated {}", path.display())?;
    Ok(())
}
