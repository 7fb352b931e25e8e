//! `kubectl run`.

mod attached;

use machinery::patch;
use serde_json::{Map, Value, json};

use super::expose::pairs;
use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    last_applied,
    print::{self, DryRun, Results, declared},
};

/// Flags of commands that generate an object which can be overridden.
fn overrides() -> [Flag; 2] {
    [
        Flag::text("override-type", "merge", "How overrides are applied: json, merge or strategic."),
        Flag::text("overrides", "", "A patch of the generated object."),
    ]
}

/// The command.
pub(crate) fn command() -> Command {
    Command::new("run", "Run a particular image on the cluster")
        .usage("NAME --image=image [--env=\"key=value\"] [--port=port] [--dry-run=server|client] [--overrides=inline-json] [--command] -- [COMMAND] [args...]")
        .examples(&["kubectl run nginx --image=nginx", "kubectl run -i -t busybox --image=busybox --restart=Never"])
        .flags(print::write_flags("kubectl-run"))
        .flags(super::delete::flags())
        .flags(crate::resolve::file_flags("Accepted as by other clients; the Pod is made from the other flags."))
        .flags(overrides())
        .flags([
            Flag::array("annotations", "Annotations of the Pod, as key=value."),
            Flag::switch("attach", "Wait until the Pod runs and attach to it."),
            Flag::switch("command", "What follows -- is the command, not its arguments."),
            Flag::array("env", "Variables of the container, as KEY=VALUE."),
            Flag::switch("expose", "Make a Service of type ClusterIP for the Pod; needs --port."),
            Flag::text("image", "", "Image of the container.").required(),
            Flag::text("image-pull-policy", "", "Always, IfNotPresent or Never."),
            Flag::text("labels", "", "Labels of the Pod.").short('l'),
            Flag::switch("leave-stdin-open", "Keep standard input open after the first session."),
            Flag::duration("pod-running-timeout", "1m0s", "Time to wait until the Pod runs."),
            Flag::text("port", "", "Port that the container exposes."),
            Flag::switch("privileged", "Run the container privileged."),
            Flag::switch("quiet", "Print the output of the session only.").short('q'),
            Flag::text("restart", "Always", "Always, OnFailure or Never."),
            Flag::switch("rm", "Delete the Pod when the session ends."),
            Flag::switch("save-config", "Keep the configuration in an annotation, for apply."),
            Flag::switch("stdin", "Keep standard input open.").short('i'),
            Flag::switch("tty", "Give the container a terminal.").short('t'),
            Flag::switch("wait", "With --rm, wait until the Pod is gone."),
            crate::remote::detach_flag(),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let Some(name) = context.args.first() else {
        return Err(context.usage("NAME is required for run"));
    };
    let dry_run = DryRun::of(context)?;
    let is_attached = flags.bool("attach") || flags.bool("stdin") || flags.bool("tty");
    check(context, dry_run, is_attached)?;
    let mut results = Results::of(context, dry_run)?;
    let mut out = context.streams.out.clone();
    let selected = context.selected()?;
    let namespace = selected.enforced.then_some(selected.namespace.as_str());
    let mut pod = overridden(context, pod(context, name, namespace)?)?;
    if flags.bool("save-config") {
        last_applied::write_declared(&mut pod);
    }
    let mut errors = Vec::new();
    if flags.bool("expose") {
        let service = service(name, flags.text("port"), namespace, &pod)?;
        match create(context, "services", &service, dry_run).await {
            Ok(created) => results.print_declared(&created, "created", &mut out)?,
            Err(error) => errors.push(error),
        }
    }
    let created = create(context, "pods", &pod, dry_run).await?;
    if !is_attached {
        results.print_declared(&created, "created", &mut out)?;
        return CommandError::all(errors);
    }
    let session = attached::run(context, &created).await;
    if flags.bool("rm") {
        attached::remove(context, &created).await?;
    }
    session?;
    CommandError::all(errors)
}

/// Flags that contradict each other.
fn check(context: &Context, dry_run: DryRun, is_attached: bool) -> Result<(), CommandError> {
    let flags = &context.flags;
    let image = flags.text("image");
    if image.is_empty() {
        return Err(CommandError::plain("--image is required"));
    }
    if !is_reference(image) {
        return Err(CommandError::plain(format!("Invalid image name {image:?}: invalid reference format")));
    }
    let usage = |text: &str| Err(context.usage(text));
    if flags.bool("tty") && !flags.bool("stdin") {
        return usage("-i/--stdin is required for containers with -t/--tty=true");
    }
    if flags.bool("expose") && flags.text("port").is_empty() {
        return usage("--port must be set when exposing a service");
    }
    if dry_run != DryRun::None && is_attached {
        return usage(
            "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
        );
    }
    if flags.bool("rm") && !is_attached {
        return usage("--rm should only be used for attached containers");
    }
    let restart = flags.text("restart");
    if !["Always", "OnFailure", "Never"].contains(&restart) {
        return usage(&format!("invalid restart policy: {restart}"));
    }
    let pull = flags.text("image-pull-policy");
    if !["", "Always", "IfNotPresent", "Never"].contains(&pull) {
        return usage(&format!("invalid image pull policy: {pull}"));
    }
    Ok(())
}

/// Whether a text can be the name of an image.
pub(super) fn is_reference(text: &str) -> bool {
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    let is_digest = |digest: &str| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        })
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return false;
    }
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].split_once(':') {
        Some((last, tag)) => (&rest[..slash + last.len()], Some(tag)),
        None => (rest, None),
    };
    let is_tag = |tag: &str| {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-')
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return false;
    }
    let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_part = |part: &str| {
        part.starts_with(small)
            && part.ends_with(small)
            && part.chars().all(|c| small(c) || ['.', '_', '-'].contains(&c))
    };
    let is_host = |part: &str| {
        let alphanumeric = |c: char| c.is_ascii_alphanumeric();
        part.starts_with(alphanumeric)
            && part.ends_with(alphanumeric)
            && part.chars().all(|c| alphanumeric(c) || ['.', ':', '-'].contains(&c))
    };
    let parts: Vec<&str> = name.split('/').collect();
    let first = parts.len() == 1 && is_part(parts[0]) || parts.len() > 1 && (is_part(parts[0]) || is_host(parts[0]));
    first && parts[1..].iter().all(|part| is_part(part))
}

