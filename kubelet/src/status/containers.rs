//! Statuses of single containers.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{StatusInput, amounts};
use crate::cri::{ContainerRecord, RecordState};
use crate::pods::{self, Role};
use crate::workers::plan;

const LOST_EXIT_CODE: i32 = 137;
const LOST: &str = "The container could not be located when the pod was terminated";
const LOST_RUNNING: &str =
    "The container could not be located when the pod was deleted.  The container used to be Running";
const RESTARTING_ALL: &str = "RestartingAllContainers";
const REMOVED: &str = "The container is removed because RestartAllContainers in place";
const INIT_GONE: &str = "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally";

/// Init containers in spec order.
pub(super) fn init(input: &StatusInput<'_>) -> Option<Vec<ContainerStatus>> {
    let all = pods::init_containers(input.pod);
    let made: Vec<_> = all.iter().map(|container| one(input, container, pods::init_role(container))).collect();
    (!made.is_empty()).then_some(made)
}

/// Regular containers by name.
pub(super) fn regular(input: &StatusInput<'_>) -> Option<Vec<ContainerStatus>> {
    let mut made: Vec<_> = pods::containers(input.pod).iter().map(|c| one(input, c, Role::Regular)).collect();
    made.sort_by(|a, b| a.name.cmp(&b.name));
    (!made.is_empty()).then_some(made)
}

/// Ephemeral containers by name.
pub(super) fn ephemeral(input: &StatusInput<'_>) -> Option<Vec<ContainerStatus>> {
    let all = pods::ephemeral_containers(input.pod).iter().map(pods::as_container);
    let mut made: Vec<_> = all.map(|container| one(input, &container, Role::Ephemeral)).collect();
    made.sort_by(|a, b| a.name.cmp(&b.name));
    (!made.is_empty()).then_some(made)
}

fn one(input: &StatusInput<'_>, container: &Container, role: Role) -> ContainerStatus {
    let mut records = input.view.records(&container.name);
    let (newest, before) = (records.next(), records.next());
    let previous = previous(input, container, role);
    let mut status = match newest {
        Some(record) => from_record(input, container, record),
        None => without_record(input, container, role, previous),
    };
    status.last_state = before
        .filter(|record| record.state == RecordState::Exited)
        .map(|record| terminated(input, record))
        .or_else(|| status.last_state.take())
        .or_else(|| {
            let kept = previous.filter(|old| newest.is_none() || was_removed(old));
            kept.and_then(|old| old.last_state.clone())
        });
    apply_waiting(input, container, role, newest, &mut status);
    set_started_and_ready(input, container, role, newest, &mut status);
    status.volume_mounts = volume_mounts(container, newest, previous);
    if role != Role::Ephemeral {
        status.resources = Some(amounts::of_container(input, container, newest));
        status.allocated_resources = container.resources.as_ref().and_then(|resources| resources.requests.clone());
    }
    status
}

fn previous<'a>(input: &StatusInput<'a>, container: &Container, role: Role) -> Option<&'a ContainerStatus> {
    let status = input.previous?;
    let list = match role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Regular => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == container.name)
}

fn from_record(input: &StatusInput<'_>, container: &Container, record: &ContainerRecord) -> ContainerStatus {
    let state = match record.state {
        RecordState::Running => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(record.started_at) }),
            ..ContainerState::default()
        },
        RecordState::Exited => terminated(input, record),
        RecordState::Created | RecordState::Unknown => {
            ContainerState { waiting: Some(ContainerStateWaiting::default()), ..ContainerState::default() }
        }
    };
    ContainerStatus {
        name: container.name.clone(),
        state: Some(state),
        container_id: Some(full_id(input, record)),
        image: record.image.clone(),
        image_id: record.image_ref.clone(),
        restart_count: record.restart_count,
        user: record.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: Some(user.supplemental_groups.clone()),
            }),
        }),
        ..ContainerStatus::default()
    }
}

fn full_id(input: &StatusInput<'_>, record: &ContainerRecord) -> String {
    format!("{}://{}", input.runtime, record.id)
}

fn terminated(input: &StatusInput<'_>, record: &ContainerRecord) -> ContainerState {
    let fallback = if record.exit_code == 0 { "Completed" } else { "Error" };
    let reason = if record.reason.is_empty() { fallback } else { record.reason.as_str() };
    let own = input.messages.get(&record.id).map(String::as_str).unwrap_or_default();
    let message = match (record.message.is_empty(), own.is_empty()) {
        (true, _) => own.to_owned(),
        (false, true) => record.message.clone(),
        (false, false) => format!("{}: {own}", record.message),
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(full_id(input, record)),
            exit_code: record.exit_code,
            finished_at: time(record.finished_at),
            message: Some(message).filter(|text| !text.is_empty()),
            reason: Some(reason.to_owned()),
            signal: None,
            started_at: time(record.started_at),
        }),
        ..ContainerState::default()
    }
}

