//! `kubectl describe`.

use std::io::Write;

use crate::{
    cluster::Cluster,
    command::Command,
    context::Context,
    describe::{self, Clock},
    error::CommandError,
    flags::Flag,
    resolve::{self, Found, Info, Query},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("describe", "Show details of a specific resource or group of resources")
        .usage("(-f FILENAME | TYPE [NAME_PREFIX | -l label] | TYPE/NAME)")
        .examples(&[
            "kubectl describe nodes kubernetes-node-1",
            "kubectl describe -f pod.json",
            "kubectl describe po -l name=web",
        ])
        .flags(resolve::file_flags("File, directory or URL with the resource to describe."))
        .flags([
            resolve::selector_flag(),
            resolve::all_namespaces_flag(),
            resolve::chunk_flag(),
            Flag::on("show-events", "Show the events of each object."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let query = Query::of(context).all();
    if context.args.is_empty() && query.sources.is_empty() {
        return Err(CommandError::plain(
            "You must specify the type of resource to describe. Use \"kubectl api-resources\" for a complete list of \
             supported resources.",
        ));
    }
    let found = query.infos(context).await?;
    let cluster = context.cluster().await?;
    if found.single && found.infos.is_empty() {
        return by_prefix(context, &cluster, &query, found).await;
    }
    let Found { infos, mut errors, .. } = found;
    let events = with_events(context, infos.len(), !errors.is_empty());
    let mut out = context.streams.out.clone();
    let mut seen = Vec::new();
    for (at, info) in infos.iter().enumerate() {
        match one(&cluster, info, events).await {
            Ok(text) => write!(out, "{}{text}", if at == 0 { "" } else { "\n\n" })?,
            Err(error) => {
                let text = error.to_string();
                if !seen.contains(&text) {
                    seen.push(text);
                    errors.push(error);
                }
            }
        }
    }
    if infos.is_empty() && errors.is_empty() {
        let mut err = context.streams.err.clone();
        match query.all_namespaces {
            true => writeln!(err, "No resources found")?,
            false => writeln!(err, "No resources found in {} namespace.", cluster.namespace)?,
        }
    }
    CommandError::all(errors)
}

/// Events are shown of one object, or when they were asked for.
fn with_events(context: &Context, objects: usize, failed: bool) -> bool {
    let asked = context.flags.given("show-events");
    context.flags.bool("show-events") && (asked || (objects <= 1 && !failed))
}

async fn one(cluster: &Cluster, info: &Info, events: bool) -> Result<String, CommandError> {
    let object = cluster.get(&info.path()).await?;
    let facts = describe::gather(cluster, &object, events).await?;
    describe::describe(&object, &facts, Clock::now())
}

/// A name that is not found may be the beginning of others.
async fn by_prefix(context: &Context, cluster: &Cluster, query: &Query, found: Found) -> Result<(), CommandError> {
    let failure = CommandError::all(found.errors);
    let is_missing = matches!(&failure, Err(error) if error.status().is_some_and(|s| s.reason == "NotFound"));
    let (targets, _) = query.targets(context).await?;
    let (Some(target), true, true) = (targets.into_iter().next(), is_missing, query.sources.is_empty()) else {
        return failure;
    };
    let prefix = target.name.unwrap_or_default();
    let all = Query { arguments: vec![target.resource.title()], ..query.clone() };
    let infos = all.infos(context).await?.all()?;
    let matching: Vec<Info> = infos.into_iter().filter(|info| info.name.starts_with(&prefix)).collect();
    if matching.is_empty() {
        return failure;
    }
    let events = with_events(context, matching.len(), false);
    let mut out = context.streams.out.clone();
    for info in &matching {
        writeln!(out, "{}", one(cluster, info, events).await?)?;
    }
    Ok(())
}
