//! `kubectl api-resources`.

use std::io::Write;

use serde_json::{Value, json};

use crate::{
    command::Command,
    context::Context,
    discovery::Resource,
    error::CommandError,
    flags::Flag,
    print::{self as print, Printer, table::Aligned},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("api-resources", "Print the supported API resources on the server")
        .usage("[flags]")
        .examples(&[
            "kubectl api-resources",
            "kubectl api-resources -o wide",
            "kubectl api-resources --namespaced=false --api-group=rbac.authorization.k8s.io",
        ])
        .flags([
            Flag::text("api-group", "", "Only resources of this group; the core group is ''."),
            Flag::list("categories", "Only resources in all of these categories."),
            Flag::on("namespaced", "Only resources in namespaces (true) or in the cluster's scope (false)."),
            Flag::switch("cached", "Take what is remembered of the server, if there is something."),
            Flag::switch("no-headers", "Leave the headers out."),
            Flag::text("output", "", "Output format: json, yaml, kyaml, name or wide.").short('o'),
            Flag::switch("show-managed-fields", "Keep managedFields in json and yaml; resources have none."),
            Flag::text("sort-by", "", "Sort by name or kind."),
            Flag::list("verbs", "Only resources that serve all of these verbs."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    if !context.args.is_empty() {
        return Err(context.usage(format!("unexpected arguments: [{}]", context.args.join(" "))));
    }
    let output = flags.text("output");
    if !matches!(output, "" | "wide" | "name" | "json" | "yaml" | "kyaml") {
        return Err(print::unknown_format(output, &["json", "kyaml", "name", "wide", "yaml"]));
    }
    let sort = flags.text("sort-by");
    if !matches!(sort, "" | "name" | "kind") {
        return Err(CommandError::plain("--sort-by accepts only name or kind"));
    }
    let cluster = context.cluster().await?;
    let served = if flags.bool("cached") { cluster.served().await? } else { cluster.served_now().await? };
    let mut chosen: Vec<&Resource> = served.preferred().into_iter().filter(|r| wanted(context, r)).collect();
    match sort {
        "name" => chosen.sort_by(|a, b| a.plural.cmp(&b.plural)),
        "kind" => chosen.sort_by(|a, b| a.kind.cmp(&b.kind)),
        _ => chosen.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural))),
    }
    let printer = if matches!(output, "" | "wide" | "name") { None } else { Printer::of(flags, &[])? };
    match printer {
        Some(mut printer) => printer.print_ordered(&list(&chosen), &ORDER, &mut context.streams.out.clone())?,
        None => print(context, output, &chosen)?,
    }
    let failed: Vec<CommandError> = served
        .failed
        .iter()
        .map(|v| {
            CommandError::plain(format!(
                "unable to retrieve the complete list of server APIs: {v}: stale GroupVersion discovery: {v}"
            ))
        })
        .collect();
    CommandError::all(failed)
}

/// Fields of the list and its items in the order of their declaration.
const ORDER: [&str; 12] = [
    "name",
    "singularName",
    "namespaced",
    "group",
    "version",
    "kind",
    "apiVersion",
    "groupVersion",
    "resources",
    "verbs",
    "shortNames",
    "categories",
];

/// The resources as one list.
fn list(chosen: &[&Resource]) -> Value {
    let rows = chosen.iter().map(|r| {
        let mut row = json!({"name": r.plural, "singularName": r.singular, "namespaced": r.namespaced,
            "version": r.version, "kind": r.kind, "verbs": r.verbs});
        for (key, value) in [("shortNames", &r.short_names), ("categories", &r.categories)] {
            if !value.is_empty() {
                row[key] = json!(value);
            }
        }
        if !r.group.is_empty() {
            row["group"] = json!(r.group);
        }
        row
    });
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "", "resources": rows.collect::<Vec<_>>()})
}

fn wanted(context: &Context, resource: &Resource) -> bool {
    let flags = &context.flags;
    !resource.verbs.is_empty()
        && (!flags.given("api-group") || resource.group == flags.text("api-group"))
        && (!flags.given("namespaced") || resource.namespaced == flags.bool("namespaced"))
        && flags.list("verbs").iter().all(|v| resource.has_verb(v))
        && flags.list("categories").iter().all(|c| resource.categories.contains(c))
}

fn print(context: &Context, output: &str, chosen: &[&Resource]) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    if output == "name" {
        for resource in chosen {
            writeln!(out, "{}", resource.title())?;
        }
        return Ok(());
    }
    let mut table = Aligned::default();
    let wide = output == "wide";
    if !context.flags.bool("no-headers") {
        let mut headers = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
        if wide {
            headers.extend(["VERBS", "CATEGORIES"]);
        }
        table.row(&headers);
    }
    for resource in chosen {
        let mut row = vec![
            resource.plural.clone(),
            resource.short_names.join(","),
            resource.api_version(),
            resource.namespaced.to_string(),
            resource.kind.clone(),
        ];
        if wide {
            row.extend([resource.verbs.join(","), resource.categories.join(",")]);
        }
        table.add(row);
    }
    write!(out, "{}", table.flush())?;
    Ok(())
}
