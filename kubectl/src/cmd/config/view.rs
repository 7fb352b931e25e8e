//! `config view`.

use std::{io::Write, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::load;
use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    kubeconfig::{Kubeconfig, document, files},
    print::{self, Printer, yaml},
};

/// What JSON of a kubeconfig has first, before the fields of its entries.
const HEAD: [&str; 8] = ["kind", "apiVersion", "name", "clusters", "users", "contexts", "current-context", "context"];

pub(super) fn command() -> Command {
    Command::new("view", "Display merged kubeconfig settings or a specified kubeconfig file")
        .usage("[flags]")
        .examples(&["kubectl config view", "kubectl config view --raw", "kubectl config view --minify"])
        .flags(print::flags().into_iter().map(|flag| if flag.name == "output" { flag.preset("yaml") } else { flag }))
        .flags([
            Flag::switch("flatten", "Put files into the output."),
            Flag::on("merge", "Read all files of the kubeconfig; without it --kubeconfig has to name one."),
            Flag::switch("minify", "Only what the current context uses."),
            Flag::switch("raw", "Show certificates and secrets."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    if !context.args.is_empty() {
        return Err(context.usage(format!("unexpected arguments: [{}]", context.args.join(" "))));
    }
    let flags = &context.flags;
    if !flags.bool("merge") && flags.text("kubeconfig").is_empty() {
        return Err(CommandError::plain("if merge==false a precise file must be specified"));
    }
    let mut config = load(context)?;
    if flags.bool("minify") {
        minify(context, &mut config)?;
    }
    if flags.bool("flatten") {
        flatten(&mut config)?;
    } else if !flags.bool("raw") {
        redact(&mut config);
    }
    let document = document::document(&config);
    let mut out = context.streams.out.clone();
    match (flags.text("output"), Printer::of(flags, &[])?) {
        ("json", _) => write!(out, "{}", print::json::ordered(&document, &[HEAD.as_slice(), &super::FIELDS].concat()))?,
        (_, Some(mut printer)) => printer.print(&document, &mut out)?,
        (_, None) => write!(out, "{}", yaml::encode(&document))?,
    }
    Ok(())
}

fn minify(context: &Context, config: &mut Kubeconfig) -> Result<(), CommandError> {
    if let Some(name) = context.flags.non_empty("context") {
        name.clone_into(&mut config.current_context);
    }
    let name = config.current_context.clone();
    if name.is_empty() {
        return Err(CommandError::plain("current-context must exist in order to minify"));
    }
    let entry =
        config.context(&name).cloned().ok_or_else(|| CommandError::plain(format!("cannot locate context {name}")))?;
    config.contexts.retain(|e| e.name == name);
    config.clusters.retain(|e| e.name == entry.text("cluster"));
    config.users.retain(|e| e.name == entry.text("user"));
    Ok(())
}

fn redact(config: &mut Kubeconfig) {
    let hide = |map: &mut Map<String, Value>, keys: &[&str], text: &str| {
        for key in keys {
            if let Some(value) = map.get_mut(*key).filter(|v| v.as_str().is_some_and(|t| !t.is_empty())) {
                *value = json!(text);
            }
        }
    };
    for cluster in &mut config.clusters {
        hide(&mut cluster.value, &["certificate-authority-data"], "DATA+OMITTED");
    }
    for user in &mut config.users {
        hide(&mut user.value, &["client-certificate-data", "client-key-data"], "DATA+OMITTED");
        hide(&mut user.value, &["token", "password"], "REDACTED");
    }
}

fn flatten(config: &mut Kubeconfig) -> Result<(), CommandError> {
    let inline = |map: &mut Map<String, Value>, key: &str, data: &str, origin: &Path| -> Result<(), CommandError> {
        let Some(Value::String(mut path)) = map.remove(key) else { return Ok(()) };
        files::absolute(&mut path, origin.parent().unwrap_or(Path::new("")));
        let bytes =
            std::fs::read(&path).map_err(|e| CommandError::plain(format!("open {path}: {}", files::go_io_text(&e))))?;
        map.insert(data.to_owned(), json!(STANDARD.encode(bytes)));
        Ok(())
    };
    for entry in &mut config.clusters {
        inline(&mut entry.value, "certificate-authority", "certificate-authority-data", &entry.origin)?;
    }
    for entry in &mut config.users {
        inline(&mut entry.value, "client-certificate", "client-certificate-data", &entry.origin)?;
        inline(&mut entry.value, "client-key", "client-key-data", &entry.origin)?;
    }
    Ok(())
}
