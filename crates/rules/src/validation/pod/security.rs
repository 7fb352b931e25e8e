//! Security contexts, user namespaces and what the operating system leaves out.

use std::collections::HashSet;

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::super::{
    checks::{descending, enumeration, ids},
    read::{is_true, list, present, text},
};

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";
const USER_NAMESPACE: &str = "when `hostUsers` is false";
const MAX_SYSCTL: usize = 253;
/// Fields that Windows containers do not have.
const LINUX_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];
/// Fields that Windows Pods do not have.
const LINUX_POD: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
];
/// Namespaces that a Pod shares; they stand in `spec` but count as part of the security context.
const HOST_FIELDS: [&str; 4] = ["hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"];

/// Checks the security context of a container.
pub(super) fn container(container: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(context) = present(container, "securityContext") else { return };
    ids(context, &["runAsUser", "runAsGroup"], path, errors);
    let proc_mount = text(context, "procMount");
    enumeration(context, "procMount", &["Default", "Unmasked"], path, errors);
    let own_users = spec.get("hostUsers") == Some(&json!(false));
    if proc_mount == "Unmasked" && !own_users {
        let text = "`hostUsers` must be false to use `Unmasked`";
        errors.invalid(&path.child("procMount"), &json!(proc_mount), text);
    }
    profiles(context, path, errors);
    if context.get("allowPrivilegeEscalation") != Some(&json!(false)) {
        return;
    }
    if is_true(context, "privileged") {
        let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        errors.invalid(path, context, text);
    }
    let added = context.get("capabilities").map_or(&[][..], |capabilities| list(capabilities, "add"));
    if added.contains(&json!("CAP_SYS_ADMIN")) {
        let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.invalid(path, context, text);
    }
}

fn profiles(context: &Value, path: &Path, errors: &mut ErrorList) {
    for (field, word) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(profile) = present(context, field) else { continue };
        let path = path.child(field);
        let kind = text(profile, "type");
        if kind.is_empty() {
            errors.required(&path.child("type"), &format!("type is required when {field} is set"));
        } else {
            enumeration(profile, "type", &PROFILES, &path, errors);
        }
        let local = present(profile, "localhostProfile");
        let path = path.child("localhostProfile");
        match (kind, local) {
            ("Localhost", None) => errors.required(&path, &format!("must be set when {word} type is Localhost")),
            ("Localhost", Some(local)) if word == "seccomp" => {
                descending(local.as_str().unwrap_or(""), &path, errors);
            }
            ("Localhost", _) | (_, None) => {}
            (_, Some(local)) => {
                errors.invalid(&path, local, &format!("can only be set when {word} type is Localhost"));
            }
        }
    }
}

/// Checks the security context of a Pod.
pub(super) fn pod(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let none = Value::Null;
    let context = spec.get("securityContext").unwrap_or(&none);
    let path = path.child("securityContext");
    ids(context, &["fsGroup", "runAsUser", "runAsGroup"], &path, errors);
    for (at, group) in list(context, "supplementalGroups").iter().enumerate() {
        if !group.as_i64().is_some_and(|id| (0..=i64::from(i32::MAX)).contains(&id)) {
            let text = "must be between 0 and 2147483647, inclusive";
            errors.invalid(&path.child("supplementalGroups").index(at), group, text);
        }
    }
    enumeration(context, "supplementalGroupsPolicy", &["Merge", "Strict"], &path, errors);
    if is_true(spec, "shareProcessNamespace") && is_true(spec, "hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), &json!(true), text);
    }
    sysctls(context, spec, &path.child("sysctls"), errors);
    enumeration(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"], &path, errors);
    enumeration(context, "seLinuxChangePolicy", &["MountOption", "Recursive"], &path, errors);
    profiles(context, &path, errors);
}

fn sysctls(context: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, sysctl) in list(context, "sysctls").iter().enumerate() {
        let path = path.index(at).child("name");
        let name = text(sysctl, "name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            let segment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
            let text =
                format!("must have at most {MAX_SYSCTL} characters and match regex ^({segment}[\\./])*{segment}$");
            errors.invalid(&path, &json!(name), &text);
        } else if !seen.insert(name) {
            errors.duplicate(&path, &json!(name));
        }
        let name = name.replace('/', ".");
        if name.starts_with("net.") && is_true(spec, "hostNetwork") {
            errors.invalid(&path, &json!(name), "may not be specified when 'hostNetwork' is true");
        }
        let of_ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| name.starts_with(p));
        if of_ipc && is_true(spec, "hostIPC") {
            errors.invalid(&path, &json!(name), "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let segment = |part: &str| {
        let bytes = part.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(segment)
}

/// Checks what a Pod with its own user namespace leaves to the host.
pub(super) fn user_namespace(spec: &Value, path: &Path, errors: &mut ErrorList) {
    if spec.get("hostUsers") != Some(&json!(false)) {
        return;
    }
    for (field, name) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if is_true(spec, field) {
            errors.forbidden(&path.child(name), USER_NAMESPACE);
        }
    }
}

/// Checks `os` and the fields that the named system does not have.
pub(super) fn operating_system(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(os) = present(spec, "os") else { return };
    let own = path.child("os");
    match text(os, "name") {
        "" => errors.required(&own.child("name"), "cannot be empty"),
        "linux" => linux(spec, path, errors),
        "windows" => windows(spec, path, errors),
        other => errors.not_supported(&own, &json!(other), &["linux", "windows"]),
    }
}

/// Every security context of a pod spec with its path, the Pod's own first.
fn contexts<'a>(spec: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    let mut found: Vec<(&Value, Path)> =
        present(spec, "securityContext").map(|c| (c, path.child("securityContext"))).into_iter().collect();
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for (at, container) in list(spec, field).iter().enumerate() {
            if let Some(context) = present(container, "securityContext") {
                found.push((context, path.child(field).index(at).child("securityContext")));
            }
        }
    }
    found
}

fn linux(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (context, path) in contexts(spec, path) {
        if present(context, "windowsOptions").is_some() {
            errors.forbidden(&path.child("windowsOptions"), NOT_ON_LINUX);
        }
    }
}

fn windows(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let own = path.child("securityContext");
    for field in HOST_FIELDS {
        let set = if field == "hostUsers" { present(spec, field).is_some() } else { is_true(spec, field) };
        if set {
            errors.forbidden(&own.child(field), NOT_ON_WINDOWS);
        }
    }
    for (context, path) in contexts(spec, path) {
        let fields = if path == own { &LINUX_POD } else { &LINUX_CONTAINER };
        for field in fields {
            let Some(value) = present(context, field) else { continue };
            if value.as_array().is_none_or(|list| !list.is_empty()) {
                errors.forbidden(&path.child(field), NOT_ON_WINDOWS);
            }
        }
    }
}
