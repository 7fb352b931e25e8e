//! `kubectl autoscale`.

use machinery::quantity::Quantity;
use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    last_applied,
    print::{self, DryRun, Results},
    resolve::{self, Info, Query},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("autoscale", "Auto-scale a deployment, replica set, stateful set, or replication controller")
        .usage("(-f FILENAME | TYPE NAME | TYPE/NAME) [--min=MINPODS] --max=MAXPODS [--cpu=CPU] [--memory=MEMORY]")
        .examples(&["kubectl autoscale deployment foo --min=2 --max=10", "kubectl autoscale rc foo --max=5 --cpu=80%"])
        .flags(resolve::file_flags("File, directory or URL with the resource to scale."))
        .flags(print::write_flags("kubectl-autoscale"))
        .flags([
            Flag::int("min", "-1", "Least number of Pods."),
            Flag::int("max", "-1", "Largest number of Pods. Required.").required(),
            Flag::int("cpu-percent", "-1", "Average use of requested CPU.").deprecated(
                "Use --cpu with percentage or resource quantity format (e.g., '70%' for utilization or '500m' for \
                 milliCPU).",
            ),
            Flag::text("cpu", "", "Average use of CPU: 70% of requests, or 500m."),
            Flag::text("memory", "", "Average use of memory: 60% of requests, or 200Mi."),
            Flag::text("name", "", "Name of the autoscaler; that of the resource by default."),
            Flag::switch("save-config", "Keep the configuration in an annotation, for apply."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let (least, most) = (flags.int("min"), flags.int("max"));
    if most < 1 {
        return Err(CommandError::plain(format!("--max=MAXPODS is required and must be at least 1, max: {most}")));
    }
    if most < least {
        return Err(CommandError::plain(format!(
            "--max=MAXPODS must be larger or equal to --min=MINPODS, max: {most}, min: {least}"
        )));
    }
    let metrics = metrics(context)?;
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let found = Query::of(context).latest().infos(context).await?;
    let mut errors = found.errors;
    let cluster = context.cluster().await?;
    for info in found.infos {
        if cluster.get(&format!("{}/scale", info.path())).await.is_err_and(|error| error.is_not_found()) {
            let resource = &info.resource;
            errors.push(CommandError::plain(format!(
                "cannot autoscale a {}: could not find scale subresource for {}/{}, Resource={} in discovery information",
                resource.kind, resource.group, resource.version, resource.plural
            )));
            continue;
        }
        let mut object = autoscaler(context, &info, &metrics);
        if flags.bool("save-config") {
            last_applied::write_declared(&mut object);
        }
        if dry_run == DryRun::Client {
            results.print_declared(&object, "autoscaled", &mut out)?;
            continue;
        }
        let path = format!("/apis/autoscaling/v2/namespaces/{}/horizontalpodautoscalers", info.namespace);
        let call = Call::post(&path, &object)
            .query_if("dryRun", dry_run.query())
            .query("fieldManager", flags.text("field-manager"));
        match cluster.json(&call).await {
            Ok(created) => results.print_declared(&created, "autoscaled", &mut out)?,
            Err(_) if metrics.is_empty() => errors.push(CommandError::plain(
                "failed to create autoscaling/v2 HPA and the configuration is incompatible with autoscaling/v1: empty \
                 input",
            )),
            Err(error) => errors.push(error),
        }
    }
    CommandError::all(errors)
}

fn metrics(context: &Context) -> Result<Vec<Value>, CommandError> {
    let flags = &context.flags;
    let mut metrics = Vec::new();
    if flags.int("cpu-percent") >= 0 {
        metrics.push(metric("cpu", json!({"type": "Utilization", "averageUtilization": flags.int("cpu-percent")})));
    }
    for name in ["cpu", "memory"] {
        if let Some(text) = flags.non_empty(name) {
            let target =
                target(text).ok_or_else(|| CommandError::plain(format!("invalid resource {name} value: {text}")))?;
            metrics.push(metric(name, target));
        }
    }
    Ok(metrics)
}

fn metric(name: &str, target: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": name, "target": target}})
}

/// `70%`, or a quantity.
fn target(text: &str) -> Option<Value> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: i64 = percent.parse().ok()?;
        return Some(json!({"type": "Utilization", "averageUtilization": percent}));
    }
    let quantity = Quantity::parse(text).ok()?;
    Some(json!({"type": "AverageValue", "averageValue": quantity.to_string()}))
}

fn autoscaler(context: &Context, info: &Info, metrics: &[Value]) -> Value {
    let flags = &context.flags;
    let name = flags.non_empty("name").unwrap_or(&info.name);
    let resource = &info.resource;
    let mut spec = json!({
        "scaleTargetRef": {"kind": resource.kind, "name": info.name, "apiVersion": resource.api_version()},
        "maxReplicas": flags.int("max"),
    });
    if flags.int("min") > 0 {
        spec["minReplicas"] = flags.int("min").into();
    }
    if !metrics.is_empty() {
        spec["metrics"] = metrics.into();
    }
    json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": info.namespace},
        "spec": spec,
        "status": {"desiredReplicas": 0, "currentMetrics": null},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_percents_or_amounts() {
        assert_eq!(target("70%"), Some(json!({"type": "Utilization", "averageUtilization": 70})));
        assert_eq!(target("1000m"), Some(json!({"type": "AverageValue", "averageValue": "1"})));
        assert_eq!((target("x"), target("x%")), (None, None));
    }
}
