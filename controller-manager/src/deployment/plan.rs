//! What a Deployment's ReplicaSets should be: pure.

use machinery::meta;
use serde_json::{Map, Value, json};

use crate::objects::{condition, number, text};

const HASH_LABEL: &str = "pod-template-hash";
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// One step towards the wanted state.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Create the new ReplicaSet.
    Create(Value),
    /// Scale ReplicaSets: name and new size.
    Scale(Vec<(String, i64)>),
    /// Delete old ReplicaSets.
    Clean(Vec<String>),
    /// Nothing left to do.
    Rest,
}

/// The template without the hash that the controller adds.
fn bare_template(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, v| !v.is_null() && v.as_object().is_none_or(|m| !m.is_empty()));
    }
    template
}

/// Hash of the template and the number of collisions so far (FNV-1a, in letters that spell nothing).
fn hash(template: &Value, collisions: i64) -> String {
    let text = format!("{}{collisions}", bare_template(template));
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// The ReplicaSet that has the Deployment's template, the oldest of several.
pub(super) fn newest<'a>(deployment: &Value, sets: &'a [Value]) -> Option<&'a Value> {
    let wanted = bare_template(&deployment["spec"]["template"]);
    let mut equal: Vec<&Value> = sets.iter().filter(|s| bare_template(&s["spec"]["template"]) == wanted).collect();
    equal.sort_by_key(|s| (meta::text(s, "creationTimestamp").to_owned(), meta::name(s).to_owned()));
    equal.first().copied()
}

