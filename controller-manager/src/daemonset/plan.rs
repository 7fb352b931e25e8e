//! Which Pods a DaemonSet makes and removes: pure.

use std::{collections::BTreeMap, sync::Arc};

use ::controller::Cached;
use k8s_openapi::{
    api::apps::v1::{DaemonSet, DaemonSetStatus},
    apimachinery::pkg::util::intstr::IntOrString,
    jiff::Timestamp,
};
use machinery::intstr::{self, Round};

use super::placement::{self, Fit, GENERATION, HASH};
use crate::views::{NodeView, Phase, PodView};

pub(super) type Daemon = Arc<Cached<PodView>>;

/// Annotation with the number of the template from when there were no hashes.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// What is observed.
pub(super) struct World<'a> {
    pub(super) set: &'a DaemonSet,
    /// Nodes by name, with how they fit.
    pub(super) nodes: BTreeMap<&'a str, Fit>,
    /// The set's Pods by the Node they are on or bound for.
    pub(super) pods: BTreeMap<String, Vec<Daemon>>,
    /// Hash of the present template.
    pub(super) hash: &'a str,
    pub(super) now: Timestamp,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that get a Pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Daemon>,
    /// Pods that ended badly, by node: they go unless they are backed off.
    pub(super) failed: Vec<(String, Daemon)>,
    /// Pods that ended well, by node: they go.
    pub(super) succeeded: Vec<(String, Daemon)>,
}

pub(super) fn generation(set: &DaemonSet) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(TEMPLATE_GENERATION)?.parse().ok()
}

pub(super) fn min_ready_seconds(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

/// `maxSurge` and `maxUnavailable` as they are written.
fn limits(set: &DaemonSet) -> (Option<IntOrString>, Option<IntOrString>) {
    let rolling = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|u| u.rolling_update.as_ref());
    rolling.map_or((None, None), |r| (r.max_surge.clone(), r.max_unavailable.clone()))
}

fn resolved(value: Option<IntOrString>, total: i32) -> i32 {
    let value = match value {
        None => return 0,
        Some(IntOrString::Int(n)) => intstr::IntOrString::Int(n),
        Some(IntOrString::String(text)) => intstr::IntOrString::Text(text),
    };
    value.scaled(total, Round::Up).unwrap_or(0)
}

pub(super) fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete")
}

fn allows_surge(set: &DaemonSet) -> bool {
    is_rolling(set) && resolved(limits(set).0, 1) > 0
}

/// Oldest first, those on a node before those without.
fn by_age(pods: &mut [Daemon]) {
    pods.sort_by(|a, b| (a.node.is_empty(), a.created, &a.key.name).cmp(&(b.node.is_empty(), b.created, &b.key.name)));
}

/// Groups Pods by their Node. Pods that ended and are held by a finalizer do not count when Pods are made.
pub(super) fn by_node(pods: &[Daemon], with_leftovers: bool) -> BTreeMap<String, Vec<Daemon>> {
    let mut by_node: BTreeMap<String, Vec<Daemon>> = BTreeMap::new();
    for pod in pods {
        if !with_leftovers && pod.deletion.is_some() && pod.phase.is_terminal() {
            continue;
        }
        let node = if pod.node.is_empty() { &pod.pinned_to } else { &pod.node };
        by_node.entry(node.clone()).or_default().push(Arc::clone(pod));
    }
    by_node
}

/// How all Nodes fit.
pub(super) fn fits<'a>(set: &DaemonSet, nodes: &'a [Arc<Cached<NodeView>>]) -> BTreeMap<&'a str, Fit> {
    let Some(spec) = set.spec.as_ref() else { return BTreeMap::new() };
    nodes.iter().map(|n| (n.key.name.as_str(), placement::fit(&spec.template, n))).collect()
}

