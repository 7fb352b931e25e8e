//! Containers of Pods and pod templates.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::{
    super::{
        checks::{enumeration, port_number},
        read::{is_true, list, number, present, text},
    },
    environment, mounts,
    probes::{self, PROBES},
    resources, restart, security,
    volumes::Volumes,
};

/// What containers may refer to in their pod spec.
pub(super) struct Surroundings<'a> {
    /// The pod spec.
    pub(super) spec: &'a Value,
    /// Its valid volumes.
    pub(super) volumes: Volumes<'a>,
}

/// Checks the regular, init and ephemeral containers of a pod spec.
pub(super) fn all(around: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    let spec = around.spec;
    let mut names = HashSet::new();
    regular(around, &path.child("containers"), &mut names, errors);
    init(around, &path.child("initContainers"), &mut names, errors);
    super::ephemeral::all(around, &path.child("ephemeralContainers"), &mut names, errors);
    if is_true(spec, "hostNetwork") {
        for field in ["containers", "initContainers"] {
            list(spec, field).iter().enumerate().for_each(|(at, container)| {
                same_ports_on_host(container, &path.child(field).index(at).child("ports"), errors);
            });
        }
    }
}

fn regular<'a>(around: &Surroundings<'a>, path: &Path, names: &mut HashSet<&'a str>, errors: &mut ErrorList) {
    let containers = list(around.spec, "containers");
    if containers.is_empty() {
        errors.required(path, "");
        return;
    }
    for (at, container) in containers.iter().enumerate() {
        let path = path.index(at);
        basics(container, around, &path, errors);
        unique(container, &path, names, errors);
        runs_on(container, around.spec, &path, errors);
        restart::regular(container, &path, errors);
    }
    let mut taken = HashSet::new();
    for (at, container) in containers.iter().enumerate() {
        host_ports(container, &path.index(at), &mut taken, errors);
    }
}

fn init<'a>(around: &Surroundings<'a>, path: &Path, names: &mut HashSet<&'a str>, errors: &mut ErrorList) {
    for (at, container) in list(around.spec, "initContainers").iter().enumerate() {
        // Init containers run one by one: each is alone with its host ports, and is named as the first of its list.
        let alone = path.index(0);
        let path = path.index(at);
        basics(container, around, &path, errors);
        restart::init(container, &path, errors);
        unique(container, &path, names, errors);
        host_ports(container, &alone, &mut HashSet::new(), errors);
        if text(container, "restartPolicy") == "Always" {
            runs_on(container, around.spec, &path, errors);
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if present(container, field).is_some() {
                errors.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
            }
        }
    }
}

/// Lifecycle and probes of a container that runs as long as its Pod.
fn runs_on(container: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let grace = number(spec, "terminationGracePeriodSeconds");
    if let Some(lifecycle) = present(container, "lifecycle") {
        probes::lifecycle(lifecycle, grace, &path.child("lifecycle"), errors);
    }
    for kind in PROBES {
        if let Some(probe) = present(container, kind) {
            probes::probe(kind, probe, grace, &path.child(kind), errors);
        }
    }
}

fn unique<'a>(container: &'a Value, path: &Path, seen: &mut HashSet<&'a str>, errors: &mut ErrorList) {
    let name = text(container, "name");
    if !name.is_empty() && !seen.insert(name) {
        errors.duplicate(&path.child("name"), &json!(name));
    }
}

/// What holds for every container, whatever list it is in.
pub(super) fn basics(container: &Value, around: &Surroundings<'_>, path: &Path, errors: &mut ErrorList) {
    let name = text(container, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
    }
    if text(container, "image").is_empty() {
        errors.required(&path.child("image"), "");
    }
    enumeration(container, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], path, errors);
    ports(container, &path.child("ports"), errors);
    environment::variables(container, around, &path.child("env"), errors);
    environment::sources(container, &path.child("envFrom"), errors);
    mounts::mounts(container, &around.volumes, &path.child("volumeMounts"), errors);
    mounts::devices(container, &around.volumes, &path.child("volumeDevices"), errors);
    enumeration(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], path, errors);
    resources::resize_policy(container, around.spec, &path.child("resizePolicy"), errors);
    resources::container(container, around.spec, &path.child("resources"), errors);
    security::container(container, around.spec, &path.child("securityContext"), errors);
}

fn ports(container: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, port) in list(container, "ports").iter().enumerate() {
        let path = path.index(at);
        let name = text(port, "name");
        if !name.is_empty() {
            let problems = names::port_name(name);
            if problems.is_empty() && !seen.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            }
            errors.invalid_all(&path.child("name"), &json!(name), problems);
        }
        match number(port, "containerPort").unwrap_or(0) {
            0 => errors.required(&path.child("containerPort"), ""),
            have => port_number(have, &path.child("containerPort"), errors),
        }
        if let Some(have) = number(port, "hostPort").filter(|n| *n != 0) {
            port_number(have, &path.child("hostPort"), errors);
        }
        enumeration(port, "protocol", &["SCTP", "TCP", "UDP"], &path, errors);
    }
}

fn host_ports(container: &Value, path: &Path, taken: &mut HashSet<String>, errors: &mut ErrorList) {
    for (at, port) in list(container, "ports").iter().enumerate() {
        let Some(host_port) = number(port, "hostPort").filter(|n| *n != 0) else { continue };
        let key = format!("{}/{}/{host_port}", text(port, "protocol"), text(port, "hostIP"));
        if !taken.insert(key.clone()) {
            errors.duplicate(&path.child("ports").index(at).child("hostPort"), &json!(key));
        }
    }
}

fn same_ports_on_host(container: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, port) in list(container, "ports").iter().enumerate() {
        let host_port = number(port, "hostPort").unwrap_or(0);
        if host_port != 0 && host_port != number(port, "containerPort").unwrap_or(0) {
            let text = "must match `containerPort` when `hostNetwork` is true";
            errors.invalid(&path.index(at).child("hostPort"), &json!(host_port), text);
        }
    }
}
