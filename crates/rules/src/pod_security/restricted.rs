//! The checks that the restricted level adds.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Pod, Violation,
    checks::{bad_containers, bad_profile, seccomp_set},
    setters::{Setters, containers, plural, quoted},
};

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let place = "/securityContext/allowPrivilegeEscalation";
    let names = bad_containers(pod, |container| container.pointer(place) != Some(&Value::Bool(false)))?;
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    Some(Violation::new("allowPrivilegeEscalation != false", detail))
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let list = |container: &Value, name: &str| -> Vec<String> {
        let list = container.pointer(&format!("/securityContext/capabilities/{name}")).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let added = |container: &Value| {
        let mut added = list(container, "add");
        added.retain(|capability| capability != "NET_BIND_SERVICE");
        added
    };
    let mut details = Vec::new();
    if let Some(names) = bad_containers(pod, |c| !list(c, "drop").iter().any(|capability| capability == "ALL")) {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&names)));
    }
    if let Some(names) = bad_containers(pod, |container| !added(container).is_empty()) {
        let all: BTreeSet<String> = pod.containers().flat_map(|(_, container)| added(container)).collect();
        let (who, what) = (containers(&names), quoted(&all));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

pub(super) fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), BTreeSet::new());
    for volume in pod.spec["volumes"].as_array().into_iter().flatten() {
        let source = volume.as_object().into_iter().flatten().find(|(key, value)| *key != "name" && value.is_object());
        // A volume without a source is an emptyDir.
        if let Some((kind, _)) = source
            && !VOLUMES.contains(&kind.as_str())
        {
            names.push(volume["name"].as_str().unwrap_or(""));
            kinds.insert(kind.as_str());
        }
    }
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    Some(Violation::new("restricted volume types", detail))
}

pub(super) fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if pod.has_own_users() {
        return None;
    }
    let setters = Setters::find(pod, "/runAsNonRoot", |value| (*value == false).then(|| "false".to_owned()));
    if !setters.is_empty() {
        let detail = format!("{} must not set securityContext.runAsNonRoot=false", setters.who());
        return Some(Violation::new(REASON, detail));
    }
    let place = "/securityContext/runAsNonRoot";
    if pod.spec.pointer(place) == Some(&Value::Bool(true)) {
        return None;
    }
    let names = bad_containers(pod, |container| container.pointer(place).is_none_or(Value::is_null))?;
    let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&names));
    Some(Violation::new(REASON, detail))
}

pub(super) fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_own_users() {
        return None;
    }
    let setters = Setters::find(pod, "/runAsUser", |value| (*value == 0).then(|| "0".to_owned()));
    let detail = format!("{} must not set runAsUser=0", setters.who());
    (!setters.is_empty()).then(|| Violation::new("runAsUser=0", detail))
}

pub(super) fn seccomp_profile(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let place = "/securityContext/seccompProfile/type";
    let setters = Setters::find(pod, "/seccompProfile/type", bad_profile);
    if !setters.is_empty() {
        return Some(seccomp_set(&setters));
    }
    if pod.spec.pointer(place).is_some() {
        return None;
    }
    let names = bad_containers(pod, |container| container.pointer(place).is_none())?;
    let who = containers(&names);
    let detail =
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"");
    Some(Violation::new("seccompProfile", detail))
}
