//! The checks of the baseline level.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Pod, Violation,
    setters::{Setters, containers, plural, quoted},
};

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Allowed sysctls, with the first minor version that allows them.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Names of the containers for which `bad` holds, none if there are none.
pub(super) fn bad_containers<'a>(pod: &Pod<'a>, bad: impl Fn(&Value) -> bool) -> Option<Vec<&'a str>> {
    let names: Vec<&str> = pod.containers().filter(|(_, container)| bad(container)).map(|(name, _)| name).collect();
    (!names.is_empty()).then_some(names)
}

/// The type of a seccomp or AppArmor profile, if it is forbidden.
pub(super) fn bad_profile(kind: &Value) -> Option<String> {
    let kind = text(kind);
    (!matches!(kind, "RuntimeDefault" | "Localhost")).then(|| kind.to_owned())
}

pub(super) fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    let setters = Setters::find(pod, "/appArmorProfile/type", bad_profile);
    let mut annotations: Vec<String> = meta_annotations(pod)
        .filter(|(key, value)| {
            let allowed = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APP_ARMOR_ANNOTATION) && !allowed
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotations.sort();
    let mut who: Vec<String> = Some(setters.who()).filter(|who| !who.is_empty()).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = setters.values.iter().cloned().chain(annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    let detail = format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values));
    Some(Violation::new(reason, detail))
}

fn meta_annotations<'a>(pod: &Pod<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    pod.metadata["annotations"].as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), text(value)))
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let added = |container: &Value| -> Vec<String> {
        texts(container.pointer("/securityContext/capabilities/add"))
            .filter(|capability| !CAPABILITIES.contains(capability))
            .map(str::to_owned)
            .collect()
    };
    let names = bad_containers(pod, |container| !added(container).is_empty())?;
    let all: BTreeSet<String> = pod.containers().flat_map(|(_, container)| added(container)).collect();
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", containers(&names), quoted(&all));
    Some(Violation::new("non-default capabilities", detail))
}

pub(super) fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|field| pod.spec[**field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    (!used.is_empty()).then(|| Violation::new("host namespaces", used.join(", ")))
}

pub(super) fn host_path_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let names: Vec<&str> = volumes.filter(|v| v["hostPath"].is_object()).map(|v| text(&v["name"])).collect();
    let detail = format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names));
    (!names.is_empty()).then(|| Violation::new("hostPath volumes", detail))
}

pub(super) fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let used = |container: &Value| -> Vec<String> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0).map(|p| p.to_string()).collect()
    };
    let names = bad_containers(pod, |container| !used(container).is_empty())?;
    let ports: BTreeSet<String> = pod.containers().flat_map(|(_, container)| used(container)).collect();
    let reason = plural("hostPort", "hostPorts", ports.len());
    let listed = ports.into_iter().collect::<Vec<_>>().join(", ");
    let detail = format!("{} {} {reason} {listed}", containers(&names), plural("uses", "use", names.len()));
    Some(Violation::new(reason, detail))
}

pub(super) fn probe_hosts(pod: &Pod<'_>) -> Option<Violation> {
    const PLACES: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let used = |container: &Value| -> Vec<String> {
        let handlers = PLACES.iter().filter_map(|place| container.pointer(place));
        handlers
            .flat_map(|handler| ["httpGet", "tcpSocket"].map(|action| text(&handler[action]["host"]).to_owned()))
            .filter(|host| !host.is_empty())
            .collect()
    };
    let names = bad_containers(pod, |container| !used(container).is_empty())?;
    let hosts: BTreeSet<String> = pod.containers().flat_map(|(_, container)| used(container)).collect();
    let what = plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len());
    let detail = format!("{} {} {what} {}", containers(&names), plural("uses", "use", names.len()), quoted(&hosts));
    Some(Violation::new(what, detail))
}

