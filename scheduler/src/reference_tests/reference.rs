//! The rules of placement, word by word, with no thought of speed.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::{AWS, Disk, Expression, HOSTNAME, Node, Pod, Spread, Taint, Term, Wanted};

/// Nodes with the Pods on them.
pub(super) type World = Vec<(Node, Vec<Pod>)>;

fn has(labels: &BTreeMap<String, String>, (key, value): Wanted) -> bool {
    labels.get(key).is_some_and(|v| v == value)
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let one = |(key, effect): &(&str, &str)| {
        (key.is_empty() || *key == taint.key) && (effect.is_empty() || *effect == taint.effect)
    };
    pod.tolerations.iter().any(one)
}

fn holds(node: &Node, (key, operator, value): &Expression) -> bool {
    let label = node.labels.get(*key);
    let numbers = || Some((label?.parse::<i64>().ok()?, value.parse::<i64>().ok()?));
    match *operator {
        "In" => label.is_some_and(|v| v == value),
        "NotIn" => label.is_none_or(|v| v != value),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        "Gt" => numbers().is_some_and(|(have, than)| have > than),
        _ => numbers().is_some_and(|(have, than)| have < than),
    }
}

fn suits(node: &Node, pod: &Pod) -> bool {
    pod.selector.is_none_or(|wanted| has(&node.labels, wanted))
        && (pod.required.is_empty() || pod.required.iter().any(|term| term.iter().all(|e| holds(node, e))))
}

/// Whether a term of `of` means `other`.
fn means(of: &Pod, term: &Term, other: &Pod) -> bool {
    of.namespace == other.namespace && has(&other.labels, term.selector)
}

/// Whether Pods that a test picks are in the domain of a node.
fn near(world: &World, node: &Node, key: &str, test: impl Fn(&Pod) -> bool) -> bool {
    let Some(value) = node.labels.get(key) else { return false };
    let domain = world.iter().filter(|(n, _)| n.labels.get(key) == Some(value));
    domain.flat_map(|(_, pods)| pods).any(test)
}

fn affinity(world: &World, node: &Node, pod: &Pod) -> bool {
    if !pod.affinity.iter().all(|term| node.labels.contains_key(term.key)) {
        return false;
    }
    // A Pod counts if it matches all terms.
    let all = |other: &Pod| pod.affinity.iter().all(|term| means(pod, term, other));
    if pod.affinity.iter().all(|term| near(world, node, term.key, all)) {
        return true;
    }
    let nobody = !world
        .iter()
        .any(|(n, pods)| pod.affinity.iter().any(|term| n.labels.contains_key(term.key)) && pods.iter().any(all));
    nobody && all(pod)
}

fn counts(pod: &Pod, spread: &Spread, other: &Pod) -> bool {
    !other.terminating && other.namespace == pod.namespace && has(&other.labels, spread.selector)
}

fn is_spread(world: &World, node: &Node, pod: &Pod) -> bool {
    let hard: Vec<&Spread> = pod.spread.iter().filter(|s| s.hard).collect();
    for spread in &hard {
        let Some(value) = node.labels.get(spread.key) else { return false };
        let mut domains: BTreeMap<&String, i64> = BTreeMap::new();
        for (other, pods) in world {
            if hard.iter().any(|s| !other.labels.contains_key(s.key)) || !suits(other, pod) {
                continue;
            }
            let number = pods.iter().filter(|p| counts(pod, spread, p)).count();
            *domains.entry(&other.labels[spread.key]).or_default() += i64::try_from(number).unwrap();
        }
        let mut least = domains.values().min().copied().unwrap_or(0);
        if i64::try_from(domains.len()).unwrap() < spread.min_domains.unwrap_or(1) {
            least = 0;
        }
        let own = i64::from(has(&pod.labels, spread.selector));
        if domains.get(value).copied().unwrap_or(0) + own - least > spread.skew {
            return false;
        }
    }
    true
}

