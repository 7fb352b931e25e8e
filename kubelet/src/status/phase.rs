//! The phase.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

use super::StatusInput;
use super::containers::was_removed;
use crate::pods;
use crate::workers::plan;

/// Sets phase, reason and message.
pub(super) fn set(input: &StatusInput<'_>, status: &mut PodStatus) {
    let previous = input.previous;
    let settled = previous.and_then(|old| old.phase.clone()).filter(|phase| pods::is_terminal_phase(phase));
    if let (Some(phase), None) = (&settled, input.verdict) {
        status.phase = Some(phase.clone());
        status.reason = previous.and_then(|old| old.reason.clone());
        status.message = previous.and_then(|old| old.message.clone());
        return;
    }
    if let Some(verdict) = input.verdict {
        status.phase = Some(settled.unwrap_or_else(|| verdict.phase.to_owned()));
        status.reason = Some(verdict.reason.clone());
        status.message = Some(verdict.message.clone());
        return;
    }
    let mut phase = compute(input, status);
    if input.terminal {
        mark_lost(input, status);
        if !pods::is_terminal_phase(phase) && !pods::is_static(input.pod) {
            phase = "Failed";
        }
    }
    if previous.and_then(|old| old.phase.as_deref()) == Some(phase) {
        status.reason = previous.and_then(|old| old.reason.clone());
        status.message = previous.and_then(|old| old.message.clone());
    }
    status.phase = Some(phase.to_owned());
}

#[derive(Default)]
struct Counts {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    unknown: usize,
}

fn compute(input: &StatusInput<'_>, status: &PodStatus) -> &'static str {
    let pod = input.pod;
    if !input.terminal && init_pending(input, status) {
        return if init_failed(input, status) { "Failed" } else { "Pending" };
    }
    if init_failed(input, status) {
        return "Failed";
    }
    let mut counts = Counts::default();
    for container in pods::containers(pod) {
        match find(status.container_statuses.as_deref(), &container.name) {
            Some(found) => count(found, &mut counts),
            None => counts.unknown += 1,
        }
    }
    let ended = input.terminal || pods::is_deleting(pod);
    let failed = if counts.stopped == counts.succeeded { "Succeeded" } else { "Failed" };
    if counts.waiting > 0 {
        return if input.terminal && counts.stopped > 0 { failed } else { "Pending" };
    }
    if counts.running > 0 && counts.unknown == 0 {
        return "Running";
    }
    if counts.running == 0 && counts.stopped > 0 && counts.unknown == 0 {
        if ended && input.terminal {
            return failed;
        }
        let restarts = pods::containers(pod).iter().any(|container| {
            let code = find(status.container_statuses.as_deref(), &container.name).and_then(exit_code);
            code.is_some_and(|code| plan::restarts_after(pod, container, code))
        });
        return if restarts { "Running" } else { failed };
    }
    "Pending"
}

fn find<'a>(list: Option<&'a [ContainerStatus]>, name: &str) -> Option<&'a ContainerStatus> {
    list?.iter().find(|status| status.name == name)
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state.as_ref().and_then(|state| state.terminated.as_ref()).map(|terminated| terminated.exit_code)
    };
    ended(&status.state).or_else(|| ended(&status.last_state))
}

fn count(status: &ContainerStatus, counts: &mut Counts) {
    let state = status.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        counts.running += 1;
    } else if let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) {
        counts.stopped += 1;
        counts.succeeded += usize::from(terminated.exit_code == 0);
    } else if was_removed(status) {
        // It starts from the beginning.
        counts.waiting += 1;
    } else if status.last_state.as_ref().is_some_and(|state| state.terminated.is_some()) {
        // Between two runs: it counts as stopped, not as never started.
        counts.stopped += 1;
    } else {
        counts.waiting += 1;
    }
}

/// Whether initialization is still going on.
fn init_pending(input: &StatusInput<'_>, status: &PodStatus) -> bool {
    let initialized = plan::has_initialized(input.pod, input.view)
        || status.container_statuses.iter().flatten().any(|found| {
            found.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        });
    pods::init_containers(input.pod).iter().any(|container| {
        let Some(found) = find(status.init_container_statuses.as_deref(), &container.name) else { return true };
        if pods::is_sidecar(container) {
            return !initialized && found.started != Some(true);
        }
        let ended = found.state.as_ref().and_then(|state| state.terminated.as_ref());
        ended.is_none_or(|terminated| terminated.exit_code != 0)
    })
}

fn init_failed(input: &StatusInput<'_>, status: &PodStatus) -> bool {
    pods::init_containers(input.pod).iter().filter(|container| !pods::is_sidecar(container)).any(|container| {
        let found = find(status.init_container_statuses.as_deref(), &container.name);
        let code = found.and_then(|found| found.state.as_ref()).and_then(|state| state.terminated.as_ref());
        code.is_some_and(|ended| {
            let bad = ended.exit_code != 0 || ended.reason.as_deref() == Some("OOMKilled");
            bad && (!plan::restarts_after(input.pod, container, ended.exit_code.max(1)) || input.terminal)
        })
    })
}

/// At the end every container that may have run and has no end on record gets one.
fn mark_lost(input: &StatusInput<'_>, status: &mut PodStatus) {
    let initialized = pods::init_containers(input.pod).iter().filter(|c| !pods::is_sidecar(c)).all(|container| {
        let found = find(status.init_container_statuses.as_deref(), &container.name);
        found
            .and_then(|found| found.state.as_ref())
            .and_then(|s| s.terminated.as_ref())
            .is_some_and(|t| t.exit_code == 0)
    });
    if !initialized {
        return;
    }
    let lists = [&mut status.container_statuses, &mut status.init_container_statuses];
    for found in lists.into_iter().flatten().flatten() {
        if found.state.as_ref().is_some_and(|state| state.terminated.is_some()) {
            continue;
        }
        let ended = k8s_openapi::api::core::v1::ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..Default::default()
        };
        found.state =
            Some(k8s_openapi::api::core::v1::ContainerState { terminated: Some(ended), ..Default::default() });
    }
}
