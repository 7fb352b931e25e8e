//! `kubectl version`.

use std::io::Write;

use runtime::version;
use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{json, yaml},
};

/// Version of kustomize whose files are understood.
const KUSTOMIZE: &str = "v5.8.1";

/// The command.
pub(crate) fn command() -> Command {
    Command::new("version", "Print the client and server version information")
        .usage("[flags]")
        .flags([
            Flag::switch("client", "Only the client's version; no server is needed."),
            Flag::text("output", "", "Output format: yaml or json.").short('o'),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    if !context.args.is_empty() {
        return Err(CommandError::plain(format!("extra arguments: [{}]", context.args.join(" "))));
    }
    let output = context.flags.text("output");
    if !matches!(output, "" | "yaml" | "json") {
        return Err(CommandError::plain("--output must be 'yaml' or 'json'"));
    }
    let (mut server, mut failure) = (Value::Null, None);
    if !context.flags.bool("client") {
        match ask(context).await {
            Ok(answer) => server = answer,
            Err(error) => failure = Some(error),
        }
    }
    print(context, output, &server)?;
    match failure {
        Some(error) => Err(error),
        None => skew(context, &server),
    }
}

async fn ask(context: &Context) -> Result<Value, CommandError> {
    let cluster = context.cluster().await?;
    cluster.json(&Call::get("/version").query("timeout", "32s")).await
}

fn print(context: &Context, output: &str, server: &Value) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    let mut client = version::info();
    if let Some(map) = client.as_object_mut() {
        map.retain(|key, _| !key.starts_with("emulation") && !key.starts_with("minCompatibility"));
    }
    if output.is_empty() {
        writeln!(out, "Client Version: {}", version::git_version())?;
        writeln!(out, "Kustomize Version: {KUSTOMIZE}")?;
        if let Some(version) = server["gitVersion"].as_str() {
            writeln!(out, "Server Version: {version}")?;
        }
        return Ok(());
    }
    let mut document = json!({"clientVersion": client, "kustomizeVersion": KUSTOMIZE});
    if !server.is_null() {
        document["serverVersion"] = server.clone();
    }
    match output {
        "yaml" => write!(out, "{}", yaml::encode(&document))?,
        _ => writeln!(out, "{}", json::pretty(&document))?,
    }
    Ok(())
}

/// Warns if the two are too far apart.
fn skew(context: &Context, server: &Value) -> Result<(), CommandError> {
    let client = version::info();
    let number = |v: &Value, key: &str| {
        let digits: String = v[key].as_str().unwrap_or("").chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<i64>().ok()
    };
    let both = |v: &Value| Some((number(v, "major")?, number(v, "minor")?));
    if let (Some(c), Some(s)) = (both(&client), both(server))
        && (c.0 != s.0 || (c.1 - s.1).abs() > 1)
    {
        writeln!(
            context.streams.err.clone(),
            "Warning: version difference between client ({}.{}) and server ({}.{}) exceeds the supported minor version \
             skew of +/-1",
            c.0,
            c.1,
            s.0,
            s.1
        )?;
    }
    Ok(())
}
