//! What to do next with a Pod: a pure function of its spec, the runtime's view and probe results.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::cri::{ContainerRecord, PodView, RecordState};
use crate::pods::{self, Role};

/// What a probe last said about one container instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Unknown,
    /// Good.
    Success,
    /// Bad.
    Failure,
}

/// Probe results by container id.
pub trait Verdicts {
    /// Liveness; success without a probe.
    fn liveness(&self, id: &str) -> Verdict;
    /// Startup; success without a probe.
    fn startup(&self, id: &str) -> Verdict;
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// Liveness probe.
    Liveness,
    /// Startup probe.
    Startup,
    /// Image changed.
    Changed,
    /// It has to start anew to get other amounts.
    Resize,
    /// The runtime lost track of it.
    Unknown,
    /// Anything else.
    Other,
}

/// One container to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kill {
    /// Runtime id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Event text.
    pub message: String,
    /// Why.
    pub reason: KillReason,
}

/// What to do in one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPlan {
    /// Stop everything with the sandbox.
    pub kill_pod: bool,
    /// Then make a new sandbox.
    pub create_sandbox: bool,
    /// The new sandbox's attempt number, or the present one's.
    pub attempt: u32,
    /// The sandbox in use.
    pub sandbox: Option<String>,
    /// Containers to stop first.
    pub kill: Vec<Kill>,
    /// Init containers and sidecars to start, by index.
    pub start_init: Vec<usize>,
    /// Regular containers to start, by index.
    pub start: Vec<usize>,
    /// Ephemeral containers to start, by index.
    pub start_ephemeral: Vec<usize>,
    /// Records to stop and to remove, in this order, before everything starts from the beginning.
    pub restart_all: Vec<String>,
}

impl PodPlan {
    /// Whether nothing is left to do or running, so that the Pod is over.
    pub fn ends(&self) -> bool {
        self.kill_pod && !self.create_sandbox
    }
}

/// Whether a dead container is started again.
pub fn should_restart(pod: &Pod, container: &Container, record: Option<&ContainerRecord>) -> bool {
    if pods::is_deleting(pod) {
        return false;
    }
    let Some(record) = record else { return true };
    match record.state {
        RecordState::Running => false,
        RecordState::Created | RecordState::Unknown => true,
        RecordState::Exited => restarts_after(pod, container, record.exit_code),
    }
}

/// The decision for an exit code, by rules, container policy, then Pod policy.
pub fn restarts_after(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    if let Some(action) = rule_action(container, exit_code) {
        return matches!(action, "Restart" | RESTART_ALL);
    }
    match effective_policy(pod, container) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The action of a rule that has the whole Pod start anew.
pub(crate) const RESTART_ALL: &str = "RestartAllContainers";

/// The action of the first rule that an exit code matches; rules count only with a policy beside them.
fn rule_action(container: &Container, exit_code: i32) -> Option<&str> {
    let rules = container.restart_policy_rules.iter().flatten().filter(|_| container.restart_policy.is_some());
    let matched = rules.into_iter().find(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        listed == (codes.operator == "In") && matches!(codes.operator.as_str(), "In" | "NotIn")
    });
    matched.map(|rule| rule.action.as_str())
}

/// Whether some container's end can have the whole Pod start anew.
pub fn may_restart_all(pod: &Pod) -> bool {
    let mut containers = pods::init_containers(pod).iter().chain(pods::containers(pod));
    containers.any(|container| container.restart_policy_rules.iter().flatten().any(|rule| rule.action == RESTART_ALL))
}

/// Records that have to go because a container ended in a way that has the Pod start anew: those of regular containers
/// first, those whose end it was last.
fn restart_all(pod: &Pod, view: &PodView) -> Vec<String> {
    let active = view.active_sandbox().map(|sandbox| sandbox.id.as_str());
    if active.is_none() || pods::is_deleting(pod) || !may_restart_all(pod) {
        return Vec::new();
    }
    let all = || pods::containers(pod).iter().chain(pods::init_containers(pod));
    let triggers = |container: &Container, record: &ContainerRecord| {
        record.state == RecordState::Exited && rule_action(container, record.exit_code) == Some(RESTART_ALL)
    };
    let is_trigger = |container: &&Container| {
        view.newest(&container.name)
            .is_some_and(|record| Some(record.sandbox_id.as_str()) == active && triggers(container, record))
    };
    let (last, first): (Vec<_>, Vec<_>) = all().partition(is_trigger);
    if last.is_empty() {
        return Vec::new();
    }
    let records = first.into_iter().chain(last).flat_map(|container| {
        // Of each container the oldest go first, so that what the restart follows from is seen to the end.
        view.records(&container.name).map(|record| record.id.clone()).collect::<Vec<_>>().into_iter().rev()
    });
    records.collect()
}

