//! What of a running Pod differs from what it was given.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::decide::needs_restart;
use super::given::{Given, RESIZABLE, same};
use crate::cri::{ContainerRecord, PodView, RecordState};
use crate::pods::{self, Role, resources};
use crate::workers::plan::{Kill, KillReason, PodPlan};

/// One running container with other amounts than it was given.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) container: Container,
    pub(crate) record: ContainerRecord,
    /// What it runs with.
    pub(crate) has: Option<ResourceRequirements>,
}

impl Change {
    pub(crate) fn concerns(&self, resource: &str) -> bool {
        !same(self.has.as_ref(), self.container.resources.as_ref(), resource)
    }

    /// By how much the limit grows; one without a limit has the largest.
    pub(crate) fn growth(&self, resource: &str) -> i128 {
        let of = |from| i128::from(resources::limit(from, resource).unwrap_or(i64::MAX));
        of(self.container.resources.as_ref()) - of(self.has.as_ref())
    }

    fn restarts(&self) -> bool {
        // Of one that nothing is known about it is not known that anything changed.
        self.has.is_some() && RESIZABLE.iter().any(|name| self.concerns(name) && needs_restart(&self.container, name))
    }
}

/// All that has to be done for a Pod to have what it was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Containers that change while they run.
    pub(crate) update: Vec<Change>,
    /// Containers that have to start anew.
    pub(crate) restart: Vec<Change>,
    /// The amounts of the Pod as a whole differ.
    pub(crate) pod: bool,
    /// The Pod as it is.
    pub(crate) before: Arc<Pod>,
}

impl Changes {
    /// Compares what a Pod was given with what it has.
    pub(crate) fn find(pod: &Arc<Pod>, view: &PodView, actual: &Given) -> Self {
        let active = view.active_sandbox().map(|sandbox| sandbox.id.as_str());
        let mut out = Self {
            pod: active.is_some() && RESIZABLE.iter().any(|name| !same(actual.pod.as_ref(), level(pod), name)),
            before: actual.in_pod(pod),
            ..Self::default()
        };
        for (container, _) in pods::all_containers(pod).filter(|(_, role)| *role != Role::Ephemeral) {
            let record = view.newest(&container.name).filter(|record| Some(record.sandbox_id.as_str()) == active);
            let Some(record) = record.filter(|record| record.state == RecordState::Running) else { continue };
            let has = actual.containers.get(&container.name).cloned();
            let change = Change { container: container.into_owned(), record: record.clone(), has };
            if change.restarts() {
                out.restart.push(change);
            } else if RESIZABLE.iter().any(|name| change.concerns(name)) {
                out.update.push(change);
            }
        }
        out
    }

    /// Whether the Pod has what it was given.
    pub(crate) fn is_empty(&self) -> bool {
        self.update.is_empty() && self.restart.is_empty() && !self.pod
    }

    /// Has containers start anew for which that is the way.
    pub(crate) fn plan_restarts(&self, pod: &Pod, plan: &mut PodPlan) {
        if plan.kill_pod || plan.create_sandbox {
            return;
        }
        let index = |all: &[Container], name: &str| all.iter().position(|one| one.name == name);
        for change in &self.restart {
            let name = &change.container.name;
            if plan.kill.iter().any(|kill| kill.id == change.record.id) {
                continue;
            }
            plan.kill.push(Kill {
                id: change.record.id.clone(),
                name: name.clone(),
                message: format!("Container {name} resize requires restart"),
                reason: KillReason::Resize,
            });
            match (index(pods::containers(pod), name), index(pods::init_containers(pod), name)) {
                (Some(at), _) => plan.start.push(at),
                (None, Some(at)) => plan.start_init.push(at),
                (None, None) => {}
            }
        }
        plan.start.sort_unstable();
        plan.start_init.sort_unstable();
    }
}

fn level(pod: &Pod) -> Option<&ResourceRequirements> {
    pods::spec(pod).resources.as_ref()
}
