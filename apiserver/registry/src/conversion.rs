//! Conversions between the served versions of the two kinds that have more than one.

use generic::endpoint::Conversion;
use machinery::{GroupVersionKind, meta};
use serde_json::{Map, Value, json};

/// The conversion between a served and the stored version, if they differ.
pub fn between(served: &GroupVersionKind, stored: &GroupVersionKind) -> Option<&'static dyn Conversion> {
    if served == stored {
        return None;
    }
    match served.kind.as_str() {
        "Event" => Some(&Events),
        "HorizontalPodAutoscaler" => Some(&Autoscalers),
        _ => None,
    }
}

/// `events.k8s.io/v1` over core `v1`.
struct Events;

/// New name, old name.
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn rename(map: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = map.remove(from) {
        map.insert(to.to_owned(), value);
    }
}

fn retype(object: &mut Value, api_version: &str) {
    object["apiVersion"] = json!(api_version);
}

impl Conversion for Events {
    fn to_stored(&self, mut object: Value) -> Value {
        retype(&mut object, "v1");
        if let Some(map) = object.as_object_mut() {
            EVENT_FIELDS.iter().for_each(|(new, old)| rename(map, new, old));
        }
        object
    }

    fn to_served(&self, mut object: Value) -> Value {
        retype(&mut object, "events.k8s.io/v1");
        if let Some(map) = object.as_object_mut() {
            EVENT_FIELDS.iter().for_each(|(new, old)| rename(map, old, new));
        }
        object
    }
}

/// `autoscaling/v1` over `autoscaling/v2`: what v1 cannot say travels in annotations.
struct Autoscalers;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Whether a metric is the one that v1 has a field for: cpu utilization.
fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

fn take_annotation(object: &mut Value, key: &str) -> Option<Value> {
    let annotations = meta::metadata_mut(object).get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key)?;
    serde_json::from_str(text.as_str()?).ok()
}

fn put_annotation(object: &mut Value, key: &str, value: &Value) {
    let annotations = meta::metadata_mut(object).entry("annotations").or_insert_with(|| json!({}));
    meta::object_mut(annotations).insert(key.to_owned(), json!(value.to_string()));
}

fn take(object: &mut Value, outer: &str, field: &str) -> Option<Value> {
    object.get_mut(outer)?.as_object_mut()?.remove(field)
}

impl Conversion for Autoscalers {
    fn to_stored(&self, mut object: Value) -> Value {
        retype(&mut object, "autoscaling/v2");
        let mut metrics = take_annotation(&mut object, METRICS).and_then(|m| m.as_array().cloned()).unwrap_or_default();
        if let Some(target) = take(&mut object, "spec", "targetCPUUtilizationPercentage") {
            metrics.insert(
                0,
                json!({"type": "Resource", "resource": {
                    "name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}),
            );
        }
        if !metrics.is_empty() {
            object["spec"]["metrics"] = json!(metrics);
        }
        if let Some(behavior) = take_annotation(&mut object, BEHAVIOR) {
            object["spec"]["behavior"] = behavior;
        }
        let mut current = take_annotation(&mut object, CURRENT).and_then(|m| m.as_array().cloned()).unwrap_or_default();
        if let Some(now) = take(&mut object, "status", "currentCPUUtilizationPercentage") {
            current.insert(
                0,
                json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": now}}}),
            );
        }
        if !current.is_empty() {
            object["status"]["currentMetrics"] = json!(current);
        }
        if let Some(conditions) = take_annotation(&mut object, CONDITIONS) {
            object["status"]["conditions"] = conditions;
        }
        object
    }

    fn to_served(&self, mut object: Value) -> Value {
        retype(&mut object, "autoscaling/v1");
        for (outer, list, field, path, annotation) in [
            ("spec", "metrics", "targetCPUUtilizationPercentage", "/resource/target/averageUtilization", METRICS),
            (
                "status",
                "currentMetrics",
                "currentCPUUtilizationPercentage",
                "/resource/current/averageUtilization",
                CURRENT,
            ),
        ] {
            let metrics = take(&mut object, outer, list).and_then(|m| m.as_array().cloned()).unwrap_or_default();
            let (cpu, others): (Vec<Value>, Vec<Value>) =
                metrics.into_iter().partition(|m| is_cpu(m) && m.pointer(path).is_some());
            if let Some(value) = cpu.first().and_then(|m| m.pointer(path)) {
                object[outer][field] = value.clone();
            }
            if !others.is_empty() {
                put_annotation(&mut object, annotation, &json!(others));
            }
        }
        if let Some(behavior) = take(&mut object, "spec", "behavior") {
            put_annotation(&mut object, BEHAVIOR, &behavior);
        }
        if let Some(conditions) = take(&mut object, "status", "conditions") {
            put_annotation(&mut object, CONDITIONS, &conditions);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autoscalers_round_trip() {
        let stored = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
            {"type": "Pods", "pods": {"metric": {"name": "x"}}},
        ]}});
        let served = Autoscalers.to_served(stored.clone());
        assert_eq!(served["spec"]["targetCPUUtilizationPercentage"], 50);
        let mut back = Autoscalers.to_stored(served);
        meta::metadata_mut(&mut back).remove("annotations");
        assert_eq!(back, stored);
    }

    #[test]
    fn events_round_trip() {
        let stored = json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"name": "a"}, "message": "m"});
        let served = Events.to_served(stored.clone());
        assert_eq!(served["regarding"]["name"], "a");
        assert_eq!(Events.to_stored(served), stored);
    }
}
