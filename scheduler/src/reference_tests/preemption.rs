//! Preemption: the same Pods go from each node, and a node that does least harm.

use std::{cmp::Reverse, collections::HashSet};

use super::*;
use crate::{
    meter::Meter,
    objects::DisruptionBudgetView,
    plugins::default_preemption::{DefaultPreemption, Preemption, choose},
};

/// A budget: Pods of `default` with a label, and how many of them may go.
struct Budget {
    label: (&'static str, &'static str),
    allowed: i32,
}

impl Budget {
    fn covers(&self, pod: &scene::Pod) -> bool {
        pod.namespace == "default" && pod.labels.get(self.label.0).is_some_and(|v| v == self.label.1)
    }

    fn view(&self) -> DisruptionBudgetView {
        let selector = serde_json::json!({"matchLabels": {self.label.0: self.label.1}});
        DisruptionBudgetView {
            namespace: "default".into(),
            selector: machinery::selector::LabelSelector::from_object(&selector).expect("a selector"),
            allowed: self.allowed,
            disrupted: Vec::new(),
        }
    }
}

/// The more important one first.
fn importance(pod: &scene::Pod) -> (Reverse<i32>, i64) {
    (Reverse(pod.priority), pod.started)
}

/// What would have to go from a node: names of victims, most important first, and how many of them a budget protects.
fn victims(
    world: &World,
    nominated: &reference::Nominated,
    at: usize,
    pod: &scene::Pod,
    budgets: &[Budget],
) -> Option<(Vec<scene::Pod>, usize)> {
    if reference::refusal_with(world, nominated, at, pod) != Some(reference::Refusal::ByPods) {
        return None;
    }
    let mut world = world.clone();
    let (mut lower, kept): (Vec<_>, Vec<_>) = world[at].1.drain(..).partition(|p| p.priority < pod.priority);
    world[at].1 = kept;
    if lower.is_empty() || !reference::fits(&world, nominated, at, pod) {
        return None;
    }
    lower.sort_by_key(importance);
    let mut left: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    let (protected, free): (Vec<_>, Vec<_>) = lower.into_iter().partition(|p| {
        let mut breaks = false;
        for (_, left) in budgets.iter().zip(&mut left).filter(|(budget, _)| budget.covers(p)) {
            *left -= 1;
            breaks |= *left < 0;
        }
        breaks
    });
    let (mut gone, mut violations) = (Vec::new(), 0);
    for (candidate, counts) in protected.into_iter().map(|p| (p, 1)).chain(free.into_iter().map(|p| (p, 0))) {
        world[at].1.push(candidate);
        if !reference::fits(&world, nominated, at, pod) {
            gone.extend(world[at].1.pop());
            violations += counts;
        }
    }
    gone.sort_by_key(importance);
    Some((gone, violations))
}

/// The less the better.
fn harm(gone: &[scene::Pod], violations: usize) -> (usize, i32, i128, usize, Reverse<i64>) {
    let highest = gone.first().map_or(i32::MIN, |p| p.priority);
    let sum = gone.iter().map(|p| i128::from(p.priority) + (1_i128 << 31)).sum();
    let earliest = gone.iter().filter(|p| p.priority == highest).map(|p| p.started).min().unwrap_or(i64::MAX);
    (violations, highest, sum, gone.len(), Reverse(earliest))
}

fn compare(seed: u64) -> Result<(), TestCaseError> {
    let mut random = StdRng::seed_from_u64(seed);
    let nodes = random.random_range(1..6);
    let (mut world, mut cluster) = empty(&mut random, nodes);
    for number in 0..random.random_range(5..40_usize) {
        let at = random.random_range(0..nodes);
        let mut pod = scene::pod(&mut random, format!("there-{number}"));
        pod.terminating = false;
        // No two are as important as each other.
        pod.started = 1_700_000_000 + i64::try_from(number).unwrap();
        cluster.set_pod(&pod.view(&world[at].0.name));
        world[at].1.push(pod);
    }
    let budget = |random: &mut StdRng| Budget {
        label: (scene::one(random, &["app", "tier"]), scene::one(random, &["x", "y"])),
        allowed: random.random_range(0..3),
    };
    let budgets: Vec<Budget> = (0..random.random_range(0..3)).map(|_| budget(&mut random)).collect();
    let views: Vec<DisruptionBudgetView> = budgets.iter().map(Budget::view).collect();
    let profile = default_profile();
    let (nominated, nominations) = nominate(&mut random, &world);
    for number in 0..4 {
        let mut pod = scene::pod(&mut random, format!("new-{number}"));
        pod.terminating = false;
        pod.priority = random.random_range(1..6);
        let view = pod.view("");
        let (mut memos, mut start) = (Memos::default(), 0);
        let mut cycle = Cycle {
            profile: &profile,
            cluster: &mut cluster,
            nominations: &nominations,
            memos: &mut memos,
            start: &mut start,
            meter: &Meter::new(),
        };
        let Err(diagnosis) = cycle.run(&view, &mut random) else { continue };
        let mut preemption = Preemption {
            settings: DefaultPreemption::default(),
            profile: &profile,
            cluster: &mut cluster,
            nominations: &nominations,
            doomed: &HashSet::new(),
            budgets: &views,
            meter: &Meter::new(),
        };
        let found = preemption.candidates(&view, &diagnosis, &mut random).unwrap_or_default();
        let told: BTreeMap<String, (Vec<String>, usize)> = found
            .iter()
            .map(|c| {
                let names = c.plan.victims.iter().map(|v| v.name.to_string()).collect();
                (cluster.nodes.name(c.plan.node).to_string(), (names, c.violations))
            })
            .collect();
        let nominated = reference::as_seen_by(&pod, &world, &nominated);
        let wanted: BTreeMap<String, (Vec<scene::Pod>, usize)> = (0..nodes)
            .filter_map(|at| Some((world[at].0.name.clone(), victims(&world, &nominated, at, &pod, &budgets)?)))
            .collect();
        let named: BTreeMap<String, (Vec<String>, usize)> = wanted
            .iter()
            .map(|(node, (gone, n))| (node.clone(), (gone.iter().map(|p| p.name.clone()).collect(), *n)))
            .collect();
        prop_assert_eq!(&told, &named, "Pod {:?}\nnominated {:?}\nworld {:#?}", pod, nominated, world);
        let least = wanted.values().map(|(gone, n)| harm(gone, *n)).min();
        let chosen = choose(found).map(|plan| {
            let (gone, n) = &wanted[&**cluster.nodes.name(plan.node)];
            harm(gone, *n)
        });
        prop_assert_eq!(chosen, least);
        cluster.check();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_victims(seed in any::<u64>()) {
        compare(seed)?;
    }
}
