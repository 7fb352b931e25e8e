//! The kubelet of this host: its files and its process.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::{
    config::{Arg, NodeRegistration, component::ComponentConfig},
    constants::{
        BOOTSTRAP_KUBELET_CONF, KUBELET_CONF, KUBELET_CONFIG, KUBELET_DIR, KUBELET_ENV, KUBELET_INSTANCE_CONFIG,
    },
    error::{Context, Result, fail},
    host::{Host, PathKind, Program},
    supervisor, yaml,
};

/// systemd's units of the kubelet.
const UNITS: [(&str, &str); 2] = [
    ("/etc/systemd/system/kubelet.service", include_str!("../../deploy/systemd/kubelet.service")),
    ("/etc/systemd/system/kubelet.service.d/10-kubeadm.conf", include_str!("../../deploy/systemd/10-kubeadm.conf")),
];

/// Who registers the taints of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taints {
    /// The kubelet, when it registers.
    ByKubelet,
    /// kubeadm, later.
    ByKubeadm,
}

/// The one line of `kubeadm-flags.env`.
pub fn environment_file(host: &dyn Host, node: &NodeRegistration, taints: Taints) -> String {
    let mut args = Vec::new();
    if taints == Taints::ByKubelet
        && let Some(taints) = node.taints.as_ref().filter(|t| !t.is_empty())
    {
        let texts: Vec<String> = taints
            .iter()
            .map(|t| match t.value.as_str() {
                "" => format!("{}:{}", t.key, t.effect),
                value => format!("{}={value}:{}", t.key, t.effect),
            })
            .collect();
        args.push(Arg { name: "register-with-taints".into(), value: texts.join(",") });
    }
    if host.hostname().is_ok_and(|name| name != node.name) {
        args.push(Arg { name: "hostname-override".into(), value: node.name.clone() });
    }
    args.retain(|default| !node.kubelet_extra_args.iter().any(|given| given.name == default.name));
    args.sort_by(|a, b| a.name.cmp(&b.name));
    let all = args.iter().chain(&node.kubelet_extra_args).map(|a| format!("--{}={}", a.name, a.value));
    let line = all.collect::<Vec<_>>().join(" ").replace('\\', "\\\\").replace('"', "\\\"");
    format!("KUBELET_KUBEADM_ARGS=\"{line}\"\n")
}

/// Text of `instance-config.yaml`.
pub fn instance_config(node: &NodeRegistration) -> String {
    format!("containerRuntimeEndpoint: {}\n", serde_json::Value::from(node.cri_socket.as_str()))
}

/// The endpoint of the container runtime that the kubelet was told.
pub fn told_endpoint(host: &dyn Host) -> Option<String> {
    let file = yaml::parse(&host.read_text(Path::new(KUBELET_INSTANCE_CONFIG)).ok()?).ok()?;
    file.get("containerRuntimeEndpoint")?.as_str().map(ToOwned::to_owned)
}

/// Writes `kubeadm-flags.env`.
pub fn write_environment(host: &dyn Host, node: &NodeRegistration, taints: Taints) -> Result<()> {
    host.line(&format!("[kubelet-start] Writing kubelet environment file with flags to file {KUBELET_ENV:?}"));
    host.put(Path::new(KUBELET_ENV), 0o644, environment_file(host, node, taints).as_bytes())
        .with_context(|| format!("failed to write kubelet configuration to the file {KUBELET_ENV:?}"))
}

/// Writes `instance-config.yaml` and `config.yaml`.
pub fn write_config(
    host: &dyn Host,
    node: &NodeRegistration,
    config: &ComponentConfig,
    patches: Option<&crate::patches::Patches>,
) -> Result<()> {
    host.line(&format!("[kubelet-start] Writing kubelet configuration to file {KUBELET_INSTANCE_CONFIG:?}"));
    host.put(Path::new(KUBELET_INSTANCE_CONFIG), 0o644, instance_config(node).as_bytes())
        .with_context(|| format!("failed to write kubelet configuration to the file {KUBELET_INSTANCE_CONFIG:?}"))?;
    let mut document = config.document.clone();
    let resolved = Path::new("/run/systemd/resolve/resolv.conf");
    if host.has_systemd() && host.kind(resolved) == Some(PathKind::File) && document.get("resolvConf").is_none() {
        document["resolvConf"] = resolved.to_string_lossy().into();
    }
    if let Some(patches) = patches {
        document = patches.apply(host, "kubeletconfiguration", document)?;
    }
    document["containerRuntimeEndpoint"] = node.cri_socket.as_str().into();
    host.line(&format!("[kubelet-start] Writing kubelet configuration to file {KUBELET_CONFIG:?}"));
    host.put(Path::new(KUBELET_CONFIG), 0o644, yaml::to_yaml(&document)?.as_bytes())
        .with_context(|| format!("failed to write kubelet configuration to the file {KUBELET_CONFIG:?}"))
}

/// Stops the kubelet before its files change.
pub fn stop(host: &dyn Host) -> Result<()> {
    if host.has_systemd() {
        return if has_unit(host) { systemctl(host, "stop") } else { Ok(()) };
    }
    supervisor::stop(host)
}

