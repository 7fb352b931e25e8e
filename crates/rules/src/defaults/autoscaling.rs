//! Defaults of HorizontalPodAutoscaler v2.

use serde_json::{Map, Value, json};

use super::{is_empty, set, spec};

pub(super) fn horizontal_pod_autoscaler(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    set(spec, "minReplicas", 1);
    if is_empty(spec, "metrics") {
        spec.insert(
            "metrics".into(),
            json!([{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]),
        );
    }
    let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    direction(behavior, "scaleUp", json!([pods, percent]), Some(0));
    direction(behavior, "scaleDown", json!([percent]), None);
}

fn direction(behavior: &mut Map<String, Value>, key: &str, policies: Value, window: Option<i64>) {
    let Some(rules) = super::child(behavior, key) else { return };
    if let Some(window) = window {
        set(rules, "stabilizationWindowSeconds", window);
    }
    set(rules, "selectPolicy", "Max");
    if is_empty(rules, "policies") {
        rules.insert("policies".into(), policies);
    }
}
