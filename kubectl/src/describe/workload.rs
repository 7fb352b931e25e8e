//! What keeps Pods running: Deployments, ReplicaSets, ReplicationControllers, StatefulSets, DaemonSets.

use machinery::selector::LabelSelector;
use serde_json::Value;

use super::{
    Facts, claim, events,
    page::{Page, put},
    pod::template,
    read::{controller, flag, label_text, list, number, scalar, selector, text},
};

/// Hash that a Deployment adds to its ReplicaSets.
const HASH_LABEL: &str = "pod-template-hash";

const REASONS: [(&str, &str); 3] = [("Type", "type"), ("Status", "status"), ("Reason", "reason")];

fn names(page: &mut Page, object: &Value) {
    put!(page, 0, "Name:\t{}", text(&object["metadata"]["name"]));
    put!(page, 0, "Namespace:\t{}", text(&object["metadata"]["namespace"]));
}

fn created(page: &mut Page, object: &Value) {
    let at = page.clock.time(text(&object["metadata"]["creationTimestamp"]));
    put!(page, 0, "CreationTimestamp:\t{at}");
}

/// A Deployment.
pub(crate) fn deployment(page: &mut Page, object: &Value, facts: &Facts) {
    let (spec, status) = (&object["spec"], &object["status"]);
    names(page, object);
    created(page, object);
    events::metadata(page, object);
    put!(page, 0, "Selector:\t{}", selector(&spec["selector"]));
    put!(
        page,
        0,
        "Replicas:\t{} desired | {} updated | {} total | {} available | {} unavailable",
        number(&spec["replicas"]),
        number(&status["updatedReplicas"]),
        number(&status["replicas"]),
        number(&status["availableReplicas"]),
        number(&status["unavailableReplicas"]),
    );
    put!(page, 0, "StrategyType:\t{}", text(&spec["strategy"]["type"]));
    put!(page, 0, "MinReadySeconds:\t{}", number(&spec["minReadySeconds"]));
    let rolling = &spec["strategy"]["rollingUpdate"];
    if !rolling.is_null() {
        let (unavailable, surge) = (scalar(&rolling["maxUnavailable"]), scalar(&rolling["maxSurge"]));
        put!(page, 0, "RollingUpdateStrategy:\t{unavailable} max unavailable, {surge} max surge");
    }
    template(page, &spec["template"]);
    events::conditions(page, "Conditions", &REASONS, &status["conditions"], true);
    replica_sets(page, object, facts);
    events::events(page, facts.events());
}

fn replica_sets(page: &mut Page, deployment: &Value, facts: &Facts) {
    let own: Vec<&Value> = facts.replica_sets.iter().filter(|set| is_controlled(set, deployment)).collect();
    if own.is_empty() {
        return;
    }
    let new = newest(&own, &deployment["spec"]["template"]);
    let old: Vec<String> = own
        .iter()
        .filter(|set| new.is_none_or(|new| set["metadata"]["uid"] != new["metadata"]["uid"]))
        .map(|set| counted(set))
        .collect();
    let old = if old.is_empty() { "<none>".to_owned() } else { old.join(", ") };
    put!(page, 0, "OldReplicaSets:\t{old}");
    put!(page, 0, "NewReplicaSet:\t{}", new.map_or("<none>".to_owned(), counted));
}

fn counted(set: &Value) -> String {
    let (name, have) = (text(&set["metadata"]["name"]), number(&set["status"]["replicas"]));
    format!("{name} ({have}/{} replicas created)", number(&set["spec"]["replicas"]))
}

/// The oldest ReplicaSet that makes the same Pods.
fn newest<'a>(sets: &[&'a Value], template: &Value) -> Option<&'a Value> {
    let wanted = without_hash(template);
    sets.iter()
        .copied()
        .filter(|set| without_hash(&set["spec"]["template"]) == wanted)
        .min_by_key(|set| (text(&set["metadata"]["creationTimestamp"]), text(&set["metadata"]["name"])))
}

/// Whether two templates make the same Pods.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    without_hash(a) == without_hash(b)
}

/// A template without the label that tells ReplicaSets apart, and without empty fields.
fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    prune(&mut template);
    template
}

