//! `config set-cluster`, `set-context` and `set-credentials`.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{load, put};
use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    globals,
    kubeconfig::{Entry, Kubeconfig, document::Section, files},
};

pub(super) fn set_cluster() -> Command {
    Command::new("set-cluster", "Set a cluster entry in kubeconfig")
        .usage("NAME [--server=server] [--certificate-authority=path/to/certificate/authority] [--insecure-skip-tls-verify=true] [--tls-server-name=example.com]")
        .examples(&["kubectl config set-cluster e2e --server=https://1.2.3.4"])
        .flags([
            Flag::switch("embed-certs", "Put the certificate into the file."),
            Flag::text("proxy-url", "", "Proxy of the cluster."),
        ])
        .flags(globals::some(&["certificate-authority", "insecure-skip-tls-verify", "server", "tls-server-name"]).into_iter().map(Flag::without_short))
        .runs(|context| Box::pin(cluster(context)))
}

pub(super) fn set_context() -> Command {
    Command::new("set-context", "Set a context entry in kubeconfig")
        .usage("[NAME | --current] [--cluster=cluster_nickname] [--user=user_nickname] [--namespace=namespace]")
        .examples(&["kubectl config set-context gce --user=cluster-admin"])
        .flags([Flag::switch("current", "Change the current context.")])
        .flags(globals::some(&["cluster", "namespace", "user"]))
        .runs(|context| Box::pin(context_entry(context)))
}

pub(super) fn set_credentials() -> Command {
    Command::new("set-credentials", "Set a user entry in kubeconfig")
        .usage("NAME [--client-certificate=path/to/certfile] [--client-key=path/to/keyfile] [--token=bearer_token] [--username=basic_user] [--password=basic_password] [--auth-provider=provider_name] [--auth-provider-arg=key=value] [--exec-command=exec_command] [--exec-api-version=exec_api_version] [--exec-arg=arg] [--exec-env=key=value]")
        .examples(&["kubectl config set-credentials cluster-admin --client-key=~/.kube/admin.key"])
        .flags([
            Flag::text("auth-provider", "", "Authentication provider."),
            Flag::array("auth-provider-arg", "key=value of the authentication provider; may be repeated."),
            Flag::switch("embed-certs", "Put certificate and key into the file."),
            Flag::text("exec-api-version", "", "API version of the exec credential plugin."),
            Flag::array("exec-arg", "Argument of the plugin; may be repeated."),
            Flag::text("exec-command", "", "Command of the plugin."),
            Flag::array("exec-env", "key=value for the plugin's environment; may be repeated."),
            Flag::text("exec-interactive-mode", "", "Never, IfAvailable or Always."),
            Flag::switch("exec-provide-cluster-info", "Tell the plugin about the cluster."),
        ])
        .flags(globals::some(&["client-certificate", "client-key", "password", "token", "username"]))
        .runs(|context| Box::pin(credentials(context)))
}

/// The entry of a name, as it is or new.
fn entry(config: &Kubeconfig, section: Section, name: &str) -> Entry {
    let found = section.of(config).iter().find(|e| e.name == name).cloned();
    found.unwrap_or_else(|| Entry { name: name.to_owned(), value: Map::new(), origin: config.default_file() })
}

/// Puts a file into an entry: its content, or its absolute path.
fn file(
    value: &mut Map<String, Value>,
    path: &str,
    (key, data): (&str, &str),
    embed: bool,
) -> Result<(), CommandError> {
    let fail = |e: std::io::Error| {
        CommandError::plain(format!("could not read {key} data from {path}: open {path}: {}", files::go_io_text(&e)))
    };
    value.remove(key);
    value.remove(data);
    if embed {
        value.insert(data.to_owned(), json!(STANDARD.encode(std::fs::read(path).map_err(fail)?)));
    } else {
        let absolute = std::path::absolute(path).map_err(fail)?;
        value.insert(key.to_owned(), json!(absolute.display().to_string()));
    }
    Ok(())
}

fn name(context: &Context) -> Result<&str, CommandError> {
    match context.args.as_slice() {
        [name] if !name.is_empty() => Ok(name),
        other => Err(context.help_error(format!("Unexpected args: [{}]", other.join(" ")))),
    }
}

async fn cluster(context: &Context) -> Result<(), CommandError> {
    let name = name(context)?;
    let flags = &context.flags;
    let (authority, embed) = (flags.text("certificate-authority"), flags.bool("embed-certs"));
    if flags.bool("insecure-skip-tls-verify") && !authority.is_empty() {
        return Err(CommandError::plain(
            "you cannot specify a certificate authority and insecure mode at the same time",
        ));
    }
    if embed && authority.is_empty() {
        return Err(CommandError::plain("you must specify a --certificate-authority to embed"));
    }
    let config = load(context)?;
    let mut entry = entry(&config, Section::Clusters, name);
    for (flag, key) in [("server", "server"), ("tls-server-name", "tls-server-name"), ("proxy-url", "proxy-url")] {
        if flags.given(flag) {
            entry.value.insert(key.to_owned(), json!(flags.text(flag)));
        }
    }
    if flags.given("insecure-skip-tls-verify") {
        entry.value.remove("insecure-skip-tls-verify");
        if flags.bool("insecure-skip-tls-verify") {
            entry.value.insert("insecure-skip-tls-verify".into(), json!(true));
            entry.value.remove("certificate-authority");
            entry.value.remove("certificate-authority-data");
        }
    }
    if !authority.is_empty() {
        file(&mut entry.value, authority, ("certificate-authority", "certificate-authority-data"), embed)?;
        entry.value.remove("insecure-skip-tls-verify");
    }
    put(&config, Section::Clusters, entry)?;
    writeln!(context.streams.out.clone(), "Cluster {name:?} set.")?;
    Ok(())
}

