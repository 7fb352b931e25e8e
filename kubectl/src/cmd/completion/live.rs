//! `kubectl __complete`: what may follow on a command line, with names that the server knows.

use std::{io::Write, time::Duration};

use machinery::meta;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::SHELLS;
use crate::{
    cluster::Call,
    command::{self, Command},
    context::Context,
    error::CommandError,
    flags::Flag,
    globals,
    kubeconfig::Kubeconfig,
    pods, print,
    resolve::arguments,
    streams::Streams,
};

/// Time for the server to answer; who types does not wait longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Names that are offered at most.
const MOST: &str = "500";

/// Types whose Pods a command finds.
const WITH_PODS: [&str; 8] =
    ["daemonsets", "deployments", "pods", "jobs", "replicasets", "replicationcontrollers", "services", "statefulsets"];

/// What the shell may do beside what is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Directive {
    /// Files may follow too.
    Default = 0,
    /// Something follows without a blank.
    NoSpace = 2,
    /// Nothing else may follow.
    NoFiles = 4,
    /// Files with the endings that are offered may follow.
    Endings = 8,
}

impl Directive {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "ShellCompDirectiveDefault",
            Self::NoSpace => "ShellCompDirectiveNoSpace",
            Self::NoFiles => "ShellCompDirectiveNoFileComp",
            Self::Endings => "ShellCompDirectiveFilterFileExt",
        }
    }
}

/// What is offered: words, perhaps with a description.
#[derive(Debug, PartialEq, Eq)]
struct Offer {
    words: Vec<(String, String)>,
    directive: Directive,
}

impl Offer {
    fn of(words: impl IntoIterator<Item = String>) -> Self {
        Self { words: words.into_iter().map(|word| (word, String::new())).collect(), directive: Directive::NoFiles }
    }

    fn nothing() -> Self {
        Self { words: Vec::new(), directive: Directive::Default }
    }
}

