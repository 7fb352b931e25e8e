//! The conditions a kubelet owns.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::StatusInput;
use crate::pods;
use crate::workers::plan;

/// Condition types that only the kubelet writes.
pub(crate) const OWNED: [&str; 9] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "DisruptionTarget",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
];

struct Wanted {
    type_: &'static str,
    status: bool,
    reason: Option<&'static str>,
    message: String,
}

impl Wanted {
    fn yes(type_: &'static str) -> Self {
        Self { type_, status: true, reason: None, message: String::new() }
    }

    fn no(type_: &'static str, reason: &'static str, message: String) -> Self {
        Self { type_, status: false, reason: Some(reason), message }
    }
}

/// Adds them in a fixed order, keeping transition times of those that did not change.
pub(super) fn set(input: &StatusInput<'_>, status: &mut PodStatus) {
    let phase = status.phase.clone().unwrap_or_default();
    let containers_ready = containers_ready(input, status, &phase);
    let ready = ready(input, &containers_ready);
    let mut wanted: Vec<Wanted> = input.ready_to_start.then(|| ready_to_start(input)).into_iter().collect();
    wanted.extend([initialized(input, status, &phase), ready, containers_ready, Wanted::yes("PodScheduled")]);
    if plan::may_restart_all(input.pod) {
        wanted.push(restarting_all(input));
    }
    if let Some((reason, message)) = input.verdict.and_then(|verdict| verdict.disruption.clone()) {
        wanted.push(Wanted { type_: "DisruptionTarget", status: true, reason: Some(reason), message });
    }
    let previous = input.previous.and_then(|previous| previous.conditions.as_deref()).unwrap_or_default();
    let mut made: Vec<PodCondition> = wanted.into_iter().map(|wanted| condition(input, wanted, previous)).collect();
    for kept in previous.iter().filter(|kept| kept.type_ == "DisruptionTarget") {
        if !made.iter().any(|condition| condition.type_ == kept.type_) {
            made.push(kept.clone());
        }
    }
    if !pods::is_terminal_phase(&phase) {
        made.extend(input.resize.iter().cloned());
    }
    status.conditions = Some(made);
}

fn condition(input: &StatusInput<'_>, wanted: Wanted, previous: &[PodCondition]) -> PodCondition {
    let status = if wanted.status { "True" } else { "False" };
    let before = previous.iter().find(|condition| condition.type_ == wanted.type_);
    let since = before.filter(|before| before.status == status).and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: wanted.type_.to_owned(),
        status: status.to_owned(),
        reason: wanted.reason.map(str::to_owned),
        message: Some(wanted.message).filter(|message| !message.is_empty()),
        last_transition_time: since.or_else(|| Some(now(input.now))),
        last_probe_time: None,
        observed_generation: input.pod.metadata.generation,
    }
}

fn now(at: Timestamp) -> Time {
    Time(super::whole_second(at))
}

fn restarting_all(input: &StatusInput<'_>) -> Wanted {
    const TYPE: &str = "AllContainersRestarting";
    if !input.restarting_all {
        return Wanted { status: false, ..Wanted::yes(TYPE) };
    }
    let message = "container exited with restart policy rule".to_owned();
    Wanted { reason: Some("RestartAllContainersStarted"), message, ..Wanted::yes(TYPE) }
}

fn ready_to_start(input: &StatusInput<'_>) -> Wanted {
    let usable = !plan::sandbox_changed(input.pod, input.view).0;
    Wanted { status: usable, ..Wanted::yes("PodReadyToStartContainers") }
}

fn initialized(input: &StatusInput<'_>, status: &PodStatus, phase: &str) -> Wanted {
    const TYPE: &str = "Initialized";
    if phase == "Succeeded" {
        return Wanted { reason: Some("PodCompleted"), ..Wanted::yes(TYPE) };
    }
    let statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    let started = status.container_statuses.iter().flatten().any(|found| {
        let state = found.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some()) || found.last_state.is_some()
    });
    if started {
        return Wanted::yes(TYPE);
    }
    let mut incomplete = Vec::new();
    let mut unknown = Vec::new();
    for container in pods::init_containers(input.pod) {
        match statuses.iter().find(|found| found.name == container.name) {
            Some(found) if pods::is_sidecar(container) && found.started == Some(true) => {}
            Some(found) if !pods::is_sidecar(container) && found.ready => {}
            Some(_) => incomplete.push(container.name.as_str()),
            None => unknown.push(container.name.as_str()),
        }
    }
    lists(TYPE, "ContainersNotInitialized", "incomplete", &incomplete, &unknown)
}

fn lists(type_: &'static str, reason: &'static str, what: &str, bad: &[&str], unknown: &[&str]) -> Wanted {
    let mut parts = Vec::new();
    if !unknown.is_empty() {
        parts.push(format!("containers with unknown status: [{}]", unknown.join(" ")));
    }
    if !bad.is_empty() {
        parts.push(format!("containers with {what} status: [{}]", bad.join(" ")));
    }
    if parts.is_empty() { Wanted::yes(type_) } else { Wanted::no(type_, reason, parts.join(", ")) }
}

fn containers_ready(input: &StatusInput<'_>, status: &PodStatus, phase: &str) -> Wanted {
    const TYPE: &str = "ContainersReady";
    match phase {
        "Succeeded" => return Wanted::no(TYPE, "PodCompleted", String::new()),
        "Failed" => return Wanted::no(TYPE, "PodFailed", String::new()),
        _ => {}
    }
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let regular = status.container_statuses.as_deref().unwrap_or_default();
    let mut unready = Vec::new();
    let mut unknown = Vec::new();
    let mut check = |name: &'_ str, list: &[ContainerStatus]| match list.iter().find(|found| found.name == name) {
        Some(found) if found.ready => {}
        Some(_) => unready.push(name.to_owned()),
        None => unknown.push(name.to_owned()),
    };
    pods::init_containers(input.pod).iter().filter(|c| pods::is_sidecar(c)).for_each(|c| check(&c.name, init));
    pods::containers(input.pod).iter().for_each(|c| check(&c.name, regular));
    let unready: Vec<&str> = unready.iter().map(String::as_str).collect();
    let unknown: Vec<&str> = unknown.iter().map(String::as_str).collect();
    lists(TYPE, "ContainersNotReady", "unready", &unready, &unknown)
}

fn ready(input: &StatusInput<'_>, containers: &Wanted) -> Wanted {
    const TYPE: &str = "Ready";
    if !containers.status {
        return Wanted { type_: TYPE, status: false, reason: containers.reason, message: containers.message.clone() };
    }
    let conditions = input.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut messages = Vec::new();
    for gate in pods::spec(input.pod).readiness_gates.iter().flatten() {
        let name = &gate.condition_type;
        match conditions.iter().find(|condition| condition.type_ == *name) {
            None => messages.push(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(found) if found.status != "True" => {
                let status = &found.status;
                messages.push(format!("the status of pod readiness gate {name:?} is not \"True\", but {status}"));
            }
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        Wanted::yes(TYPE)
    } else {
        Wanted::no(TYPE, "ReadinessGatesNotReady", messages.join(", "))
    }
}
