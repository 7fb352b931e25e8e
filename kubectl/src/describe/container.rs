//! Containers: what they run, their state, resources, probes, environment and mounts.

use machinery::quantity::Quantity;
use serde_json::Value;

use super::{
    page::{Page, put},
    read::{flag, list, number, or, quantity, scalar, sorted, text, texts, title_bool},
};

/// What a list of containers is shown with.
pub(crate) struct Containers<'a> {
    /// Heading.
    pub(crate) title: &'a str,
    /// Containers of the spec.
    pub(crate) containers: &'a Value,
    /// Their statuses.
    pub(crate) statuses: &'a Value,
    /// The Pod that field references are resolved with; none in a template.
    pub(crate) pod: Option<&'a Value>,
}

/// Shows containers; those of a template stand two blanks deeper, their names one less.
pub(crate) fn containers(page: &mut Page, of: &Containers<'_>) {
    let (indent, name_indent) = if of.pod.is_some() { ("", "  ") } else { ("  ", "   ") };
    page.raw(indent, format_args!("{}:", of.title));
    for container in list(of.containers) {
        let name = text(&container["name"]);
        let status = list(of.statuses).iter().find(|status| status["name"] == container["name"]);
        page.raw(name_indent, format_args!("{name}:"));
        basics(page, container, status);
        command(page, container);
        if let Some(status) = status {
            state(page, "State", &status["state"]);
            if !status["lastState"]["terminated"].is_null() {
                state(page, "Last State", &status["lastState"]);
            }
            put!(page, 2, "Ready:\t{}", title_bool(flag(&status["ready"])));
            put!(page, 2, "Restart Count:\t{}", number(&status["restartCount"]));
        }
        resources(page, 2, &container["resources"]);
        probes(page, container);
        environment(page, container, of.pod);
        mounts(page, container);
    }
}

fn basics(page: &mut Page, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        put!(page, 2, "Container ID:\t{}", text(&status["containerID"]));
    }
    put!(page, 2, "Image:\t{}", text(&container["image"]));
    if let Some(status) = status {
        put!(page, 2, "Image ID:\t{}", text(&status["imageID"]));
    }
    let ports = list(&container["ports"]);
    for (title, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let rows: Vec<String> = ports
            .iter()
            .map(|port| {
                let name = text(&port["name"]);
                let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
                format!("{}/{}{name}", number(&port[field]), or(text(&port["protocol"]), "TCP"))
            })
            .collect();
        let plural = if rows.len() > 1 { "s" } else { "" };
        put!(page, 2, "{title}{plural}:\t{}", or(&rows.join(", "), "<none>"));
    }
    let profile = &container["securityContext"]["seccompProfile"];
    if !profile.is_null() {
        put!(page, 2, "SeccompProfile:\t{}", text(&profile["type"]));
        if text(&profile["type"]) == "Localhost" {
            put!(page, 3, "LocalhostProfile:\t{}", text(&profile["localhostProfile"]));
        }
    }
}

fn command(page: &mut Page, container: &Value) {
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        let words = texts(&container[field]);
        if words.is_empty() {
            continue;
        }
        put!(page, 2, "{title}:");
        for line in words.iter().flat_map(|word| word.split('\n')) {
            put!(page, 3, "{line}");
        }
    }
}

fn state(page: &mut Page, title: &str, state: &Value) {
    let (waiting, running, ended) = (&state["waiting"], &state["running"], &state["terminated"]);
    if !running.is_null() {
        put!(page, 2, "{title}:\tRunning");
        let at = page.clock.time(text(&running["startedAt"]));
        put!(page, 3, "Started:\t{at}");
    } else if !ended.is_null() && waiting.is_null() {
        put!(page, 2, "{title}:\tTerminated");
        for (title, field) in [("Reason", "reason"), ("Message", "message")] {
            let text = text(&ended[field]);
            if !text.is_empty() {
                put!(page, 3, "{title}:\t{text}");
            }
        }
        put!(page, 3, "Exit Code:\t{}", number(&ended["exitCode"]));
        if number(&ended["signal"]) > 0 {
            put!(page, 3, "Signal:\t{}", number(&ended["signal"]));
        }
        for (title, field) in [("Started", "startedAt"), ("Finished", "finishedAt")] {
            let at = page.clock.time(text(&ended[field]));
            put!(page, 3, "{title}:\t{at}");
        }
    } else {
        put!(page, 2, "{title}:\tWaiting");
        let reason = text(&waiting["reason"]);
        if !reason.is_empty() {
            put!(page, 3, "Reason:\t{reason}");
        }
    }
}

/// Limits and requests.
pub(crate) fn resources(page: &mut Page, level: usize, resources: &Value) {
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        let rows = sorted(&resources[field]);
        if rows.is_empty() {
            continue;
        }
        put!(page, level, "{title}:");
        for (name, amount) in rows {
            put!(page, level + 1, "{name}:\t{}", quantity(amount));
        }
    }
}