/// Answers a shell. `words` are those before the cursor, the last one perhaps begun.
pub(crate) async fn run(
    program: &str,
    words: &[String],
    described: bool,
    streams: Streams,
    stop: CancellationToken,
) -> Result<(), CommandError> {
    let (begun, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let (mut out, mut err) = (streams.out.clone(), streams.err.clone());
    // A server that does not answer has no names to offer.
    let offer = offer(program, before, begun, streams, stop).await.unwrap_or_else(|_| Offer::nothing());
    let wanted = begun.strip_prefix("--").and_then(|flag| flag.split_once('=')).map_or(begun, |(_, value)| value);
    let fits = |word: &str| offer.directive == Directive::Endings || word.starts_with(wanted);
    for (word, description) in offer.words.iter().filter(|(word, _)| fits(word)) {
        match described && !description.is_empty() {
            true => writeln!(out, "{word}\t{description}")?,
            false => writeln!(out, "{word}")?,
        }
    }
    writeln!(out, ":{}", offer.directive as u8)?;
    out.flush()?;
    writeln!(err, "Completion ended with directive: {}", offer.directive.name())?;
    Ok(())
}

async fn offer(
    program: &str,
    before: &[String],
    begun: &str,
    streams: Streams,
    stop: CancellationToken,
) -> Result<Offer, CommandError> {
    let commands = crate::cmd::commands();
    let flag_value = value_of(&commands, before, begun);
    let rest = if flag_value.is_some() && !begun.contains('=') { &before[..before.len() - 1] } else { before };
    let found = command::find(&commands, rest);
    let parsed = command::parse(found.command, &found.path, &found.arguments)?;
    if let Some(flag) = flag_value {
        let context = Context::new(program, found.path, parsed, streams, stop);
        return value(&context, &flag).await;
    }
    if begun.starts_with('-') && parsed.dash.is_none() {
        return Ok(flags(found.command, begun));
    }
    let Some(command) = found.command else {
        let plugins = crate::cmd::plugin::names().into_iter().map(|name| (name, String::new()));
        return Ok(match parsed.args.is_empty() {
            true => {
                Offer { words: listed(&commands).into_iter().chain(plugins).collect(), directive: Directive::NoFiles }
            }
            false => Offer::nothing(),
        });
    };
    if !command.commands.is_empty() && parsed.args.is_empty() {
        return Ok(Offer { words: listed(&command.commands), directive: Directive::NoFiles });
    }
    if parsed.dash.is_some() {
        return Ok(Offer::of([]));
    }
    let required: Vec<(String, String)> = match begun.is_empty() && parsed.args.is_empty() {
        true => {
            let missing = command.flags.iter().filter(|flag| flag.required && !parsed.flags.given(flag.name));
            missing.map(|flag| (format!("--{}", flag.name), flag.usage.to_owned())).collect()
        }
        false => Vec::new(),
    };
    let context = Context::new(program, found.path, parsed, streams, stop);
    let mut offer = argument(&context, begun).await?;
    offer.words.splice(0..0, required);
    Ok(offer)
}

fn listed(commands: &[Command]) -> Vec<(String, String)> {
    let shown = commands.iter().filter(|c| !c.hidden || matches!(c.name, "help" | "options"));
    let mut words: Vec<(String, String)> = shown.map(|c| (c.name.to_owned(), c.short.to_owned())).collect();
    words.sort();
    words
}

fn flags(command: Option<&Command>, begun: &str) -> Offer {
    let own = command.map_or(&[] as &[Flag], |c| &c.flags);
    let globals = globals::flags();
    let mut all: Vec<&Flag> = own.iter().filter(|f| !f.hidden).collect();
    all.sort_by_key(|f| f.name);
    all.extend(globals.iter().filter(|g| own.iter().all(|f| f.name != g.name)));
    let mut words: Vec<(String, String)> = Vec::new();
    for flag in all {
        words.push((format!("--{}", flag.name), flag.usage.to_owned()));
        if let (false, Some(letter)) = (begun.starts_with("--"), flag.short) {
            words.push((format!("-{letter}"), flag.usage.to_owned()));
        }
    }
    Offer { words, directive: Directive::NoFiles }
}

/// The flag whose value is being typed.
fn value_of(commands: &[Command], before: &[String], begun: &str) -> Option<String> {
    let found = command::find(commands, before);
    let own = found.command.map_or(&[] as &[Flag], |c| &c.flags);
    let globals = globals::flags();
    let all = || own.iter().chain(&globals);
    if let Some((name, _)) = begun.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
        return all().find(|f| f.name == name.replace('_', "-")).map(|f| f.name.to_owned());
    }
    let last = before.last().filter(|_| !before.iter().any(|word| word == "--"))?;
    let flag = match last.strip_prefix("--") {
        Some(name) => all().find(|f| f.name == name.replace('_', "-"))?,
        None => {
            let letters = last.strip_prefix('-')?;
            let letter = letters.chars().last().filter(|_| !letters.contains('='))?;
            all().find(|f| f.short == Some(letter))?
        }
    };
    flag.bare.is_none().then(|| flag.name.to_owned())
}

async fn value(context: &Context, flag: &str) -> Result<Offer, CommandError> {
    match flag {
        "namespace" => Ok(Offer::of(names(context, "namespaces").await?)),
        "context" => Ok(Offer::of(entries(context, |config| &config.contexts)?)),
        "cluster" => Ok(Offer::of(entries(context, |config| &config.clusters)?)),
        "user" => Ok(Offer::of(entries(context, |config| &config.users)?)),
        "output" if context.flags.has("template") => {
            let more: &[&str] =
                if context.path == "kubectl get" { &["custom-columns", "custom-columns-file", "wide"] } else { &[] };
            Ok(Offer::of(print::formats().iter().chain(more).map(|format| (*format).to_owned())))
        }
        "container" => match context.args.first() {
            Some(pod) => Ok(Offer::of(containers(context, pod).await?)),
            None => Ok(Offer::of([])),
        },
        "filename" => {
            Ok(Offer { directive: Directive::Endings, ..Offer::of(["json", "yaml", "yml"].map(str::to_owned)) })
        }
        _ => Ok(Offer::nothing()),
    }
}

