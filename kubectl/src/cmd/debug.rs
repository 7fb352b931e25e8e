//! `kubectl debug`: an ephemeral container in a Pod, or a Pod on a Node.

use std::io::Write;

use machinery::meta;
use serde_json::{Value, json};

use super::attach::{self, Wanted};
use crate::{
    cluster::{Call, Cluster},
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    follow, pods,
    resolve::{Info, Query, arguments::of_kind},
};

const PROFILES: [&str; 6] = ["legacy", "general", "baseline", "netadmin", "restricted", "sysadmin"];

/// The command.
pub(crate) fn command() -> Command {
    Command::new("debug", "Create debugging sessions for troubleshooting workloads and nodes")
        .usage("(POD | TYPE/NAME) [ -- COMMAND [args...] ]")
        .examples(&["kubectl debug mypod -it --image=busybox", "kubectl debug node/mynode -it --image=busybox"])
        .flags([
            Flag::switch("attach", "Wait until the container runs and attach to it."),
            Flag::text("container", "", "Name of the debugging container.").short('c'),
            Flag::array("env", "Variables of the container, as KEY=VALUE."),
            Flag::text("image", "", "Image of the debugging container."),
            Flag::text("image-pull-policy", "", "Always, IfNotPresent or Never."),
            Flag::text("profile", "general", "legacy, general, baseline, netadmin, restricted or sysadmin."),
            Flag::switch("quiet", "Print the output of the session only.").short('q'),
            Flag::switch("stdin", "Keep standard input open.").short('i'),
            Flag::text("target", "", "Container whose processes are to be seen."),
            Flag::switch("tty", "Give the container a terminal.").short('t'),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    if flags.text("image").is_empty() {
        return Err(CommandError::plain("you must specify --image when not using --copy-to."));
    }
    let Some(argument) = context.before_dash().first() else {
        return Err(CommandError::plain("NAME is required for debug"));
    };
    if flags.bool("tty") && !flags.bool("stdin") {
        return Err(CommandError::plain("-i/--stdin is required for containers with -t/--tty=true"));
    }
    let profile = flags.text("profile");
    if !PROFILES.contains(&profile) {
        return Err(CommandError::plain(format!("unknown profile: {profile}")));
    }
    if profile == "legacy" {
        writeln!(
            context.streams.err.clone(),
            "--profile=legacy is deprecated and planned to be removed in v1.39. It is recommended to specify other \
             profile, for example \"--profile=general\"."
        )?;
    }
    let named = if argument.contains('/') { vec![argument.clone()] } else { vec!["pods".to_owned(), argument.clone()] };
    let query = Query { arguments: named, ..Query::default() };
    let infos = query.infos(context).await?.all()?;
    for info in infos {
        let cluster = context.cluster().await?;
        let (pod, container) = match info.resource.kind.as_str() {
            "Pod" => in_pod(context, &cluster, &info, profile).await?,
            "Node" => on_node(context, &cluster, &info, profile).await?,
            kind => {
                let version = info.resource.api_version();
                return Err(CommandError::plain(format!("\"{version}, Kind={kind}\" not supported by debug")));
            }
        };
        if flags.bool("stdin") || flags.bool("attach") {
            session(context, &cluster, pod, &container).await?;
        }
    }
    Ok(())
}

/// The debugging container without its security context.
fn container(context: &Context, name: &str) -> Result<Value, CommandError> {
    let flags = &context.flags;
    let mut container = json!({"name": name, "image": flags.text("image"), "terminationMessagePolicy": "File"});
    if let Some(policy) = flags.non_empty("image-pull-policy") {
        container["imagePullPolicy"] = policy.into();
    }
    for switch in ["stdin", "tty"] {
        if flags.bool(switch) {
            container[switch] = true.into();
        }
    }
    if !context.after_dash().is_empty() {
        container["command"] = json!(context.after_dash());
    }
    let mut env = Vec::new();
    for pair in flags.list("env") {
        let (key, value) = pair.split_once('=').ok_or_else(|| CommandError::plain(format!("invalid env: {pair}")))?;
        env.push(json!({"name": key, "value": value}));
    }
    if !env.is_empty() {
        container["env"] = env.into();
    }
    Ok(container)
}

/// What a profile lets the container do.
fn security(profile: &str, on_node: bool) -> Option<Value> {
    match profile {
        "general" if !on_node => Some(json!({"capabilities": {"add": ["SYS_PTRACE"]}})),
        "restricted" => Some(json!({
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        })),
        "netadmin" => Some(json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}})),
        "sysadmin" => Some(json!({"privileged": true})),
        _ => None,
    }
}

