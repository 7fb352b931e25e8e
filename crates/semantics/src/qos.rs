//! Quality-of-service class of a Pod.

use serde_json::{Map, Value};

use crate::resources::{ResourceList, read};

/// `Guaranteed`, `Burstable` or `BestEffort`, from cpu and memory of all containers, or from pod-level resources.
pub fn class(spec: &Map<String, Value>) -> &'static str {
    let counted = |list: ResourceList| -> ResourceList {
        list.into_iter().filter(|(n, q)| matches!(n.as_str(), "cpu" | "memory") && !q.is_zero()).collect()
    };
    let of = |resources: Option<&Value>, kind: &str| counted(read(resources.and_then(|r| r.get(kind))));
    let holders: Vec<Option<&Value>> =
        match spec.get("resources").filter(|r| r.as_object().is_some_and(|m| !m.is_empty())) {
            Some(pod) => vec![Some(pod)],
            None => ["containers", "initContainers"]
                .iter()
                .flat_map(|list| spec.get(*list).and_then(Value::as_array).into_iter().flatten())
                .map(|c| c.get("resources"))
                .collect(),
        };
    let all: Vec<(ResourceList, ResourceList)> =
        holders.into_iter().map(|r| (of(r, "requests"), of(r, "limits"))).collect();
    if all.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        return "BestEffort";
    }
    let guaranteed =
        all.iter().all(|(requests, limits)| limits.len() == 2 && (requests.is_empty() || requests == limits));
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes() {
        let of = |containers: Value| class(json!({"containers": containers}).as_object().expect("map"));
        assert_eq!(of(json!([{}])), "BestEffort");
        assert_eq!(of(json!([{"resources": {"requests": {"cpu": "1"}}}])), "Burstable");
        let full = json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}});
        assert_eq!(of(json!([full])), "Guaranteed");
        assert_eq!(of(json!([full, {}])), "Burstable");
    }
}
