//! Resource requests of Pods (KEP-753: sidecars; KEP-2837: pod-level resources).

use std::collections::BTreeMap;

use machinery::quantity::Quantity;
use serde_json::{Map, Value};

/// Quantities by resource name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// The quantities of a list such as `resources.requests`; unreadable entries are left out.
pub fn read(list: Option<&Value>) -> ResourceList {
    list.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Quantity::parse(&text).ok().map(|q| (name.clone(), q))
        })
        .collect()
}

fn add(into: &mut ResourceList, more: &ResourceList) {
    for (name, quantity) in more {
        *into.entry(name.clone()).or_default() += *quantity;
    }
}

fn raise(into: &mut ResourceList, floor: &ResourceList) {
    for (name, quantity) in floor {
        let own = into.entry(name.clone()).or_default();
        if *own < *quantity {
            *own = *quantity;
        }
    }
}

fn containers<'a>(spec: &'a Map<String, Value>, list: &str) -> impl Iterator<Item = &'a Value> {
    spec.get(list).and_then(Value::as_array).into_iter().flatten()
}

/// `requests` or `limits` over all containers: the sum of containers and sidecars, or what the init containers need
/// before them, if that is more.
fn total(spec: &Map<String, Value>, kind: &str) -> ResourceList {
    let own = |container: &Value| read(container.get("resources").and_then(|r| r.get(kind)));
    let mut sum = ResourceList::new();
    for container in containers(spec, "containers") {
        add(&mut sum, &own(container));
    }
    let mut sidecars = ResourceList::new();
    let mut starting = ResourceList::new();
    for container in containers(spec, "initContainers") {
        let mut need = own(container);
        if container.get("restartPolicy").and_then(Value::as_str) == Some("Always") {
            add(&mut sum, &need);
            add(&mut sidecars, &need);
            need = sidecars.clone();
        } else {
            add(&mut need, &sidecars);
        }
        raise(&mut starting, &need);
    }
    raise(&mut sum, &starting);
    sum
}

/// Aggregated requests of the containers, as quantity texts.
pub fn sum_container_requests(spec: &Map<String, Value>) -> BTreeMap<String, String> {
    total(spec, "requests").into_iter().map(|(name, quantity)| (name, quantity.to_string())).collect()
}

/// Aggregated limits of the containers, as quantity texts.
pub fn sum_container_limits(spec: &Map<String, Value>) -> BTreeMap<String, String> {
    total(spec, "limits").into_iter().map(|(name, quantity)| (name, quantity.to_string())).collect()
}

/// Effective `requests` or `limits` of a pod spec: the containers' total, overridden by pod-level resources, plus
/// overhead.
pub fn pod_total(spec: &Map<String, Value>, kind: &str) -> ResourceList {
    let mut sum = total(spec, kind);
    for (name, quantity) in read(spec.get("resources").and_then(|r| r.get(kind))) {
        sum.insert(name, quantity);
    }
    let overhead = read(spec.get("overhead"));
    if kind == "limits" {
        for (name, quantity) in overhead {
            if let Some(own) = sum.get_mut(&name) {
                *own += quantity;
            }
        }
    } else {
        add(&mut sum, &overhead);
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn init_containers_count_only_if_they_need_more() {
        let spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "100m"}}}, {"resources": {"requests": {"cpu": "200m"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"resources": {"requests": {"cpu": "1"}}},
            ],
        });
        let sum = sum_container_requests(spec.as_object().expect("map"));
        assert_eq!(sum["cpu"], "1050m");
    }

    #[test]
    fn pod_level_resources_win_and_overhead_adds() {
        let spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "1"}}}],
            "resources": {"requests": {"cpu": "500m"}},
            "overhead": {"cpu": "10m"},
        });
        let total = pod_total(spec.as_object().expect("map"), "requests");
        assert_eq!(total["cpu"].to_string(), "510m");
    }
}
