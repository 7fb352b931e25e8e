//! `kubectl taint`.

use machinery::names;
use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Query},
};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const KEY_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
                        an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                        validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// The command.
pub(crate) fn command() -> Command {
    Command::new("taint", "Update the taints on one or more nodes")
        .usage("NODE NAME KEY_1=VAL_1:TAINT_EFFECT_1 ... KEY_N=VAL_N:TAINT_EFFECT_N")
        .examples(&["kubectl taint nodes foo dedicated=special-user:NoSchedule", "kubectl taint nodes foo dedicated-"])
        .flags(print::write_flags("kubectl-taint"))
        .flags([
            resolve::selector_flag(),
            print::validate_flag(),
            Flag::switch("all", "All Nodes."),
            Flag::switch("overwrite", "Present taints may be replaced."),
        ])
        .runs(|context| Box::pin(run(context)))
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Taint {
    key: String,
    value: String,
    effect: String,
}

/// What the arguments ask for.
#[derive(Debug, Default)]
struct Changes {
    added: Vec<Taint>,
    /// Taints by key, and effect if it is not empty.
    removed: Vec<Taint>,
}

impl Changes {
    fn parse(texts: &[String]) -> Result<Self, String> {
        let mut changes = Self::default();
        for text in texts {
            match text.strip_suffix('-') {
                Some(rest) => {
                    let taint = Taint::parse(rest).map_err(|problem| format!("invalid taint spec: {text}{problem}"))?;
                    if !taint.effect.is_empty() {
                        taint.check_effect()?;
                    }
                    changes.removed.push(taint);
                }
                None => {
                    let taint = Taint::parse(text).map_err(|problem| format!("invalid taint spec: {text}{problem}"))?;
                    taint.check_effect()?;
                    if changes.added.iter().any(|t| t.key == taint.key && t.effect == taint.effect) {
                        return Err(format!(
                            "duplicated taints with the same key and effect: {{{} {} {} <nil>}}",
                            taint.key, taint.value, taint.effect
                        ));
                    }
                    changes.added.push(taint);
                }
            }
        }
        Ok(changes)
    }

    /// Taints that are to be added and removed.
    fn conflicts(&self) -> Vec<String> {
        let conflicting = |gone: &&Taint| {
            self.added.iter().any(|new| gone.key == new.key && (gone.effect.is_empty() || gone.effect == new.effect))
        };
        self.removed.iter().filter(conflicting).map(|taint| format!("{}={}", taint.key, taint.effect)).collect()
    }

    /// The taints of a Node afterwards, and the word for what was done.
    fn apply(&self, node: &str, taints: &[Value], overwrite: bool) -> Result<(Vec<Value>, &'static str), CommandError> {
        let is = |taint: &Value, other: &Taint| {
            taint["key"] == other.key.as_str() && (other.effect.is_empty() || taint["effect"] == other.effect.as_str())
        };
        if !overwrite {
            let known: Vec<&str> = self
                .added
                .iter()
                .filter(|new| taints.iter().any(|taint| is(taint, new)))
                .map(|new| new.key.as_str())
                .collect();
            if !known.is_empty() {
                return Err(CommandError::plain(format!(
                    "node {node} already has {} taint(s) with same effect(s) and --overwrite is false",
                    known.join(",")
                )));
            }
        }
        let mut kept: Vec<Value> = Vec::new();
        let mut missing = Vec::new();
        for gone in &self.removed {
            if !taints.iter().any(|taint| is(taint, gone)) {
                let effect = if gone.effect.is_empty() { String::new() } else { format!(":{}", gone.effect) };
                missing.push(CommandError::plain(format!("taint \"{}{effect}\" not found", gone.key)));
            }
        }
        CommandError::all(missing)?;
        kept.extend(self.added.iter().map(|taint| {
            let mut new = json!({"key": taint.key, "effect": taint.effect});
            if !taint.value.is_empty() {
                new["value"] = taint.value.as_str().into();
            }
            new
        }));
        let stays = |taint: &&Value| !self.added.iter().chain(&self.removed).any(|other| is(taint, other));
        kept.extend(taints.iter().filter(stays).cloned());
        let word = match (self.removed.is_empty(), self.added.is_empty()) {
            _ if overwrite => "modified",
            (false, false) => "modified",
            (false, true) => "untainted",
            _ => "tainted",
        };
        Ok((kept, word))
    }
}

impl Taint {
    /// `key[=value][:effect]`; what is wrong follows the text.
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (pair, effect) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let mut words = pair.split('=');
        let (key, value) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if parts.next().is_some() || words.next().is_some() {
            return Err(String::new());
        }
        if effect.is_empty() && pair.contains('=') {
            return Err(format!(", {KEY_RULE}"));
        }
        if key.is_empty() {
            return Err(format!(", name part must be non-empty; {KEY_RULE}"));
        }
        let problems = names::qualified_name(key);
        if !problems.is_empty() {
            return Err(format!(", {}", problems.join("; ")));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
    }

    fn check_effect(&self) -> Result<(), String> {
        match EFFECTS.contains(&self.effect.as_str()) {
            true => Ok(()),
            false => Err(format!("invalid taint effect: {}, unsupported taint effect", self.effect)),
        }
    }
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let is_change = |argument: &String| argument.contains(['=', ':']) || argument.ends_with('-');
    let at = context.args.iter().position(is_change).unwrap_or(context.args.len());
    let (resources, texts) = context.args.split_at(at);
    let Some(kind) = resources.first() else {
        return Err(CommandError::plain("one or more resources must be specified as <resource> <name>"));
    };
    if texts.is_empty() {
        return Err(CommandError::plain("at least one taint update is required"));
    }
    let changes = Changes::parse(texts).map_err(|text| context.usage(text))?;
    let kind = kind.split('/').next().unwrap_or(kind);
    if !["nodes", "node", "no"].contains(&kind) {
        return Err(CommandError::plain(format!("invalid resource type {kind}, only node types are supported")));
    }
    let conflicts = changes.conflicts();
    if !conflicts.is_empty() {
        return Err(CommandError::plain(format!(
            "can not both modify and remove the following taint(s) in the same command: {}",
            conflicts.join(", ")
        )));
    }
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, DryRun::None)?;
    let mut out = context.streams.out.clone();
    let found = Query::of(context).arguments(resources).infos(context).await?;
    let mut errors = found.errors;
    let cluster = context.cluster().await?;
    for info in found.infos {
        let taints = info.object["spec"]["taints"].as_array().cloned().unwrap_or_default();
        let (taints, word) = match changes.apply(&info.name, &taints, context.flags.bool("overwrite")) {
            Ok(outcome) => outcome,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let mut object = info.object.clone();
        object["spec"]["taints"] = Value::Array(taints.clone());
        if dry_run != DryRun::Client {
            let patch = json!({"spec": {"taints": if taints.is_empty() { Value::Null } else { Value::Array(taints) }}});
            let call = Call::patch(&info.path(), "application/strategic-merge-patch+json", &patch)
                .query_if("dryRun", dry_run.query())
                .query("fieldManager", context.flags.text("field-manager"));
            match cluster.json(&call).await {
                Ok(patched) => object = patched,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            }
        }
        results.print(&object, word, &mut out)?;
    }
    CommandError::all(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(texts: &[&str]) -> Result<Changes, String> {
        Changes::parse(&texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn taints_are_added_replaced_and_removed() {
        let present = [json!({"key": "a", "value": "b", "effect": "NoSchedule"})];
        let apply = |texts: &[&str], overwrite| changes(texts).expect("parsed").apply("n", &present, overwrite);
        let (taints, word) = apply(&["c:NoExecute"], false).expect("applied");
        assert_eq!((taints.len(), word), (2, "tainted"));
        let (taints, word) = apply(&["a-"], false).expect("applied");
        assert_eq!((taints.len(), word), (0, "untainted"));
        let (taints, word) = apply(&["a=c:NoSchedule"], true).expect("applied");
        assert_eq!((taints[0]["value"].as_str(), taints.len(), word), (Some("c"), 1, "modified"));
        let refused = apply(&["a=c:NoSchedule"], false).expect_err("refused").to_string();
        assert_eq!(refused, "node n already has a taint(s) with same effect(s) and --overwrite is false");
        assert_eq!(
            apply(&["x:NoExecute-"], false).expect_err("missing").to_string(),
            "taint \"x:NoExecute\" not found"
        );
        assert_eq!(
            changes(&["a:Bogus"]).expect_err("refused"),
            "invalid taint effect: Bogus, unsupported taint effect"
        );
        assert_eq!(changes(&["a:NoSchedule", "a-"]).expect("parsed").conflicts(), ["a="]);
    }
}