/// Revision of a ReplicaSet, 0 without one.
pub(super) fn revision(set: &Value) -> i64 {
    let annotations = set.pointer("/metadata/annotations");
    annotations.and_then(|a| a.get(REVISION)).and_then(Value::as_str).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// `maxSurge` and `maxUnavailable` in Pods: surge rounds up, unavailable down, not both 0.
pub(super) fn bounds(deployment: &Value) -> (i64, i64) {
    let replicas = number(deployment, "/spec/replicas");
    if text(deployment, "/spec/strategy/type") == "Recreate" {
        return (0, replicas);
    }
    let resolve = |field: &str, up: bool| {
        let value = deployment.pointer(&format!("/spec/strategy/rollingUpdate/{field}"));
        match value {
            Some(Value::String(text)) => {
                let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
                if up { (percent * replicas + 99) / 100 } else { percent * replicas / 100 }
            }
            Some(other) => other.as_i64().unwrap_or(0),
            None => 0,
        }
    };
    let (surge, unavailable) = (resolve("maxSurge", true), resolve("maxUnavailable", false).min(replicas));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn size(set: &Value) -> i64 {
    number(set, "/spec/replicas")
}

fn available(set: &Value) -> i64 {
    number(set, "/status/availableReplicas")
}

/// The size that the new ReplicaSet should have now.
fn new_size(deployment: &Value, new: i64, sets: &[Value]) -> i64 {
    let replicas = number(deployment, "/spec/replicas");
    if new >= replicas {
        return replicas;
    }
    let old_running = sets.iter().any(|s| number(s, "/status/replicas") > 0 || size(s) > 0);
    if text(deployment, "/spec/strategy/type") == "Recreate" {
        return if old_running && new == 0 && sets.iter().any(|s| number(s, "/status/replicas") > 0) { 0 } else { replicas };
    }
    let (surge, _) = bounds(deployment);
    let total: i64 = sets.iter().map(size).sum();
    let room = replicas + surge - total;
    if room <= 0 { new } else { new + room.min(replicas - new) }
}

/// The next step. `sets` are all ReplicaSets of the Deployment.
pub(super) fn step(deployment: &Value, sets: &[Value]) -> Step {
    if meta::is_deleting(deployment) {
        return Step::Rest;
    }
    let new = newest(deployment, sets);
    let paused = deployment.pointer("/spec/paused").and_then(Value::as_bool) == Some(true);
    let replicas = number(deployment, "/spec/replicas");
    let old: Vec<&Value> = sets.iter().filter(|s| new.is_none_or(|n| meta::uid(n) != meta::uid(s))).collect();
    let Some(new) = new else {
        if paused {
            return Step::Rest;
        }
        if text(deployment, "/spec/strategy/type") == "Recreate" {
            let running: Vec<(String, i64)> =
                old.iter().filter(|s| size(s) > 0).map(|s| (meta::name(s).to_owned(), 0)).collect();
            if !running.is_empty() {
                return Step::Scale(running);
            }
            if old.iter().any(|s| number(s, "/status/replicas") > 0) {
                return Step::Rest;
            }
        }
        return Step::Create(new_set(deployment, sets));
    };
    let target = if old.iter().all(|s| size(s) == 0) { replicas } else { new_size(deployment, size(new), sets) };
    if target != size(new) {
        return Step::Scale(vec![(meta::name(new).to_owned(), target)]);
    }
    if paused {
        return Step::Rest;
    }
    let down = scale_down(deployment, new, &old);
    if !down.is_empty() {
        return Step::Scale(down);
    }
    clean(deployment, new, &old)
}

/// New sizes of old ReplicaSets that may shrink now: first what is not available, then the oldest.
fn scale_down(deployment: &Value, new: &Value, old: &[&Value]) -> Vec<(String, i64)> {
    let replicas = number(deployment, "/spec/replicas");
    let (_, unavailable) = bounds(deployment);
    let least = replicas - unavailable;
    let total: i64 = old.iter().map(|s| size(s)).sum::<i64>() + size(new);
    let mut budget = total - least - (size(new) - available(new));
    if budget <= 0 {
        return Vec::new();
    }
    let mut sorted: Vec<&Value> = old.iter().copied().filter(|s| size(s) > 0).collect();
    sorted.sort_by_key(|s| meta::text(s, "creationTimestamp").to_owned());
    let mut sizes: Vec<(String, i64, i64)> = sorted.iter().map(|s| (meta::name(s).to_owned(), size(s), size(s))).collect();
    for ((_, _, to), set) in sizes.iter_mut().zip(&sorted) {
        let unhealthy = (size(set) - available(set)).clamp(0, budget);
        *to -= unhealthy;
        budget -= unhealthy;
    }
    let mut surplus = old.iter().map(|s| available(s)).sum::<i64>() + available(new) - least;
    for (_, _, to) in &mut sizes {
        let less = (*to).min(surplus).max(0);
        *to -= less;
        surplus -= less;
    }
    sizes.into_iter().filter(|(_, from, to)| from != to).map(|(name, _, to)| (name, to)).collect()
}

/// Old ReplicaSets beyond the history limit, once the rollout is complete.
fn clean(deployment: &Value, new: &Value, old: &[&Value]) -> Step {
    let replicas = number(deployment, "/spec/replicas");
    let complete = available(new) == replicas && size(new) == replicas;
    let limit = deployment.pointer("/spec/revisionHistoryLimit").and_then(Value::as_i64).unwrap_or(10);
    let mut idle: Vec<&&Value> = old
        .iter()
        .filter(|s| size(s) == 0 && number(s, "/status/replicas") == 0 && !meta::is_deleting(s))
        .collect();
    let surplus = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    if !complete || surplus == 0 {
        return Step::Rest;
    }
    idle.sort_by_key(|s| revision(s));
    Step::Clean(idle.iter().take(surplus).map(|s| meta::name(s).to_owned()).collect())
}

/// Annotations that a ReplicaSet has from its Deployment.
pub(super) fn annotations(deployment: &Value, sets: &[Value], new: Option<&Value>) -> Map<String, Value> {
    let mut all = deployment.pointer("/metadata/annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    all.remove("kubectl.kubernetes.io/last-applied-configuration");
    let others = sets.iter().filter(|s| new.is_none_or(|n| meta::uid(n) != meta::uid(s)));
    let next = others.map(revision).max().unwrap_or(0) + 1;
    let own = new.map_or(0, revision).max(next);
    all.insert(REVISION.into(), json!(own.to_string()));
    let replicas = number(deployment, "/spec/replicas");
    all.insert(DESIRED.into(), json!(replicas.to_string()));
    all.insert(MAX.into(), json!((replicas + bounds(deployment).0).to_string()));
    all
}

fn new_set(deployment: &Value, sets: &[Value]) -> Value {
    let hash = hash(&deployment["spec"]["template"], number(deployment, "/status/collisionCount"));
    let mut template = deployment["spec"]["template"].clone();
    let labels = meta::object_mut(&mut template["metadata"]).entry("labels").or_insert_with(|| json!({}));
    meta::object_mut(labels).insert(HASH_LABEL.into(), json!(hash));
    let labels = template["metadata"]["labels"].clone();
    let mut selector = deployment["spec"]["selector"].clone();
    let matched = meta::object_mut(&mut selector).entry("matchLabels").or_insert_with(|| json!({}));
    meta::object_mut(matched).insert(HASH_LABEL.into(), json!(hash));
    let size = if sets.iter().all(|s| size(s) == 0) {
        number(deployment, "/spec/replicas")
    } else {
        new_size(deployment, 0, sets)
    };
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("{}-{hash}", meta::name(deployment)),
            "namespace": meta::namespace(deployment),
            "labels": labels,
            "annotations": annotations(deployment, sets, None),
            "ownerReferences": [crate::objects::controller_reference(deployment)],
        },
        "spec": {
            "replicas": size, "selector": selector, "template": template,
            "minReadySeconds": number(deployment, "/spec/minReadySeconds"),
        },
    })
}

