//! Security context of sandbox and containers.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use super::{Settings, SpecError};
use crate::cri::v1;
use crate::pods;

const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The user an image asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// Numeric user.
    pub uid: Option<i64>,
    /// Named user.
    pub name: String,
}

fn pod_context(pod: &Pod) -> Option<&PodSecurityContext> {
    pods::spec(pod).security_context.as_ref()
}

/// Namespaces of a Pod's containers.
pub(super) fn namespaces(pod: &Pod, users: &v1::UserNamespace) -> v1::NamespaceOption {
    let spec = pods::spec(pod);
    let node_if = |on: Option<bool>| if on == Some(true) { v1::NamespaceMode::Node } else { v1::NamespaceMode::Pod };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => v1::NamespaceMode::Node,
        (_, Some(true)) => v1::NamespaceMode::Pod,
        _ => v1::NamespaceMode::Container,
    };
    v1::NamespaceOption {
        network: node_if(spec.host_network) as i32,
        pid: pid as i32,
        ipc: node_if(spec.host_ipc) as i32,
        userns_options: Some(users.clone()),
        ..v1::NamespaceOption::default()
    }
}

/// The sandbox's context.
pub(super) fn sandbox(pod: &Pod, users: &v1::UserNamespace) -> v1::LinuxSandboxSecurityContext {
    let context = pod_context(pod);
    let privileged = pods::all_containers(pod)
        .any(|(container, _)| container.security_context.as_ref().and_then(|own| own.privileged) == Some(true));
    v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, users)),
        selinux_options: context.and_then(|context| context.se_linux_options.as_ref()).map(selinux),
        run_as_user: context.and_then(|context| context.run_as_user).map(|value| v1::Int64Value { value }),
        run_as_group: context
            .filter(|context| context.run_as_user.is_some())
            .and_then(|context| context.run_as_group)
            .map(|value| v1::Int64Value { value }),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        privileged,
        seccomp: Some(profile(v1::security_profile::ProfileType::RuntimeDefault, "")),
        ..v1::LinuxSandboxSecurityContext::default()
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let Some(context) = pod_context(pod) else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

/// Adds groups of volumes to a sandbox, after the one that owns files.
pub(super) fn add_groups_to_sandbox(pod: &Pod, context: &mut v1::LinuxSandboxSecurityContext, extra: &[i64]) {
    let at = usize::from(pod_context(pod).is_some_and(|context| context.fs_group.is_some()));
    context.supplemental_groups.splice(at..at, extra.iter().copied());
}

fn groups_policy(pod: &Pod) -> i32 {
    match pod_context(pod).and_then(|context| context.supplemental_groups_policy.as_deref()) {
        Some("Strict") => v1::SupplementalGroupsPolicy::Strict as i32,
        _ => v1::SupplementalGroupsPolicy::Merge as i32,
    }
}

fn selinux(options: &SELinuxOptions) -> v1::SeLinuxOption {
    v1::SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn profile(kind: v1::security_profile::ProfileType, reference: &str) -> v1::SecurityProfile {
    v1::SecurityProfile { profile_type: kind as i32, localhost_ref: reference.to_owned() }
}

/// A container's context.
pub(super) fn container(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    seccomp_dir: &Path,
    users: &v1::UserNamespace,
    settings: &Settings,
) -> Result<v1::LinuxContainerSecurityContext, SpecError> {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let shared = pod_context(pod);
    let run_as_user = own.run_as_user.or(shared.and_then(|context| context.run_as_user));
    let run_as_group = own.run_as_group.or(shared.and_then(|context| context.run_as_group));
    check_non_root(pod, container, run_as_user, image)?;
    let (user, username) = match (run_as_user, image.uid) {
        (Some(uid), _) | (None, Some(uid)) => (Some(uid), String::new()),
        (None, None) if !image.name.is_empty() => (None, image.name.clone()),
        (None, None) => (Some(0), String::new()),
    };
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let masked = if unmasked { Vec::new() } else { masked_paths() };
    let read_only = if unmasked { Vec::new() } else { READ_ONLY.map(str::to_owned).to_vec() };
    let (apparmor, apparmor_text) = apparmor(pod, container, own)?;
    let seccomp_profile = own.seccomp_profile.as_ref().or(shared.and_then(|context| context.seccomp_profile.as_ref()));
    #[allow(deprecated)]
    Ok(v1::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|capabilities| v1::Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces(pod, users)),
        selinux_options: own
            .se_linux_options
            .as_ref()
            .or(shared.and_then(|context| context.se_linux_options.as_ref()))
            .map(selinux),
        run_as_user: user.map(|value| v1::Int64Value { value }),
        run_as_username: username,
        run_as_group: run_as_group.map(|value| v1::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        supplemental_groups_policy: groups_policy(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: masked,
        readonly_paths: read_only,
        seccomp: Some(seccomp(seccomp_profile, seccomp_dir, settings.seccomp_default)?),
        apparmor,
        apparmor_profile: apparmor_text,
        ..v1::LinuxContainerSecurityContext::default()
    })
}

fn masked_paths() -> Vec<String> {
    let fixed = MASKED.iter().map(|path| (*path).to_owned());
    let mut paths: Vec<String> = fixed.collect();
    let entries = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    let mut throttles: Vec<String> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix("cpu"));
            digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.exists())
        .map(|path| path.display().to_string())
        .collect();
    throttles.sort();
    paths.append(&mut throttles);
    paths
}