/// The policy that counts for one container.
pub fn effective_policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().unwrap_or_else(|| pods::restart_policy(pod))
}

/// Whether a probe's kill is followed by a restart.
fn restarts_after_probe(pod: &Pod, container: &Container) -> bool {
    effective_policy(pod, container) != "Never"
}

/// Whether the newest sandbox is of no use, and the attempt of the next one.
pub fn sandbox_changed(pod: &Pod, view: &PodView) -> (bool, u32) {
    let Some(newest) = view.sandboxes.first() else { return (true, 0) };
    let ready = view.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let changed = ready > 1
        || !newest.ready
        || newest.host_network != pods::host_network(pod)
        || (!pods::host_network(pod) && newest.ips.is_empty());
    if changed { (true, newest.attempt + 1) } else { (false, newest.attempt) }
}

/// Decides one round.
pub fn plan(pod: &Pod, view: &PodView, verdicts: &dyn Verdicts) -> PodPlan {
    let (changed, attempt) = sandbox_changed(pod, view);
    let sandbox = view.sandboxes.first().map(|sandbox| sandbox.id.clone());
    let mut plan = PodPlan { kill_pod: changed, create_sandbox: changed, attempt, sandbox, ..PodPlan::default() };
    if changed {
        plan_new_sandbox(pod, view, &mut plan);
        return plan;
    }
    plan.restart_all = restart_all(pod, view);
    if !plan.restart_all.is_empty() {
        return plan;
    }
    for (index, container) in pods::ephemeral_containers(pod).iter().enumerate() {
        if view.newest(&container.name).is_none() {
            plan.start_ephemeral.push(index);
        }
    }
    let initialized = plan_init(pod, view, verdicts, &mut plan);
    if plan.kill_pod || !initialized {
        return plan;
    }
    plan_regular(pod, view, verdicts, &mut plan);
    plan
}

fn plan_new_sandbox(pod: &Pod, view: &PodView, plan: &mut PodPlan) {
    let has_records = !view.containers.is_empty();
    if pods::restart_policy(pod) == "Never" && plan.attempt != 0 && has_records && !any_restarts(pod, view) {
        plan.create_sandbox = false;
        return;
    }
    let succeeded = |container: &Container| {
        let record = view.newest(&container.name);
        record.is_some_and(|record| {
            record.state == RecordState::Exited && !restarts_after(pod, container, record.exit_code)
        })
    };
    let start: Vec<usize> =
        (0..pods::containers(pod).len()).filter(|index| !succeeded(&pods::containers(pod)[*index])).collect();
    let any_regular = pods::containers(pod).iter().any(|container| view.newest(&container.name).is_some());
    if start.is_empty() && any_regular {
        plan.create_sandbox = false;
        return;
    }
    if pods::init_containers(pod).is_empty() {
        plan.start = start;
    } else {
        plan.start_init = vec![0];
    }
}

/// With per-container policies a Pod of policy Never may still have something to restart.
fn any_restarts(pod: &Pod, view: &PodView) -> bool {
    pods::containers(pod)
        .iter()
        .filter(|container| container.restart_policy.is_some())
        .any(|container| should_restart(pod, container, view.newest(&container.name)))
}

/// Whether a regular container was made in the sandbox in use, which means that initialization is over.
pub fn has_initialized(pod: &Pod, view: &PodView) -> bool {
    let Some(active) = view.active_sandbox() else { return false };
    pods::containers(pod)
        .iter()
        .any(|container| view.records(&container.name).any(|record| record.sandbox_id == active.id))
}

/// Walks init containers from the last to the first; answers whether regular ones may start.
fn plan_init(pod: &Pod, view: &PodView, verdicts: &dyn Verdicts, plan: &mut PodPlan) -> bool {
    let all = pods::init_containers(pod);
    if all.is_empty() {
        return true;
    }
    let mut initialized = has_initialized(pod, view);
    // Set once a later init container was seen: then earlier ordinary ones are over.
    let mut passed = initialized;
    let mut start = Vec::new();
    for (index, container) in all.iter().enumerate().rev() {
        let sidecar = pods::is_sidecar(container);
        let active = view.active_sandbox().map(|sandbox| sandbox.id.as_str());
        let record = view.newest(&container.name).filter(|record| Some(record.sandbox_id.as_str()) == active);
        let Some(record) = record else {
            if passed && sidecar {
                start.push(index);
            }
            continue;
        };
        if passed && !sidecar {
            continue;
        }
        let step = Step { pod, container, record, index, sidecar, frontier: !passed, verdicts };
        match step.decide(plan) {
            Next::Wait => {}
            Next::Start => start.push(index),
            Next::Advance if index + 1 < all.len() => start.push(index + 1),
            Next::Advance => initialized = true,
            Next::Fail => {
                plan.kill_pod = true;
                return false;
            }
        }
        passed = true;
    }
    if !passed {
        start.push(0);
    }
    start.sort_unstable();
    plan.start_init = start;
    initialized
}