async fn in_pod(
    context: &Context,
    cluster: &Cluster,
    info: &Info,
    profile: &str,
) -> Result<(Info, String), CommandError> {
    let flags = &context.flags;
    let mut out = context.streams.out.clone();
    let target = flags.text("target");
    if !target.is_empty() && !flags.bool("quiet") {
        writeln!(
            out,
            "Targeting container {target:?}. If you don't see processes from this container it may be because the \
             container runtime doesn't support this feature."
        )?;
    }
    let name = match flags.text("container") {
        "" => {
            let name = format!("debugger-{}", util::random_suffix(5));
            if !flags.bool("quiet") {
                writeln!(out, "Defaulting debug container name to {name}.")?;
            }
            name
        }
        given => given.to_owned(),
    };
    let mut container = container(context, &name)?;
    if !target.is_empty() {
        container["targetContainerName"] = target.into();
    }
    if let Some(security) = security(profile, false) {
        container["securityContext"] = security;
    }
    let patch = json!({"spec": {"ephemeralContainers": [container]}});
    let path = format!("{}/ephemeralcontainers", info.path());
    let pod = cluster.json(&Call::patch(&path, "application/strategic-merge-patch+json", &patch)).await?;
    let mut info = info.clone();
    info.refresh(pod);
    Ok((info, name))
}

async fn on_node(
    context: &Context,
    cluster: &Cluster,
    node: &Info,
    profile: &str,
) -> Result<(Info, String), CommandError> {
    let container_name = context.flags.non_empty("container").unwrap_or("debugger");
    let name = format!("node-debugger-{}-{}", node.name, util::random_suffix(5));
    if !context.flags.bool("quiet") {
        writeln!(
            context.streams.out.clone(),
            "Creating debugging pod {name} with container {container_name} on node {}.",
            node.name
        )?;
    }
    let mut container = container(context, container_name)?;
    if let Some(security) = security(profile, true) {
        container["securityContext"] = security;
    }
    let mut spec = json!({
        "nodeName": node.name,
        "restartPolicy": "Never",
        "tolerations": [{"operator": "Exists"}],
    });
    if ["legacy", "general", "sysadmin"].contains(&profile) {
        container["volumeMounts"] = json!([{"name": "host-root", "mountPath": "/host"}]);
        spec["volumes"] = json!([{"name": "host-root", "hostPath": {"path": "/"}}]);
    }
    if !["baseline", "restricted"].contains(&profile) {
        for namespace in ["hostNetwork", "hostPID", "hostIPC"] {
            spec[namespace] = true.into();
        }
    }
    spec["containers"] = json!([container]);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "kubectl-debug"}},
        "spec": spec,
    });
    let path = format!("/api/v1/namespaces/{}/pods", cluster.namespace);
    let pod = cluster.json(&Call::post(&path, &pod)).await?;
    let info = Info {
        resource: of_kind(cluster, &pod).await?,
        namespace: meta::namespace(&pod).to_owned(),
        name,
        source: String::new(),
        object: pod,
    };
    Ok((info, container_name.to_owned()))
}

/// Waits until the container runs and attaches to it; prints its log if it ended already.
async fn session(context: &Context, cluster: &Cluster, info: Info, container: &str) -> Result<(), CommandError> {
    let (pod, ended) = follow::until(context, cluster, &info, |pod| {
        let pod = pod.ok_or_else(|| CommandError::plain(format!("pods {:?} not found", info.name)))?;
        let state = state(pod, container);
        let (runs, ended) = (!state["running"].is_null(), !state["terminated"].is_null());
        Ok((runs || ended).then(|| (pod.clone(), ended)))
    })
    .await?;
    if ended {
        let log = cluster.bytes(&Call::get(&format!("{}/log", info.path())).query("container", container)).await?;
        context.streams.out.clone().write_all(&log)?;
        return Ok(());
    }
    let flags = &context.flags;
    let wanted = Wanted {
        container: if pods::has_container(&pod, container) { container } else { "" },
        stdin: flags.bool("stdin"),
        tty: flags.bool("tty"),
        quiet: flags.bool("quiet"),
    };
    attach::to_pod(context, cluster, &pod, &wanted).await
}

fn state<'a>(pod: &'a Value, container: &str) -> &'a Value {
    ["ephemeralContainerStatuses", "containerStatuses"]
        .iter()
        .filter_map(|list| pod["status"][*list].as_array())
        .flatten()
        .find(|status| status["name"] == container)
        .map_or(&Value::Null, |status| &status["state"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_give_what_they_say() {
        assert_eq!(security("general", false), Some(json!({"capabilities": {"add": ["SYS_PTRACE"]}})));
        assert_eq!((security("general", true), security("baseline", false)), (None, None));
        let pod = json!({"status": {"ephemeralContainerStatuses": [{"name": "d", "state": {"running": {}}}]}});
        assert!(!state(&pod, "d")["running"].is_null() && state(&pod, "x").is_null());
    }
}