fn prune(value: &mut Value) {
    let is_empty = |v: &Value| {
        v.is_null() || v.as_object().is_some_and(serde_json::Map::is_empty) || v.as_array().is_some_and(Vec::is_empty)
    };
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, v| !is_empty(v));
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Whether an object's controller is another object.
pub(crate) fn is_controlled(object: &Value, by: &Value) -> bool {
    list(&object["metadata"]["ownerReferences"])
        .iter()
        .any(|owner| flag(&owner["controller"]) && owner["uid"] == by["metadata"]["uid"])
}

/// Counts of Pods by phase.
fn pod_statuses(page: &mut Page, object: &Value, facts: &Facts) {
    let count = |phase: &str| {
        facts.pods.iter().filter(|p| is_controlled(p, object) && text(&p["status"]["phase"]) == phase).count()
    };
    put!(
        page,
        0,
        "Pods Status:\t{} Running / {} Waiting / {} Succeeded / {} Failed",
        count("Running"),
        count("Pending"),
        count("Succeeded"),
        count("Failed"),
    );
}

/// A ReplicaSet or a ReplicationController.
pub(crate) fn replica_set(page: &mut Page, object: &Value, facts: &Facts) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let is_set = text(&object["kind"]) == "ReplicaSet";
    names(page, object);
    let chosen = if is_set { selector(&spec["selector"]) } else { label_text(&spec["selector"]) };
    put!(page, 0, "Selector:\t{chosen}");
    events::metadata(page, object);
    if let Some(owner) = controller(object).filter(|_| is_set) {
        put!(page, 0, "Controlled By:\t{owner}");
    }
    put!(page, 0, "Replicas:\t{} current / {} desired", number(&status["replicas"]), number(&spec["replicas"]));
    pod_statuses(page, object, facts);
    template(page, &spec["template"]);
    events::conditions(page, "Conditions", &REASONS, &status["conditions"], true);
    events::events(page, facts.events());
}

/// A StatefulSet.
pub(crate) fn stateful_set(page: &mut Page, object: &Value, facts: &Facts) {
    let (spec, status) = (&object["spec"], &object["status"]);
    names(page, object);
    created(page, object);
    put!(page, 0, "Selector:\t{}", selector(&spec["selector"]));
    events::metadata(page, object);
    put!(page, 0, "Replicas:\t{} desired | {} total", number(&spec["replicas"]), number(&status["replicas"]));
    let strategy = &spec["updateStrategy"];
    put!(page, 0, "Update Strategy:\t{}", text(&strategy["type"]));
    let rolling = &strategy["rollingUpdate"];
    if !rolling["partition"].is_null() {
        put!(page, 1, "Partition:\t{}", number(&rolling["partition"]));
    }
    if !rolling["maxUnavailable"].is_null() {
        put!(page, 1, "MaxUnavailable:\t{}", scalar(&rolling["maxUnavailable"]));
    }
    pod_statuses(page, object, facts);
    template(page, &spec["template"]);
    claim::claim_templates(page, &spec["volumeClaimTemplates"]);
    events::events(page, facts.events());
}

/// A DaemonSet.
pub(crate) fn daemon_set(page: &mut Page, object: &Value, facts: &Facts) {
    let (spec, status) = (&object["spec"], &object["status"]);
    names(page, object);
    put!(page, 0, "Selector:\t{}", selector(&spec["selector"]));
    put!(page, 0, "Node-Selector:\t{}", label_text(&spec["template"]["spec"]["nodeSelector"]));
    events::metadata(page, object);
    let rows = [
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    ];
    for (title, field) in rows {
        put!(page, 0, "{title}: {}", number(&status[field]));
    }
    pod_statuses(page, object, facts);
    template(page, &spec["template"]);
    events::events(page, facts.events());
}

/// What chooses the Pods of a workload.
pub(crate) fn pod_selector(object: &Value) -> Option<String> {
    let selector = &object["spec"]["selector"];
    let selector = match text(&object["kind"]) {
        "ReplicationController" => {
            LabelSelector::from_map(selector.as_object()?.iter().map(|(k, v)| (k.as_str(), text(v))))
        }
        _ => LabelSelector::from_object(selector).ok()?,
    };
    Some(selector.to_string())
}