impl World<'_> {
    fn is_updated(&self, pod: &PodView) -> bool {
        let by_hash = pod.labels.get(HASH).is_some_and(|h| h == self.hash);
        let number = generation(self.set).map(|g| g.to_string());
        by_hash || number.is_some_and(|n| pod.labels.get(GENERATION) == Some(&n))
    }

    fn is_available(&self, pod: &PodView) -> bool {
        pod.is_available(min_ready_seconds(self.set), self.now)
    }

    /// One Pod on each Node that should run one.
    pub(super) fn manage(&self) -> Plan {
        let mut plan = Plan::default();
        for (node, fit) in &self.nodes {
            let pods = self.pods.get(*node).map(Vec::as_slice).unwrap_or_default();
            match fit {
                Fit::Runs if pods.is_empty() => plan.create.push((*node).to_owned()),
                Fit::None => plan.delete.extend(pods.iter().filter(|p| p.deletion.is_none()).cloned()),
                Fit::Runs | Fit::Keeps => self.tidy(node, pods, &mut plan),
            }
        }
        // Pods for Nodes that are gone will never be bound.
        let lost = self.pods.iter().filter(|(node, _)| !self.nodes.contains_key(node.as_str()));
        plan.delete
            .extend(lost.flat_map(|(_, pods)| pods).filter(|p| p.node.is_empty() && p.deletion.is_none()).cloned());
        plan
    }

    /// Removes what ended, and all but the oldest of what runs.
    fn tidy(&self, node: &str, pods: &[Daemon], plan: &mut Plan) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|p| p.deletion.is_none()) {
            match pod.phase {
                Phase::Failed => plan.failed.push((node.to_owned(), Arc::clone(pod))),
                Phase::Succeeded => plan.succeeded.push((node.to_owned(), Arc::clone(pod))),
                _ => running.push(Arc::clone(pod)),
            }
        }
        if running.len() <= 1 {
            return;
        }
        by_age(&mut running);
        if !allows_surge(self.set) {
            plan.delete.extend(running.drain(1..));
            return;
        }
        // A new Pod may stand next to the old one that is ready, until it is available itself.
        let (mut new, mut old) = (None, None);
        for pod in running {
            let of_hash = pod.labels.get(HASH).is_some_and(|h| h == self.hash);
            let slot = if of_hash { &mut new } else { &mut old };
            if slot.is_none() { *slot = Some(pod) } else { plan.delete.push(pod) }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!old.is_ready() || self.is_available(&new))
        {
            plan.delete.push(old);
        }
    }

    /// The new and the old Pod of a Node; `None` if there are several of one sort.
    fn pair<'p>(&self, pods: &'p [Daemon]) -> Option<(Option<&'p Daemon>, Option<&'p Daemon>)> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().filter(|p| p.deletion.is_none()) {
            let slot = if self.is_updated(pod) { &mut new } else { &mut old };
            if slot.replace(pod).is_some() {
                return None;
            }
        }
        Some((new, old))
    }

    /// `maxSurge` and `maxUnavailable` in Pods.
    fn budget(&self) -> (usize, usize) {
        let wanted = self.nodes.values().filter(|f| **f == Fit::Runs).count();
        let total = i32::try_from(wanted).unwrap_or(i32::MAX);
        let (surge, unavailable) = limits(self.set);
        let count = |n: i32| usize::try_from(n).unwrap_or(0);
        let (surge, unavailable) = (count(resolved(surge, total)), count(resolved(unavailable, total)));
        if wanted > 0 && surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    /// Nodes with Pods, and those that should have one.
    fn concerned(&self) -> BTreeMap<&str, &[Daemon]> {
        let mut all: BTreeMap<&str, &[Daemon]> = self.pods.iter().map(|(n, p)| (n.as_str(), p.as_slice())).collect();
        for (node, _) in self.nodes.iter().filter(|(_, f)| **f == Fit::Runs) {
            all.entry(node).or_default();
        }
        all
    }

    /// The next replacements of old Pods by new ones.
    pub(super) fn roll(&self) -> Plan {
        let (surge, unavailable) = self.budget();
        if surge == 0 { self.replace(unavailable) } else { self.surge(surge) }
    }

    fn replace(&self, most: usize) -> Plan {
        let (mut down, mut plan, mut candidates) = (0, Plan::default(), Vec::new());
        for pods in self.concerned().into_values() {
            match self.pair(pods) {
                None | Some((None, None) | (Some(_), Some(_))) => down += 1,
                Some((Some(new), None)) => down += usize::from(!self.is_available(new)),
                // What is down anyway costs nothing.
                Some((None, Some(old))) if !self.is_available(old) => {
                    plan.delete.push(Arc::clone(old));
                    down += 1;
                }
                Some((None, Some(old))) => candidates.push(Arc::clone(old)),
            }
        }
        candidates.truncate(most.saturating_sub(down));
        plan.delete.append(&mut candidates);
        plan
    }

    fn surge(&self, most: usize) -> Plan {
        let (mut surging, mut plan, mut candidates) = (0, Plan::default(), Vec::new());
        let (mut available, mut unwanted) = (0, Vec::new());
        for (node, pods) in self.concerned() {
            let runs = self.nodes.get(node) == Some(&Fit::Runs);
            match self.pair(pods) {
                None => surging += 1,
                Some((new, None)) => available += usize::from(new.is_some_and(|p| self.is_available(p))),
                Some((None, Some(old))) => {
                    let up = self.is_available(old);
                    available += usize::from(up);
                    match (runs, up) {
                        (false, _) => unwanted.push(Arc::clone(old)),
                        (true, false) => plan.create.push(node.to_owned()),
                        (true, true) => candidates.push(node.to_owned()),
                    }
                }
                Some((Some(new), Some(_))) if !self.is_available(new) => surging += 1,
                Some((Some(_), Some(old))) => {
                    available += 1;
                    plan.delete.push(Arc::clone(old));
                }
            }
        }
        let wanted = self.nodes.values().filter(|f| **f == Fit::Runs).count();
        unwanted.truncate(usize::saturating_sub(available, wanted));
        plan.delete.append(&mut unwanted);
        candidates.truncate(most.saturating_sub(surging));
        plan.create.append(&mut candidates);
        plan
    }

    /// The status of all Pods, counted by Node.
    pub(super) fn status(&self, present: &DaemonSetStatus, observed: Option<i64>) -> DaemonSetStatus {
        let (mut desired, mut current, mut stray, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
        for (node, fit) in &self.nodes {
            let mut pods = self.pods.get(*node).cloned().unwrap_or_default();
            by_age(&mut pods);
            match (fit, pods.first()) {
                (Fit::Runs, first) => {
                    desired += 1;
                    let Some(pod) = first else { continue };
                    current += 1;
                    ready += i32::from(pod.is_ready());
                    available += i32::from(self.is_available(pod));
                    updated += i32::from(self.is_updated(pod));
                }
                (_, Some(_)) => stray += 1,
                (_, None) => {}
            }
        }
        let some = |n: i32| (n != 0).then_some(n);
        DaemonSetStatus {
            desired_number_scheduled: desired,
            current_number_scheduled: current,
            number_misscheduled: stray,
            number_ready: ready,
            number_available: some(available),
            number_unavailable: some(desired - available),
            updated_number_scheduled: some(updated),
            observed_generation: observed.or(present.observed_generation),
            collision_count: present.collision_count,
            conditions: present.conditions.clone(),
        }
    }

    /// Seconds until the next Pod becomes available, if one will.
    pub(super) fn next_available(&self) -> Option<u64> {
        let least = min_ready_seconds(self.set);
        let left = self.pods.values().flatten().filter_map(|p| p.available_in(least, self.now)).filter(|s| *s > 0);
        left.min().and_then(|s| u64::try_from(s).ok())
    }
}

#[cfg(test)]
mod tests;