/// The status of the Deployment at a moment.
pub(super) fn status(deployment: &Value, sets: &[Value], stamp: &str) -> Value {
    let new = newest(deployment, sets);
    let sum = |path: &str| sets.iter().map(|s| number(s, path)).sum::<i64>();
    let replicas = number(deployment, "/spec/replicas");
    let (total, ready, available) = (sum("/status/replicas"), sum("/status/readyReplicas"), sum("/status/availableReplicas"));
    let updated = new.map_or(0, |n| number(n, "/status/replicas"));
    let mut status = json!({"observedGeneration": number(deployment, "/metadata/generation")});
    let mut put = |key: &str, value: i64| {
        if value != 0 {
            status[key] = json!(value);
        }
    };
    put("replicas", total);
    put("updatedReplicas", updated);
    put("readyReplicas", ready);
    put("availableReplicas", available);
    put("unavailableReplicas", (sets.iter().map(size).sum::<i64>() - available).max(0));
    put("terminatingReplicas", sum("/status/terminatingReplicas"));
    put("collisionCount", number(deployment, "/status/collisionCount"));
    let mut conditions = Vec::new();
    let enough = available >= replicas - bounds(deployment).1;
    let (state, reason, message) = match enough {
        true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
        false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
    };
    conditions.push(set_condition(deployment, "Available", state, reason, message.to_owned(), stamp, false));
    if let Some(progress) = progress(deployment, new, (updated, total, ready, available), stamp) {
        conditions.push(progress);
    }
    let failure = new.into_iter().chain(sets).find_map(|s| condition(s, "ReplicaFailure"));
    if let Some(failure) = failure {
        let (reason, message) = (text(failure, "/reason"), text(failure, "/message").to_owned());
        conditions.push(set_condition(deployment, "ReplicaFailure", "True", reason, message, stamp, false));
    }
    status["conditions"] = json!(conditions);
    status
}

/// A condition: untouched while status and reason stay, unless the update time shall be refreshed.
fn set_condition(
    deployment: &Value,
    kind: &str,
    state: &str,
    reason: &str,
    message: String,
    stamp: &str,
    refresh: bool,
) -> Value {
    let present = condition(deployment, kind);
    if let Some(present) = present.filter(|c| text(c, "/status") == state && text(c, "/reason") == reason && !refresh) {
        return present.clone();
    }
    let since = present.filter(|c| text(c, "/status") == state).map_or(stamp, |c| text(c, "/lastTransitionTime"));
    json!({
        "type": kind, "status": state, "reason": reason, "message": message,
        "lastUpdateTime": stamp, "lastTransitionTime": since,
    })
}

