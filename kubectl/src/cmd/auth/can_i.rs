//! `auth can-i`.

use std::io::Write;

use serde_json::{Value, json};

use crate::{
    cluster::Call, command::Command, context::Context, discovery::Resource, error::CommandError, flags::Flag,
    print::table::Aligned,
};

const VERBS: [&str; 15] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "use",
    "bind",
    "impersonate",
    "*",
    "approve",
    "sign",
    "escalate",
];
const NON_RESOURCE_VERBS: [&str; 8] = ["get", "put", "post", "head", "options", "delete", "patch", "*"];

pub(super) fn command() -> Command {
    Command::new("can-i", "Check whether an action is allowed")
        .usage("VERB [TYPE | TYPE/NAME | NONRESOURCEURL]")
        .examples(&[
            "kubectl auth can-i create pods --all-namespaces",
            "kubectl auth can-i list deployments.apps",
            "kubectl auth can-i get pods --subresource=log",
            "kubectl auth can-i get /logs/",
            "kubectl auth can-i --list --namespace=foo",
        ])
        .flags([
            Flag::switch("all-namespaces", "Whether it is allowed in all namespaces.").short('A'),
            Flag::switch("list", "List everything that is allowed."),
            Flag::switch("no-headers", "Leave the headers out."),
            Flag::switch("quiet", "Print nothing; the exit code tells.").short('q'),
            Flag::text("subresource", "", "Subresource such as log or scale."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    if flags.bool("list") {
        if !context.args.is_empty() {
            return Err(CommandError::plain("list option must be specified with no arguments"));
        }
        return list(context).await;
    }
    if flags.bool("no-headers") {
        return Err(CommandError::plain("--no-headers cannot be set without --list specified"));
    }
    let [verb, target] = context.args.as_slice() else {
        return Err(CommandError::plain(
            "you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'kubectl auth can-i -h' \
             for help and examples.",
        ));
    };
    let spec = if target.starts_with('/') {
        if !flags.text("subresource").is_empty() {
            return Err(CommandError::plain("--subresource can not be used with NonResourceURL"));
        }
        json!({"nonResourceAttributes": {"path": target, "verb": verb}})
    } else {
        resource_spec(context, verb, target).await?
    };
    let known: &[&str] = if target.starts_with('/') { &NON_RESOURCE_VERBS } else { &VERBS };
    if !known.contains(&verb.as_str()) {
        warn(context, &format!("verb '{verb}' is not a known verb"))?;
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let call = Call::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review);
    let answer = context.cluster().await?.json(&call).await?;
    let allowed = answer["status"]["allowed"] == true;
    if !flags.bool("quiet") {
        let mut text = if allowed { "yes".to_owned() } else { "no".to_owned() };
        if !allowed {
            for part in ["reason", "evaluationError"] {
                if let Some(more) = answer["status"][part].as_str().filter(|m| !m.is_empty()) {
                    text.push_str(&format!(" - {more}"));
                }
            }
        }
        writeln!(context.streams.out.clone(), "{text}")?;
    }
    if allowed { Ok(()) } else { Err(CommandError::Exit(1)) }
}

fn warn(context: &Context, text: &str) -> Result<(), CommandError> {
    writeln!(context.streams.err.clone(), "Warning: {text}\n")?;
    Ok(())
}

async fn resource_spec(context: &Context, verb: &str, target: &str) -> Result<Value, CommandError> {
    let (word, name) = target.split_once('/').unwrap_or((target, ""));
    let cluster = context.cluster().await?;
    let found: Option<Resource> = if word == "*" {
        None
    } else {
        cluster.served_with(|served| served.find(word).is_some()).await?.find(word).cloned()
    };
    let all = context.flags.bool("all-namespaces");
    let (group, resource) = match &found {
        Some(found) => {
            if !found.namespaced && !all {
                let of_group = match found.group.as_str() {
                    "" => String::new(),
                    group => format!(" in group '{group}'"),
                };
                warn(context, &format!("resource '{}' is not namespace scoped{of_group}", found.plural))?;
            }
            (found.group.clone(), found.plural.clone())
        }
        None => {
            let (plural, group) = word.split_once('.').unwrap_or((word, ""));
            if word != "*" {
                let of_group = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
                warn(context, &format!("the server doesn't have a resource type '{plural}'{of_group}"))?;
            }
            // `*` is of all groups.
            (if word == "*" { "*".to_owned() } else { group.to_owned() }, plural.to_owned())
        }
    };
    let mut attributes = json!({"verb": verb, "group": group, "resource": resource, "name": name});
    if !all {
        attributes["namespace"] = json!(cluster.namespace);
    }
    attributes["subresource"] = json!(context.flags.text("subresource"));
    Ok(json!({"resourceAttributes": attributes}))
}

/// A rule for one verb and one resource, or one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Rule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    urls: Vec<String>,
}

impl Rule {
    /// The order of rules in lists.
    fn key(&self) -> String {
        let list = |items: &[String]| items.join(" ");
        format!(
            "Verbs:[{}],APIGroups:[{}],Resources:[{}],ResourceNames:[{}],NonResourceURLs:[{}],",
            list(&self.verbs),
            list(&self.groups),
            list(&self.resources),
            list(&self.names),
            list(&self.urls)
        )
    }

    fn cells(&self) -> Vec<String> {
        let bracketed = |items: &[String]| format!("[{}]", items.join(" "));
        let title = self.resources.first().map_or_else(String::new, |resource| {
            let group = self.groups.first().map_or("", String::as_str);
            let (plural, below) = resource.split_once('/').map_or((resource.as_str(), ""), |(p, b)| (p, b));
            let whole = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
            if below.is_empty() { whole } else { format!("{whole}/{below}") }
        });
        vec![title, bracketed(&self.urls), bracketed(&self.names), bracketed(&self.verbs)]
    }
}

/// Splits rules to single verbs and resources, and puts those together again that differ in verbs only.
fn compact(status: &Value) -> Vec<Rule> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let mut rules: Vec<Rule> = Vec::new();
    for rule in status["resourceRules"].as_array().into_iter().flatten() {
        let names = texts(&rule["resourceNames"]);
        let names: Vec<Vec<String>> =
            if names.is_empty() { vec![Vec::new()] } else { names.into_iter().map(|n| vec![n]).collect() };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    for names in &names {
                        let same = rules.iter_mut().find(|r| {
                            r.groups == [group.clone()] && r.resources == [resource.clone()] && r.names == *names
                        });
                        match same {
                            Some(held) if held.verbs.contains(&verb) => {}
                            Some(held) => held.verbs.push(verb.clone()),
                            None => rules.push(Rule {
                                verbs: vec![verb.clone()],
                                groups: vec![group.clone()],
                                resources: vec![resource.clone()],
                                names: names.clone(),
                                urls: Vec::new(),
                            }),
                        }
                    }
                }
            }
        }
    }
    for rule in status["nonResourceRules"].as_array().into_iter().flatten() {
        for url in texts(&rule["nonResourceURLs"]) {
            for verb in texts(&rule["verbs"]) {
                rules.push(Rule { verbs: vec![verb], urls: vec![url.clone()], ..Rule::default() });
            }
        }
    }
    rules.sort_by_key(Rule::key);
    rules
}

