//! `kubectl top`.

use std::{collections::BTreeMap, io::Write};

use machinery::{meta, quantity::Quantity};
use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    describe,
    error::CommandError,
    flags::Flag,
    print::table::Aligned,
    resolve,
};

const GROUP: &str = "metrics.k8s.io";
const ROOT: &str = "/apis/metrics.k8s.io/v1beta1";
const MEBI: i64 = 1024 * 1024;

/// The group.
pub(crate) fn command() -> Command {
    Command::new("top", "Display resource (CPU/memory) usage").usage("[flags]").commands(vec![node(), pod()])
}

fn common() -> Vec<Flag> {
    vec![
        resolve::selector_flag(),
        Flag::switch("no-headers", "Print no headers."),
        Flag::switch("show-swap", "Print the use of swap."),
        Flag::text("sort-by", "", "Sort by cpu or memory."),
        Flag::on("use-protocol-buffers", "Accepted for scripts that give it; metrics come in JSON."),
    ]
}

fn node() -> Command {
    Command::new("node", "Display resource (CPU/memory) usage of nodes")
        .aliases(&["nodes", "no"])
        .usage("[NAME | -l label]")
        .flags(common())
        .flags([Flag::switch("show-capacity", "Percents of the capacity, not of what Pods can have.")])
        .runs(|context| Box::pin(nodes(context)))
}

fn pod() -> Command {
    Command::new("pod", "Display resource (CPU/memory) usage of pods")
        .aliases(&["pods", "po"])
        .usage("[NAME | -l label]")
        .flags(common())
        .flags([
            resolve::all_namespaces_flag(),
            resolve::field_selector_flag(),
            Flag::switch("containers", "Print each container."),
            Flag::switch("sum", "Print the sum."),
        ])
        .runs(|context| Box::pin(pods(context)))
}

/// What is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    /// Thousandths of a core.
    cpu: i64,
    /// Bytes.
    memory: i64,
    swap: Option<i64>,
}

impl Usage {
    fn of(value: &Value) -> Self {
        let read = |name: &str| value[name].as_str().and_then(|text| Quantity::parse(text).ok());
        Self {
            cpu: read("cpu").map_or(0, |quantity| quantity.milli_value()),
            memory: read("memory").map_or(0, |quantity| quantity.value()),
            swap: read("swap").map(|quantity| quantity.value()),
        }
    }

    fn add(self, other: Self) -> Self {
        let swap = match (self.swap, other.swap) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory, swap }
    }
}

fn cores(milli: i64) -> String {
    format!("{milli}m")
}

fn mebi(bytes: i64) -> String {
    format!("{}Mi", bytes / MEBI)
}

fn percent(part: i64, whole: i64) -> String {
    if whole <= 0 { "<unknown>".to_owned() } else { format!("{}%", (part as f64 / whole as f64 * 100.0) as i64) }
}

/// Arguments and the group of the metrics, checked.
async fn name(context: &Context, cluster: &Cluster) -> Result<Option<String>, CommandError> {
    let sort = context.flags.text("sort-by");
    if !["", "cpu", "memory"].contains(&sort) {
        return Err(CommandError::plain("--sort-by accepts only cpu or memory"));
    }
    let name = match context.args.as_slice() {
        [] => None,
        [name] => Some(name.clone()),
        many => return Err(context.usage(format!("unexpected arguments: {}", many.join(" ")))),
    };
    if name.is_some() && !context.flags.text("selector").is_empty() {
        return Err(CommandError::plain("only one of NAME or selector can be provided"));
    }
    if !cluster.served_now().await?.groups.iter().any(|group| group.name == GROUP) {
        return Err(CommandError::plain("Metrics API not available"));
    }
    Ok(name)
}

/// The metrics of one object, or of all.
async fn metrics(
    context: &Context,
    cluster: &Cluster,
    collection: &str,
    name: Option<&str>,
) -> Result<Vec<Value>, CommandError> {
    match name {
        Some(name) => Ok(vec![cluster.get(&format!("{collection}/{name}")).await?]),
        None => {
            let mut call = Call::get(collection).query_if("labelSelector", context.flags.text("selector"));
            if context.flags.has("field-selector") {
                call = call.query_if("fieldSelector", context.flags.text("field-selector"));
            }
            describe::list(cluster, call).await
        }
    }
}

fn sort<T>(context: &Context, rows: &mut [T], usage: impl Fn(&T) -> Usage) {
    match context.flags.text("sort-by") {
        "cpu" => rows.sort_by_key(|row| std::cmp::Reverse(usage(row).cpu)),
        "memory" => rows.sort_by_key(|row| std::cmp::Reverse(usage(row).memory)),
        _ => {}
    }
}

