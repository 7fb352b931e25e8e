//! What containers and their Pod were given, and what they have.

use k8s_openapi::api::core::v1::{Container, PodStatus, ResourceRequirements};

use super::StatusInput;
use crate::cri::{ContainerRecord, RecordState, v1};
use crate::pods::resources::{self, Amounts, Effective};

/// Below these, in thousandths, the kernel knows no difference.
const LEAST_LIMIT: i64 = 10;
const LEAST_REQUEST: i64 = 2;

/// The resources in force: what the runtime says, or what it was told. One that does not run has what it was given.
pub(super) fn of_container(
    input: &StatusInput<'_>,
    container: &Container,
    newest: Option<&ContainerRecord>,
) -> ResourceRequirements {
    let given = container.resources.clone().unwrap_or_default();
    let Some(record) = newest.filter(|record| record.state == RecordState::Running) else { return given };
    let mut has = input.actuated.containers.get(&container.name).cloned().unwrap_or(given);
    if let Some(actual) = &record.resources {
        apply(actual, &mut has);
    }
    has
}

fn apply(actual: &v1::LinuxContainerResources, has: &mut ResourceRequirements) {
    let replace = |map: &mut Option<Amounts>, name: &str, amount: i64| {
        let entry = map.as_mut().and_then(|map| map.get_mut(name));
        if let Some(entry) = entry.filter(|entry| resources::number(name, entry) != amount) {
            *entry = resources::quantity_of(name, amount);
        }
    };
    if actual.memory_limit_in_bytes > 0 {
        replace(&mut has.limits, "memory", actual.memory_limit_in_bytes);
    }
    if actual.cpu_quota > 0 && actual.cpu_period > 0 {
        let milli = i128::from(actual.cpu_quota) * 1000 / i128::from(actual.cpu_period);
        let milli = i64::try_from(milli).unwrap_or(i64::MAX);
        if milli > LEAST_LIMIT {
            replace(&mut has.limits, "cpu", milli);
        }
    }
    if actual.cpu_shares > 0 {
        let milli = resources::shares_to_milli(actual.cpu_shares);
        if milli > LEAST_REQUEST {
            replace(&mut has.requests, "cpu", milli);
        }
    }
}

/// The sums over the Pod.
pub(super) fn set(input: &StatusInput<'_>, status: &mut PodStatus) {
    let is_running = input.view.running().next().is_some();
    let has = input.actuated.changed(input.pod).filter(|_| is_running);
    let given = Effective::of(input.pod).totals();
    let (requests, limits) = has.map_or_else(|| given.clone(), |has| Effective::of(&has).totals());
    status.allocated_resources = Some(given.0).filter(|amounts| !amounts.is_empty());
    let some = |amounts: Amounts| Some(amounts).filter(|amounts| !amounts.is_empty());
    status.resources = Some(ResourceRequirements {
        requests: some(requests),
        limits: some(limits),
        ..ResourceRequirements::default()
    });
}