fn resource(there: &[Pod], pod: &Pod, of: fn(&Pod) -> Option<i64>, all: i64) -> Option<Refusal> {
    let want = of(pod)?;
    let used: i64 = there.iter().filter_map(of).sum();
    (want > all - used).then_some(if want > all { Refusal::ByNode } else { Refusal::ByPods })
}

/// Who keeps a Pod off a node: the node itself, or the Pods that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    ByNode,
    ByPods,
}

fn has_no_room(node: &Node, there: &[Pod], pod: &Pod) -> Option<Refusal> {
    let full = i64::try_from(there.len()).unwrap() >= node.pods;
    let pods = full.then_some(if node.pods < 1 { Refusal::ByNode } else { Refusal::ByPods });
    let cpu = resource(there, pod, |p| p.cpu, node.cpu);
    let memory = resource(there, pod, |p| p.memory, node.memory);
    let all = [pods, cpu, memory];
    // What is missing for good decides.
    all.iter().flatten().find(|r| **r == Refusal::ByNode).or(all.iter().flatten().next()).copied()
}

/// The first rule that keeps a Pod off a node.
fn refusal(world: &World, at: usize, pod: &Pod) -> Option<Refusal> {
    let (node, there) = &world[at];
    let cordon = Taint { key: "node.kubernetes.io/unschedulable", effect: "NoSchedule" };
    let repels = |t: &&Taint| t.effect != "PreferNoSchedule";
    let is_open = (!node.unschedulable || tolerates(pod, &cordon))
        && node.taints.iter().filter(repels).all(|taint| tolerates(pod, taint));
    if !is_open || !suits(node, pod) {
        return Some(Refusal::ByNode);
    }
    if pod.port.is_some_and(|port| there.iter().any(|p| p.port == Some(port))) {
        return Some(Refusal::ByPods);
    }
    if let Some(refusal) = has_no_room(node, there, pod) {
        return Some(refusal);
    }
    if pod.disk.is_some_and(|disk| there.iter().filter_map(|p| p.disk).any(|other| excludes(&disk, &other))) {
        return Some(Refusal::ByPods);
    }
    if pod.spread.iter().any(|s| s.hard && !node.labels.contains_key(s.key)) {
        return Some(Refusal::ByNode);
    }
    if !is_spread(world, node, pod) {
        return Some(Refusal::ByPods);
    }
    if !affinity(world, node, pod) {
        return Some(Refusal::ByNode);
    }
    let is_near = pod.anti_affinity.iter().any(|term| near(world, node, term.key, |other| means(pod, term, other)));
    let is_shunned = world.iter().any(|(other, pods)| {
        let same = |key: &str| other.labels.contains_key(key) && other.labels.get(key) == node.labels.get(key);
        pods.iter().any(|p| p.anti_affinity.iter().any(|term| means(p, term, pod) && same(term.key)))
    });
    (is_near || is_shunned).then_some(Refusal::ByPods)
}

/// Whether two Pods of a node cannot have these disks.
fn excludes(disk: &Disk, other: &Disk) -> bool {
    let are_shared = disk.read_only && other.read_only && disk.kind != AWS;
    disk.kind == other.kind && disk.name == other.name && !are_shared
}

/// Pods that room is kept for, and the nodes where.
pub(super) type Nominated = [(usize, Pod)];

/// Nominated Pods, as they are seen when room for a Pod is looked for: who has to do with no rule about other Pods does not
/// learn of those of Pods that are not there yet.
pub(super) fn as_seen_by(pod: &Pod, world: &World, nominated: &Nominated) -> Vec<(usize, Pod)> {
    let is_shunned = world.iter().any(|(node, pods)| {
        let shuns = |p: &Pod| p.anti_affinity.iter().any(|t| means(p, t, pod) && node.labels.contains_key(t.key));
        pods.iter().any(shuns)
    });
    let asks = is_shunned || !pod.affinity.is_empty() || !pod.anti_affinity.is_empty();
    let seen = |(at, other): &(usize, Pod)| {
        let mut other = other.clone();
        if !asks {
            other.anti_affinity.clear();
        }
        (*at, other)
    };
    nominated.iter().map(seen).collect()
}