async fn nodes(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let cluster = context.cluster().await?;
    let name = name(context, &cluster).await?;
    let found = metrics(context, &cluster, &format!("{ROOT}/nodes"), name.as_deref()).await?;
    if found.is_empty() {
        return Err(CommandError::plain("metrics not available yet"));
    }
    let nodes = match &name {
        Some(name) => vec![cluster.get(&format!("/api/v1/nodes/{name}")).await?],
        None => {
            let call = Call::get("/api/v1/nodes").query_if("labelSelector", flags.text("selector"));
            describe::list(&cluster, call).await?
        }
    };
    let mut used: Vec<(String, Usage)> =
        found.iter().map(|metric| (meta::name(metric).to_owned(), Usage::of(&metric["usage"]))).collect();
    used.sort_by(|a, b| a.0.cmp(&b.0));
    sort(context, &mut used, |row| row.1);
    let mut table = Aligned::default();
    let swap = flags.bool("show-swap");
    if !flags.bool("no-headers") {
        let heads = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)", "SWAP(bytes)", "SWAP(%)"];
        table.row(&heads[..if swap { 7 } else { 5 }]);
    }
    let room = if flags.bool("show-capacity") { "capacity" } else { "allocatable" };
    let rooms: BTreeMap<&str, &Value> = nodes.iter().map(|node| (meta::name(node), &node["status"])).collect();
    for (name, usage) in &used {
        let status = rooms.get(name.as_str()).copied().unwrap_or(&Value::Null);
        let of = Usage::of(&status[room]);
        let mut row = vec![
            name.clone(),
            cores(usage.cpu),
            percent(usage.cpu, of.cpu),
            mebi(usage.memory),
            percent(usage.memory, of.memory),
        ];
        if swap {
            let whole = status["nodeInfo"]["swap"]["capacity"].as_i64().unwrap_or(0);
            row.push(usage.swap.map_or("<unknown>".into(), mebi));
            row.push(usage.swap.map_or("<unknown>".into(), |used| percent(used, whole)));
        }
        table.add(row);
    }
    for name in rooms.keys().filter(|name| !used.iter().any(|(known, _)| known == *name)) {
        let mut row = vec!["<unknown>".to_owned(); if swap { 7 } else { 5 }];
        row[0] = (*name).to_owned();
        table.add(row);
    }
    write!(context.streams.out.clone(), "{}", table.flush())?;
    Ok(())
}

async fn pods(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let cluster = context.cluster().await?;
    let name = name(context, &cluster).await?;
    let everywhere = flags.bool("all-namespaces");
    let collection = match everywhere {
        true => format!("{ROOT}/pods"),
        false => format!("{ROOT}/namespaces/{}/pods", cluster.namespace),
    };
    let found = metrics(context, &cluster, &collection, name.as_deref()).await?;
    if found.is_empty() {
        match everywhere {
            true => writeln!(context.streams.err.clone(), "No resources found")?,
            false => writeln!(context.streams.err.clone(), "No resources found in {} namespace.", cluster.namespace)?,
        }
        return Ok(());
    }
    let mut rows: Vec<(&Value, Usage)> = found.iter().map(|metric| (metric, of_pod(metric))).collect();
    rows.sort_by_key(|(metric, _)| (meta::namespace(metric).to_owned(), meta::name(metric).to_owned()));
    sort(context, &mut rows, |row| row.1);
    let (containers, swap) = (flags.bool("containers"), flags.bool("show-swap"));
    let mut table = Aligned::default();
    if !flags.bool("no-headers") {
        let mut heads = Vec::new();
        heads.extend(everywhere.then_some("NAMESPACE"));
        heads.extend(containers.then_some("POD"));
        heads.extend(["NAME", "CPU(cores)", "MEMORY(bytes)"]);
        heads.extend(swap.then_some("SWAP(bytes)"));
        table.row(&heads);
    }
    let cells = |usage: Usage| {
        let mut cells = vec![cores(usage.cpu), mebi(usage.memory)];
        cells.extend(swap.then(|| usage.swap.map_or("<unknown>".into(), mebi)));
        cells
    };
    for (metric, usage) in &rows {
        let mut head = Vec::new();
        head.extend(everywhere.then(|| meta::namespace(metric).to_owned()));
        head.push(meta::name(metric).to_owned());
        if !containers {
            table.add([head, cells(*usage)].concat());
            continue;
        }
        for container in metric["containers"].as_array().into_iter().flatten() {
            let name = vec![container["name"].as_str().unwrap_or("").to_owned()];
            table.add([head.clone(), name, cells(Usage::of(&container["usage"]))].concat());
        }
    }
    if flags.bool("sum") {
        let sum = rows.iter().fold(Usage::default(), |sum, (_, usage)| sum.add(*usage));
        let before = usize::from(everywhere) + usize::from(containers);
        let blank = vec![String::new(); before + 1];
        let mut dashes = blank.clone();
        dashes.extend(["________".to_owned(), "________".to_owned()]);
        table.add(dashes);
        table.add([blank, cells(sum)].concat());
    }
    write!(context.streams.out.clone(), "{}", table.flush())?;
    Ok(())
}

/// What all containers of a Pod use.
fn of_pod(metric: &Value) -> Usage {
    let containers = metric["containers"].as_array().into_iter().flatten();
    containers.fold(Usage::default(), |sum, container| sum.add(Usage::of(&container["usage"])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usage_is_summed_and_shown() {
        let metric = json!({"containers": [{"usage": {"cpu": "250m", "memory": "1Gi"}}, {"usage": {"cpu": "1500000n", "memory": "512Ki"}}]});
        let usage = of_pod(&metric);
        assert_eq!((cores(usage.cpu), mebi(usage.memory)), ("252m".to_owned(), "1024Mi".to_owned()));
        assert_eq!((percent(1, 3), percent(1, 0)), ("33%".to_owned(), "<unknown>".to_owned()));
    }
}
