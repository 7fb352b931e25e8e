//! The synchronous half of scheduling: from a Pod to a node, without waiting for anything.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::Rng;

use crate::{
    cluster::{Cluster, NodeIx},
    config::{Point, points_of},
    framework::{Denial, Diagnosis, LeftOut, NodeCheck, NodeScore, PluginId, Prepared, Profile, Score},
    memo::{Memo, Memos},
    meter::{Meter, Status},
    nominations::Nominations,
    objects::PodView,
};

/// Fewest nodes to find before scoring.
const MIN_FEASIBLE: usize = 100;
/// Smallest share of nodes, in percent, that the adaptive choice comes to.
const MIN_PERCENTAGE: usize = 5;

/// The filters of a profile, prepared for one Pod.
pub(crate) struct Checks<'m> {
    meter: &'m Meter,
    all: Vec<(PluginId, Box<dyn NodeCheck>)>,
    /// How many of the first ones look at nothing but the node.
    local: usize,
}

impl Checks<'_> {
    /// Asks the filters in turn, up to the first that rejects.
    pub(crate) fn run(&self, cluster: &Cluster, node: NodeIx) -> Result<(), (PluginId, Denial)> {
        ask(self.meter, &self.all, cluster, node)
    }

    /// [`Checks::run`] that looks at the node itself only if it changed since a Pod like this one was here.
    fn run_remembered(&self, cluster: &Cluster, node: NodeIx, memo: &mut Memo) -> Result<(), (PluginId, Denial)> {
        let (local, others) = self.all.split_at(self.local);
        match memo.verdict(cluster, node, || ask(self.meter, local, cluster, node).err()) {
            Some(denied) => Err(denied),
            None => ask(self.meter, others, cluster, node),
        }
    }

    /// Pods were moved to see what would be.
    pub(crate) fn refresh(&mut self, cluster: &mut Cluster) {
        self.all.iter_mut().for_each(|(_, check)| check.refresh(cluster));
    }

    /// [`Checks::run`] once with the Pods that are nominated to the node and matter as much as this one, and once
    /// without them: they may come or not.
    pub(crate) fn run_with_nominated(
        &mut self,
        pod: &PodView,
        cluster: &mut Cluster,
        nominations: &Nominations,
        node: NodeIx,
    ) -> Result<(), (PluginId, Denial)> {
        let name = Arc::clone(cluster.nodes.name(node));
        let matters = |p: &&Arc<PodView>| p.priority() >= pod.priority() && p.uid != pod.uid;
        let expected: Vec<Arc<PodView>> = nominations.on(&name).iter().filter(matters).cloned().collect();
        if !expected.is_empty() {
            expected.iter().for_each(|p| cluster.attach(p, node));
            self.refresh(cluster);
            let with = self.run(cluster, node);
            expected.iter().for_each(|p| cluster.detach(p, node));
            self.refresh(cluster);
            with?;
        }
        self.run(cluster, node)
    }
}

fn ask(
    meter: &Meter,
    checks: &[(PluginId, Box<dyn NodeCheck>)],
    cluster: &Cluster,
    node: NodeIx,
) -> Result<(), (PluginId, Denial)> {
    checks.iter().try_for_each(|(plugin, check)| {
        meter.evaluated(*plugin, Point::Filter, 1);
        let outcome = meter.plugin(*plugin, Point::Filter, Status::of_filter, || check.check(cluster, node));
        outcome.map_err(|denial| (*plugin, denial))
    })
}

/// What the filters say before they see nodes.
pub(crate) enum Preparation<'m> {
    /// Nodes to ask: all, or some.
    Ask { checks: Checks<'m>, only: Option<Vec<NodeIx>>, left_out: Option<String> },
    /// No node will do.
    Reject { plugins: Vec<PluginId>, text: String },
}

/// Runs the PreFilters.
pub(crate) fn prepare<'m>(
    profile: &Profile,
    pod: &PodView,
    cluster: &mut Cluster,
    meter: &'m Meter,
) -> Preparation<'m> {
    let began = Instant::now();
    let prepared = pre_filter(profile, pod, cluster, meter);
    let status = match &prepared {
        Preparation::Ask { .. } => Status::Success,
        Preparation::Reject { .. } => Status::Unresolvable,
    };
    meter.point(Point::PreFilter, status, began.elapsed());
    prepared
}

