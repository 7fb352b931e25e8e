//! `auth reconcile`: brings roles and bindings to what manifests say.

use std::io::Write;

use machinery::meta;
use serde_json::{Map, Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Info, Query},
};

pub(super) fn command() -> Command {
    Command::new(
        "reconcile",
        "Reconciles rules for RBAC role, role binding, cluster role, and cluster role binding objects",
    )
    .usage("-f FILENAME")
    .examples(&["kubectl auth reconcile -f my-rbac-rules.yaml"])
    .flags(resolve::file_flags("File, directory or URL with the roles and bindings."))
    .flags(print::flags())
    .flags([
        DryRun::flag(),
        Flag::switch("remove-extra-permissions", "Remove permissions that the manifests do not have."),
        Flag::switch("remove-extra-subjects", "Remove subjects that the manifests do not have."),
    ])
    .runs(|context| Box::pin(run(context)))
}

/// What has to be done to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    None,
    Create,
    Update,
    Recreate,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Create => "create",
            Self::Update => "update",
            Self::Recreate => "recreate",
        }
    }
}

/// An object as it is to be, with what differs.
#[derive(Debug)]
struct Plan {
    object: Value,
    operation: Operation,
    missing: Vec<Value>,
    extra: Vec<Value>,
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let query = Query::of(context).arguments(&[]);
    query.sources.require()?;
    if !context.args.is_empty() {
        return Err(CommandError::plain("no arguments are allowed"));
    }
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let found = query.infos(context).await?;
    let mut errors = found.errors;
    for info in found.infos {
        let field = match info.resource.kind.as_str() {
            "Role" | "ClusterRole" => "rules",
            "RoleBinding" | "ClusterRoleBinding" => "subjects",
            _ => continue,
        };
        match reconcile(context, &info, field, dry_run).await {
            Ok(plan) => report(context, &plan, field, &mut results)?,
            Err(error) => errors.push(error),
        }
    }
    CommandError::all(errors)
}

