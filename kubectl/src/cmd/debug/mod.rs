//! `kubectl debug`: an ephemeral container in a Pod, a copy of a Pod, or a Pod on a Node.

mod copy;
mod profile;

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
    resolve::{self, Info, Query, arguments::of_kind},
};
use profile::{PROFILES, Place};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("debug", "Create debugging sessions for troubleshooting workloads and nodes")
        .long(
            "Create debugging sessions for troubleshooting workloads and nodes.\n\n A Pod gets an ephemeral container, or with \
             --copy-to a copy that has another container, other images or another command. A Node gets a Pod in its \
             namespaces, with its files below /host.",
        )
        .usage("(POD | TYPE[[.VERSION].GROUP]/NAME) [ -- COMMAND [args...] ]")
        .examples(&[
            "kubectl debug mypod -it --image=busybox",
            "kubectl debug mypod -it --image=busybox --copy-to=my-debugger",
            "kubectl debug mypod --copy-to=my-debugger --set-image=*=busybox",
            "kubectl debug node/mynode -it --image=busybox",
        ])
        .flags(resolve::file_flags("File, directory or URL with the Pod or Node.").into_iter().filter(|f| f.name == "filename"))
        .flags([
            Flag::switch("arguments-only", "What follows -- are the arguments of the container, not its command."),
            Flag::switch("attach", "Wait until the container runs and attach to it."),
            Flag::text("container", "", "Name of the debugging container.").short('c'),
            Flag::text("copy-to", "", "Name of a copy of the Pod to make."),
            Flag::text("custom", "", "File with a partial container that changes what the profile says."),
            Flag::map("env", "Variables of the container, as KEY=VALUE."),
            Flag::text("image", "", "Image of the debugging container."),
            Flag::text("image-pull-policy", "", "Always, IfNotPresent or Never."),
            Flag::switch("keep-annotations", "The copy has the annotations of the Pod."),
            Flag::on("keep-init-containers", "The copy has the init containers of the Pod."),
            Flag::switch("keep-labels", "The copy has the labels of the Pod."),
            Flag::switch("keep-liveness", "The copy has the liveness probes of the Pod."),
            Flag::switch("keep-readiness", "The copy has the readiness probes of the Pod."),
            Flag::switch("keep-startup", "The copy has the startup probes of the Pod."),
            Flag::text("profile", "general", "general, baseline, restricted, netadmin or sysadmin."),
            Flag::switch("quiet", "Print the output of the session only.").short('q'),
            Flag::switch("replace", "Delete the Pod before the copy is made."),
            Flag::switch("same-node", "The copy runs on the node of the Pod."),
            Flag::map("set-image", "Images of the copy's containers, as CONTAINER=IMAGE; * stands for all."),
            Flag::on("share-processes", "The containers of the copy see each other's processes."),
            Flag::switch("stdin", "Keep standard input open.").short('i'),
            Flag::text("target", "", "Container whose processes are to be seen."),
            Flag::switch("tty", "Give the container a terminal.").short('t'),
        ])
        .runs(|context| Box::pin(run(context)))
}

/// Mistakes that need no server to be found.
fn check(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let image = flags.text("image");
    let refuse = |text: &str| Err(CommandError::plain(text));
    if flags.text("copy-to").is_empty() {
        if !flags.list("set-image").is_empty() {
            return refuse("--set-image may only be used with --copy-to.");
        }
        for flag in ["same-node", "replace"] {
            if flags.bool(flag) {
                return Err(CommandError::plain(format!("--{flag} may only be used with --copy-to.")));
            }
        }
        if image.is_empty() {
            return refuse("you must specify --image when not using --copy-to.");
        }
    } else {
        if image.is_empty() && flags.list("set-image").is_empty() && context.after_dash().is_empty() {
            return refuse("you must specify --image, --set-image or command arguments.");
        }
        if !flags.text("target").is_empty() {
            return refuse("--target is incompatible with --copy-to. Use --share-processes instead.");
        }
    }
    if !image.is_empty() && !super::run::is_reference(image) {
        return Err(CommandError::plain(format!("invalid image name {image:?}: invalid reference format")));
    }
    let policy = flags.text("image-pull-policy");
    if !["", "Always", "IfNotPresent", "Never"].contains(&policy) {
        return Err(CommandError::plain(format!("invalid image pull policy: {policy}")));
    }
    if context.before_dash().is_empty() && flags.list("filename").is_empty() {
        return refuse("NAME or filename is required for debug");
    }
    if flags.bool("tty") && !flags.bool("stdin") {
        return refuse("-i/--stdin is required for containers with -t/--tty=true");
    }
    let profile = flags.text("profile");
    if !PROFILES.contains(&profile) {
        return Err(CommandError::plain(format!("unknown profile: {profile}")));
    }
    Ok(())
}

async fn run(context: &Context) -> Result<(), CommandError> {
    check(context)?;
    let flags = &context.flags;
    let custom = profile::custom(context)?;
    if flags.text("profile") == "legacy" {
        writeln!(
            context.streams.err.clone(),
            "--profile=legacy is deprecated and planned to be removed in v1.39. It is recommended to specify other \
             profile, for example \"--profile=general\"."
        )?;
    }
    let target = flags.text("target");
    if !target.is_empty() && !flags.bool("quiet") {
        writeln!(
            context.streams.out.clone(),
            "Targeting container {target:?}. If you don't see processes from this container it may be because the \
             container runtime doesn't support this feature."
        )?;
    }
    let named = match context.before_dash() {
        names if names.iter().any(|name| name.contains('/')) || names.is_empty() => names.to_vec(),
        names => std::iter::once("pods".to_owned()).chain(names.iter().cloned()).collect(),
    };
    let query = Query { arguments: named, sources: resolve::Sources::of(flags), ..Query::default() }.latest();
    let found = query.infos(context).await?;
    let cluster = context.cluster().await?;
    for info in found.infos {
        let (pod, container) = match info.resource.kind.as_str() {
            "Pod" if flags.text("copy-to").is_empty() => in_pod(context, &cluster, &info, custom.as_ref()).await?,
            "Pod" => in_copy(context, &cluster, &info, custom.as_ref()).await?,
            "Node" => on_node(context, &cluster, &info, custom.as_ref()).await?,
            kind => {
                let version = info.resource.api_version();
                return Err(CommandError::plain(format!("\"{version}, Kind={kind}\" not supported by debug")));
            }
        };
        let Some(container) = container else { continue };
        if flags.bool("attach") || (flags.bool("stdin") && !flags.given("attach")) {
            session(context, &cluster, pod, &container).await?;
        }
    }
    found.errors.into_iter().next().map_or(Ok(()), Err)
}