pub(super) fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = bad_containers(pod, |c| c.pointer("/securityContext/privileged") == Some(&Value::Bool(true)))?;
    let detail = format!("{} must not set securityContext.privileged=true", containers(&names));
    Some(Violation::new("privileged", detail))
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let kind = |container: &Value| {
        let kind = container.pointer("/securityContext/procMount").map_or("Default", text).to_owned();
        Some(kind).filter(|kind| kind != "Default")
    };
    let names = bad_containers(pod, |container| kind(container).is_some())?;
    let kinds: BTreeSet<String> = pod.containers().filter_map(|(_, container)| kind(container)).collect();
    let detail = format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(&kinds));
    Some(Violation::new("procMount", detail))
}

pub(super) fn se_linux_options(pod: &Pod<'_>) -> Option<Violation> {
    let allowed = |kind: &str| match kind {
        "" | "container_t" | "container_init_t" | "container_kvm_t" => true,
        "container_engine_t" => pod.version.since(31),
        _ => false,
    };
    let field = |options: &Value, name: &str| options[name].as_str().is_some_and(|value| !value.is_empty());
    let bad = |options: &Value| {
        (!allowed(text(&options["type"])) || field(options, "user") || field(options, "role")).then(String::new)
    };
    let setters = Setters::find(pod, "/seLinuxOptions", bad);
    if setters.is_empty() {
        return None;
    }
    let own = pod.spec.pointer("/securityContext/seLinuxOptions").into_iter();
    let of_containers = pod.containers().filter_map(|(_, c)| c.pointer("/securityContext/seLinuxOptions"));
    let all: Vec<&Value> = own.chain(of_containers).collect();
    let kinds: BTreeSet<&str> = all.iter().map(|o| text(&o["type"])).filter(|kind| !allowed(kind)).collect();
    let mut data = Vec::new();
    if !kinds.is_empty() {
        data.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(&kinds)));
    }
    for name in ["user", "role"] {
        if all.iter().any(|options| field(options, name)) {
            data.push(format!("{name} may not be set"));
        }
    }
    let detail = format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.who(), data.join("; "));
    Some(Violation::new("seLinuxOptions", detail))
}

pub(super) fn seccomp_profile(pod: &Pod<'_>) -> Option<Violation> {
    if !pod.version.since(19) {
        return seccomp_annotations(pod);
    }
    let setters = Setters::find(pod, "/seccompProfile/type", bad_profile);
    (!setters.is_empty()).then(|| seccomp_set(&setters))
}

/// What is said of profiles that are set to something forbidden.
pub(super) fn seccomp_set(setters: &Setters<'_>) -> Violation {
    let values = quoted(&setters.values);
    let detail = format!("{} must not set securityContext.seccompProfile.type to {values}", setters.who());
    Violation::new("seccompProfile", detail)
}

fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let mut forbidden: Vec<String> = meta_annotations(pod)
        .filter(|(key, value)| {
            let allowed =
                matches!(*value, "" | "runtime/default" | "docker/default") || value.starts_with("localhost/");
            (*key == SECCOMP_POD_ANNOTATION || key.starts_with(SECCOMP_ANNOTATION)) && !allowed
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    forbidden.sort();
    let what = plural("annotation", "annotations", forbidden.len());
    let detail = format!("forbidden {what} {}", forbidden.join(", "));
    (!forbidden.is_empty()).then(|| Violation::new("seccompProfile", detail))
}

pub(super) fn sysctls(pod: &Pod<'_>) -> Option<Violation> {
    let set = pod.spec.pointer("/securityContext/sysctls").and_then(Value::as_array).into_iter().flatten();
    let allowed = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && pod.version.since(*since));
    let forbidden: Vec<&str> = set.map(|sysctl| text(&sysctl["name"])).filter(|name| !allowed(name)).collect();
    let reason = plural("forbidden sysctl", "forbidden sysctls", forbidden.len());
    (!forbidden.is_empty()).then(|| Violation::new(reason, forbidden.join(", ")))
}

pub(super) fn windows_host_process(pod: &Pod<'_>) -> Option<Violation> {
    let setters =
        Setters::find(pod, "/windowsOptions/hostProcess", |value| (*value == true).then(|| "true".to_owned()));
    let detail = format!("{} must not set securityContext.windowsOptions.hostProcess=true", setters.who());
    (!setters.is_empty()).then(|| Violation::new("hostProcess", detail))
}