/// Starts the kubelet: by systemd where it runs, otherwise as a process of its own.
pub fn start(host: &dyn Host, programs: &Path) -> Result<()> {
    host.line("[kubelet-start] Starting the kubelet");
    launch(host, programs)
}

/// Starts the kubelet unless it runs.
pub fn ensure_running(host: &dyn Host, programs: &Path) -> Result<()> {
    if host.has_systemd() {
        return systemctl(host, "start");
    }
    if supervisor::supervisor(host).is_some() { Ok(()) } else { launch(host, programs) }
}

fn launch(host: &dyn Host, programs: &Path) -> Result<()> {
    if host.has_systemd() {
        if !has_unit(host) {
            install_unit(host, programs)?;
        }
        systemctl(host, "daemon-reload")?;
        return systemctl(host, "restart");
    }
    stop(host)?;
    let Some(program) = program(host, programs) else {
        host.line(
            "[kubelet-start] no supported init system detected, won't make sure the kubelet is running properly.",
        );
        return Ok(());
    };
    supervisor::start(host, &program)
}

/// The kubelet beside kubeadm, or the one in the search path.
fn program(host: &dyn Host, programs: &Path) -> Option<PathBuf> {
    let beside = programs.join("kubelet");
    if host.kind(&beside) == Some(PathKind::File) { Some(beside) } else { host.find_program("kubelet") }
}

fn has_unit(host: &dyn Host) -> bool {
    host.run(&Program::new("systemctl", ["cat", "kubelet"])).is_ok_and(|ended| ended.success())
}

/// Installs the units that packages bring, for hosts without packages.
fn install_unit(host: &dyn Host, programs: &Path) -> Result<()> {
    let Some(program) = program(host, programs) else {
        return fail!("the kubelet is not installed");
    };
    let program = program.to_string_lossy();
    for (path, text) in UNITS {
        host.put(Path::new(path), 0o644, text.replace("/usr/bin/kubelet", &program).as_bytes())
            .with_context(|| format!("couldn't write {path}"))?;
    }
    systemctl(host, "daemon-reload")?;
    systemctl(host, "enable")
}

/// Restarts the kubelet after its credentials changed.
pub fn restart(host: &dyn Host, programs: &Path) -> Result<()> {
    stop(host)?;
    launch(host, programs)
}

/// What the kubelet is started with: the same as by systemd's unit.
pub fn arguments(host: &dyn Host) -> Vec<String> {
    let mut args = vec![
        format!("--bootstrap-kubeconfig={BOOTSTRAP_KUBELET_CONF}"),
        format!("--kubeconfig={KUBELET_CONF}"),
        format!("--config={KUBELET_CONFIG}"),
    ];
    for (file, variable) in [(KUBELET_ENV, "KUBELET_KUBEADM_ARGS"), ("/etc/default/kubelet", "KUBELET_EXTRA_ARGS")] {
        let text = host.read_text(Path::new(file)).unwrap_or_default();
        args.extend(variable_words(&text, variable));
    }
    args
}

/// Words of a variable in an environment file.
pub fn variable_words(text: &str, variable: &str) -> Vec<String> {
    let value = text.lines().find_map(|line| line.trim().strip_prefix(variable)?.strip_prefix('='));
    let Some(value) = value else { return Vec::new() };
    let quoted = value.trim().strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    let plain = match quoted {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => value.trim().to_owned(),
    };
    plain.split_whitespace().map(ToOwned::to_owned).collect()
}

fn systemctl(host: &dyn Host, verb: &str) -> Result<()> {
    let args: &[&str] = if verb == "daemon-reload" { &["daemon-reload"] } else { &[verb, "kubelet"] };
    let ended = host.run(&Program::new("systemctl", args.iter().copied())).context("couldn't run systemctl")?;
    if ended.success() { Ok(()) } else { fail!("systemctl {verb} kubelet: {}", ended.stderr.trim()) }
}

/// URL of the kubelet's health page; `None` when it has none.
pub fn health_url(config: &ComponentConfig) -> Option<String> {
    let port = config.get(&["healthzPort"]).and_then(Value::as_i64).unwrap_or(10248);
    let address = config.get(&["healthzBindAddress"]).and_then(Value::as_str).unwrap_or("127.0.0.1");
    (port != 0).then(|| format!("http://{}/healthz", crate::config::join_host_port(address, port)))
}

/// The document of a kubelet's configuration as a component.
pub fn config_from_file(host: &dyn Host) -> ComponentConfig {
    let text = host.read_text(Path::new(KUBELET_CONFIG)).unwrap_or_default();
    let document = yaml::parse(&text).ok().filter(Value::is_object).unwrap_or_else(|| json!({}));
    ComponentConfig { document, from_user: true }
}

/// Path of the client certificate that the kubelet rotates.
pub fn rotated_certificate(node: &NodeRegistration) -> std::path::PathBuf {
    let directory = crate::config::argument(&node.kubelet_extra_args, "cert-dir")
        .map_or_else(|| format!("{KUBELET_DIR}/pki"), ToOwned::to_owned);
    Path::new(&directory).join("kubelet-client-current.pem")
}