async fn list(context: &Context) -> Result<(), CommandError> {
    let cluster = context.cluster().await?;
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": cluster.namespace},
    });
    let answer = cluster.json(&Call::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review)).await?;
    let status = &answer["status"];
    if status["incomplete"] == true {
        let text = match status["evaluationError"].as_str().filter(|t| !t.is_empty()) {
            Some(problem) => format!("Warning: the list may be incomplete: {problem}"),
            None => "Warning: the list may be incomplete".to_owned(),
        };
        writeln!(context.streams.err.clone(), "{text}")?;
    }
    let mut table = Aligned::default();
    if !context.flags.bool("no-headers") {
        table.row(&["Resources", "Non-Resource URLs", "Resource Names", "Verbs"]);
    }
    compact(status).iter().for_each(|rule| table.add(rule.cells()));
    write!(context.streams.out.clone(), "{}", table.flush())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_of_a_resource_are_put_together() {
        let rules = compact(&json!({
            "resourceRules": [
                {"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "pods/log"]},
                {"verbs": ["list", "get"], "apiGroups": [""], "resources": ["pods"]},
                {"verbs": ["create"], "apiGroups": ["apps"], "resources": ["deployments/scale"]},
            ],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}],
        }));
        let cells: Vec<String> = rules.iter().map(|r| r.cells().join(" ")).collect();
        assert_eq!(
            cells,
            [
                "deployments.apps/scale [] [] [create]",
                "pods [] [] [get list]",
                " [/healthz] [] [get]",
                "pods/log [] [] [get]",
            ]
        );
    }
}
