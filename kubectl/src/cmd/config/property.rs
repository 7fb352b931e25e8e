//! `config set` and `config unset`.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{FIELDS, load, modify, put, set_current};
use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    kubeconfig::{Entry, Kubeconfig, document::Section},
};

pub(super) fn set() -> Command {
    Command::new("set", "Set an individual value in a kubeconfig file")
        .usage("PROPERTY_NAME PROPERTY_VALUE")
        .long(
            "Set an individual value in a kubeconfig file.\n\n PROPERTY_NAME is the way to the value, its parts separated \
             by dots, such as clusters.my-cluster.server. Values of binary fields are base64 unless --set-raw-bytes is given.",
        )
        .examples(&["kubectl config set clusters.my-cluster.server https://1.2.3.4"])
        .flags([Flag::switch("set-raw-bytes", "The value of a binary field is not base64.")])
        .runs(|context| Box::pin(run_set(context)))
}

pub(super) fn unset() -> Command {
    Command::new("unset", "Unset an individual value in a kubeconfig file")
        .usage("PROPERTY_NAME")
        .examples(&["kubectl config unset contexts.foo.namespace"])
        .runs(|context| Box::pin(run_unset(context)))
}

/// Where a property is.
enum Place {
    CurrentContext,
    /// An entry, perhaps a way into it.
    Entry(Section, String, Vec<String>),
    /// All entries of a section.
    All(Section),
}

fn parse(text: &str) -> Result<Place, CommandError> {
    let unknown = || CommandError::plain(format!("unable to parse {text} after [] at api.Config"));
    if text == "current-context" {
        return Ok(Place::CurrentContext);
    }
    let (head, rest) = text.split_once('.').unwrap_or((text, ""));
    let section = match head {
        "clusters" => Section::Clusters,
        "users" => Section::Users,
        "contexts" => Section::Contexts,
        _ => return Err(unknown()),
    };
    if rest.is_empty() {
        return Ok(Place::All(section));
    }
    let parts: Vec<&str> = rest.split('.').collect();
    // Names may have dots: the field is the first part after the first that is known.
    let field = parts.iter().skip(1).position(|p| FIELDS.contains(p)).map(|at| at + 1).unwrap_or(parts.len());
    let name = parts[..field].join(".");
    Ok(Place::Entry(section, name, parts[field..].iter().map(|p| (*p).to_owned()).collect()))
}

async fn run_set(context: &Context) -> Result<(), CommandError> {
    let [name, text] = context.args.as_slice() else {
        return Err(context.help_error(format!("Unexpected args: [{}]", context.args.join(" "))));
    };
    let config = load(context)?;
    match parse(name)? {
        Place::CurrentContext => set_current(&config, text)?,
        Place::All(_) => {
            return Err(CommandError::plain(format!("can't set a map to a value: map[string]*api.{name}")));
        }
        Place::Entry(section, entry, way) => set_field(context, &config, section, &entry, &way, text)?,
    }
    writeln!(context.streams.out.clone(), "Property {name:?} set.")?;
    Ok(())
}

fn set_field(
    context: &Context,
    config: &Kubeconfig,
    section: Section,
    name: &str,
    way: &[String],
    text: &str,
) -> Result<(), CommandError> {
    let found = section.of(config).iter().find(|e| e.name == name).cloned();
    let mut entry =
        found.unwrap_or_else(|| Entry { name: name.to_owned(), value: Map::new(), origin: config.default_file() });
    let Some(field) = way.last() else {
        return Err(CommandError::plain("can't set a map to a value"));
    };
    let value = match field.as_str() {
        "insecure-skip-tls-verify" | "disable-compression" | "provideClusterInfo" => match text {
            "true" => json!(true),
            "false" => json!(false),
            other => {
                return Err(CommandError::plain(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")));
            }
        },
        field if field.ends_with("-data") && context.flags.bool("set-raw-bytes") => json!(STANDARD.encode(text)),
        field if field.ends_with("-data") => {
            STANDARD.decode(text).map_err(|e| CommandError::plain(format!("error decoding input value: {e}")))?;
            json!(text)
        }
        _ => json!(text),
    };
    let mut place = &mut entry.value;
    for part in &way[..way.len() - 1] {
        let inner = place.entry(part.clone()).or_insert_with(|| json!({}));
        if !inner.is_object() {
            *inner = json!({});
        }
        let Value::Object(map) = inner else { return Ok(()) };
        place = map;
    }
    place.insert(field.clone(), value);
    put(config, section, entry)
}

async fn run_unset(context: &Context) -> Result<(), CommandError> {
    let [name] = context.args.as_slice() else {
        return Err(context.help_error(format!("Unexpected args: [{}]", context.args.join(" "))));
    };
    let config = load(context)?;
    match parse(name)? {
        Place::CurrentContext => set_current(&config, "")?,
        Place::All(section) => {
            for file in &config.files {
                if file.exists() {
                    modify(file, |c| c.section_mut(section).clear())?;
                }
            }
        }
        Place::Entry(section, entry, way) => {
            let Some(found) = section.of(&config).iter().find(|e| e.name == entry) else {
                let what = section.keys().0;
                return Err(CommandError::plain(format!("current map key `{entry}` is invalid: {what}")));
            };
            modify(&found.origin, |c| {
                let entries = c.section_mut(section);
                if way.is_empty() {
                    entries.retain(|e| e.name != entry);
                } else if let Some(held) = entries.iter_mut().find(|e| e.name == entry) {
                    remove(&mut held.value, &way);
                }
            })?;
        }
    }
    writeln!(context.streams.out.clone(), "Property {name:?} unset.")?;
    Ok(())
}

fn remove(map: &mut Map<String, Value>, way: &[String]) {
    match way {
        [] => {}
        [last] => drop(map.remove(last)),
        [first, rest @ ..] => {
            if let Some(Value::Object(inner)) = map.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}