fn check_non_root(pod: &Pod, container: &Container, user: Option<i64>, image: &ImageUser) -> Result<(), SpecError> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_non_root);
    if own.or(pod_context(pod).and_then(|context| context.run_as_non_root)) != Some(true) {
        return Ok(());
    }
    let place = format!("(pod: {:?}, container: {})", pods::describe(pod), container.name);
    match (user, image.uid) {
        (Some(0), _) => Err(SpecError::new(format!("container's runAsUser breaks non-root policy {place}"))),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => {
            Err(SpecError::new(format!("container has runAsNonRoot and image will run as root {place}")))
        }
        (None, Some(_)) => Ok(()),
        (None, None) if image.name.is_empty() => {
            Err(SpecError::new(format!("container has runAsNonRoot and image will run as root {place}")))
        }
        (None, None) => Err(SpecError::new(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {place}",
            image.name
        ))),
    }
}

fn seccomp(profile_spec: Option<&SeccompProfile>, dir: &Path, default: bool) -> Result<v1::SecurityProfile, SpecError> {
    use v1::security_profile::ProfileType;
    let fallback = if default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined };
    let Some(wanted) = profile_spec else { return Ok(profile(fallback, "")) };
    match wanted.type_.as_str() {
        "RuntimeDefault" => Ok(profile(ProfileType::RuntimeDefault, "")),
        "Localhost" => match wanted.localhost_profile.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => Ok(profile(ProfileType::Localhost, &dir.join(name).display().to_string())),
            None => Err(SpecError::new("localhostProfile must be set if seccompProfile type is Localhost.")),
        },
        "Unconfined" => Ok(profile(ProfileType::Unconfined, "")),
        _ => Ok(profile(fallback, "")),
    }
}

fn apparmor(
    pod: &Pod,
    container: &Container,
    own: &SecurityContext,
) -> Result<(Option<v1::SecurityProfile>, String), SpecError> {
    use v1::security_profile::ProfileType;
    let annotation = pods::annotation(pod, &format!("{APPARMOR_ANNOTATION}{}", container.name)).map(from_annotation);
    let shared = pod_context(pod).and_then(|context| context.app_armor_profile.clone());
    let Some(wanted) = own.app_armor_profile.clone().or(annotation).or(shared) else {
        return Ok((None, String::new()));
    };
    Ok(match wanted.type_.as_str() {
        "RuntimeDefault" => (Some(profile(ProfileType::RuntimeDefault, "")), "runtime/default".to_owned()),
        "Unconfined" => (Some(profile(ProfileType::Unconfined, "")), "unconfined".to_owned()),
        "Localhost" => {
            let name = wanted.localhost_profile.unwrap_or_default();
            if name.is_empty() {
                return Err(SpecError::new("localhostProfile must be set if appArmorProfile type is Localhost."));
            }
            (Some(profile(ProfileType::Localhost, &name)), format!("localhost/{name}"))
        }
        _ => (None, String::new()),
    })
}

fn from_annotation(value: &str) -> AppArmorProfile {
    let (type_, localhost_profile) = match value {
        "unconfined" => ("Unconfined", None),
        "runtime/default" => ("RuntimeDefault", None),
        other => match other.strip_prefix("localhost/") {
            Some(name) => ("Localhost", Some(name.to_owned())),
            None => ("RuntimeDefault", None),
        },
    };
    AppArmorProfile { type_: type_.to_owned(), localhost_profile }
}
