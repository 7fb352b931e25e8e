//! `apps` and ReplicationController.

use machinery::GroupVersionKind;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Cells,
    cells::{NONE, age, containers, label_map, list, name, number, selector, text},
};

pub(super) fn table(gvk: &GroupVersionKind) -> Option<(&'static str, Cells)> {
    let table: (&'static str, Cells) = match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "ReplicationController") => {
            ("Name(s,n) Desired(i) Current(i) Ready(i) Age(s) | Containers(s) Images(s) Selector(s)", |o, now| {
                replicas(o, now, label_map(o.pointer("/spec/selector")))
            })
        }
        ("apps", "ReplicaSet") => {
            ("Name(s,n) Desired(i) Current(i) Ready(i) Age(s) | Containers(s) Images(s) Selector(s)", |o, now| {
                replicas(o, now, selector(o.pointer("/spec/selector")))
            })
        }
        ("apps", "Deployment") => {
            ("Name(s,n) Ready(s) Up-to-date(s) Available(s) Age(s) | Containers(s) Images(s) Selector(s)", deployment)
        }
        ("apps", "StatefulSet") => ("Name(s,n) Ready(s) Age(s) | Containers(s) Images(s)", stateful_set),
        ("apps", "DaemonSet") => (
            "Name(s,n) Desired(i) Current(i) Ready(i) Up-to-date(i) Available(i) Node Selector(s) Age(s) | Containers(s) Images(s) Selector(s)",
            daemon_set,
        ),
        ("apps", "ControllerRevision") => ("Name(s,n) Controller(s) Revision(s) Age(s)", revision),
        _ => return None,
    };
    Some(table)
}

fn pod_spec(object: &Value) -> Option<&Value> {
    object.pointer("/spec/template/spec")
}

fn replicas(object: &Value, now: OffsetDateTime, selector: String) -> Vec<Value> {
    vec![
        name(object),
        json!(number(object, "/spec/replicas")),
        json!(number(object, "/status/replicas")),
        json!(number(object, "/status/readyReplicas")),
        age(object, now),
        json!(containers(pod_spec(object), "name")),
        json!(containers(pod_spec(object), "image")),
        json!(selector),
    ]
}

fn deployment(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ready = format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"));
    let chosen = match selector(object.pointer("/spec/selector")).as_str() {
        NONE => String::new(),
        "<error>" => "<invalid>".into(),
        text => text.to_owned(),
    };
    vec![
        name(object),
        json!(ready),
        json!(number(object, "/status/updatedReplicas")),
        json!(number(object, "/status/availableReplicas")),
        age(object, now),
        json!(containers(pod_spec(object), "name")),
        json!(containers(pod_spec(object), "image")),
        json!(chosen),
    ]
}

fn stateful_set(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ready = format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"));
    vec![
        name(object),
        json!(ready),
        age(object, now),
        json!(containers(pod_spec(object), "name")),
        json!(containers(pod_spec(object), "image")),
    ]
}

fn daemon_set(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    vec![
        name(object),
        json!(number(object, "/status/desiredNumberScheduled")),
        json!(number(object, "/status/currentNumberScheduled")),
        json!(number(object, "/status/numberReady")),
        json!(number(object, "/status/updatedNumberScheduled")),
        json!(number(object, "/status/numberAvailable")),
        json!(label_map(object.pointer("/spec/template/spec/nodeSelector"))),
        age(object, now),
        json!(containers(pod_spec(object), "name")),
        json!(containers(pod_spec(object), "image")),
        json!(selector(object.pointer("/spec/selector"))),
    ]
}

fn revision(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let owner = list(object, "/metadata/ownerReferences").find(|o| o["controller"] == true);
    let controller = owner.map_or_else(
        || NONE.to_owned(),
        |o| {
            let group = text(o, "/apiVersion").split_once('/').map_or(String::new(), |(g, _)| format!(".{g}"));
            format!("{}{group}/{}", text(o, "/kind").to_lowercase(), text(o, "/name"))
        },
    );
    vec![name(object), json!(controller), json!(number(object, "/revision")), age(object, now)]
}