fn progress(deployment: &Value, new: Option<&Value>, counts: (i64, i64, i64, i64), stamp: &str) -> Option<Value> {
    let deadline = deployment.pointer("/spec/progressDeadlineSeconds").and_then(Value::as_i64)?;
    if deadline == i64::from(i32::MAX) {
        return None;
    }
    let (updated, total, ready, available) = counts;
    let replicas = number(deployment, "/spec/replicas");
    let who = new.map_or_else(
        || format!("Deployment {:?}", meta::name(deployment)),
        |n| format!("ReplicaSet {:?}", meta::name(n)),
    );
    let make = |state, reason, message, refresh| {
        Some(set_condition(deployment, "Progressing", state, reason, message, stamp, refresh))
    };
    let present = condition(deployment, "Progressing");
    if deployment.pointer("/spec/paused").and_then(Value::as_bool) == Some(true) {
        return match present.filter(|c| c["reason"] == "ProgressDeadlineExceeded") {
            Some(present) => Some(present.clone()),
            None => make("Unknown", "DeploymentPaused", "Deployment is paused".into(), false),
        };
    }
    if updated == replicas && total == replicas && available == replicas {
        return make("True", "NewReplicaSetAvailable", format!("{who} has successfully progressed."), false);
    }
    let was = |path: &str| number(deployment, &format!("/status/{path}"));
    let old_were = was("replicas") - was("updatedReplicas");
    let moved = updated > was("updatedReplicas")
        || total - updated < old_were
        || ready > was("readyReplicas")
        || available > was("availableReplicas");
    let Some(present) = present else {
        let name = new.map_or("", |n| meta::name(n));
        return make("True", "NewReplicaSetCreated", format!("Created new replica set {name:?}"), false);
    };
    if moved || present["reason"] == "NewReplicaSetAvailable" || present["reason"] == "DeploymentPaused" {
        return make("True", "ReplicaSetUpdated", format!("{who} is progressing."), true);
    }
    let waited = machinery::time::parse(text(present, "/lastUpdateTime"))
        .ok()
        .zip(machinery::time::parse(stamp).ok())
        .map_or(0, |(since, now)| (now - since).whole_seconds());
    if waited > deadline {
        return make("False", "ProgressDeadlineExceeded", format!("{who} has timed out progressing."), false);
    }
    Some(present.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i64, image: &str) -> Value {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "uid": "d", "namespace": "n"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}}, "progressDeadlineSeconds": 600,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}})
    }

    fn set(of: &Value, uid: &str, size: i64, available: i64) -> Value {
        let mut set = new_set(of, &[]);
        set["metadata"]["uid"] = json!(uid);
        set["spec"]["replicas"] = json!(size);
        set["status"] = json!({"replicas": size, "readyReplicas": available, "availableReplicas": available});
        set
    }

    #[test]
    fn a_first_replica_set_gets_all_replicas() {
        let Step::Create(new) = step(&deployment(3, "v1"), &[]) else { panic!("create") };
        assert_eq!(new["spec"]["replicas"], 3);
        assert_eq!(new["metadata"]["annotations"][REVISION], "1");
        let hash = new["metadata"]["labels"][HASH_LABEL].as_str().expect("hash");
        assert_eq!(new["metadata"]["name"], format!("web-{hash}"));
        assert_eq!(new["spec"]["selector"]["matchLabels"][HASH_LABEL], hash);
    }

    #[test]
    fn a_rollout_keeps_its_bounds_at_every_step() {
        let (old_spec, new_spec) = (deployment(4, "v1"), deployment(4, "v2"));
        let mut sets = vec![set(&old_spec, "old", 4, 4)];
        let mut rounds = 0;
        loop {
            match step(&new_spec, &sets) {
                Step::Create(mut new) => {
                    new["metadata"]["uid"] = json!("new");
                    new["status"] = json!({});
                    sets.push(new);
                }
                Step::Scale(changes) => {
                    for (name, size) in changes {
                        let set = sets.iter_mut().find(|s| s["metadata"]["name"] == name.as_str()).expect("set");
                        set["spec"]["replicas"] = json!(size);
                    }
                }
                Step::Rest if sets.iter().any(|s| number(s, "/status/availableReplicas") != size(s)) => {}
                Step::Rest | Step::Clean(_) => break,
            }
            let total: i64 = sets.iter().map(size).sum();
            assert!(total <= 5, "never more than replicas + maxSurge: {total}");
            // The cluster catches up one Pod at a time; Pods that shall go are gone at once.
            for set in &mut sets {
                let (want, have) = (size(set), available(set));
                let now = if want > have { have + 1 } else { want };
                set["status"] = json!({"replicas": want, "availableReplicas": now});
            }
            let up: i64 = sets.iter().map(available).sum();
            assert!(up >= 3, "never fewer than replicas - maxUnavailable: {up}");
            rounds += 1;
            assert!(rounds < 50, "the rollout ends");
        }
        assert_eq!(sets.iter().map(size).collect::<Vec<_>>(), [0, 4]);
    }

    #[test]
    fn scaling_changes_no_template() {
        let sets = [set(&deployment(3, "v1"), "a", 3, 3)];
        assert_eq!(step(&deployment(5, "v1"), &sets), Step::Scale(vec![(meta::name(&sets[0]).to_owned(), 5)]));
        assert_eq!(step(&deployment(3, "v1"), &sets), Step::Rest);
    }

    #[test]
    fn a_finished_rollout_says_so() {
        let deployment = deployment(2, "v1");
        let status = status(&deployment, &[set(&deployment, "a", 2, 2)], "2024-01-01T00:00:00Z");
        assert_eq!(status["availableReplicas"], 2);
        assert_eq!(status["conditions"][0]["reason"], "MinimumReplicasAvailable");
        assert_eq!(status["conditions"][1]["reason"], "NewReplicaSetAvailable");
    }
}
