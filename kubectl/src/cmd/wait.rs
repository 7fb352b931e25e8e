//! `kubectl wait`.

use std::time::Duration;

use machinery::{Status, StatusDetails, meta};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    cluster::Cluster,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    follow,
    pods::timed_out,
    print::{self, DryRun, Results, jsonpath::Template},
    resolve::{self, Info, Query},
};

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Time between two looks for an object that is to be made.
const POLL: Duration = Duration::from_millis(500);

/// The command.
pub(crate) fn command() -> Command {
    Command::new("wait", "Wait for a specific condition on one or many resources")
        .usage("([-f FILENAME] | resource.group/resource.name | resource.group [(-l label | --all)]) [--for=create|--for=delete|--for condition=available|--for=jsonpath='{}'[=value]]")
        .examples(&["kubectl wait --for=condition=Ready pod/busybox1", "kubectl wait --for=delete pod/busybox1 --timeout=60s"])
        .flags(resolve::file_flags("File, directory or URL with the resource.").into_iter().filter_map(|flag| {
            match flag.name {
                "kustomize" => None,
                "recursive" => Some(flag.preset("true")),
                _ => Some(flag),
            }
        }))
        .flags(print::flags())
        .flags([
            resolve::selector_flag(),
            resolve::field_selector_flag(),
            resolve::all_namespaces_flag(),
            Flag::switch("all", "All objects of the types in the namespace."),
            resolve::local_flag(),
            Flag::array("for", "create, delete, condition=NAME[=VALUE] or jsonpath='{EXPRESSION}'[=VALUE]."),
            Flag::duration("timeout", "30s", "Time to wait; 0 looks once, a negative one waits a week."),
        ])
        .runs(|context| Box::pin(run(context)))
}

/// What is waited for.
enum Goal {
    Create,
    Delete,
    Condition { name: String, value: String },
    Path { template: Box<Template>, value: Option<String> },
}

impl Goal {
    fn parse(text: &str) -> Result<Self, CommandError> {
        let unknown = || CommandError::plain(format!("unrecognized condition: {text:?}"));
        match text.to_lowercase().as_str() {
            "create" => return Ok(Self::Create),
            "delete" => return Ok(Self::Delete),
            _ => {}
        }
        if let Some(rest) = text.strip_prefix("condition=") {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
            return Ok(Self::Condition { name: name.to_owned(), value: value.to_owned() });
        }
        let rest = text.strip_prefix("jsonpath=").ok_or_else(unknown)?;
        let (path, value) = match rest.rfind('}') {
            Some(end) => (&rest[..=end], rest[end + 1..].strip_prefix('=')),
            None => rest.split_once('=').map_or((rest, None), |(path, value)| (path, Some(value))),
        };
        let path = path.trim_matches(['\'', '"']);
        let template = Template::parse_relaxed(path).map_err(|e| CommandError::plain(e.to_string()))?;
        let value = value.map(|value| value.trim_matches(['\'', '"']).to_owned());
        if value.as_ref().is_some_and(String::is_empty) {
            return Err(CommandError::plain(
                "jsonpath wait has to have a value after equal sign, like --for=jsonpath='{.status.readyReplicas}'=3",
            ));
        }
        Ok(Self::Path { template: Box::new(template), value })
    }

    /// Whether an object is as wanted; `None` is an object that is gone.
    fn is_met(&self, uid: &str, object: Option<&Value>) -> Result<bool, CommandError> {
        match (self, object) {
            (Self::Delete, None) => Ok(true),
            (Self::Delete, Some(object)) => Ok(meta::uid(object) != uid),
            (Self::Create, Some(_)) => Ok(true),
            (_, None) => Ok(false),
            (Self::Condition { name, value }, Some(object)) => Ok(condition_is(object, name, value)),
            (Self::Path { template, value }, Some(object)) => path_is(object, template, value.as_deref()),
        }
    }
}

fn condition_is(object: &Value, name: &str, value: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let mut named = conditions.filter(|c| c["type"].as_str().unwrap_or("").eq_ignore_ascii_case(name));
    let Some(condition) = named.next() else { return false };
    let generation = object["metadata"]["generation"].as_i64();
    let observed = condition["observedGeneration"].as_i64().or_else(|| object["status"]["observedGeneration"].as_i64());
    if let (Some(generation), Some(observed)) = (generation, observed)
        && observed < generation
    {
        return false;
    }
    condition["status"].as_str().unwrap_or("").eq_ignore_ascii_case(value)
}