async fn reconcile(context: &Context, info: &Info, field: &str, dry_run: DryRun) -> Result<Plan, CommandError> {
    let cluster = context.cluster().await?;
    let existing = match cluster.get(&info.path()).await {
        Ok(object) => Some(object),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let flag = if field == "rules" { "remove-extra-permissions" } else { "remove-extra-subjects" };
    let mut made = plan(existing.as_ref(), &info.object, field, context.flags.bool(flag));
    let written = |call: Call| call.query_if("dryRun", dry_run.query());
    let call = match made.operation {
        _ if dry_run == DryRun::Client => return Ok(made),
        Operation::None => return Ok(made),
        // What is not deleted cannot be made again, not even as a trial.
        Operation::Recreate if dry_run == DryRun::Server => return Ok(made),
        Operation::Create => written(Call::post(&info.collection(), &made.object)),
        Operation::Update => written(Call::put(&info.path(), &made.object)),
        Operation::Recreate => {
            let uid = existing.as_ref().map_or("", meta::uid);
            let options = json!({"preconditions": {"uid": uid}});
            cluster.json(&Call::delete(&info.path(), &options)).await?;
            meta::metadata_mut(&mut made.object).remove("resourceVersion");
            meta::metadata_mut(&mut made.object).remove("uid");
            written(Call::post(&info.collection(), &made.object))
        }
    };
    made.object = cluster.json(&call).await?;
    Ok(made)
}

fn plan(existing: Option<&Value>, wanted: &Value, field: &str, remove: bool) -> Plan {
    let split = |object: &Value| match field {
        "rules" => break_down(&object["rules"]),
        _ => object["subjects"].as_array().cloned().unwrap_or_default(),
    };
    let wanted_items = split(wanted);
    let Some(existing) = existing else {
        return Plan { object: wanted.clone(), operation: Operation::Create, missing: wanted_items, extra: Vec::new() };
    };
    let held = split(existing);
    let covers = |items: &[Value], item: &Value| {
        items.iter().any(|i| if field == "rules" { covers(i, item) } else { i == item })
    };
    let missing: Vec<Value> = wanted_items.iter().filter(|i| !covers(&held, i)).cloned().collect();
    let extra: Vec<Value> = held.iter().filter(|i| !covers(&wanted_items, i)).cloned().collect();
    let mut object = existing.clone();
    let merged = merge_metadata(&mut object, wanted);
    let role_changed = field == "subjects" && existing["roleRef"] != wanted["roleRef"];
    if role_changed {
        object["roleRef"] = wanted["roleRef"].clone();
    }
    let removing = remove && !extra.is_empty();
    if removing {
        object[field] = wanted[field].clone();
    } else if !missing.is_empty() {
        let mut items = existing[field].as_array().cloned().unwrap_or_default();
        items.extend(missing.iter().cloned());
        object[field] = json!(items);
    }
    let operation = match () {
        () if role_changed => Operation::Recreate,
        () if merged || removing || !missing.is_empty() => Operation::Update,
        () => Operation::None,
    };
    Plan { object, operation, missing, extra: if remove { extra } else { Vec::new() } }
}

/// Adds labels and annotations; tells whether there were any.
fn merge_metadata(object: &mut Value, wanted: &Value) -> bool {
    let mut changed = false;
    for field in ["labels", "annotations"] {
        for (key, value) in meta::text_map(wanted, field) {
            let metadata = meta::metadata_mut(object);
            if metadata.get(field).and_then(|m| m.get(key)).and_then(Value::as_str) != Some(value) {
                let map = metadata.entry(field).or_insert_with(|| Value::Object(Map::new()));
                map[key] = json!(value);
                changed = true;
            }
        }
    }
    changed
}

fn texts(rule: &Value, field: &str) -> Vec<String> {
    let items = rule[field].as_array().into_iter().flatten();
    items.filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Rules of one verb and one resource or path each.
fn break_down(rules: &Value) -> Vec<Value> {
    let mut simple = Vec::new();
    for rule in rules.as_array().into_iter().flatten() {
        let names = texts(rule, "resourceNames");
        for group in texts(rule, "apiGroups") {
            for resource in texts(rule, "resources") {
                for verb in texts(rule, "verbs") {
                    let mut one = json!({"verbs": [verb], "apiGroups": [group], "resources": [resource]});
                    if names.is_empty() {
                        simple.push(one);
                        continue;
                    }
                    for name in &names {
                        one["resourceNames"] = json!([name]);
                        simple.push(one.clone());
                    }
                }
            }
        }
        for url in texts(rule, "nonResourceURLs") {
            for verb in texts(rule, "verbs") {
                simple.push(json!({"verbs": [verb], "nonResourceURLs": [url]}));
            }
        }
    }
    simple
}

/// Whether one simple rule permits what another does.
fn covers(owner: &Value, part: &Value) -> bool {
    let all = |field: &str, fits: &dyn Fn(&str, &str) -> bool| {
        let held = texts(owner, field);
        texts(part, field).iter().all(|wanted| held.iter().any(|h| h == "*" || h == wanted || fits(h, wanted)))
    };
    let never = |_: &str, _: &str| false;
    let of_resource = |held: &str, wanted: &str| {
        held.strip_prefix("*/").is_some_and(|below| wanted.split_once('/').is_some_and(|(_, b)| b == below))
    };
    let of_path = |held: &str, wanted: &str| held.strip_suffix('*').is_some_and(|prefix| wanted.starts_with(prefix));
    let names = texts(owner, "resourceNames").is_empty()
        || (!texts(part, "resourceNames").is_empty() && all("resourceNames", &never));
    all("verbs", &never)
        && all("apiGroups", &never)
        && all("resources", &of_resource)
        && all("nonResourceURLs", &of_path)
        && names
}

fn report(context: &Context, plan: &Plan, field: &str, results: &mut Results) -> Result<(), CommandError> {
    results.print(&plan.object, "reconciled", &mut context.streams.out.clone())?;
    let mut err = context.streams.err.clone();
    if plan.operation != Operation::None {
        writeln!(err, "\treconciliation required {}", plan.operation.text())?;
    }
    for (items, what) in [(&plan.missing, "missing"), (&plan.extra, "extra")] {
        if items.is_empty() {
            continue;
        }
        let done = if what == "missing" { "added" } else { "removed" };
        writeln!(err, "\t{what} {field} {done}:")?;
        for item in items {
            writeln!(err, "\t\t{}", shown(item, field))?;
        }
    }
    Ok(())
}

fn shown(item: &Value, field: &str) -> String {
    let list = |key: &str| texts(item, key).join(" ");
    let text = |key: &str| item[key].as_str().unwrap_or("").to_owned();
    match field {
        "rules" => format!(
            "{{Verbs:[{}] APIGroups:[{}] Resources:[{}] ResourceNames:[{}] NonResourceURLs:[{}]}}",
            list("verbs"),
            list("apiGroups"),
            list("resources"),
            list("resourceNames"),
            list("nonResourceURLs")
        ),
        _ => format!(
            "{{Kind:{} APIGroup:{} Name:{} Namespace:{}}}",
            text("kind"),
            text("apiGroup"),
            text("name"),
            text("namespace")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_added() {
        let role = |verbs: Value| json!({"rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}]});
        let existing = role(json!(["get", "watch"]));
        let made = plan(Some(&existing), &role(json!(["get", "list"])), "rules", false);
        assert_eq!((made.operation, made.missing.len(), made.extra.len()), (Operation::Update, 1, 0));
        assert_eq!(made.object["rules"].as_array().map(Vec::len), Some(2));
        let made = plan(Some(&existing), &role(json!(["get"])), "rules", true);
        assert_eq!((made.operation, made.extra.len()), (Operation::Update, 1));
        assert_eq!(plan(Some(&role(json!(["*"]))), &existing, "rules", false).operation, Operation::None);
    }
}