fn pod(context: &Context, name: &str, namespace: Option<&str>) -> Result<Value, CommandError> {
    let flags = &context.flags;
    let mut container = json!({"name": name, "image": flags.text("image"), "resources": {}});
    let words = &context.args[1..];
    if !words.is_empty() {
        container[if flags.bool("command") { "command" } else { "args" }] = json!(words);
    }
    let mut env = Vec::new();
    for pair in flags.list("env") {
        let (key, value) = pair
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| CommandError::plain(format!("invalid env: {pair}")))?;
        env.push(json!({"name": key, "value": value}));
    }
    if !env.is_empty() {
        container["env"] = env.into();
    }
    if let Some(port) = flags.non_empty("port") {
        container["ports"] = json!([{"containerPort": port_number(port)?}]);
    }
    if let Some(policy) = flags.non_empty("image-pull-policy") {
        container["imagePullPolicy"] = policy.into();
    }
    if flags.bool("privileged") {
        container["securityContext"] = json!({"privileged": true});
    }
    for switch in ["stdin", "tty"] {
        if flags.bool(switch) {
            container[switch] = true.into();
        }
    }
    if flags.bool("stdin") && !flags.bool("leave-stdin-open") {
        container["stdinOnce"] = true.into();
    }
    let labels = match flags.text("labels") {
        "" => Map::from_iter([("run".to_owned(), Value::from(name))]),
        given => pairs(given)?,
    };
    let mut metadata = json!({"name": name, "labels": labels});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    let annotations = flags.list("annotations");
    if !annotations.is_empty() {
        metadata["annotations"] = Value::Object(pairs(&annotations.join(","))?);
    }
    let spec = json!({"containers": [container], "restartPolicy": flags.text("restart"), "dnsPolicy": "ClusterFirst"});
    Ok(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {}}))
}

fn port_number(text: &str) -> Result<i64, CommandError> {
    text.parse().map_err(|_| CommandError::plain(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
}

fn service(name: &str, port: &str, namespace: Option<&str>, pod: &Value) -> Result<Value, CommandError> {
    let port = port_number(port)?;
    let mut metadata = json!({"name": name});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    let ports = json!([{"protocol": "TCP", "port": port, "targetPort": port}]);
    let spec = json!({"ports": ports, "selector": pod["metadata"]["labels"]});
    Ok(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": {"loadBalancer": {}}}),
    )
}

/// The object with `--overrides`.
pub(super) fn overridden(context: &Context, object: Value) -> Result<Value, CommandError> {
    let Some(text) = context.flags.non_empty("overrides") else { return Ok(object) };
    let broken = || CommandError::plain("Invalid JSON Patch");
    let overrides: Value = serde_json::from_str(text).map_err(|_| broken())?;
    let applied = match context.flags.text("override-type") {
        "json" => patch::json::apply(&object, &overrides),
        "merge" => patch::merge::apply(&object, &overrides),
        "strategic" => match declared::schema(&object) {
            Some(schema) => patch::strategic::apply(&object, &overrides, schema),
            None => return Err(broken()),
        },
        other => return Err(CommandError::plain(format!("invalid merge type: {other}"))),
    };
    applied.map_err(|error| CommandError::plain(error.to_string()))
}

async fn create(context: &Context, plural: &str, object: &Value, dry_run: DryRun) -> Result<Value, CommandError> {
    if dry_run == DryRun::Client {
        return Ok(object.clone());
    }
    let cluster = context.cluster().await?;
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&cluster.namespace);
    let call = Call::post(&format!("/api/v1/namespaces/{namespace}/{plural}"), object)
        .query_if("dryRun", dry_run.query())
        .query("fieldManager", context.flags.text("field-manager"));
    cluster.json(&call).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        for text in ["b", "nginx:1.25", "registry.k8s.io/pause:3.10", "localhost:5000/a/b_c-d", "R.example.com/x"] {
            assert!(is_reference(text), "{text}");
        }
        assert!(is_reference(&format!("a@sha256:{}", "0".repeat(64))));
        for text in ["", "B", "B!", "a:", "a//b", "a:t:u", "-a", "a@x"] {
            assert!(!is_reference(text), "{text}");
        }
    }
}