fn entries(
    context: &Context,
    section: impl Fn(&Kubeconfig) -> &Vec<crate::kubeconfig::Entry>,
) -> Result<Vec<String>, CommandError> {
    Ok(section(&context.kubeconfig()?).iter().map(|entry| entry.name.clone()).collect())
}

/// Types that a command takes, when they are few.
fn few_types(path: &str) -> Option<&'static [&'static str]> {
    Some(match path {
        "kubectl scale" | "kubectl autoscale" => &["deployment", "replicaset", "replicationcontroller", "statefulset"],
        "kubectl rollout pause" | "kubectl rollout resume" => &["deployment"],
        path if path.starts_with("kubectl rollout ") => &["deployment", "daemonset", "statefulset"],
        "kubectl set image" => {
            &["daemonsets", "deployments", "pods", "cronjobs", "replicasets", "replicationcontrollers", "statefulsets"]
        }
        "kubectl expose" => &["pod", "service", "replicationcontroller", "deployment", "replicaset"],
        "kubectl taint" => &["node"],
        _ => return None,
    })
}

/// What the arguments of a command are.
async fn argument(context: &Context, begun: &str) -> Result<Offer, CommandError> {
    let (path, args) = (context.path.as_str(), &context.args);
    let first = args.is_empty();
    match path {
        "kubectl completion" if first => Ok(Offer::of(SHELLS.map(str::to_owned))),
        "kubectl config use-context"
        | "kubectl config set-context"
        | "kubectl config delete-context"
        | "kubectl config rename-context"
        | "kubectl config get-contexts"
            if first =>
        {
            Ok(Offer::of(entries(context, |config| &config.contexts)?))
        }
        "kubectl config delete-cluster" | "kubectl config set-cluster" if first => {
            Ok(Offer::of(entries(context, |config| &config.clusters)?))
        }
        "kubectl config delete-user" | "kubectl config set-credentials" if first => {
            Ok(Offer::of(entries(context, |config| &config.users)?))
        }
        "kubectl certificate approve" | "kubectl certificate deny" => {
            others(context, "certificatesigningrequests").await
        }
        "kubectl drain" | "kubectl cordon" | "kubectl uncordon" | "kubectl top node" => others(context, "nodes").await,
        "kubectl top pod" | "kubectl logs" | "kubectl exec" | "kubectl attach" | "kubectl port-forward" if first => {
            match begun.contains('/') {
                true => below(context, begun).await,
                false => {
                    let mut words = names(context, "pods").await?;
                    if path != "kubectl top pod" {
                        words.extend(WITH_PODS.iter().map(|word| format!("{word}/")));
                    }
                    Ok(Offer::of(words))
                }
            }
        }
        "kubectl logs" if args.len() == 1 => Ok(Offer::of(containers(context, &args[0]).await?)),
        "kubectl cp" if args.len() < 2 && !begun.contains([':', '/']) => {
            let mut words: Vec<String> =
                names(context, "namespaces").await?.into_iter().map(|n| format!("{n}/")).collect();
            words.extend(names(context, "pods").await?.into_iter().map(|pod| format!("{pod}:")));
            words.extend(["./", "/"].map(str::to_owned));
            Ok(Offer { directive: Directive::NoSpace, ..Offer::of(words) })
        }
        "kubectl get"
        | "kubectl describe"
        | "kubectl delete"
        | "kubectl label"
        | "kubectl annotate"
        | "kubectl edit"
        | "kubectl patch"
        | "kubectl apply view-last-applied"
        | "kubectl debug" => typed(context, begun).await,
        path if few_types(path).is_some() => typed(context, begun).await,
        _ => Ok(Offer::nothing()),
    }
}