async fn context_entry(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let config = load(context)?;
    let name = match (context.args.as_slice(), flags.bool("current")) {
        ([], true) => config.current_context.clone(),
        ([name], false) => name.clone(),
        ([], false) => return Err(CommandError::plain("you must specify a non-empty context name or --current")),
        ([_], true) => return Err(CommandError::plain("cannot specify both a context name and --current")),
        (other, _) => return Err(context.help_error(format!("Unexpected args: [{}]", other.join(" ")))),
    };
    if name.is_empty() {
        return Err(CommandError::plain("no current context is set"));
    }
    let known = config.context(&name).is_some();
    let mut entry = entry(&config, Section::Contexts, &name);
    for key in ["cluster", "user", "namespace"] {
        if flags.given(key) {
            entry.value.insert(key.to_owned(), json!(flags.text(key)));
        }
    }
    put(&config, Section::Contexts, entry)?;
    let what = if known { "modified" } else { "created" };
    writeln!(context.streams.out.clone(), "Context {name:?} {what}.")?;
    Ok(())
}

async fn credentials(context: &Context) -> Result<(), CommandError> {
    let name = name(context)?;
    let flags = &context.flags;
    let mut methods = Vec::new();
    if !flags.text("token").is_empty() {
        methods.push("--token");
    }
    if !(flags.text("username").is_empty() && flags.text("password").is_empty()) {
        methods.push("--username/--password");
    }
    if methods.len() > 1 {
        return Err(CommandError::plain(format!(
            "you cannot specify more than one authentication method at the same time: {}",
            methods.join(", ")
        )));
    }
    let embed = flags.bool("embed-certs");
    if embed && flags.text("client-certificate").is_empty() && flags.text("client-key").is_empty() {
        return Err(CommandError::plain("you must specify a --client-certificate or --client-key to embed"));
    }
    let config = load(context)?;
    let mut entry = entry(&config, Section::Users, name);
    let value = &mut entry.value;
    for keys in [("client-certificate", "client-certificate-data"), ("client-key", "client-key-data")] {
        if let Some(path) = flags.non_empty(keys.0) {
            file(value, path, keys, embed)?;
        }
    }
    if flags.given("token") {
        ["tokenFile", "username", "password"].iter().for_each(|k| drop(value.remove(*k)));
        value.insert("token".into(), json!(flags.text("token")));
    }
    for key in ["username", "password"] {
        if flags.given(key) {
            ["token", "tokenFile"].iter().for_each(|k| drop(value.remove(*k)));
            value.insert(key.to_owned(), json!(flags.text(key)));
        }
    }
    provider(context, value)?;
    exec(context, value)?;
    put(&config, Section::Users, entry)?;
    writeln!(context.streams.out.clone(), "User {name:?} set.")?;
    Ok(())
}

fn provider(context: &Context, value: &mut Map<String, Value>) -> Result<(), CommandError> {
    let flags = &context.flags;
    if let Some(provider) = flags.non_empty("auth-provider") {
        value.insert("auth-provider".into(), json!({"name": provider, "config": {}}));
    }
    let arguments = flags.list("auth-provider-arg");
    if arguments.is_empty() {
        return Ok(());
    }
    let Some(Value::Object(provider)) = value.get_mut("auth-provider") else {
        return Err(CommandError::plain("cannot specify --auth-provider-arg without --auth-provider"));
    };
    for pair in arguments {
        let (key, text) = pair
            .split_once('=')
            .ok_or_else(|| CommandError::plain(format!("error: invalid auth-provider-arg format: {pair}")))?;
        if !provider.get("config").is_some_and(Value::is_object) {
            provider.insert("config".into(), json!({}));
        }
        provider["config"][key] = json!(text);
    }
    Ok(())
}

fn exec(context: &Context, value: &mut Map<String, Value>) -> Result<(), CommandError> {
    let flags = &context.flags;
    if let Some(command) = flags.non_empty("exec-command") {
        let mut plugin = value.get("exec").and_then(Value::as_object).cloned().unwrap_or_default();
        plugin.insert("command".into(), json!(command));
        value.insert("exec".into(), Value::Object(plugin));
    }
    let Some(Value::Object(plugin)) = value.get_mut("exec") else { return Ok(()) };
    for (flag, key) in [("exec-api-version", "apiVersion"), ("exec-interactive-mode", "interactiveMode")] {
        if let Some(text) = flags.non_empty(flag) {
            plugin.insert(key.to_owned(), json!(text));
        }
    }
    if !flags.list("exec-arg").is_empty() {
        plugin.insert("args".into(), json!(flags.list("exec-arg")));
    }
    if flags.given("exec-provide-cluster-info") {
        plugin.insert("provideClusterInfo".into(), json!(flags.bool("exec-provide-cluster-info")));
    }
    for pair in flags.list("exec-env") {
        let (name, text) = pair
            .split_once('=')
            .ok_or_else(|| CommandError::plain(format!("error: invalid exec-env format: {pair}")))?;
        let list = plugin.entry("env").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.retain(|e| e["name"] != name);
            list.push(json!({"name": name, "value": text}));
        }
    }
    Ok(())
}
