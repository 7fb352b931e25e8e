//! `kubectl set env`.

use std::io::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{apply, container, flags, kind_and_name, objects, pod_spec, split};
use crate::{
    cluster::Cluster,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    resolve::{self, Info, Query},
};

/// The command.
pub(super) fn command() -> Command {
    Command::new("env", "Update environment variables on a pod template")
        .usage("RESOURCE/NAME KEY_1=VAL_1 ... KEY_N=VAL_N")
        .examples(&["kubectl set env deployment/registry STORAGE_DIR=/local", "kubectl set env deployment/app --list"])
        .flags(flags())
        .flags([resolve::selector_flag()])
        .flags([
            Flag::text("containers", "*", "Containers by name; * stands for anything.").short('c'),
            Flag::text("from", "", "ConfigMap or Secret whose keys become variables."),
            Flag::text("prefix", "", "What the names of variables begin with."),
            Flag::array("env", "A variable, as KEY=VALUE.").short('e'),
            Flag::list("keys", "Keys that become variables."),
            Flag::switch("list", "Print the variables."),
            Flag::switch("resolve", "Print the values that references stand for."),
            Flag::on("overwrite", "Present values may be replaced."),
        ])
        .runs(|context| Box::pin(run(context)))
}

fn is_change(argument: &str) -> bool {
    argument.contains('=') || argument.ends_with('-')
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let (resources, mut changes) = split(&context.args, is_change);
    changes.extend(flags.list("env").iter().cloned());
    if resources.is_empty() && Query::of(context).sources.is_empty() {
        return Err(CommandError::plain(
            "one or more resources must be specified as <resource> <name> or <resource>/<name>",
        ));
    }
    if flags.bool("list") && flags.given("output") {
        return Err(CommandError::plain("--list and --output may not be specified together"));
    }
    let (mut set, removed) = parse(&changes)?;
    set.extend(referenced(context).await?);
    if flags.bool("list") && set.is_empty() && removed.is_empty() {
        return list(context, &resources).await;
    }
    let overwrite = flags.bool("overwrite");
    let pattern = flags.text("containers");
    let mut err = context.streams.err.clone();
    apply(context, &resources, "env updated", "failed to patch env update to pod template", |info| {
        let (change, matched) = container::change(info, pattern, |container| {
            update(container, &set, &removed, overwrite)
                .map_err(|text| CommandError::plain(format!("{}/{} {text}", info.resource.plural, info.name)))
        })?;
        if matched == 0 {
            let (kind, name) = kind_and_name(info);
            writeln!(err, "Warning: {kind}/{name} does not have any containers matching {pattern:?}")?;
        }
        Ok(change)
    })
    .await
}

/// Variables to set, and names of those to remove.
fn parse(changes: &[String]) -> Result<(Vec<Value>, Vec<String>), CommandError> {
    let (mut set, mut removed) = (Vec::new(), Vec::new());
    for change in changes {
        match change.split_once('=') {
            Some((name, value)) => set.push(json!({"name": name, "value": value})),
            None => removed.push(change.trim_end_matches('-').to_owned()),
        }
    }
    if set.iter().any(|item: &Value| removed.iter().any(|name| item["name"] == name.as_str())) {
        return Err(CommandError::plain(
            "can not both modify and remove the same environment variable in the same command",
        ));
    }
    Ok((set, removed))
}

/// Variables that take their values from `--from`.
async fn referenced(context: &Context) -> Result<Vec<Value>, CommandError> {
    let (from, prefix, keys) = (context.flags.text("from"), context.flags.text("prefix"), context.flags.list("keys"));
    if from.is_empty() {
        return Ok(Vec::new());
    }
    let query = Query { arguments: vec![from.to_owned()], ..Query::default() };
    let infos = query.infos(context).await?.all()?;
    let mut all = Vec::new();
    for info in infos {
        let reference = match info.object["kind"].as_str() {
            Some("ConfigMap") => "configMapKeyRef",
            Some("Secret") => "secretKeyRef",
            other => return Err(CommandError::plain(format!("unsupported resource specified in --from: {other:?}"))),
        };
        let mut names: Vec<&String> =
            info.object["data"].as_object().into_iter().flatten().map(|(key, _)| key).collect();
        names.sort();
        for key in names.into_iter().filter(|key| keys.is_empty() || keys.contains(key)) {
            let name = variable_name(key);
            if name != *key {
                writeln!(context.streams.err.clone(), "Warning: key {key} transferred to {name}")?;
            }
            let name = format!("{prefix}{name}");
            all.push(json!({"name": name, "valueFrom": {reference: {"key": key, "name": info.name}}}));
        }
    }
    Ok(all)
}

