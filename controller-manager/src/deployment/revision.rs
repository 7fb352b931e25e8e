//! Revisions and the annotations that carry them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::plan::{self, Set};

/// Number of a rollout.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Numbers a ReplicaSet had before.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// `spec.replicas` of the Deployment when the ReplicaSet was last sized.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The same with `maxSurge`.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Asks for a rollback to a revision.
pub(super) const ROLLBACK: &str = "deprecated.deployment.rollback.to";
/// Most characters of the history.
const HISTORY_LENGTH: usize = 2000;
/// Annotations that stay with their object.
const NOT_COPIED: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAX, ROLLBACK];

type Annotations = BTreeMap<String, String>;

/// The revision of an object: 0 without one, `None` if it is no number.
pub(super) fn of(meta: &ObjectMeta) -> Option<i64> {
    match meta.annotations.as_ref().and_then(|a| a.get(REVISION)) {
        None => Some(0),
        Some(text) => text.parse().ok(),
    }
}

/// A number in an annotation.
pub(super) fn number(set: &ReplicaSet, key: &str) -> Option<i64> {
    set.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// The revision that the new ReplicaSet has, given the old ones.
pub(super) fn next(old: &[Set]) -> i64 {
    old.iter().filter_map(|s| of(&s.metadata)).max().unwrap_or(0).saturating_add(1)
}

/// Annotations of the new ReplicaSet, or `None` if they are right. `exists` is whether it is in the cluster already.
pub(super) fn annotate(deployment: &Deployment, set: &ReplicaSet, next: i64, exists: bool) -> Option<Annotations> {
    let present = set.metadata.annotations.clone().unwrap_or_default();
    let mut annotations = present.clone();
    copy(deployment.metadata.annotations.as_ref(), &mut annotations);
    let known = present.get(REVISION).map(String::as_str).filter(|r| !r.is_empty());
    match known.map_or(Ok(0), str::parse::<i64>) {
        // A revision that is no number is somebody else's.
        Err(_) => {}
        Ok(current) if current < next => {
            annotations.insert(REVISION.into(), next.to_string());
            if let Some(known) = known {
                remember(&mut annotations, known);
            }
        }
        Ok(_) => {}
    }
    if !exists {
        sized(deployment, &mut annotations);
    }
    (annotations != present).then_some(annotations)
}

/// Copies what is for the readers of both.
fn copy(from: Option<&Annotations>, to: &mut Annotations) {
    for (key, value) in from.into_iter().flatten().filter(|(k, _)| !NOT_COPIED.contains(&k.as_str())) {
        to.insert(key.clone(), value.clone());
    }
}

fn remember(annotations: &mut Annotations, revision: &str) {
    let history = annotations.get(HISTORY).cloned().unwrap_or_default();
    let mut numbers: Vec<&str> = history.split(',').filter(|n| !n.is_empty()).collect();
    numbers.push(revision);
    let mut length = numbers.iter().map(|n| n.len() + 1).sum::<usize>() - 1;
    let mut first = 0;
    while length > HISTORY_LENGTH && first + 1 < numbers.len() {
        length -= numbers[first].len() + 1;
        first += 1;
    }
    if length <= HISTORY_LENGTH {
        annotations.insert(HISTORY.into(), numbers[first..].join(","));
    }
}

/// Notes the sizes that the Deployment has now.
pub(super) fn sized(deployment: &Deployment, annotations: &mut Annotations) {
    annotations.insert(DESIRED.into(), plan::wanted(deployment).to_string());
    annotations.insert(MAX.into(), plan::ceiling(deployment).to_string());
}

/// Annotations of the Deployment after a rollback to a ReplicaSet: its own that are not copied, and the other's.
pub(super) fn rolled_back(deployment: &Deployment, set: &ReplicaSet) -> Annotations {
    let own = deployment.metadata.annotations.iter().flatten().filter(|(k, _)| NOT_COPIED.contains(&k.as_str()));
    let mut annotations: Annotations = own.map(|(k, v)| (k.clone(), v.clone())).collect();
    copy(set.metadata.annotations.as_ref(), &mut annotations);
    annotations.remove(ROLLBACK);
    annotations
}

/// The ReplicaSet to go back to: the one of a revision, or for 0 the one before the last.
pub(super) fn target(sets: &[Set], revision: i64) -> Option<Set> {
    let revision = if revision == 0 { before_last(sets)? } else { revision };
    sets.iter().find(|s| of(&s.metadata) == Some(revision)).cloned()
}

fn before_last(sets: &[Set]) -> Option<i64> {
    let mut numbers: Vec<i64> = sets.iter().filter_map(|s| of(&s.metadata)).filter(|n| *n > 0).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.dedup();
    numbers.get(1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(annotations: &[(&str, &str)]) -> ReplicaSet {
        let mut set = ReplicaSet::default();
        set.metadata.annotations = Some(annotations.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        set
    }

    #[test]
    fn revisions_only_grow() {
        let old = [Set::new(set(&[(REVISION, "3546343826724305832")])), Set::new(set(&[(REVISION, "x")]))];
        assert_eq!(next(&old), 3_546_343_826_724_305_833);
        assert_eq!(next(&[]), 1);
        let deployment = Deployment::default();
        let rolled = annotate(&deployment, &set(&[(REVISION, "1"), (HISTORY, "7")]), 3, true).unwrap();
        assert_eq!((rolled[REVISION].as_str(), rolled[HISTORY].as_str()), ("3", "7,1"));
        assert_eq!(annotate(&deployment, &set(&[(REVISION, "5")]), 3, true), None);
        let fresh = annotate(&deployment, &ReplicaSet::default(), 1, false).unwrap();
        assert_eq!(fresh.get(HISTORY), None);
        assert_eq!(fresh[DESIRED], "1");
    }

    #[test]
    fn annotations_are_copied_but_for_ours() {
        let mut deployment = Deployment::default();
        let own = [("a", "b"), (REVISION, "9"), ("kubectl.kubernetes.io/last-applied-configuration", "{}")];
        deployment.metadata.annotations = Some(own.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        let got = annotate(&deployment, &set(&[(REVISION, "1"), ("stays", "here")]), 1, true).unwrap();
        assert_eq!(got.len(), 3);
        assert_eq!((got["a"].as_str(), got[REVISION].as_str()), ("b", "1"));
    }

    #[test]
    fn history_forgets_the_oldest() {
        let long = (100_000..100_400).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let got = annotate(&Deployment::default(), &set(&[(REVISION, "1"), (HISTORY, &long)]), 2, true).unwrap();
        assert!(got[HISTORY].len() <= HISTORY_LENGTH && got[HISTORY].ends_with("100399,1"));
    }

    #[test]
    fn targets_of_rollbacks() {
        let sets = [Set::new(set(&[(REVISION, "4")])), Set::new(set(&[(REVISION, "2")])), Set::new(set(&[]))];
        let found = |n| target(&sets, n).map(|s| of(&s.metadata));
        assert_eq!((found(0), found(4), found(3)), (Some(Some(2)), Some(Some(4)), None));
        assert!(target(&sets[..1], 0).is_none());
    }
}
