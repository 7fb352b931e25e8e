//! DefaultPreemption: makes room for a Pod by removing others that matter less.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use rand::Rng;

use crate::{
    cluster::{Cluster, NodeIx},
    cycle::{self, Checks, Preparation},
    framework::{Diagnosis, Profile, Reason, Reasons, histogram},
    meter::Meter,
    nominations::Nominations,
    objects::{DisruptionBudgetView, PodView},
};

const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// Settings of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DefaultPreemption {
    /// Least number of nodes to look at: share of all, and absolute.
    pub(crate) min_percentage: i32,
    pub(crate) min_absolute: i32,
}

impl Default for DefaultPreemption {
    fn default() -> Self {
        Self { min_percentage: 10, min_absolute: 100 }
    }
}

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) node: NodeIx,
    /// Most important first.
    pub(crate) victims: Vec<Arc<PodView>>,
}

/// Why nothing is preempted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fruitless {
    /// The Pod may not preempt now; what was nominated for it stays.
    NotEligible(String),
    /// It would not help anywhere.
    Nowhere(String),
}

impl Fruitless {
    /// What is told.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::NotEligible(text) | Self::Nowhere(text) => text,
        }
    }
}

fn only(text: &str, nodes: usize) -> String {
    format!("0/{nodes} nodes are available{}", histogram(BTreeMap::from([(text.to_owned(), nodes)])))
}

/// A node where removing some Pods would make room.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) plan: Plan,
    pub(crate) violations: usize,
}

/// What preemption works with.
pub(crate) struct Preemption<'a> {
    pub(crate) settings: DefaultPreemption,
    pub(crate) profile: &'a Profile,
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) nominations: &'a Nominations,
    /// Pods that are being preempted and may not show it yet.
    pub(crate) doomed: &'a HashSet<Arc<str>>,
    pub(crate) budgets: &'a [DisruptionBudgetView],
    pub(crate) meter: &'a Meter,
}

impl Preemption<'_> {
    /// Looks for nodes where removing Pods lets `pod` in. The error is what is told instead.
    pub(crate) fn candidates(
        &mut self,
        pod: &PodView,
        diagnosis: &Diagnosis,
        random: &mut impl Rng,
    ) -> Result<Vec<Candidate>, Fruitless> {
        self.eligible(pod, diagnosis).map_err(Fruitless::NotEligible)?;
        let mut helpful: Vec<NodeIx> =
            diagnosis.denials.iter().filter(|(_, _, d)| d.resolvable).map(|(node, _, _)| *node).collect();
        helpful.sort_unstable();
        let all = self.cluster.nodes.len();
        let mut texts: BTreeMap<String, usize> = BTreeMap::new();
        if all > helpful.len() {
            texts.insert(NOT_HELPFUL.to_owned(), all - helpful.len());
        }
        let Preparation::Ask { mut checks, .. } = cycle::prepare(self.profile, pod, self.cluster, self.meter) else {
            return Err(Fruitless::Nowhere(only(NOT_HELPFUL, all)));
        };
        let wanted = self.candidates_wanted(helpful.len());
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut harmless = 0;
        let from = if helpful.is_empty() { 0 } else { random.random_range(0..helpful.len()) };
        for node in helpful.iter().cycle().skip(from).take(helpful.len()) {
            if candidates.len() >= wanted && harmless > 0 {
                break;
            }
            match self.try_node(pod, *node, &mut checks) {
                Ok(candidate) => {
                    harmless += usize::from(candidate.violations == 0);
                    candidates.push(candidate);
                }
                Err(reasons) => reasons.into_iter().for_each(|r| *texts.entry(r).or_default() += 1),
            }
        }
        if candidates.is_empty() {
            return Err(Fruitless::Nowhere(format!("0/{all} nodes are available{}", histogram(texts))));
        }
        Ok(candidates)
    }

    fn candidates_wanted(&self, nodes: usize) -> usize {
        let share = nodes * usize::try_from(self.settings.min_percentage).unwrap_or(0) / 100;
        share.max(usize::try_from(self.settings.min_absolute).unwrap_or(0)).min(nodes)
    }

    /// Whether the Pod may preempt at all.
    fn eligible(&self, pod: &PodView, diagnosis: &Diagnosis) -> Result<(), String> {
        if pod.template.never_preempts {
            return Err("not eligible due to preemptionPolicy=Never.".into());
        }
        let Some(node) = self.nominations.node_of(&pod.uid).and_then(|n| self.cluster.nodes.find(n)) else {
            return Ok(());
        };
        let hopeless = diagnosis.denials.iter().any(|(n, _, d)| *n == node && !d.resolvable);
        let goes = |p: &Arc<PodView>| p.terminating && p.preempted || self.doomed.contains(&p.uid);
        let waits = |p: &Arc<PodView>| goes(p) && p.priority() < pod.priority();
        if !hopeless && self.cluster.nodes.get(node).pods.iter().any(waits) {
            return Err("not eligible due to a terminating pod on the nominated node.".into());
        }
        Ok(())
    }

    /// What would have to go from one node.
    fn try_node(&mut self, pod: &PodView, node: NodeIx, checks: &mut Checks<'_>) -> Result<Candidate, Vec<String>> {
        let lower = |p: &&Arc<PodView>| p.priority() < pod.priority();
        let mut potential: Vec<Arc<PodView>> =
            self.cluster.nodes.get(node).pods.iter().filter(lower).cloned().collect();
        if potential.is_empty() {
            return Err(vec![NO_VICTIMS.to_owned()]);
        }
        potential.sort_by_key(|p| importance(p));
        potential.iter().for_each(|p| self.cluster.detach(p, node));
        checks.refresh(self.cluster);
        let outcome = match checks.run_with_nominated(pod, self.cluster, self.nominations, node) {
            Ok(()) => Ok(self.spare(pod, node, checks, &potential)),
            Err((_, denial)) => Err(texts(&denial.reasons)),
        };
        // The cluster is as it was before.
        let gone: Vec<Arc<PodView>> = match &outcome {
            Ok((victims, _)) => victims.clone(),
            Err(_) => potential,
        };
        gone.iter().for_each(|p| self.cluster.attach(p, node));
        checks.refresh(self.cluster);
        outcome.map(|(victims, violations)| Candidate { plan: Plan { node, victims }, violations })
    }

    /// Puts back all that need not go, the most important first, those protected by a budget before the others.
    /// The victims stay off the node.
    fn spare(
        &mut self,
        pod: &PodView,
        node: NodeIx,
        checks: &mut Checks<'_>,
        potential: &[Arc<PodView>],
    ) -> (Vec<Arc<PodView>>, usize) {
        let (protected, free) = split_by_budget(potential, self.budgets);
        let mut victims = Vec::new();
        let mut violations = 0;
        let order = protected.iter().map(|p| (p, true)).chain(free.iter().map(|p| (p, false)));
        for (candidate, is_protected) in order {
            self.cluster.attach(candidate, node);
            checks.refresh(self.cluster);
            if checks.run_with_nominated(pod, self.cluster, self.nominations, node).is_err() {
                self.cluster.detach(candidate, node);
                checks.refresh(self.cluster);
                victims.push(Arc::clone(candidate));
                violations += usize::from(is_protected);
            }
        }
        victims.sort_by_key(|p| importance(p));
        (victims, violations)
    }
}