fn probes(page: &mut Page, container: &Value) {
    let probes = [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")];
    for (title, field) in probes {
        if !container[field].is_null() {
            put!(page, 2, "{title}:\t{}", probe(&container[field]));
        }
    }
}

/// What a probe does and when.
pub(crate) fn probe(probe: &Value) -> String {
    let times = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number(&probe["initialDelaySeconds"]),
        number(&probe["timeoutSeconds"]),
        number(&probe["periodSeconds"]),
        number(&probe["successThreshold"]),
        number(&probe["failureThreshold"]),
    );
    let action = if !probe["exec"].is_null() {
        format!("exec [{}]", texts(&probe["exec"]["command"]).join(" "))
    } else if !probe["httpGet"].is_null() {
        let get = &probe["httpGet"];
        let port = scalar(&get["port"]);
        let port = if port.is_empty() { port } else { format!(":{port}") };
        let path = text(&get["path"]);
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        format!("http-get {}://{}{port}{slash}{path}", text(&get["scheme"]).to_lowercase(), text(&get["host"]))
    } else if !probe["tcpSocket"].is_null() {
        let socket = &probe["tcpSocket"];
        format!("tcp-socket {}:{}", text(&socket["host"]), scalar(&socket["port"]))
    } else if !probe["grpc"].is_null() {
        let grpc = &probe["grpc"];
        format!("grpc <pod>:{} {}", number(&grpc["port"]), text(&grpc["service"]))
    } else {
        "unknown".into()
    };
    format!("{action} {times}")
}

fn environment(page: &mut Page, container: &Value, pod: Option<&Value>) {
    let sources = list(&container["envFrom"]);
    if !sources.is_empty() {
        put!(page, 2, "Environment Variables from:");
    }
    for source in sources {
        let (kind, reference) = match &source["configMapRef"] {
            Value::Null => ("Secret", &source["secretRef"]),
            reference => ("ConfigMap", reference),
        };
        let prefix = text(&source["prefix"]);
        let prefix = if prefix.is_empty() { String::new() } else { format!(" with prefix '{prefix}'") };
        put!(page, 3, "{}\t{kind}{prefix}\tOptional: {}", text(&reference["name"]), flag(&reference["optional"]));
    }
    let variables = list(&container["env"]);
    if variables.is_empty() {
        put!(page, 2, "Environment:\t<none>");
        return;
    }
    put!(page, 2, "Environment:");
    for variable in variables {
        self::variable(page, variable, container, pod);
    }
}

fn variable(page: &mut Page, variable: &Value, container: &Value, pod: Option<&Value>) {
    let name = text(&variable["name"]);
    let from = &variable["valueFrom"];
    if from.is_null() {
        for (at, line) in text(&variable["value"]).split('\n').enumerate() {
            if at == 0 {
                put!(page, 3, "{name}:\t{line}");
            } else {
                put!(page, 3, "\t{line}");
            }
        }
    } else if !from["fieldRef"].is_null() {
        let field = &from["fieldRef"];
        let path = text(&field["fieldPath"]);
        let value = match path {
            "metadata.name" | "metadata.namespace" => pod.map_or("", |pod| text(&pod["metadata"][&path[9..]])),
            _ => "",
        };
        put!(page, 3, "{name}:\t{value} ({}:{path})", text(&field["apiVersion"]));
    } else if !from["resourceFieldRef"].is_null() {
        let reference = &from["resourceFieldRef"];
        let resource = text(&reference["resource"]);
        let mut value = resource_value(reference, container);
        if value == "0" && ["limits.cpu", "limits.memory"].contains(&resource) {
            value = "node allocatable".into();
        }
        put!(page, 3, "{name}:\t{value} ({resource})");
    } else if !from["secretKeyRef"].is_null() {
        let key = &from["secretKeyRef"];
        let (of, optional) = (text(&key["name"]), flag(&key["optional"]));
        put!(page, 3, "{name}:\t<set to the key '{}' in secret '{of}'>\tOptional: {optional}", text(&key["key"]));
    } else if !from["configMapKeyRef"].is_null() {
        let key = &from["configMapKeyRef"];
        let (of, optional) = (text(&key["name"]), flag(&key["optional"]));
        put!(page, 3, "{name}:\t<set to the key '{}' of config map '{of}'>\tOptional: {optional}", text(&key["key"]));
    }
}

/// A request or limit in units of its divisor, rounded up.
fn resource_value(reference: &Value, container: &Value) -> String {
    let (kind, name) = text(&reference["resource"]).split_once('.').unwrap_or_default();
    let read = |value: &Value| Quantity::parse(&scalar(value)).ok();
    let amount = read(&container["resources"][kind][name]);
    let divisor = read(&reference["divisor"]).filter(|d| !d.is_zero());
    let measure = |quantity: Option<Quantity>, default: i64| match (quantity, name) {
        (Some(quantity), "cpu") => quantity.milli_value(),
        (Some(quantity), _) => quantity.value(),
        (None, _) => default,
    };
    let divisor = measure(divisor, if name == "cpu" { 1000 } else { 1 }).max(1);
    let amount = measure(amount, 0);
    (amount / divisor + i64::from(amount % divisor > 0)).to_string()
}

fn mounts(page: &mut Page, container: &Value) {
    let mut mounts: Vec<&Value> = list(&container["volumeMounts"]).iter().collect();
    if mounts.is_empty() {
        put!(page, 2, "Mounts:\t<none>");
    } else {
        put!(page, 2, "Mounts:");
    }
    mounts.sort_by_key(|mount| text(&mount["mountPath"]));
    for mount in mounts {
        let access = if flag(&mount["readOnly"]) { "ro" } else { "rw" };
        let sub_path = text(&mount["subPath"]);
        let sub_path = if sub_path.is_empty() { String::new() } else { format!(",path={sub_path:?}") };
        put!(page, 3, "{} from {} ({access}{sub_path})", text(&mount["mountPath"]), text(&mount["name"]));
    }
    let mut devices: Vec<&Value> = list(&container["volumeDevices"]).iter().collect();
    devices.sort_by_key(|device| text(&device["devicePath"]));
    if !devices.is_empty() {
        put!(page, 2, "Devices:");
    }
    for device in devices {
        put!(page, 3, "{} from {}", text(&device["devicePath"]), text(&device["name"]));
    }
}