enum Next {
    Wait,
    Start,
    /// The one after this may start.
    Advance,
    /// The Pod has failed.
    Fail,
}

struct Step<'a> {
    pod: &'a Pod,
    container: &'a Container,
    record: &'a ContainerRecord,
    index: usize,
    sidecar: bool,
    /// Nothing after it was started yet.
    frontier: bool,
    verdicts: &'a dyn Verdicts,
}

impl Step<'_> {
    fn decide(&self, plan: &mut PodPlan) -> Next {
        match self.record.state {
            RecordState::Created => Next::Start,
            RecordState::Running if self.sidecar => self.running_sidecar(plan),
            RecordState::Running => Next::Wait,
            RecordState::Exited if self.sidecar => Next::Start,
            RecordState::Exited if succeeded(self.record) => Next::Advance,
            RecordState::Exited if should_restart(self.pod, self.container, Some(self.record)) => Next::Start,
            RecordState::Exited => Next::Fail,
            RecordState::Unknown if self.sidecar || pods::restart_policy(self.pod) != "Never" => {
                let text = format!("Init container is in {:?} state, try killing it before restart", "unknown");
                plan.kill.push(kill(self.record, text, KillReason::Unknown));
                Next::Start
            }
            RecordState::Unknown => Next::Fail,
        }
    }

    fn running_sidecar(&self, plan: &mut PodPlan) -> Next {
        debug_assert_eq!(pods::init_containers(self.pod)[self.index].name, self.container.name);
        let name = &self.container.name;
        let trouble = match self.verdicts.startup(&self.record.id) {
            Verdict::Failure => Some(("failed startup probe", KillReason::Startup)),
            _ if pods::container_hash(self.container) != self.record.hash => {
                Some(("definition changed", KillReason::Changed))
            }
            _ if self.verdicts.liveness(&self.record.id) == Verdict::Failure => {
                Some(("failed liveness probe", KillReason::Liveness))
            }
            _ => None,
        };
        if let Some((what, reason)) = trouble {
            plan.kill.push(kill(self.record, format!("Init container {name} {what}, will be restarted"), reason));
            return Next::Start;
        }
        match self.verdicts.startup(&self.record.id) {
            Verdict::Success if self.frontier => Next::Advance,
            _ => Next::Wait,
        }
    }
}

fn succeeded(record: &ContainerRecord) -> bool {
    record.exit_code == 0 && record.reason != "OOMKilled"
}

fn kill(record: &ContainerRecord, message: String, reason: KillReason) -> Kill {
    Kill { id: record.id.clone(), name: record.name.clone(), message, reason }
}

fn plan_regular(pod: &Pod, view: &PodView, verdicts: &dyn Verdicts, plan: &mut PodPlan) {
    let mut kept = 0;
    for (index, container) in pods::containers(pod).iter().enumerate() {
        let record = view.newest(&container.name);
        let Some(running) = record.filter(|record| record.state == RecordState::Running) else {
            if should_restart(pod, container, record) {
                plan.start.push(index);
                if let Some(lost) = record.filter(|record| record.state == RecordState::Unknown) {
                    let text = format!("Container is in {:?} state, try killing it before restart", "unknown");
                    plan.kill.push(kill(lost, text, KillReason::Unknown));
                }
            }
            continue;
        };
        let by_policy = restarts_after_probe(pod, container);
        let (what, reason, restart) = if pods::container_hash(container) != running.hash {
            ("definition changed", KillReason::Changed, true)
        } else if verdicts.liveness(&running.id) == Verdict::Failure {
            ("failed liveness probe", KillReason::Liveness, by_policy)
        } else if verdicts.startup(&running.id) == Verdict::Failure {
            ("failed startup probe", KillReason::Startup, by_policy)
        } else {
            kept += 1;
            continue;
        };
        let suffix = if restart { ", will be restarted" } else { "" };
        plan.kill.push(kill(running, format!("Container {} {what}{suffix}", container.name), reason));
        if restart {
            plan.start.push(index);
        }
    }
    if kept == 0 && plan.start.is_empty() {
        plan.kill_pod = true;
        plan.start_init.clear();
    }
}

/// The role of a container by name, for events about records whose spec may be gone.
pub fn role_of(pod: &Pod, name: &str) -> Role {
    pods::find_container(pod, name).map_or(Role::Regular, |(_, role)| role)
}
