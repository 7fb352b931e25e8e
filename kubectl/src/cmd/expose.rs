//! `kubectl expose`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

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

/// Longest name of a Service.
const NAME: usize = 63;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("expose", "Take a replication controller, service, deployment or pod and expose it as a new Kubernetes service")
        .usage("(-f FILENAME | TYPE NAME) [--port=port] [--protocol=TCP|UDP|SCTP] [--target-port=number-or-name] [--name=name] [--external-ip=external-ip-of-service] [--type=type]")
        .examples(&["kubectl expose rc nginx --port=80 --target-port=8000", "kubectl expose deployment nginx --port=80"])
        .flags(resolve::file_flags("File, directory or URL with the resource to expose."))
        .flags(print::write_flags("kubectl-expose"))
        .flags([
            Flag::text("cluster-ip", "", "Address of the Service; None for a headless one."),
            Flag::text("external-ip", "", "An address that leads to the Service from outside."),
            Flag::text("labels", "", "Labels of the Service.").short('l'),
            Flag::text("load-balancer-ip", "", "Address of the load balancer."),
            Flag::text("name", "", "Name of the Service."),
            Flag::text("override-type", "merge", "How overrides are applied: json, merge or strategic."),
            Flag::text("overrides", "", "A patch of the generated object."),
            Flag::text("port", "", "Port of the Service; those of the resource by default."),
            Flag::text("protocol", "", "Protocol of the ports."),
            Flag::switch("save-config", "Keep the configuration in an annotation, for apply."),
            Flag::text("selector", "", "Labels that the Pods have; those of the resource by default."),
            Flag::text("session-affinity", "", "None or ClientIP."),
            Flag::text("target-port", "", "Port of the containers, by number or name."),
            Flag::text("type", "", "ClusterIP, NodePort, LoadBalancer or ExternalName."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let dry_run = DryRun::of(context)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    // The label query is about the Service here.
    let query = Query { selector: String::new(), ..Query::of(context) };
    let found = query.latest().infos(context).await?;
    let mut errors = found.errors;
    for info in found.infos {
        let mut service = match service(context, &info) {
            Ok(service) => super::run::overridden(context, service)?,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        if context.flags.bool("save-config") {
            last_applied::write_declared(&mut service);
        }
        if dry_run == DryRun::Client {
            results.print_declared(&service, "exposed", &mut out)?;
            continue;
        }
        let call = Call::post(&format!("/api/v1/namespaces/{}/services", info.namespace), &service)
            .query_if("dryRun", dry_run.query())
            .query("fieldManager", context.flags.text("field-manager"));
        match context.cluster().await?.json(&call).await {
            Ok(created) => results.print_declared(&created, "exposed", &mut out)?,
            Err(error) => errors.push(error),
        }
    }
    CommandError::all(errors)
}

fn service(context: &Context, info: &Info) -> Result<Value, CommandError> {
    let flags = &context.flags;
    let kind = info.resource.kind.as_str();
    if !["ReplicationController", "Service", "Pod", "Deployment", "ReplicaSet"].contains(&kind) {
        let group = if info.resource.group.is_empty() { String::new() } else { format!(".{}", info.resource.group) };
        return Err(CommandError::plain(format!("cannot expose a {kind}{group}")));
    }
    let selector = match flags.text("selector") {
        "" => selector(&info.object, kind).map_err(|text| {
            CommandError::plain(format!("couldn't retrieve selectors via --selector flag or introspection: {text}"))
        })?,
        given => pairs(given)?,
    };
    let known = container_ports(&info.object, kind);
    let numbers: Vec<i64> = match flags.text("port") {
        "" => known.iter().map(|(port, _)| *port).collect(),
        given => given.split(',').map(number).collect::<Result<_, _>>()?,
    };
    if numbers.is_empty() {
        return Err(CommandError::plain("couldn't find port via --port flag or introspection"));
    }
    let protocols: BTreeMap<i64, &str> = known.iter().map(|(port, protocol)| (*port, protocol.as_str())).collect();
    let ports: Vec<Value> = numbers
        .iter()
        .enumerate()
        .map(|(at, port)| {
            let protocol = match flags.text("protocol") {
                "" => protocols.get(port).copied().unwrap_or("TCP"),
                given => given,
            };
            let mut entry =
                json!({"protocol": protocol, "port": port, "targetPort": target(flags.text("target-port"), *port)});
            if numbers.len() > 1 {
                entry["name"] = format!("port-{}", at + 1).into();
            }
            entry
        })
        .collect();
    let name = match flags.text("name") {
        "" => info.name.chars().take(NAME).collect::<String>(),
        given => given.to_owned(),
    };
    let labels = match flags.text("labels") {
        "" => info.object["metadata"]["labels"].as_object().cloned().unwrap_or_default(),
        given => pairs(given)?,
    };
    let mut metadata = json!({"name": name, "namespace": info.namespace});
    if !labels.is_empty() {
        metadata["labels"] = Value::Object(labels);
    }
    let mut spec = json!({"ports": ports, "selector": selector});
    let texts = [
        ("type", "type"),
        ("session-affinity", "sessionAffinity"),
        ("cluster-ip", "clusterIP"),
        ("load-balancer-ip", "loadBalancerIP"),
    ];
    for (flag, field) in texts {
        if let Some(text) = flags.non_empty(flag) {
            spec[field] = text.into();
        }
    }
    if let Some(address) = flags.non_empty("external-ip") {
        spec["externalIPs"] = json!([address]);
    }
    Ok(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}}),
    )
}

