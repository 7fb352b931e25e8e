//! What the kubeconfig and the global flags say about the connection.

use std::path::Path;

use kube::config::KubeConfigOptions;
use runtime::env;
use serde_json::{Map, Value, json};

use super::Kubeconfig;
use crate::{error::CommandError, flags::Flags};

/// Where a Pod finds its credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A cluster, a user and a namespace.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Settings of the cluster.
    pub cluster: Map<String, Value>,
    /// Settings of the user.
    pub user: Map<String, Value>,
    /// Namespace of requests.
    pub namespace: String,
    /// Whether `--namespace` was given: objects of other namespaces are refused then.
    pub enforced: bool,
    /// Whether the service account of a Pod is used.
    in_cluster: bool,
}

impl Selected {
    /// Chooses by context and flags.
    pub fn choose(config: &Kubeconfig, flags: &Flags) -> Result<Self, CommandError> {
        let name = flags.non_empty("context").unwrap_or(&config.current_context);
        let context = match config.context(name) {
            Some(context) => context.value.clone(),
            None if name.is_empty() => Map::new(),
            None if flags.non_empty("context").is_some() || !config.is_empty() => {
                return Err(CommandError::Verbatim(format!(
                    "Error in configuration: context was not found for specified context: {name}"
                )));
            }
            None => Map::new(),
        };
        let of_context = |key: &str| context.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let namespace = flags.non_empty("namespace").map(str::to_owned);
        let in_cluster = config.is_empty() && is_in_cluster() && flags.non_empty("server").is_none();
        let mut selected = Self {
            cluster: cluster(config, flags, &of_context("cluster"))?,
            user: user(config, flags, &of_context("user"))?,
            enforced: namespace.is_some(),
            namespace: namespace.unwrap_or_else(|| of_context("namespace")),
            in_cluster,
        };
        if selected.namespace.is_empty() {
            selected.namespace = if in_cluster { pod_namespace() } else { "default".to_owned() };
        }
        selected.check()?;
        Ok(selected)
    }

    /// Settings that exclude each other or point nowhere.
    fn check(&self) -> Result<(), CommandError> {
        let has = |map: &Map<String, Value>, key: &str| {
            map.get(key).is_some_and(|v| v.as_str().is_none_or(|t| !t.is_empty()) && !v.is_null())
        };
        let mut problems = Vec::new();
        let readable = |problems: &mut Vec<String>, map: &Map<String, Value>, key: &str, of: &str| {
            if let Some(path) = map.get(key).and_then(Value::as_str).filter(|p| !p.is_empty())
                && let Err(error) = std::fs::File::open(path)
            {
                let text = super::files::go_io_text(&error);
                problems.push(format!("unable to read {key} {path} for {of} due to open {path}: {text}"));
            }
        };
        if !has(&self.cluster, "certificate-authority-data") {
            readable(&mut problems, &self.cluster, "certificate-authority", "the cluster");
        }
        let certificate = has(&self.user, "client-certificate") || has(&self.user, "client-certificate-data");
        let key = has(&self.user, "client-key") || has(&self.user, "client-key-data");
        if certificate && !key {
            problems.push(
                "client-key-data or client-key must be specified to use the clientCert authentication \
                           method."
                    .to_owned(),
            );
        }
        if !has(&self.user, "client-certificate-data") {
            readable(&mut problems, &self.user, "client-certificate", "the user");
        }
        if !has(&self.user, "client-key-data") {
            readable(&mut problems, &self.user, "client-key", "the user");
        }
        match problems.as_slice() {
            [] => Ok(()),
            [one] => Err(CommandError::plain(format!("invalid configuration: {one}"))),
            many => Err(CommandError::plain(format!("invalid configuration: [{}]", many.join(", ")))),
        }
    }

    /// The program that the user's credentials come from.
    pub fn credential_plugin(&self) -> Option<&str> {
        self.user.get("exec")?.get("command")?.as_str()
    }

    /// Address of the server.
    pub fn server(&self) -> String {
        let text = self.cluster.get("server").and_then(Value::as_str).unwrap_or("").trim_end_matches('/');
        let secure =
            ["certificate-authority", "certificate-authority-data"].iter().any(|k| self.cluster.contains_key(*k))
                || self.cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true))
                || self.user.contains_key("client-certificate")
                || self.user.contains_key("client-certificate-data");
        match (text.contains("://"), secure) {
            (true, _) => text.to_owned(),
            (false, true) => format!("https://{text}"),
            (false, false) => format!("http://{text}"),
        }
    }

    /// The same for kube.
    pub async fn config(&self) -> Result<kube::Config, CommandError> {
        if self.in_cluster {
            return kube::Config::incluster().map_err(|e| CommandError::plain(e.to_string()));
        }
        let server = self.server();
        let mut cluster = self.cluster.clone();
        cluster.insert("server".into(), json!(server));
        // Credentials go over TLS only.
        let user = if server.starts_with("https://") { self.user.clone() } else { Map::new() };
        let document = json!({
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": self.namespace}}],
            "current-context": "x",
        });
        let invalid = |e: &dyn std::fmt::Display| CommandError::plain(format!("invalid configuration: {e}"));
        let file = serde_json::from_value(document).map_err(|e| invalid(&e))?;
        let mut config =
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|e| invalid(&e))?;
        config.default_retry = false;
        config.read_timeout = None;
        config.write_timeout = None;
        Ok(config)
    }
}