/// `TYPE NAME...` and `TYPE/NAME`.
async fn typed(context: &Context, begun: &str) -> Result<Offer, CommandError> {
    if begun.contains('/') {
        return below(context, begun).await;
    }
    match context.args.first() {
        Some(word) if word.contains('/') => Ok(Offer::of([])),
        Some(word) => others(context, word).await,
        None => {
            if let Some(types) = few_types(&context.path) {
                return Ok(Offer::of(types.iter().map(|word| (*word).to_owned())));
            }
            let served = context.cluster().await?.served().await?;
            let mut chosen: Vec<_> = served.preferred().into_iter().filter(|r| r.has_verb("get")).collect();
            chosen.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
            let earlier = begun.rfind(',').map_or("", |at| &begun[..=at]);
            let titles = chosen.into_iter().map(|r| format!("{earlier}{}", r.title()));
            Ok(Offer::of(titles))
        }
    }
}

/// Names behind `TYPE/`.
async fn below(context: &Context, begun: &str) -> Result<Offer, CommandError> {
    let (word, _) = begun.split_once('/').unwrap_or((begun, ""));
    let found = names(context, word).await?;
    Ok(Offer::of(found.into_iter().map(|name| format!("{word}/{name}"))))
}

/// Names that were not given yet.
async fn others(context: &Context, word: &str) -> Result<Offer, CommandError> {
    let found = names(context, word).await?;
    Ok(Offer::of(found.into_iter().filter(|name| !context.args.contains(name))))
}

/// Names of the objects of a type in the namespace.
async fn names(context: &Context, word: &str) -> Result<Vec<String>, CommandError> {
    let cluster = context.cluster().await?;
    let resource = arguments::resource(&cluster, word).await?;
    let call = Call::get(&resource.path(&cluster.namespace)).query("limit", MOST).within(PATIENCE);
    let list = cluster.json(&call).await?;
    Ok(list["items"].as_array().into_iter().flatten().map(|item| meta::name(item).to_owned()).collect())
}

async fn containers(context: &Context, pod: &str) -> Result<Vec<String>, CommandError> {
    let info = pods::named(context, pod, "expected a Pod").await?;
    let names = |list: &str| -> Vec<String> {
        let all: &[Value] = info.object["spec"][list].as_array().map_or(&[], Vec::as_slice);
        all.iter().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    Ok(["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(names).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn values_of_flags_are_found() {
        let commands = crate::cmd::commands();
        let value = |before: &str, begun: &str| value_of(&commands, &words(before), begun);
        assert_eq!(value("get pods -n", "").as_deref(), Some("namespace"));
        assert_eq!(value("get pods -wo", "").as_deref(), Some("output"));
        assert_eq!(value("get --namespace", "d").as_deref(), Some("namespace"));
        assert_eq!(value("get", "--namespace=d").as_deref(), Some("namespace"));
        assert_eq!(value("get pods -w", ""), None);
        assert_eq!(value("exec p -- ls -n", ""), None);
    }

    #[tokio::test]
    async fn commands_and_flags_are_offered_without_a_server() {
        let offered = async |before: &str, begun: &str| {
            let streams = Streams::of_process();
            let offer = offer("kubectl", &words(before), begun, streams, CancellationToken::new()).await;
            let offer = offer.expect("an offer");
            (offer.words.into_iter().map(|(word, _)| word).collect::<Vec<_>>(), offer.directive)
        };
        assert!(offered("", "").await.0.contains(&"get".to_owned()));
        assert_eq!(offered("create secret", "").await.0, ["docker-registry", "generic", "tls"]);
        assert!(offered("get", "--").await.0.contains(&"--output".to_owned()));
        assert_eq!(offered("rollout status", "").await.0, ["deployment", "daemonset", "statefulset"]);
        assert_eq!(offered("scale", "").await.0[0], "--replicas");
        assert_eq!(offered("apply -f", "").await.1, Directive::Endings);
        assert_eq!(offered("explain", "").await.1, Directive::Default);
        assert_eq!(offered("exec p --", "").await, (Vec::new(), Directive::NoFiles));
        assert!(offered("get -o", "").await.0.contains(&"custom-columns".to_owned()));
    }
}