/// What a PreFilter says, measured if upstream's plugin of the name has one.
fn pre_filter_of(plugin: PluginId, meter: &Meter, work: impl FnOnce() -> Prepared) -> Prepared {
    if !points_of(plugin).0.contains(&Point::PreFilter) {
        return work();
    }
    let status = |prepared: &Prepared| match prepared {
        Prepared::Skip => Status::Skip,
        Prepared::Reject(_) => Status::Unresolvable,
        Prepared::Check(_) | Prepared::CheckOnly(..) => Status::Success,
    };
    let prepared = meter.plugin(plugin, Point::PreFilter, status, work);
    if !matches!(prepared, Prepared::Skip) {
        meter.evaluated(plugin, Point::PreFilter, 1);
    }
    prepared
}

fn pre_filter<'m>(profile: &Profile, pod: &PodView, cluster: &mut Cluster, meter: &'m Meter) -> Preparation<'m> {
    let mut checks: Vec<(PluginId, Box<dyn NodeCheck>)> = Vec::new();
    let (mut local, mut all_local) = (0, true);
    let mut allowed: Option<Vec<Box<str>>> = None;
    let mut restricting: Vec<PluginId> = Vec::new();
    for (plugin, filter) in profile.filters() {
        all_local &= filter.is_local();
        match pre_filter_of(plugin, meter, || filter.prepare(pod, cluster)) {
            Prepared::Skip => {}
            Prepared::Reject(text) => return Preparation::Reject { plugins: vec![plugin], text },
            Prepared::Check(check) => checks.push((plugin, check)),
            Prepared::CheckOnly(names, check) => {
                restricting.push(plugin);
                checks.push((plugin, check));
                let both = match allowed.take() {
                    None => names,
                    Some(before) => before.into_iter().filter(|n| names.contains(n)).collect(),
                };
                if both.is_empty() {
                    return Preparation::Reject { text: nowhere(&restricting), plugins: restricting };
                }
                allowed = Some(both);
            }
        }
        if all_local {
            local = checks.len();
        }
    }
    let only = allowed.map(|names| {
        let there = names.iter().filter_map(|n| cluster.nodes.find(n));
        there.filter(|n| cluster.nodes.get(*n).present).collect()
    });
    let left_out =
        (!restricting.is_empty()).then(|| format!("node(s) didn't satisfy plugin(s) {}", list(&restricting)));
    Preparation::Ask { checks: Checks { meter, all: checks, local }, only, left_out }
}

fn list(plugins: &[PluginId]) -> String {
    let names: Vec<&str> = plugins.iter().map(|p| p.name()).collect();
    format!("[{}]", names.join(" "))
}

fn nowhere(plugins: &[PluginId]) -> String {
    match plugins {
        [one] => format!("node(s) didn't satisfy plugin {one}"),
        many => format!("node(s) didn't satisfy plugin(s) {} simultaneously", list(many)),
    }
}

/// How many nodes to find before scoring.
pub(crate) fn enough(nodes: usize, percentage: i32) -> usize {
    let given = usize::try_from(percentage).unwrap_or(0);
    if nodes < MIN_FEASIBLE || given >= 100 {
        return nodes;
    }
    let percentage = match given {
        0 => 50_usize.saturating_sub(nodes / 125).max(MIN_PERCENTAGE),
        given => given,
    };
    (nodes * percentage / 100).max(MIN_FEASIBLE)
}

/// A node for a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) node: NodeIx,
    pub(crate) evaluated: usize,
    pub(crate) feasible: usize,
}

/// What a search found.
pub(crate) enum Found {
    /// The node that was nominated for the Pod fits.
    Nominated(NodeIx),
    /// Nodes that fit, and what was said of the others.
    Feasible { nodes: Vec<NodeIx>, diagnosis: Box<Diagnosis> },
}

impl Found {
    /// The nodes.
    pub(crate) fn nodes(&self) -> &[NodeIx] {
        match self {
            Self::Nominated(node) => std::slice::from_ref(node),
            Self::Feasible { nodes, .. } => nodes,
        }
    }
}

/// The one with the highest score; one of them at random if there are several.
pub(crate) fn highest<T>(scored: Vec<(T, i64)>, random: &mut impl Rng) -> Option<T> {
    let most = scored.iter().map(|(_, score)| *score).max()?;
    let mut best: Vec<T> = scored.into_iter().filter(|(_, score)| *score == most).map(|(it, _)| it).collect();
    let at = random.random_range(0..best.len());
    Some(best.swap_remove(at))
}

/// Finds nodes that fit and takes the best.
pub(crate) struct Cycle<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) nominations: &'a Nominations,
    pub(crate) memos: &'a mut Memos,
    /// Where the search begins; moves on with every Pod.
    pub(crate) start: &'a mut usize,
    pub(crate) meter: &'a Meter,
}