fn is_in_cluster() -> bool {
    env::non_empty("KUBERNETES_SERVICE_HOST").is_some()
        && env::non_empty("KUBERNETES_SERVICE_PORT").is_some()
        && Path::new(SERVICE_ACCOUNT).join("token").exists()
}

fn pod_namespace() -> String {
    let of_file = || std::fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace")).ok();
    let found = env::non_empty("POD_NAMESPACE").or_else(|| of_file().map(|t| t.trim().to_owned()));
    found.filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned())
}

fn cluster(config: &Kubeconfig, flags: &Flags, of_context: &str) -> Result<Map<String, Value>, CommandError> {
    let name = flags.non_empty("cluster").unwrap_or(of_context);
    let found = config.clusters.iter().find(|e| e.name == name);
    let mut cluster = match found {
        Some(entry) => entry.value.clone(),
        None if flags.non_empty("cluster").is_some() => {
            return Err(CommandError::plain(format!("no server found for cluster {name:?}")));
        }
        None => Map::new(),
    };
    let set = |cluster: &mut Map<String, Value>, key: &str, value: Value| {
        cluster.insert(key.to_owned(), value);
    };
    if let Some(server) = flags.non_empty("server") {
        set(&mut cluster, "server", json!(server));
        cluster.remove("tls-server-name");
    }
    if let Some(name) = flags.non_empty("tls-server-name") {
        set(&mut cluster, "tls-server-name", json!(name));
    }
    let authority = flags.non_empty("certificate-authority");
    if flags.given("insecure-skip-tls-verify") || authority.is_some() {
        for key in ["certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify"] {
            cluster.remove(key);
        }
        if let Some(path) = authority {
            set(&mut cluster, "certificate-authority", json!(path));
        }
        if flags.bool("insecure-skip-tls-verify") {
            set(&mut cluster, "insecure-skip-tls-verify", json!(true));
        }
    }
    if flags.bool("disable-compression") {
        set(&mut cluster, "disable-compression", json!(true));
    }
    let no_server = cluster.get("server").and_then(Value::as_str).is_none_or(str::is_empty);
    if no_server {
        if found.is_some() {
            return Err(CommandError::plain(format!("no server found for cluster {name:?}")));
        }
        let server = env::non_empty("KUBERNETES_MASTER").unwrap_or_else(|| "http://localhost:8080".to_owned());
        set(&mut cluster, "server", json!(server));
    }
    Ok(cluster)
}

fn user(config: &Kubeconfig, flags: &Flags, of_context: &str) -> Result<Map<String, Value>, CommandError> {
    let name = flags.non_empty("user").unwrap_or(of_context);
    let mut user = match config.users.iter().find(|e| e.name == name) {
        Some(entry) => entry.value.clone(),
        None if flags.non_empty("user").is_some() => {
            return Err(CommandError::plain(format!("auth info {name:?} does not exist")));
        }
        None => Map::new(),
    };
    let basic = flags.non_empty("username").is_some() || flags.non_empty("password").is_some();
    if flags.non_empty("token").is_some() || basic {
        for key in ["token", "tokenFile", "username", "password", "exec", "auth-provider"] {
            user.remove(key);
        }
    }
    for (flag, key, data) in [
        ("token", "token", None),
        ("username", "username", None),
        ("password", "password", None),
        ("client-certificate", "client-certificate", Some("client-certificate-data")),
        ("client-key", "client-key", Some("client-key-data")),
        ("as", "as", None),
        ("as-uid", "as-uid", None),
    ] {
        if let Some(value) = flags.non_empty(flag) {
            user.insert(key.to_owned(), json!(value));
            data.map(|data| user.remove(data));
        }
    }
    if !flags.list("as-group").is_empty() {
        user.insert("as-groups".into(), json!(flags.list("as-group")));
    }
    let mut extra: Map<String, Value> = Map::new();
    for pair in flags.list("as-user-extra") {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let Some(list) = extra.entry(key).or_insert_with(|| json!([])).as_array_mut() {
            list.push(json!(value));
        }
    }
    if !extra.is_empty() {
        user.insert("as-user-extra".into(), Value::Object(extra));
    }
    if user.contains_key("token") {
        user.remove("tokenFile");
    }
    Ok(user)
}
