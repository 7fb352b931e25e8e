//! `create service`.

use serde_json::{Value, json};

use super::{Generated, generator_flags};
use crate::{command::Command, context::Context, error::CommandError, flags::Flag};

pub(super) fn command() -> Command {
    let tcp = || Flag::list("tcp", "Pairs of ports, '<port>:<targetPort>'.");
    Command::new("service", "Create a service using a specified subcommand")
        .aliases(&["svc"])
        .usage("[flags]")
        .commands(vec![
            Command::new("clusterip", "Create a ClusterIP service")
                .usage("NAME [--tcp=<port>:<targetPort>] [--dry-run=server|client|none]")
                .examples(&["kubectl create service clusterip my-cs --tcp=5678:8080"])
                .flags(generator_flags())
                .flags([tcp(), Flag::text("clusterip", "", "The cluster IP; 'None' for a headless service.")])
                .runs(|context| Box::pin(run(context, "ClusterIP"))),
            Command::new("externalname", "Create an ExternalName service")
                .usage("NAME --external-name external.name [--dry-run=server|client|none]")
                .examples(&["kubectl create service externalname my-ns --external-name bar.com"])
                .flags(generator_flags())
                .flags([tcp(), Flag::text("external-name", "", "External name of the service.").required()])
                .runs(|context| Box::pin(run(context, "ExternalName"))),
            Command::new("loadbalancer", "Create a LoadBalancer service")
                .usage("NAME [--tcp=port:targetPort] [--dry-run=server|client|none]")
                .examples(&["kubectl create service loadbalancer my-lbs --tcp=5678:8080"])
                .flags(generator_flags())
                .flags([tcp()])
                .runs(|context| Box::pin(run(context, "LoadBalancer"))),
            Command::new("nodeport", "Create a NodePort service")
                .usage("NAME [--tcp=port:targetPort] [--dry-run=server|client|none]")
                .examples(&["kubectl create service nodeport my-ns --tcp=5678:8080"])
                .flags(generator_flags())
                .flags([tcp(), Flag::int("node-port", "0", "Port of the nodes.")])
                .runs(|context| Box::pin(run(context, "NodePort"))),
        ])
}

fn port_number(text: &str) -> Result<u16, CommandError> {
    let fail = |what: &str| CommandError::plain(format!("strconv.ParseUint: parsing {text:?}: {what}"));
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_digit()) {
        return Err(fail("invalid syntax"));
    }
    text.parse().map_err(|_| fail("value out of range"))
}

/// `80`, `80:8080`, `80:http`.
fn port(text: &str) -> Result<Value, CommandError> {
    let (port, target) = text.split_once(':').unwrap_or((text, text));
    let number = port_number(port)?;
    let target_value = match target.parse::<u16>() {
        Ok(number) => json!(number),
        Err(_) if target.chars().all(|c| c.is_ascii_digit()) => {
            return Err(port_number(target)
                .err()
                .unwrap_or_else(|| CommandError::plain(format!("invalid port {target}"))));
        }
        Err(_) => {
            let problems = machinery::names::port_name(target);
            if !problems.is_empty() {
                return Err(CommandError::plain(problems.join(",")));
            }
            json!(target)
        }
    };
    let name = if text.contains(':') { format!("{port}-{target}") } else { port.to_owned() };
    Ok(json!({"name": name, "port": number, "targetPort": target_value, "protocol": "TCP"}))
}

async fn run(context: &Context, kind: &str) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let flags = &context.flags;
    let cluster_ip = if kind == "ClusterIP" { flags.text("clusterip") } else { "" };
    let tcp = flags.list("tcp");
    if tcp.is_empty() && cluster_ip != "None" && kind != "ExternalName" {
        return Err(CommandError::plain("at least one tcp port specifier must be provided"));
    }
    if !tcp.is_empty() && cluster_ip == "None" && tcp.iter().any(|t| t.is_empty()) {
        return Err(CommandError::plain("can not map ports with clusterip=None"));
    }
    let mut ports = tcp.iter().map(|t| port(t)).collect::<Result<Vec<Value>, _>>()?;
    if kind == "NodePort" && flags.int("node-port") != 0 {
        ports.iter_mut().for_each(|p| p["nodePort"] = json!(flags.int("node-port")));
    }
    let labels = json!({"app": name});
    let mut spec = json!({"selector": labels, "type": kind});
    if !ports.is_empty() {
        spec["ports"] = json!(ports);
    }
    if !cluster_ip.is_empty() {
        spec["clusterIP"] = json!(cluster_ip);
    }
    if kind == "ExternalName" {
        spec["externalName"] = json!(flags.text("external-name"));
    }
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"loadBalancer": {}},
    });
    let failure = match kind {
        "ClusterIP" => "failed to create ClusterIP service: ",
        "NodePort" => "failed to create NodePort service: ",
        "LoadBalancer" => "failed to create LoadBalancer service: ",
        _ => "failed to create ExternalName service: ",
    };
    Generated::new(object, failure).finish(context).await
}
