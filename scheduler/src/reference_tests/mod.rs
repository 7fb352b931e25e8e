//! The scheduler against a slow one that follows the rules word by word: random clusters, random Pods, the same nodes and
//! the same differences of scores. A failure names the seed that makes the scene again.

mod claims;
mod preemption;
mod reference;
mod scene;

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use rand::{Rng, SeedableRng, rngs::StdRng};
use reference::World;

use crate::{
    cluster::Cluster,
    cycle::{Cycle, Found},
    memo::Memos,
    meter::Meter,
    nominations::Nominations,
    objects::PodView,
    plugins::testing::default_profile,
};

/// Pods that are placed in each scene.
const PODS: usize = 12;

/// Scores of the nodes that fit, by name, above the lowest: what all nodes get alike may be left out.
type Scores = BTreeMap<String, i64>;

fn above_the_lowest(names: &[String], scores: &[i64]) -> Scores {
    let lowest = scores.iter().min().copied().unwrap_or(0);
    names.iter().cloned().zip(scores.iter().map(|score| score - lowest)).collect()
}

/// What each plugin gives, and the sum.
#[derive(Debug, Default, PartialEq)]
struct Judgement {
    parts: BTreeMap<&'static str, Scores>,
    total: Scores,
}

fn expected(world: &World, nominated: &reference::Nominated, pod: &scene::Pod) -> Judgement {
    let nominated = reference::as_seen_by(pod, world, nominated);
    let feasible: Vec<usize> = (0..world.len()).filter(|at| reference::fits(world, &nominated, *at, pod)).collect();
    let names: Vec<String> = feasible.iter().map(|at| world[*at].0.name.clone()).collect();
    let parts = reference::scores(world, &feasible, pod);
    let sum = |n: usize| parts.iter().map(|(_, scores)| scores[n]).sum();
    let total: Vec<i64> = (0..names.len()).map(sum).collect();
    let told = parts.iter().map(|(plugin, scores)| (*plugin, above_the_lowest(&names, scores)));
    Judgement { parts: told.filter(|(_, scores)| differ(scores)).collect(), total: above_the_lowest(&names, &total) }
}

fn differ(scores: &Scores) -> bool {
    scores.values().any(|score| *score != 0)
}

fn found(cycle: &mut Cycle<'_>, pod: &Arc<PodView>) -> Judgement {
    let Ok(Found::Feasible { nodes, .. }) = cycle.search(pod, false) else { return Judgement::default() };
    let names = cycle.names(&nodes);
    let totals = cycle.totals(pod, &nodes);
    let mut parts = BTreeMap::new();
    for (plugin, weight, score) in cycle.profile.scores() {
        let Some(scoring) = score.prepare(pod, &nodes, cycle.cluster) else { continue };
        let mut scores = vec![0; nodes.len()];
        // As in a cycle: what depends on a node alone is asked of each node alone.
        if score.is_local() {
            let each = nodes.iter().zip(scores.chunks_mut(1));
            each.for_each(|(node, one)| scoring.score(cycle.cluster, &[*node], one));
        } else {
            scoring.score(cycle.cluster, &nodes, &mut scores);
        }
        scores.iter_mut().for_each(|score| *score *= weight);
        parts.insert(plugin.name(), above_the_lowest(&names, &scores));
    }
    parts.retain(|_, scores| differ(scores));
    Judgement { parts, total: above_the_lowest(&names, &totals) }
}

/// Nodes without Pods, as the rules and as the scheduler see them.
fn empty(random: &mut StdRng, nodes: usize) -> (World, Cluster) {
    let world: World = (0..nodes).map(|n| (scene::node(random, n), Vec::new())).collect();
    let mut cluster = Cluster::default();
    for (node, _) in &world {
        cluster.set_node(&node.view());
    }
    (world, cluster)
}

/// Pods that wait for room on nodes, as the rules and as the scheduler know them.
fn nominate(random: &mut StdRng, world: &World) -> (Vec<(usize, scene::Pod)>, Nominations) {
    let mut known = Nominations::default();
    let count = random.random_range(0..4);
    let pods: Vec<(usize, scene::Pod)> = (0..count)
        .map(|number| {
            let pod = scene::Pod { terminating: false, ..scene::pod(random, format!("comes-{number}")) };
            let at = random.random_range(0..world.len());
            known.set(&pod.view(""), &world[at].0.name);
            (at, pod)
        })
        .collect();
    (pods, known)
}

/// A scene: a cluster that Pods come to and leave.
fn compare(seed: u64) -> Result<(), TestCaseError> {
    let mut random = StdRng::seed_from_u64(seed);
    let nodes = random.random_range(1..10);
    let (mut world, mut cluster) = empty(&mut random, nodes);
    for number in 0..random.random_range(0..25) {
        let at = random.random_range(0..nodes);
        let pod = scene::pod(&mut random, format!("there-{number}"));
        cluster.set_pod(&pod.view(&world[at].0.name));
        world[at].1.push(pod);
    }
    let profile = default_profile();
    let (nominated, nominations) = nominate(&mut random, &world);
    let (mut memos, mut start) = (Memos::default(), 0);
    let mut pod = scene::pod(&mut random, "first".into());
    for number in 0..PODS {
        // Some are like the one before, so that what was found out about nodes is used again.
        pod = if random.random_bool(0.4) { pod } else { scene::pod(&mut random, String::new()) };
        pod.name = format!("new-{number}");
        pod.terminating = false;
        let view = pod.view("");
        let mut cycle = Cycle {
            profile: &profile,
            cluster: &mut cluster,
            nominations: &nominations,
            memos: &mut memos,
            start: &mut start,
            meter: &Meter::new(),
        };
        let found = found(&mut cycle, &view);
        let wanted = expected(&world, &nominated, &pod);
        prop_assert_eq!(&found, &wanted, "Pod {:?}\nnominated {:?}\nworld {:#?}", pod, nominated, world);
        // It goes to one of them, and now and then another Pod leaves.
        if let Some(name) = wanted.total.keys().nth(random.random_range(0..wanted.total.len().max(1))) {
            let at = world.iter().position(|(node, _)| node.name == *name).expect("a node");
            let node = cluster.nodes.find(name).expect("a node");
            cluster.assume(&view, node);
            world[at].1.push(pod.clone());
        }
        let from = random.random_range(0..nodes);
        if random.random_bool(0.3)
            && let Some(gone) = world[from].1.pop()
        {
            cluster.remove_pod(&gone.name);
        }
        cluster.check();
    }
    Ok(())
}

/// Whoever is on a node without the key of its rule keeps nobody away, and does not make others be looked at.
#[test]
fn those_on_nodes_without_the_key_shun_nobody() {
    compare(16_730_277_927_565_154_571).expect("the same nodes and scores");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_nodes_and_scores(seed in any::<u64>()) {
        compare(seed)?;
    }
}