/// The first rule that keeps a Pod off a node, which Pods that matter as much may come to or not.
pub(super) fn refusal_with(world: &World, nominated: &Nominated, at: usize, pod: &Pod) -> Option<Refusal> {
    let comes = |(node, other): &&(usize, Pod)| *node == at && other.priority >= pod.priority && other.name != pod.name;
    let coming: Vec<Pod> = nominated.iter().filter(comes).map(|(_, other)| other.clone()).collect();
    let mut then = world.clone();
    then[at].1.extend(coming);
    refusal(&then, at, pod).or_else(|| refusal(world, at, pod))
}

/// Whether a Pod can be on a node.
pub(super) fn fits(world: &World, nominated: &Nominated, at: usize, pod: &Pod) -> bool {
    refusal_with(world, nominated, at, pod).is_none()
}

fn normalized(scores: &[i64], reverse: bool) -> Vec<i64> {
    let max = scores.iter().max().copied().unwrap_or(0);
    let one = |score: &i64| match (max, reverse) {
        (0, true) => 100,
        (0, false) => 0,
        (_, true) => 100 - 100 * score / max,
        (_, false) => 100 * score / max,
    };
    scores.iter().map(one).collect()
}

fn least_allocated((node, there): &(Node, Vec<Pod>), pod: &Pod) -> i64 {
    let part = |all: i64, of: fn(&Pod) -> i64| {
        let used: i64 = there.iter().chain([pod]).map(of).sum();
        if used > all { 0 } else { (all - used) * 100 / all }
    };
    let cpu = part(node.cpu, |p| p.cpu.unwrap_or(100));
    let memory = part(node.memory << 20, |p| p.memory.unwrap_or(200) << 20);
    (cpu + memory) / 2
}