impl Cycle<'_> {
    /// Runs the cycle for a Pod.
    pub(crate) fn run(&mut self, pod: &Arc<PodView>, random: &mut impl Rng) -> Result<Chosen, Box<Diagnosis>> {
        match self.search(pod, true)? {
            Found::Nominated(node) => Ok(Chosen { node, evaluated: 1, feasible: 1 }),
            Found::Feasible { nodes, diagnosis } => {
                let evaluated = nodes.len() + diagnosis.denials.len();
                let node = self.best(pod, &nodes, random);
                Ok(Chosen { node, evaluated, feasible: nodes.len() })
            }
        }
    }

    /// Names of nodes.
    pub(crate) fn names(&self, nodes: &[NodeIx]) -> Vec<String> {
        nodes.iter().map(|node| self.cluster.nodes.name(*node).to_string()).collect()
    }

    /// Nodes by their names, those that exist.
    pub(crate) fn indices(&self, names: &[String]) -> Vec<NodeIx> {
        let nodes = &self.cluster.nodes;
        names.iter().filter_map(|name| nodes.find(name)).filter(|node| nodes.get(*node).present).collect()
    }

    /// Finds nodes that fit; the nominated one alone, if it does and is to be looked at.
    pub(crate) fn search(&mut self, pod: &Arc<PodView>, use_nominated: bool) -> Result<Found, Box<Diagnosis>> {
        self.cluster.begin();
        let mut diagnosis = Box::new(Diagnosis::default());
        if self.cluster.nodes.len() == 0 {
            // The plugin that is interested in new nodes, and nothing else.
            diagnosis.plugins.insert(PluginId::NodeName);
            return Err(diagnosis);
        }
        let (mut checks, only, left_out) = match prepare(self.profile, pod, self.cluster, self.meter) {
            Preparation::Ask { checks, only, left_out } => (checks, only, left_out),
            Preparation::Reject { plugins, text } => {
                diagnosis.plugins.extend(plugins);
                diagnosis.whole = Some(text);
                return Err(diagnosis);
            }
        };
        if use_nominated
            && let Some(node) = self.nominated(pod, only.as_deref())
            && checks.run_with_nominated(pod, self.cluster, self.nominations, node).is_ok()
        {
            return Ok(Found::Nominated(node));
        }
        let began = Instant::now();
        let feasible = self.find(pod, &mut checks, only.as_deref(), &mut diagnosis);
        self.meter.point(Point::Filter, Status::Success, began.elapsed());
        if feasible.is_empty() {
            if let (Some(text), Some(only)) = (left_out, &only) {
                let nodes = self.cluster.nodes.len() - only.len();
                diagnosis.left_out = Some(LeftOut { nodes, text });
                diagnosis.plugins.insert(PluginId::NodeAffinity);
            }
            return Err(diagnosis);
        }
        Ok(Found::Feasible { nodes: feasible, diagnosis })
    }

    /// The node nominated for the Pod, if it may be tried.
    fn nominated(&self, pod: &PodView, only: Option<&[NodeIx]>) -> Option<NodeIx> {
        let name = self.nominations.node_of(&pod.uid)?;
        let node = self.cluster.nodes.find(name).filter(|n| self.cluster.nodes.get(*n).present)?;
        only.is_none_or(|o| o.contains(&node)).then_some(node)
    }

    fn find(
        &mut self,
        pod: &PodView,
        checks: &mut Checks<'_>,
        only: Option<&[NodeIx]>,
        diagnosis: &mut Diagnosis,
    ) -> Vec<NodeIx> {
        let candidates: Arc<[NodeIx]> = only.map_or_else(|| self.cluster.ordered(), Arc::from);
        let mut memo = self.memos.of(&pod.template);
        let wanted = enough(candidates.len(), self.profile.percentage);
        let from = if candidates.is_empty() { 0 } else { *self.start % candidates.len() };
        let mut feasible = Vec::with_capacity(wanted.min(candidates.len()));
        let mut tried = 0;
        let (first, second) = (candidates.get(from..).unwrap_or_default(), candidates.get(..from).unwrap_or_default());
        for node in first.iter().chain(second) {
            if feasible.len() >= wanted {
                break;
            }
            tried += 1;
            let expected = !self.nominations.is_empty() && self.nominations.any_on(self.cluster.nodes.name(*node));
            let outcome = match &mut memo {
                _ if expected => checks.run_with_nominated(pod, self.cluster, self.nominations, *node),
                Some(memo) => checks.run_remembered(self.cluster, *node, memo),
                None => checks.run(self.cluster, *node),
            };
            match outcome {
                Ok(()) => feasible.push(*node),
                Err((plugin, denial)) => diagnosis.deny(*node, plugin, denial),
            }
        }
        if !candidates.is_empty() {
            *self.start = (from + tried) % candidates.len();
        }
        feasible
    }

    /// The node with the highest score; one of them at random if there are several.
    fn best(&mut self, pod: &PodView, feasible: &[NodeIx], random: &mut impl Rng) -> NodeIx {
        if let [only] = feasible {
            return *only;
        }
        let totals = self.totals(pod, feasible);
        let all: Vec<(NodeIx, i64)> = feasible.iter().copied().zip(totals).collect();
        highest(all, random).unwrap_or(feasible[0])
    }

    /// Weighted scores of nodes, summed up.
    pub(crate) fn totals(&mut self, pod: &PodView, feasible: &[NodeIx]) -> Vec<i64> {
        let began = Instant::now();
        let mut preparing = Duration::ZERO;
        let mut totals = self.local_scores(pod, feasible, &mut preparing);
        let mut scores = vec![0_i64; feasible.len()];
        for (id, weight, plugin) in self.profile.scores().filter(|(_, _, p)| !p.is_local()) {
            let Some(scoring) = self.prepare_score(id, plugin, pod, feasible, &mut preparing) else { continue };
            scores.fill(0);
            self.meter.evaluated(id, Point::Score, feasible.len());
            let score = || scoring.score(self.cluster, feasible, &mut scores);
            self.meter.plugin(id, Point::Score, |()| Status::Success, score);
            for (total, score) in totals.iter_mut().zip(&scores) {
                *total += weight * score;
            }
        }
        self.meter.point(Point::PreScore, Status::Success, preparing);
        self.meter.point(Point::Score, Status::Success, began.elapsed().saturating_sub(preparing));
        totals
    }

    /// PreScore of a plugin; the time goes to `took`.
    fn prepare_score(
        &mut self,
        id: PluginId,
        plugin: &dyn Score,
        pod: &PodView,
        feasible: &[NodeIx],
        took: &mut Duration,
    ) -> Option<Box<dyn NodeScore>> {
        let began = Instant::now();
        let cluster = &mut *self.cluster;
        let mut work = || plugin.prepare(pod, feasible, cluster);
        let scoring = if points_of(id).0.contains(&Point::PreScore) {
            let status = |made: &Option<_>| if made.is_some() { Status::Success } else { Status::Skip };
            let scoring = self.meter.plugin(id, Point::PreScore, status, work);
            self.meter.evaluated(id, Point::PreScore, usize::from(scoring.is_some()));
            scoring
        } else {
            work()
        };
        *took += began.elapsed();
        scoring
    }

    /// Weighted scores that depend on nothing but each node.
    fn local_scores(&mut self, pod: &PodView, feasible: &[NodeIx], preparing: &mut Duration) -> Vec<i64> {
        let mut scorings: Vec<(PluginId, i64, Box<dyn NodeScore>)> = Vec::new();
        for (id, weight, plugin) in self.profile.scores().filter(|(_, _, p)| p.is_local()) {
            if let Some(scoring) = self.prepare_score(id, plugin, pod, feasible, preparing) {
                scorings.push((id, weight, scoring));
            }
        }
        let (cluster, meter) = (&*self.cluster, self.meter);
        let sum = |node: NodeIx| {
            let of_one = |id: PluginId, scoring: &dyn NodeScore| {
                let mut score = [0];
                meter.evaluated(id, Point::Score, 1);
                let work = || scoring.score(cluster, &[node], &mut score);
                meter.plugin(id, Point::Score, |()| Status::Success, work);
                score[0]
            };
            scorings.iter().map(|(id, weight, scoring)| weight * of_one(*id, &**scoring)).sum()
        };
        match self.memos.of(&pod.template) {
            Some(memo) => feasible.iter().map(|n| memo.score(cluster, *n, || sum(*n))).collect(),
            None => feasible.iter().map(|n| sum(*n)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_many_nodes_are_enough() {
        assert_eq!(enough(99, 0), 99);
        assert_eq!(enough(100, 0), 100);
        assert_eq!(enough(1000, 0), 420);
        assert_eq!(enough(5000, 0), 500);
        assert_eq!(enough(10_000, 0), 500);
        assert_eq!(enough(1000, 30), 300);
        assert_eq!(enough(200, 10), 100);
        assert_eq!(enough(1000, 100), 1000);
    }

    #[test]
    fn restrictions_that_leave_nothing() {
        assert_eq!(nowhere(&[PluginId::NodeAffinity]), "node(s) didn't satisfy plugin NodeAffinity");
        assert_eq!(
            nowhere(&[PluginId::NodeAffinity, PluginId::VolumeBinding]),
            "node(s) didn't satisfy plugin(s) [NodeAffinity VolumeBinding] simultaneously"
        );
    }
}