fn number(text: &str) -> Result<i64, CommandError> {
    text.trim().parse().map_err(|_| CommandError::plain(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
}

fn target(text: &str, port: i64) -> Value {
    match (text, text.parse::<i64>()) {
        ("", _) => port.into(),
        (_, Ok(number)) => number.into(),
        (name, Err(_)) => name.into(),
    }
}

/// `k=v,k=v`.
pub(super) fn pairs(text: &str) -> Result<Map<String, Value>, CommandError> {
    text.split(',')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.into())),
            _ => Err(CommandError::plain(format!("unexpected label spec: {pair}"))),
        })
        .collect()
}

/// Labels that choose the Pods of an object.
fn selector(object: &Value, kind: &str) -> Result<Map<String, Value>, String> {
    let spec = &object["spec"];
    let (labels, expressions, missing) = match kind {
        "Pod" => (&object["metadata"]["labels"], &Value::Null, "the pod has no labels and cannot be exposed"),
        "Service" => (&spec["selector"], &Value::Null, "the service has no pod selector set"),
        "ReplicationController" => {
            (&spec["selector"], &Value::Null, "the replication controller has no pod selector set")
        }
        "Deployment" => (
            &spec["selector"]["matchLabels"],
            &spec["selector"]["matchExpressions"],
            "invalid deployment: no selectors, therefore cannot be exposed",
        ),
        _ => (
            &spec["selector"]["matchLabels"],
            &spec["selector"]["matchExpressions"],
            "invalid replicaset: no selectors, therefore cannot be exposed",
        ),
    };
    match labels.as_object().filter(|labels| !labels.is_empty()) {
        None => Err(missing.to_owned()),
        Some(_) if expressions.as_array().is_some_and(|e| !e.is_empty()) => {
            Err(format!("couldn't convert expressions - \"{expressions}\" to map-based selector format"))
        }
        Some(labels) => Ok(labels.clone()),
    }
}

/// Ports with their protocols.
fn container_ports(object: &Value, kind: &str) -> Vec<(i64, String)> {
    let spec = &object["spec"];
    let read = |list: &Value, field: &str| -> Vec<(i64, String)> {
        let ports = list.as_array().into_iter().flatten();
        ports
            .filter_map(|port| Some((port[field].as_i64()?, port["protocol"].as_str().unwrap_or("TCP").to_owned())))
            .collect()
    };
    if kind == "Service" {
        return read(&spec["ports"], "port");
    }
    let spec = if kind == "Pod" { spec } else { &spec["template"]["spec"] };
    spec["containers"].as_array().into_iter().flatten().flat_map(|c| read(&c["ports"], "containerPort")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_selectors_are_found() {
        let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers":
            [{"ports": [{"containerPort": 80}]}, {"ports": [{"containerPort": 53, "protocol": "UDP"}]}]}}}});
        assert_eq!(container_ports(&deployment, "Deployment"), [(80, "TCP".to_owned()), (53, "UDP".to_owned())]);
        assert_eq!(Value::Object(selector(&deployment, "Deployment").expect("labels")), json!({"app": "web"}));
        let refused = selector(&json!({"metadata": {}}), "Pod").expect_err("none");
        assert_eq!(refused, "the pod has no labels and cannot be exposed");
        assert_eq!((target("", 80), target("http", 80), target("8080", 80)), (json!(80), json!("http"), json!(8080)));
    }
}