fn variable_name(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Sets and removes variables of a container.
fn update(container: &mut Value, set: &[Value], removed: &[String], overwrite: bool) -> Result<(), String> {
    let mut env = container["env"].as_array().cloned().unwrap_or_default();
    let was_empty = env.is_empty();
    for variable in set {
        match env.iter_mut().find(|present| present["name"] == variable["name"]) {
            Some(present) => {
                if !overwrite {
                    let value = present["value"].as_str().unwrap_or("");
                    let name = variable["name"].as_str().unwrap_or("");
                    return Err(format!("'{name}' already has a value ({value}), and --overwrite is false"));
                }
                *present = variable.clone();
            }
            None => env.push(variable.clone()),
        }
    }
    env.retain(|variable| !removed.iter().any(|name| variable["name"] == name.as_str()));
    if env.is_empty() {
        if !was_empty && let Some(container) = container.as_object_mut() {
            container.remove("env");
        }
        return Ok(());
    }
    container["env"] = Value::Array(env);
    Ok(())
}

/// `--list`.
async fn list(context: &Context, resources: &[String]) -> Result<(), CommandError> {
    let (infos, errors) = objects(context, resources, context.flags.bool("local")).await?;
    let mut out = context.streams.out.clone();
    for info in infos {
        let (_, spec) = pod_spec(&info)?;
        let (kind, name) = kind_and_name(&info);
        for container in container::LISTS.iter().filter_map(|list| spec[*list].as_array()).flatten() {
            let container_name = container["name"].as_str().unwrap_or("");
            if !super::fits(context.flags.text("containers"), container_name) {
                continue;
            }
            writeln!(out, "# {kind} {name}, container {container_name}")?;
            for variable in container["env"].as_array().into_iter().flatten() {
                writeln!(out, "{}", shown(context, &info, variable).await?)?;
            }
        }
    }
    CommandError::all(errors)
}

async fn shown(context: &Context, info: &Info, variable: &Value) -> Result<String, CommandError> {
    let name = variable["name"].as_str().unwrap_or("");
    let from = &variable["valueFrom"];
    if from.is_null() {
        return Ok(format!("{name}={}", variable["value"].as_str().unwrap_or("")));
    }
    if context.flags.bool("resolve") {
        let cluster = context.cluster().await?;
        if let Some(value) = resolved(&cluster, info, from).await? {
            return Ok(format!("{name}={value}"));
        }
    }
    let text = |part: &str, field: &str| from[part][field].as_str().unwrap_or("").to_owned();
    let source = if !from["fieldRef"].is_null() {
        format!("field path {}", text("fieldRef", "fieldPath"))
    } else if !from["resourceFieldRef"].is_null() {
        let container = text("resourceFieldRef", "containerName");
        let container = if container.is_empty() { container } else { format!("{container}/") };
        format!("resource field {container}{}", text("resourceFieldRef", "resource"))
    } else if !from["configMapKeyRef"].is_null() {
        format!("configmap {}, key {}", text("configMapKeyRef", "name"), text("configMapKeyRef", "key"))
    } else {
        format!("secret {}, key {}", text("secretKeyRef", "name"), text("secretKeyRef", "key"))
    };
    Ok(format!("# {name} from {source}"))
}

/// The value that a reference to a ConfigMap or a Secret stands for.
async fn resolved(cluster: &Cluster, info: &Info, from: &Value) -> Result<Option<String>, CommandError> {
    for (field, plural) in [("configMapKeyRef", "configmaps"), ("secretKeyRef", "secrets")] {
        let reference = &from[field];
        let (Some(name), Some(key)) = (reference["name"].as_str(), reference["key"].as_str()) else { continue };
        let object = cluster.get(&format!("/api/v1/namespaces/{}/{plural}/{name}", info.namespace)).await?;
        let Some(value) = object["data"][key].as_str() else {
            return Err(CommandError::plain(format!("key {key} not found in {} {name}", plural.trim_end_matches('s'))));
        };
        if plural == "configmaps" {
            return Ok(Some(value.to_owned()));
        }
        let bytes = STANDARD.decode(value).map_err(|e| CommandError::plain(e.to_string()))?;
        return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_set_in_place_and_removed() {
        let mut container = json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
        let (set, removed) = parse(&["B=3".into(), "C=4".into(), "A-".into()]).expect("changes");
        update(&mut container, &set, &removed, true).expect("updated");
        assert_eq!(container["env"], json!([{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]));
        let refused = update(&mut container, &set, &[], false).expect_err("refused");
        assert_eq!(refused, "'B' already has a value (3), and --overwrite is false");
        assert!(parse(&["A=1".into(), "A-".into()]).is_err());
        assert_eq!(variable_name("tls.crt-x"), "TLS_CRT_X");
    }
}
