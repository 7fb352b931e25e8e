//! `kubectl logs`.

use std::io::Write;

use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use machinery::meta;
use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    describe,
    error::CommandError,
    flags::Flag,
    pods::{self, Prefer},
    resolve,
    streams::Output,
};

const USAGE: &str = "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required \
                     argument for the logs command";
/// Lines of each container when a selector chooses the Pods.
const SELECTED_TAIL: i64 = 10;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("logs", "Print the logs for a container in a pod")
        .usage("[-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]")
        .examples(&["kubectl logs nginx", "kubectl logs -f -c ruby web-1", "kubectl logs --tail=20 nginx"])
        .flags([
            Flag::text("container", "", "Container.").short('c'),
            Flag::switch("follow", "Go on as lines are written.").short('f'),
            Flag::switch("previous", "The logs of the instance before.").short('p'),
            Flag::switch("all-containers", "The logs of all containers of the Pods."),
            Flag::switch("all-pods", "The logs of all Pods; each line begins with its source."),
            Flag::switch("timestamps", "Each line begins with its time."),
            Flag::switch("prefix", "Each line begins with its Pod and container."),
            Flag::switch("ignore-errors", "Go on when the logs of a container cannot be read."),
            Flag::switch("insecure-skip-tls-verify-backend", "Do not verify the kubelet the logs come from."),
            Flag::int("tail", "-1", "Lines of recent log; -1 for all, 10 with a selector."),
            Flag::int("limit-bytes", "0", "Bytes of log at most; 0 for all."),
            Flag::int("max-log-requests", "5", "Logs that are followed at once with a selector."),
            Flag::duration("since", "0s", "Only logs newer than this."),
            Flag::text("since-time", "", "Only logs after this time (RFC3339)."),
            Flag::duration("pod-running-timeout", "20s", "Time to wait until a Pod runs."),
            resolve::selector_flag(),
        ])
        .runs(|context| Box::pin(run(context)))
}

/// The log of one container.
struct Source {
    pod: String,
    container: String,
    call: Call,
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let selector = flags.text("selector");
    if context.args.is_empty() && selector.is_empty() || context.args.len() > 2 {
        return Err(context.usage(USAGE));
    }
    if !selector.is_empty() && !context.args.is_empty() {
        return Err(CommandError::plain("only a selector (-l) or a POD name is allowed"));
    }
    check(context)?;
    let cluster = context.cluster().await?;
    let container = match (context.args.get(1), flags.text("container")) {
        (Some(_), given) if !given.is_empty() => {
            return Err(CommandError::plain("only one of -c or an inline [CONTAINER] arg is allowed"));
        }
        (Some(inline), _) => inline.as_str(),
        (None, given) => given,
    };
    let pods = match selector {
        "" => of_argument(context, &cluster, &context.args[0]).await?,
        selector => {
            let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
            describe::list(&cluster, Call::get(&path).query("labelSelector", selector)).await?
        }
    };
    if pods.is_empty() {
        writeln!(context.streams.err.clone(), "No resources found in {} namespace.", cluster.namespace)?;
        return Ok(());
    }
    let sources = sources(context, &pods, container)?;
    let limit = flags.int("max-log-requests");
    if flags.bool("follow") && sources.len() > 1 {
        if sources.len() as i64 > limit {
            return Err(CommandError::plain(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {limit}, use \
                 --max-log-requests to increase the limit",
                sources.len()
            )));
        }
        let many = sources.len();
        return stream::iter(sources)
            .map(|source| copy(context, &cluster, source))
            .buffer_unordered(many)
            .try_collect::<()>()
            .await;
    }
    for source in sources {
        copy(context, &cluster, source).await?;
    }
    Ok(())
}

/// Flags that contradict themselves or each other.
fn check(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let problem = if flags.bool("all-containers") && !flags.text("container").is_empty() {
        format!("--all-containers=true should not be specified with container name {}", flags.text("container"))
    } else if flags.given("limit-bytes") && flags.int("limit-bytes") < 0 {
        "--limit-bytes must be greater than 0".to_owned()
    } else if flags.int("tail") < -1 {
        "--tail must be greater than or equal to -1".to_owned()
    } else if !flags.duration("since").is_zero() && !flags.text("since-time").is_empty() {
        "at most one of `sinceTime` or `sinceSeconds` may be specified".to_owned()
    } else if let time @ 1.. = flags.text("since-time").len()
        && flags.text("since-time").parse::<jiff::Timestamp>().is_err()
    {
        let given = flags.text("since-time");
        let rest = &given[..time];
        format!("parsing time {given:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {rest:?} as \"2006\"")
    } else {
        return Ok(());
    };
    Err(CommandError::plain(problem))
}

