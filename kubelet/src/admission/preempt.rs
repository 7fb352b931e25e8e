//! Making room for critical Pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::Refusal;
use super::fit::Shortage;
use crate::pods;
use crate::pods::resources::{Effective, Qos, qos};

/// What is still missing, by resource.
type Missing = BTreeMap<String, i64>;

/// Pods to end so that a critical one fits: of the lowest class, few, and not larger than they have to be.
pub(super) fn victims(shortages: &[Shortage], others: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, Refusal> {
    let missing: Missing = shortages.iter().map(|one| (one.resource.clone(), one.missing())).collect();
    let may_end = |pod: &&Arc<Pod>| !pods::is_critical(pod);
    let of = |class: Qos| others.iter().filter(may_end).filter(|pod| qos(pod) == class).cloned().collect::<Vec<_>>();
    let (best_effort, burstable, guaranteed) = (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    let all: Vec<Arc<Pod>> = [&best_effort, &burstable, &guaranteed].into_iter().flatten().cloned().collect();
    let never = less(&missing, &all);
    if !never.is_empty() {
        let texts: Vec<String> = never.iter().map(|(name, amount)| format!("(res: {name}, q: {amount}), ")).collect();
        let text = format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [{}]",
            texts.concat()
        );
        return Err(Refusal::new("UnexpectedAdmissionError", text));
    }
    let lower: Vec<Arc<Pod>> = [&best_effort, &burstable].into_iter().flatten().cloned().collect();
    let mut chosen = nearest(guaranteed, less(&missing, &lower));
    let with_best_effort: Vec<Arc<Pod>> = best_effort.iter().chain(&chosen).cloned().collect();
    chosen.extend(nearest(burstable, less(&missing, &with_best_effort)));
    let rest = less(&missing, &chosen);
    chosen.extend(nearest(best_effort, rest));
    Ok(chosen)
}

/// What is missing when some Pods are gone.
fn less(missing: &Missing, gone: &[Arc<Pod>]) -> Missing {
    let freed = |name: &String| gone.iter().map(|pod| held(pod, name)).fold(0_i64, i64::saturating_add);
    missing
        .iter()
        .map(|(name, amount)| (name.clone(), amount.saturating_sub(freed(name))))
        .filter(|(_, amount)| *amount > 0)
        .collect()
}

fn held(pod: &Pod, resource: &str) -> i64 {
    if resource == "pods" { 1 } else { Effective::of(pod).request(resource) }
}

/// Takes the Pod that leaves least missing, until nothing is; of equals the smaller one.
fn nearest(mut candidates: Vec<Arc<Pod>>, mut missing: Missing) -> Vec<Arc<Pod>> {
    let mut chosen = Vec::new();
    while !missing.is_empty() && !candidates.is_empty() {
        let mut best: Option<(f64, usize)> = None;
        for (index, pod) in candidates.iter().enumerate() {
            let distance = distance(&missing, pod);
            let is_better = best
                .is_none_or(|(least, at)| distance < least || (distance <= least && is_smaller(pod, &candidates[at])));
            if is_better {
                best = Some((distance, index));
            }
        }
        let Some((_, index)) = best else { break };
        let pod = candidates.swap_remove(index);
        missing = less(&missing, std::slice::from_ref(&pod));
        chosen.push(pod);
    }
    chosen
}

/// How much of what is missing a Pod would leave missing.
fn distance(missing: &Missing, pod: &Pod) -> f64 {
    let left = |(name, amount): (&String, &i64)| {
        let rest = (*amount as f64 - held(pod, name) as f64).max(0.0) / *amount as f64;
        rest * rest
    };
    missing.iter().map(left).sum()
}

fn is_smaller(pod: &Pod, than: &Pod) -> bool {
    let size = |pod: &Pod| (Effective::of(pod).request("memory"), Effective::of(pod).request("cpu"));
    size(pod) < size(than)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, resources: Value, priority: i32) -> Arc<Pod> {
        let value = json!({ "metadata": { "name": name, "uid": name }, "spec": {
            "priority": priority, "containers": [{ "name": "c", "resources": resources }],
        } });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn names(shortages: &[(&str, i64)], others: &[Arc<Pod>]) -> Result<Vec<String>, String> {
        let shortages: Vec<Shortage> = shortages
            .iter()
            .map(|(name, missing)| Shortage { resource: (*name).into(), requested: *missing, used: 0, capacity: 0 })
            .collect();
        let mut found: Vec<String> = victims(&shortages, others)
            .map_err(|refusal| refusal.message)?
            .iter()
            .map(|pod| pods::name(pod).to_owned())
            .collect();
        found.sort();
        Ok(found)
    }

    #[test]
    fn the_lowest_and_fewest_go() {
        let both = |cpu: &str| json!({ "requests": { "cpu": cpu, "memory": "1Gi" }, "limits": { "cpu": cpu, "memory": "1Gi" } });
        let others = [
            pod("best", json!({}), 0),
            pod("small", json!({ "requests": { "cpu": "100m" } }), 0),
            pod("large", json!({ "requests": { "cpu": "900m" } }), 0),
            pod("sure", both("500m"), 0),
            pod("critical", both("4"), pods::SYSTEM_CRITICAL_PRIORITY),
        ];
        assert_eq!(names(&[("pods", 1)], &others), Ok(vec!["best".into()]));
        assert_eq!(names(&[("cpu", 100)], &others), Ok(vec!["small".into()]));
        assert_eq!(names(&[("cpu", 500)], &others), Ok(vec!["large".into()]));
        assert_eq!(names(&[("cpu", 1000)], &others), Ok(vec!["large".into(), "small".into()]));
        assert_eq!(names(&[("cpu", 1200)], &others), Ok(vec!["large".into(), "sure".into()]));
        let error = names(&[("cpu", 2000)], &others).unwrap_err();
        assert!(
            error.ends_with("no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]"),
            "{error}"
        );
    }
}
