//! The conditions that tell how far a resize is.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::pods;
use crate::status::whole_second;

/// The node does not give it yet.
pub(crate) const PENDING: &str = "PodResizePending";
/// The containers do not have it yet.
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";
/// Reason of a resize that fails on the way.
pub(crate) const ERROR: &str = "Error";

/// Both conditions of one Pod.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) pending: Option<PodCondition>,
    pub(super) in_progress: Option<PodCondition>,
    /// Since when the Pod wants something else than it has.
    pub(super) since: Option<Timestamp>,
}

impl State {
    /// What an earlier kubelet told.
    pub(super) fn of(pod: &Pod) -> Self {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let find = |type_: &str| conditions.iter().find(|one| one.type_ == type_ && one.status == "True").cloned();
        let pending = find(PENDING);
        let since = pending.as_ref().and_then(|pending| pending.last_transition_time.as_ref()).map(|time| time.0);
        Self { pending, in_progress: find(IN_PROGRESS), since }
    }
}

/// A condition that is true; its transition is that of its reason.
pub(super) fn condition(
    type_: &str,
    before: Option<&PodCondition>,
    (reason, message): (&str, &str),
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let now = Time(whole_second(now));
    let reason = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
    let since = before.filter(|before| before.reason == reason).and_then(|before| before.last_transition_time.clone());
    PodCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason,
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        last_transition_time: since.or_else(|| Some(now.clone())),
        last_probe_time: Some(now),
        observed_generation: generation,
    }
}

/// Whether two conditions say something else.
pub(super) fn tells_more(before: Option<&PodCondition>, after: &PodCondition) -> bool {
    before.is_none_or(|before| before.reason != after.reason || before.observed_generation != after.observed_generation)
}

/// What an event tells, in this order: the amounts, the version of the spec, and what went wrong.
pub(crate) fn details(pod: &Pod, error: &str) -> String {
    let list = |containers: &[Container]| -> Vec<Value> {
        let one = |container: &Container| {
            let resources = container.resources.clone().unwrap_or_default();
            json!({ "name": container.name, "resources": resources })
        };
        containers.iter().map(one).collect()
    };
    let mut members = Vec::new();
    let mut add = |key: &str, value: Value| members.push(format!("{key:?}:{value}"));
    let init = list(pods::init_containers(pod));
    if !init.is_empty() {
        add("initContainers", init.into());
    }
    add("containers", list(pods::containers(pod)).into());
    add("generation", pod.metadata.generation.unwrap_or_default().into());
    if !error.is_empty() {
        add("error", error.into());
    }
    format!("{{{}}}", members.join(","))
}