/// The Pods that an argument stands for.
async fn of_argument(context: &Context, cluster: &Cluster, argument: &str) -> Result<Vec<Value>, CommandError> {
    let found = pods::named(context, argument, USAGE).await;
    let info = found.map_err(|error| match error.status() {
        Some(status) if status.reason == "NotFound" => CommandError::plain(format!(
            "error from server (NotFound): {} in namespace {:?}",
            status.message, cluster.namespace
        )),
        _ => error,
    })?;
    if info.object["kind"] == "Pod" {
        return Ok(vec![info.object]);
    }
    let kind = info.object["kind"].as_str().unwrap_or("").to_owned();
    let unfit = |error: CommandError| CommandError::plain(format!("cannot get the logs from *v1.{kind}: {error}"));
    let selector = pods::selector_of(&info).map_err(unfit)?;
    if context.flags.bool("all-pods") {
        let path = format!("/api/v1/namespaces/{}/pods", info.namespace);
        return describe::list(cluster, Call::get(&path).query("labelSelector", selector.to_string())).await;
    }
    let limit = context.flags.duration("pod-running-timeout");
    let (pod, count) = pods::of_object(cluster, info, Prefer::Logs, limit).await?;
    if count > 1 {
        writeln!(context.streams.err.clone(), "Found {count} pods, using pod/{}", meta::name(&pod))?;
    }
    Ok(vec![pod])
}

fn sources(context: &Context, pods: &[Value], container: &str) -> Result<Vec<Source>, CommandError> {
    let mut sources = Vec::new();
    for pod in pods {
        let names = if context.flags.bool("all-containers") {
            let lists = ["initContainers", "containers", "ephemeralContainers"];
            let all = lists.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
            all.map(|c| c["name"].as_str().unwrap_or("").to_owned()).collect()
        } else if container.is_empty() {
            vec![pods::default_container(context, pod, false)?]
        } else {
            vec![pods::valid_container(pod, container)?]
        };
        sources.extend(names.into_iter().map(|name| source(context, pod, name)));
    }
    Ok(sources)
}

fn source(context: &Context, pod: &Value, container: String) -> Source {
    let flags = &context.flags;
    let path = format!("/api/v1/namespaces/{}/pods/{}/log", meta::namespace(pod), meta::name(pod));
    let mut call = Call::get(&path).query("container", container.clone());
    let switches = [
        ("follow", "follow"),
        ("previous", "previous"),
        ("timestamps", "timestamps"),
        ("insecure-skip-tls-verify-backend", "insecureSkipTLSVerifyBackend"),
    ];
    for (flag, parameter) in switches {
        if flags.bool(flag) {
            call = call.query(parameter, "true");
        }
    }
    if flags.int("limit-bytes") > 0 {
        call = call.query("limitBytes", flags.text("limit-bytes"));
    }
    let since = flags.duration("since");
    if !since.is_zero() {
        call = call.query("sinceSeconds", (since.as_secs_f64().round() as i64).to_string());
    }
    call = call.query_if("sinceTime", flags.text("since-time"));
    let selected = !flags.text("selector").is_empty() && !flags.given("tail");
    match if selected { SELECTED_TAIL } else { flags.int("tail") } {
        -1 => {}
        lines => call = call.query("tailLines", lines.to_string()),
    }
    Source { pod: meta::name(pod).to_owned(), container, call }
}

/// Prints a log; lines of logs that are followed together are not mixed.
async fn copy(context: &Context, cluster: &Cluster, source: Source) -> Result<(), CommandError> {
    let flags = &context.flags;
    let mut out = context.streams.out.clone();
    let prefix = match flags.bool("prefix") || flags.bool("all-pods") {
        true => format!("[pod/{}/{}] ", source.pod, source.container),
        false => String::new(),
    };
    let copied = lines(context, cluster, &source.call, &prefix, &mut out).await;
    match copied {
        Err(error) if flags.bool("ignore-errors") && !matches!(error, CommandError::Exit(_)) => {
            let text = error.status().map_or_else(|| error.to_string(), |status| status.message.clone());
            writeln!(out, "error: {text}")?;
            Ok(())
        }
        other => other,
    }
}

async fn lines(
    context: &Context,
    cluster: &Cluster,
    call: &Call,
    prefix: &str,
    out: &mut Output,
) -> Result<(), CommandError> {
    let mut body = cluster.send(call).await?.into_body().into_data_stream();
    let mut held: Vec<u8> = Vec::new();
    let whole = prefix.is_empty() && !context.flags.bool("follow");
    loop {
        let next = tokio::select! {
            next = body.next() => next,
            () = context.stop.cancelled() => return Err(CommandError::Exit(130)),
        };
        let Some(bytes) = next.transpose().map_err(|e| CommandError::plain(e.to_string()))? else { break };
        if whole {
            out.write_all(&bytes)?;
            continue;
        }
        held.extend_from_slice(&bytes);
        let Some(end) = held.iter().rposition(|b| *b == b'\n') else { continue };
        let rest = held.split_off(end + 1);
        print(&held, prefix, out)?;
        held = rest;
    }
    print(&held, prefix, out)
}

fn print(text: &[u8], prefix: &str, out: &mut Output) -> Result<(), CommandError> {
    let mut shown = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|b| *b == b'\n') {
        shown.extend_from_slice(prefix.as_bytes());
        shown.extend_from_slice(line);
    }
    out.write_all(&shown)?;
    out.flush()?;
    Ok(())
}