fn texts(reasons: &Reasons) -> Vec<String> {
    match reasons {
        Reasons::One(one) => vec![one.text()],
        Reasons::Many(all) => all.iter().map(Reason::text).collect(),
    }
}

/// Sorts the most important first: higher priority, then longer running.
fn importance(pod: &PodView) -> (Reverse<i32>, i64) {
    (Reverse(pod.priority()), pod.started.unwrap_or(i64::MAX))
}

/// Pods whose removal would break a budget, and the others; both in the order given.
fn split_by_budget(pods: &[Arc<PodView>], budgets: &[DisruptionBudgetView]) -> (Vec<Arc<PodView>>, Vec<Arc<PodView>>) {
    let mut left: HashMap<usize, i32> = budgets.iter().enumerate().map(|(at, b)| (at, b.allowed)).collect();
    pods.iter().cloned().partition(|pod| {
        let mut violates = false;
        for (at, budget) in budgets.iter().enumerate() {
            let covers = *budget.namespace == *pod.namespace()
                && !budget.selector.is_everything()
                && pod.template.labels.match_selector(&budget.selector)
                && !budget.disrupted.contains(&pod.name);
            if covers && let Some(left) = left.get_mut(&at) {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// The candidate that does least harm.
pub(crate) fn choose(candidates: Vec<Candidate>) -> Option<Plan> {
    let harm = |c: &Candidate| {
        let victims = &c.plan.victims;
        let highest = victims.first().map_or(i32::MIN, |p| p.priority());
        let sum: i128 = victims.iter().map(|p| i128::from(p.priority()) + (1_i128 << 31)).sum();
        let of_highest = victims.iter().filter(|p| p.priority() == highest);
        let earliest = of_highest.map(|p| p.started.unwrap_or(i64::MAX)).min().unwrap_or(i64::MAX);
        (c.violations, highest, sum, victims.len(), Reverse(earliest))
    };
    candidates.into_iter().min_by_key(harm).map(|c| c.plan)
}

#[cfg(test)]
mod tests;