fn balanced((node, there): &(Node, Vec<Pod>), pod: &Pod) -> i64 {
    if pod.cpu.is_none() && pod.memory.is_none() {
        return 0;
    }
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let base = |pods: &[&Pod]| {
        let part =
            |all: i64, of: fn(&Pod) -> i64| (pods.iter().map(|p| of(p)).sum::<i64>() as f64 / all as f64).min(1.0);
        let cpu = part(node.cpu, |p| p.cpu.unwrap_or(0));
        let memory = part(node.memory << 20, |p| p.memory.unwrap_or(0) << 20);
        ((1.0 - (cpu - memory).abs() / 2.0) * 100.0) as i64
    };
    let without: Vec<&Pod> = there.iter().collect();
    let with: Vec<&Pod> = there.iter().chain([pod]).collect();
    50 + (50 + base(&with) - base(&without)) / 2
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn image_locality(world: &World, at: usize, pod: &Pod) -> i64 {
    const MI: i64 = 1 << 20;
    let having = world.iter().filter(|(n, _)| n.images.iter().any(|(name, _)| *name == pod.image)).count();
    let own = world[at].0.images.iter().find(|(name, _)| *name == pod.image);
    let size = own.map_or(0.0, |(_, size)| (size * MI) as f64 * (having as f64 / world.len() as f64)) as i64;
    let (low, high) = (23 * MI, 1000 * MI);
    100 * (size.clamp(low, high) - low) / (high - low)
}

fn liking(world: &World, feasible: &[usize], pod: &Pod) -> Vec<i64> {
    let mut scores: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for (node, pods) in world {
        let mut add = |key: &'static str, weight: i64| {
            if let Some(value) = node.labels.get(key) {
                *scores.entry((key, value)).or_default() += weight;
            }
        };
        for other in pods {
            let liked = pod.liked.iter().filter(|(_, term)| means(pod, term, other));
            liked.for_each(|(weight, term)| add(term.key, *weight));
            let by_other = other.liked.iter().filter(|(_, term)| means(other, term, pod));
            by_other.for_each(|(weight, term)| add(term.key, *weight));
            let required = other.affinity.iter().filter(|term| means(other, term, pod));
            required.for_each(|term| add(term.key, 1));
        }
    }
    let of = |at: &usize| -> i64 {
        let labels = &world[*at].0.labels;
        scores.iter().filter(|((k, v), _)| labels.get(*k).is_some_and(|own| own == v)).map(|(_, n)| n).sum()
    };
    let raw: Vec<i64> = feasible.iter().map(of).collect();
    let (low, high) = (raw.iter().min().copied().unwrap_or(0), raw.iter().max().copied().unwrap_or(0));
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let scaled =
        |score: i64| if high == low { 0 } else { (100.0 * ((score - low) as f64 / (high - low) as f64)) as i64 };
    raw.into_iter().map(scaled).collect()
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
fn spreading(world: &World, feasible: &[usize], pod: &Pod) -> Vec<i64> {
    let soft: Vec<&Spread> = pod.spread.iter().filter(|s| !s.hard).collect();
    if soft.is_empty() {
        return vec![0; feasible.len()];
    }
    let complete = |node: &Node| soft.iter().all(|s| node.labels.contains_key(s.key));
    let known: Vec<usize> = feasible.iter().copied().filter(|at| complete(&world[*at].0)).collect();
    let raw = |at: usize| -> i64 {
        let (node, there) = &world[at];
        let mut sum = 0.0;
        for spread in &soft {
            let number = |pods: &[Pod]| pods.iter().filter(|p| counts(pod, spread, p)).count();
            let domains: BTreeSet<&String> = known.iter().map(|n| &world[*n].0.labels[spread.key]).collect();
            let (size, found) = if spread.key == HOSTNAME {
                (known.len(), number(there))
            } else {
                let same = |n: &Node| n.labels.get(spread.key) == node.labels.get(spread.key);
                let counted = world.iter().filter(|(n, _)| complete(n) && suits(n, pod) && same(n));
                (domains.len(), counted.map(|(_, pods)| number(pods)).sum())
            };
            sum += found as f64 * (size as f64 + 2.0).ln() + (spread.skew - 1) as f64;
        }
        sum.round() as i64
    };
    let scores: Vec<Option<i64>> = feasible.iter().map(|at| known.contains(at).then(|| raw(*at))).collect();
    let (low, high) =
        (scores.iter().flatten().min().copied().unwrap_or(0), scores.iter().flatten().max().copied().unwrap_or(0));
    let one = |score: &Option<i64>| match score {
        None => 0,
        Some(_) if high == 0 => 100,
        Some(score) => 100 * (high + low - score) / high,
    };
    scores.iter().map(one).collect()
}

/// The weighted scores of nodes that fit, by plugin.
pub(super) fn scores(world: &World, feasible: &[usize], pod: &Pod) -> Vec<(&'static str, Vec<i64>)> {
    let each = |of: &dyn Fn(usize) -> i64| feasible.iter().map(|at| of(*at)).collect::<Vec<_>>();
    let taints = each(&|at| {
        let soft = world[at].0.taints.iter().filter(|t| t.effect == "PreferNoSchedule" && !tolerates(pod, t));
        i64::try_from(soft.count()).unwrap()
    });
    let preferred =
        each(&|at| pod.preferred.iter().filter(|(_, e)| holds(&world[at].0, e)).map(|(weight, _)| weight).sum());
    let weighted = |weight: i64, scores: Vec<i64>| scores.into_iter().map(|score| weight * score).collect::<Vec<_>>();
    vec![
        ("TaintToleration", weighted(3, normalized(&taints, true))),
        ("NodeAffinity", weighted(2, normalized(&preferred, false))),
        ("InterPodAffinity", weighted(2, liking(world, feasible, pod))),
        ("PodTopologySpread", weighted(2, spreading(world, feasible, pod))),
        ("NodeResourcesFit", each(&|at| least_allocated(&world[at], pod))),
        ("NodeResourcesBalancedAllocation", each(&|at| balanced(&world[at], pod))),
        ("ImageLocality", each(&|at| image_locality(world, at, pod))),
    ]
}