fn path_is(object: &Value, template: &Template, wanted: Option<&str>) -> Result<bool, CommandError> {
    // What is not there yet may come.
    let Ok(found) = template.find(object) else { return Ok(false) };
    let Some(wanted) = wanted else { return Ok(!found.is_empty()) };
    match found.as_slice() {
        [] => Ok(false),
        [Value::Array(_) | Value::Object(_)] => {
            Err(CommandError::plain("jsonpath leads to a nested object or list which is not supported"))
        }
        [Value::String(text)] => Ok(text == wanted),
        [Value::Null] => Ok(wanted == "<nil>"),
        [other] => Ok(crate::print::jsonpath::text(other) == wanted),
        _ => Err(CommandError::plain("given jsonpath expression matches more than one value")),
    }
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let goals: Vec<Goal> = flags.list("for").iter().map(|text| Goal::parse(text)).collect::<Result<_, _>>()?;
    if goals.is_empty() {
        return Err(CommandError::plain("unrecognized condition: []"));
    }
    let limit = if flags.negative("timeout") { WEEK } else { flags.duration("timeout") };
    let deadline = Instant::now() + limit;
    let deletes = goals.iter().any(|goal| matches!(goal, Goal::Delete));
    if flags.bool("local") {
        return locally(context, &goals).await;
    }
    if goals.iter().any(|goal| matches!(goal, Goal::Create)) {
        created(context, deadline).await?;
    }
    let found = Query::of(context).latest().infos(context).await?;
    let mut errors = found.errors;
    if deletes {
        errors.retain(|error| error.status().is_none_or(|status| status.reason != "NotFound"));
    }
    if found.infos.is_empty() && errors.is_empty() {
        return if deletes { Ok(()) } else { Err(CommandError::plain("no matching resources found")) };
    }
    let cluster = context.cluster().await?;
    let mut results = Results::of(context, DryRun::None)?;
    let mut out = context.streams.out.clone();
    for info in found.infos {
        for goal in &goals {
            match one(context, &cluster, &info, goal, limit, deadline).await {
                Ok(object) => {
                    results.print(&object, "condition met", &mut out)?;
                    std::io::Write::flush(&mut out)?;
                }
                Err(error) => errors.push(error),
            }
        }
    }
    CommandError::all(errors)
}

/// `--local`: objects of files do not change, so one look tells.
async fn locally(context: &Context, goals: &[Goal]) -> Result<(), CommandError> {
    let infos = Query::of(context).infos(context).await?.all()?;
    let mut results = Results::of(context, DryRun::None)?;
    let mut errors = Vec::new();
    for info in infos {
        for goal in goals {
            match goal.is_met(meta::uid(&info.object), Some(&info.object))? {
                true => results.print(&info.object, "condition met", &mut context.streams.out.clone())?,
                false => errors.push(unmet(&info)),
            }
        }
    }
    CommandError::all(errors)
}

fn unmet(info: &Info) -> CommandError {
    CommandError::plain(format!("condition not met for {}/{}", info.resource.plural, info.name))
}

/// Waits until what is asked for exists.
async fn created(context: &Context, deadline: Instant) -> Result<(), CommandError> {
    loop {
        let found = Query::of(context).latest().infos(context).await?;
        let missing = |error: &CommandError| error.status().is_some_and(|status| status.reason == "NotFound");
        if !found.errors.iter().any(missing) {
            if !found.infos.is_empty() {
                return Ok(());
            }
            CommandError::all(found.errors)?;
        }
        if Instant::now() + POLL > deadline {
            return Err(timed_out());
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = context.stop.cancelled() => return Err(CommandError::Exit(130)),
        }
    }
}

async fn one(
    context: &Context,
    cluster: &Cluster,
    info: &Info,
    goal: &Goal,
    limit: Duration,
    deadline: Instant,
) -> Result<Value, CommandError> {
    let uid = meta::uid(&info.object);
    if limit.is_zero() {
        return match goal.is_met(uid, Some(&info.object))? {
            true => Ok(info.object.clone()),
            false => Err(unmet(info)),
        };
    }
    let waiting = follow::until(context, cluster, info, |object| {
        if goal.is_met(uid, object)? {
            return Ok(Some(object.unwrap_or(&info.object).clone()));
        }
        match object {
            Some(_) => Ok(None),
            None => Err(gone(info)),
        }
    });
    let late = || {
        CommandError::plain(format!(
            "timed out waiting for the condition on {}",
            format_args!("{}/{}", info.resource.plural, info.name)
        ))
    };
    tokio::time::timeout_at(deadline, waiting).await.unwrap_or_else(|_| Err(late()))
}

fn gone(info: &Info) -> CommandError {
    CommandError::server(Status {
        reason: "NotFound".into(),
        code: 404,
        message: format!("{} {:?} not found", info.resource.title(), info.name),
        details: Some(StatusDetails { name: info.name.clone(), ..StatusDetails::default() }),
        ..Status::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn goals_are_parsed_and_met() {
        let pod = json!({"metadata": {"uid": "u", "generation": 2}, "spec": {"n": 3}, "status": {"phase": "Running", "observedGeneration": 2,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}]}});
        let met = |goal: &str| Goal::parse(goal).expect("a goal").is_met("u", Some(&pod)).expect("judged");
        for goal in [
            "condition=ready",
            "condition=Ready=true",
            "jsonpath={.status.phase}=Running",
            "jsonpath='{.status.phase}'=Running",
            "jsonpath=.spec.n=3",
            "jsonpath={.spec}",
            "create",
        ] {
            assert!(met(goal), "{goal}");
        }
        for goal in ["condition=Ready=false", "condition=Old", "condition=None", "jsonpath={.no}=x", "delete"] {
            assert!(!met(goal), "{goal}");
        }
        assert!(Goal::parse("delete").expect("a goal").is_met("other", Some(&pod)).expect("judged"));
        assert!(Goal::parse("bogus").is_err());
        let many = Goal::parse("jsonpath={.status.conditions[*].type}=x").expect("a goal").is_met("u", Some(&pod));
        assert_eq!(many.expect_err("refused").to_string(), "given jsonpath expression matches more than one value");
    }
}