fn time(nanos: i64) -> Option<Time> {
    let at = Timestamp::from_nanosecond(i128::from(nanos.max(0))).ok()?;
    Some(Time(super::whole_second(at)))
}

/// A container the runtime does not know: not yet started, or lost.
fn without_record(
    input: &StatusInput<'_>,
    container: &Container,
    role: Role,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let waiting = if pods::init_containers(input.pod).is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(waiting.to_owned()), message: None }),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    };
    let Some(old) = previous else {
        if role == Role::Init && plan::has_initialized(input.pod, input.view) {
            status.state = Some(ended("Completed", 0, INIT_GONE));
        }
        return status;
    };
    status.restart_count = old.restart_count;
    status.container_id.clone_from(&old.container_id);
    status.image_id.clone_from(&old.image_id);
    let old_state = old.state.as_ref();
    if input.restarting_all && old_state.is_some_and(|state| state.waiting.is_none()) {
        status.last_state = Some(ended(RESTARTING_ALL, LOST_EXIT_CODE, REMOVED));
        status.restart_count += 1;
        return status;
    }
    if old_state.is_some_and(|state| state.terminated.is_some()) {
        // A record that was collected: its end stays known.
        status.state.clone_from(&old.state);
        return status;
    }
    if old_state.is_some_and(|state| state.running.is_some()) {
        if role == Role::Init && plan::has_initialized(input.pod, input.view) {
            status.state = Some(ended("Completed", 0, INIT_GONE));
            return status;
        }
        if input.terminal {
            status.state = Some(ended("ContainerStatusUnknown", LOST_EXIT_CODE, LOST));
        } else {
            status.last_state = Some(ended("ContainerStatusUnknown", LOST_EXIT_CODE, LOST_RUNNING));
            if !pods::is_deleting(input.pod) {
                status.restart_count += 1;
            }
        }
    }
    status
}

/// Whether the last instance was removed for all containers to start anew.
pub(super) fn was_removed(old: &ContainerStatus) -> bool {
    let ended = old.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.reason.as_deref() == Some(RESTARTING_ALL))
}

fn ended(reason: &str, exit_code: i32, message: &str) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code,
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}

/// A dead container that shall start again shows why it has not.
fn apply_waiting(
    input: &StatusInput<'_>,
    container: &Container,
    role: Role,
    newest: Option<&ContainerRecord>,
    status: &mut ContainerStatus,
) {
    let Some(waiting) = input.waiting.get(&container.name) else { return };
    if input.terminal || newest.is_some_and(|record| record.state == RecordState::Running) {
        return;
    }
    let restarts = match role {
        Role::Ephemeral => newest.is_none(),
        Role::Init if newest.is_some_and(|r| r.state == RecordState::Exited && r.exit_code == 0) => false,
        Role::Sidecar => !pods::is_deleting(input.pod),
        Role::Init | Role::Regular => plan::should_restart(input.pod, container, newest),
    };
    if !restarts {
        return;
    }
    let shown = ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waiting.reason.clone()),
            message: Some(waiting.message.clone()).filter(|text| !text.is_empty()),
        }),
        ..ContainerState::default()
    };
    let replaced = status.state.replace(shown);
    if replaced.as_ref().is_some_and(|state| state.terminated.is_some()) {
        status.last_state = replaced;
    }
}

fn set_started_and_ready(
    input: &StatusInput<'_>,
    container: &Container,
    role: Role,
    newest: Option<&ContainerRecord>,
    status: &mut ContainerStatus,
) {
    let running = newest.filter(|record| record.state == RecordState::Running);
    let started = match role {
        Role::Init | Role::Ephemeral => running.is_some(),
        Role::Sidecar | Role::Regular => {
            running.is_some_and(|record| input.readiness.started(&container.name, &record.id))
        }
    };
    status.started = Some(started && !input.terminal);
    status.ready = match role {
        Role::Init => {
            status.state.as_ref().and_then(|state| state.terminated.as_ref()).is_some_and(|t| t.exit_code == 0)
        }
        Role::Ephemeral => false,
        Role::Sidecar | Role::Regular => {
            started && running.is_some_and(|record| input.readiness.ready(&container.name, &record.id))
        }
    };
}

fn volume_mounts(
    container: &Container,
    newest: Option<&ContainerRecord>,
    previous: Option<&ContainerStatus>,
) -> Option<Vec<VolumeMountStatus>> {
    let Some(record) = newest else { return previous.and_then(|old| old.volume_mounts.clone()) };
    let mut out = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let actual = record.mounts.iter().find(|actual| actual.container_path == mount.mount_path);
        let read_only = actual.map_or(mount.read_only == Some(true), |actual| actual.readonly);
        let recursive = actual.is_some_and(|actual| actual.recursive_read_only);
        out.push(VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only
                .then(|| if recursive { "Enabled".to_owned() } else { "Disabled".to_owned() }),
            volume_status: None,
        });
    }
    (!out.is_empty()).then_some(out)
}
