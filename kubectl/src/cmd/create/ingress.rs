//! `create ingress`.

use serde_json::{Value, json};

use super::{Generated, generator_flags};
use crate::{command::Command, context::Context, error::CommandError, flags::Flag};

pub(super) fn command() -> Command {
    Command::new("ingress", "Create an ingress with the specified name")
        .aliases(&["ing"])
        .usage("NAME --rule=host/path=service:port[,tls[=secret]] ")
        .examples(&[
            "kubectl create ingress simple --rule=\"foo.com/bar=svc1:8080,tls=my-cert\"",
            "kubectl create ingress catch-all --class=otheringress --rule=\"/path=svc:port\"",
            "kubectl create ingress ingdefault --default-backend=defaultsvc:http --rule=\"foo.com/*=svc:8080\"",
        ])
        .flags(generator_flags())
        .flags([
            Flag::array("annotation", "Annotation of the ingress, name=value."),
            Flag::text("class", "", "Ingress class."),
            Flag::text("default-backend", "", "Service of everything that no rule fits, service:port."),
            Flag::array("rule", "Rule, host/path=service:port[,tls[=secret]]; a path that ends with '*' is a prefix."),
        ])
        .runs(|context| Box::pin(run(context)))
}

struct Rule {
    host: String,
    path: String,
    backend: Value,
    /// Name of the secret, perhaps empty.
    tls: Option<String>,
}

fn is_name(text: &str, more: &[char]) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_' || more.contains(&c))
}

fn backend(text: &str) -> Option<Value> {
    let (service, port) = text.split_once(':')?;
    if service.is_empty() || port.is_empty() || !is_name(service, &[]) || !is_name(port, &[]) {
        return None;
    }
    let port = match port.parse::<i32>() {
        Ok(number) => json!({"number": number}),
        Err(_) => json!({"name": port}),
    };
    Some(json!({"service": {"name": service, "port": port}}))
}

fn rule(text: &str) -> Option<Rule> {
    let (target, tls) = match text.split_once(",tls") {
        Some((target, rest)) => {
            let secret = if rest.is_empty() { "" } else { rest.strip_prefix('=')? };
            (target, Some(secret.to_owned()))
        }
        None => (text, None),
    };
    let (place, service) = target.rsplit_once('=')?;
    let slash = place.find('/')?;
    let (host, path) = place.split_at(slash);
    if !is_name(host, &['.', '*']) {
        return None;
    }
    Some(Rule { host: host.to_owned(), path: path.to_owned(), backend: backend(service)?, tls })
}

fn rules(texts: &[String]) -> Result<Vec<Rule>, CommandError> {
    texts
        .iter()
        .map(|text| {
            rule(text).ok_or_else(|| {
                CommandError::plain(format!(
                    "rule {text} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
                ))
            })
        })
        .collect()
}

/// Rules with one entry per host.
fn by_host(rules: &[Rule]) -> Vec<Value> {
    let mut hosts: Vec<(&str, Vec<Value>)> = Vec::new();
    for rule in rules {
        let (path, kind) = match rule.path.strip_suffix('*') {
            Some(prefix) => (prefix, "Prefix"),
            None => (rule.path.as_str(), "Exact"),
        };
        let entry = json!({"path": path, "pathType": kind, "backend": rule.backend});
        match hosts.iter_mut().find(|(host, _)| *host == rule.host) {
            Some((_, paths)) => paths.push(entry),
            None => hosts.push((&rule.host, vec![entry])),
        }
    }
    hosts
        .into_iter()
        .map(|(host, paths)| match host {
            "" => json!({"http": {"paths": paths}}),
            host => json!({"host": host, "http": {"paths": paths}}),
        })
        .collect()
}

/// One entry per secret, with its hosts.
fn tls(rules: &[Rule]) -> Vec<Value> {
    let mut secrets: Vec<(&str, Vec<&str>)> = Vec::new();
    for rule in rules.iter().filter(|r| !r.host.is_empty() || r.tls.as_ref().is_some_and(|t| !t.is_empty())) {
        let Some(secret) = &rule.tls else { continue };
        match secrets.iter_mut().find(|(s, _)| s == secret) {
            Some((_, hosts)) if hosts.contains(&rule.host.as_str()) => {}
            Some((_, hosts)) => hosts.push(&rule.host),
            None => secrets.push((secret, vec![&rule.host])),
        }
    }
    secrets
        .into_iter()
        .map(|(secret, hosts)| {
            let hosts: Vec<&str> = hosts.into_iter().filter(|h| !h.is_empty()).collect();
            let mut entry = json!({});
            if !hosts.is_empty() {
                entry["hosts"] = json!(hosts);
            }
            if !secret.is_empty() {
                entry["secretName"] = json!(secret);
            }
            entry
        })
        .collect()
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let flags = &context.flags;
    if flags.list("rule").is_empty() && flags.text("default-backend").is_empty() {
        return Err(CommandError::plain(
            "not enough information provided: every ingress has to either specify a default-backend (which catches all \
             traffic) or a list of rules (which catch specific paths)",
        ));
    }
    let rules = rules(flags.list("rule"))?;
    let mut spec = json!({});
    if let Some(class) = flags.non_empty("class") {
        spec["ingressClassName"] = json!(class);
    }
    if let Some(text) = flags.non_empty("default-backend") {
        spec["defaultBackend"] = backend(text).ok_or_else(|| {
            CommandError::plain("default-backend should be in format servicename:serviceport".to_owned())
        })?;
    }
    if !rules.is_empty() {
        spec["rules"] = json!(by_host(&rules));
    }
    let tls = tls(&rules);
    if !tls.is_empty() {
        spec["tls"] = json!(tls);
    }
    let mut metadata = json!({"name": name});
    for pair in flags.list("annotation") {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            CommandError::plain(format!("annotation {pair} is invalid and should be in format key=[value]"))
        })?;
        metadata["annotations"][key] = json!(value);
    }
    let object = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata,
        "spec": spec,
        "status": {"loadBalancer": {}},
    });
    Generated::new(object, "failed to create ingress: ").finish(context).await
}