/// Gives a container what the flags say.
fn fill(context: &Context, container: &mut Value) {
    let flags = &context.flags;
    for (flag, field) in [("image", "image"), ("image-pull-policy", "imagePullPolicy")] {
        if let Some(text) = flags.non_empty(flag) {
            container[field] = text.into();
        }
    }
    for switch in ["stdin", "tty"] {
        if flags.bool(switch) {
            container[switch] = true.into();
        }
    }
    if !context.after_dash().is_empty() {
        let (set, cleared) = if flags.bool("arguments-only") { ("args", "command") } else { ("command", "args") };
        container[set] = json!(context.after_dash());
        if let Some(container) = container.as_object_mut().filter(|_| set == "command") {
            container.remove(cleared);
        }
    }
    let mut env = container["env"].as_array().cloned().unwrap_or_default();
    for (key, value) in flags.list("env").iter().filter_map(|pair| pair.split_once('=')) {
        env.retain(|variable| variable["name"] != key);
        env.push(json!({"name": key, "value": value}));
    }
    if !env.is_empty() {
        container["env"] = env.into();
    }
}

/// A container with everything that the flags and the profile say.
fn container(context: &Context, name: &str, place: Place, custom: Option<&Value>) -> Value {
    let mut container = json!({"name": name, "terminationMessagePolicy": "File"});
    fill(context, &mut container);
    profile::apply(context.flags.text("profile"), place, &mut container);
    profile::customise(&mut container, custom);
    container
}

/// A name that was not given.
fn made_name(context: &Context) -> Result<String, CommandError> {
    let name = format!("debugger-{}", util::random_suffix(5));
    if !context.flags.bool("quiet") {
        writeln!(context.streams.out.clone(), "Defaulting debug container name to {name}.")?;
    }
    Ok(name)
}

/// A Pod and its debugging container.
type Debugged = (Info, Option<String>);

async fn in_pod(
    context: &Context,
    cluster: &Cluster,
    info: &Info,
    custom: Option<&Value>,
) -> Result<Debugged, CommandError> {
    let name = match context.flags.text("container") {
        "" => made_name(context)?,
        given => given.to_owned(),
    };
    let mut container = container(context, &name, Place::Ephemeral, custom);
    if let Some(target) = context.flags.non_empty("target") {
        container["targetContainerName"] = target.into();
    }
    let patch = json!({"spec": {"ephemeralContainers": [container]}});
    let path = format!("{}/ephemeralcontainers", info.path());
    let pod = cluster.json(&Call::patch(&path, "application/strategic-merge-patch+json", &patch)).await?;
    let mut info = info.clone();
    info.refresh(pod);
    Ok((info, Some(name)))
}

async fn in_copy(
    context: &Context,
    cluster: &Cluster,
    info: &Info,
    custom: Option<&Value>,
) -> Result<Debugged, CommandError> {
    let wanted = copy::Wanted::of(context);
    let change = |container: &mut Value| {
        fill(context, container);
        profile::customise(container, custom);
        Ok(())
    };
    let (pod, container) = wanted.copy(&info.object, change, || made_name(context))?;
    if context.flags.bool("replace") {
        cluster.json(&Call::delete(&info.path(), &json!({"gracePeriodSeconds": 0}))).await?;
    }
    let pod = cluster.json(&Call::post(&info.collection(), &pod)).await?;
    let mut info = info.clone();
    info.refresh(pod);
    Ok((info, container))
}

async fn on_node(
    context: &Context,
    cluster: &Cluster,
    node: &Info,
    custom: Option<&Value>,
) -> Result<Debugged, CommandError> {
    let profile = context.flags.text("profile");
    let container_name = context.flags.non_empty("container").unwrap_or("debugger");
    let name = format!("node-debugger-{}-{}", node.name, util::random_suffix(5));
    if !context.flags.bool("quiet") {
        writeln!(
            context.streams.out.clone(),
            "Creating debugging pod {name} with container {container_name} on node {}.",
            node.name
        )?;
    }
    let mut container = container(context, container_name, Place::Node, custom);
    let mut spec = json!({
        "nodeName": node.name,
        "restartPolicy": "Never",
        "tolerations": [{"operator": "Exists"}],
    });
    if ["legacy", "general", "sysadmin"].contains(&profile) {
        let mut mounts = vec![json!({"name": "host-root", "mountPath": "/host"})];
        mounts.extend(container["volumeMounts"].as_array().cloned().unwrap_or_default());
        container["volumeMounts"] = mounts.into();
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
    Ok((info, Some(container_name.to_owned())))
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
    fn states_of_debugging_containers_are_found() {
        let pod = json!({"status": {"ephemeralContainerStatuses": [{"name": "d", "state": {"running": {}}}]}});
        assert!(!state(&pod, "d")["running"].is_null() && state(&pod, "x").is_null());
    }
}
