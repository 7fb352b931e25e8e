//! LimitRanger: fills in requests and limits, and keeps them within the LimitRanges of the namespace.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::Resource,
};
use machinery::{ApiResult, meta, quantity::Quantity};
use semantics::resources::{ResourceList, pod_total, read};
use serde_json::{Map, Value, json};

use super::namespaced;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plugin.
pub(super) struct LimitRanger {
    pub(super) ranges: Arc<Resource>,
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let main = request.subresource.is_empty();
        let pod = request.is("", "pods");
        match request.operation {
            Operation::Create => main && (pod || request.is("", "persistentvolumeclaims")),
            Operation::Update => {
                pod && request.subresource == "resize" || main && request.is("", "persistentvolumeclaims")
            }
            Operation::Delete | Operation::Connect => false,
        }
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let (Some(pod), Operation::Create, true) = (object, request.operation, request.is("", "pods")) else {
            return Ok(());
        };
        for range in namespaced::objects(&self.ranges, &request.namespace).await? {
            fill(pod, &range.object);
        }
        Ok(())
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let Some(object) = object else { return Ok(()) };
        if old.is_some_and(meta::is_deleting) {
            return Ok(());
        }
        for range in namespaced::objects(&self.ranges, &request.namespace).await? {
            let problems = problems(request.is("", "pods"), object, &range.object);
            match problems.as_slice() {
                [] => {}
                [one] => return Err(request.reject(Some(object), one)),
                many => return Err(request.reject(Some(object), &format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

fn items<'a>(range: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    let limits = range.pointer("/spec/limits").and_then(Value::as_array).into_iter().flatten();
    limits.filter(move |item| item["type"] == kind)
}

/// Fills in the containers' requests and limits, and tells so in an annotation.
fn fill(pod: &mut Value, range: &Value) {
    let (mut requests, mut limits) = (Map::new(), Map::new());
    for item in items(range, "Container") {
        for (into, field) in [(&mut requests, "defaultRequest"), (&mut limits, "default")] {
            into.extend(item[field].as_object().cloned().unwrap_or_default());
        }
    }
    let mut told = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or("").to_owned();
            for (defaults, kind) in [(&requests, "requests"), (&limits, "limits")] {
                let set = complete(container, kind, defaults);
                if !set.is_empty() {
                    let kind = kind.trim_end_matches('s');
                    told.push(format!("{} {kind} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if told.is_empty() {
        return;
    }
    let text = format!("LimitRanger plugin set: {}", told.join("; "));
    let annotations = meta::metadata_mut(pod).entry("annotations").or_insert_with(|| json!({}));
    meta::object_mut(annotations).insert(ANNOTATION.into(), json!(text));
}

/// Adds what a container does not say; answers the names added, sorted.
fn complete(container: &mut Value, kind: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let missing: Vec<(String, Value)> = defaults
        .iter()
        .filter(|(name, _)| container.pointer(&format!("/resources/{kind}")).is_none_or(|own| own.get(name).is_none()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let resources = meta::object_mut(container).entry("resources").or_insert_with(|| json!({}));
    let own = meta::object_mut(meta::object_mut(resources).entry(kind).or_insert_with(|| json!({})));
    let mut names: Vec<String> = missing.iter().map(|(name, _)| name.clone()).collect();
    own.extend(missing);
    names.sort();
    names
}

/// What of an object is outside a LimitRange.
fn problems(is_pod: bool, object: &Value, range: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if !is_pod {
        let requests = read(object.pointer("/spec/resources/requests"));
        for item in items(range, "PersistentVolumeClaim") {
            check(item, "PersistentVolumeClaim", &requests, None, &mut found);
        }
        return found;
    }
    let containers = ["containers", "initContainers"].iter().flat_map(|l| object["spec"][*l].as_array()).flatten();
    let containers: Vec<_> =
        containers.map(|c| (read(c.pointer("/resources/requests")), read(c.pointer("/resources/limits")))).collect();
    for item in items(range, "Container") {
        for (requests, limits) in &containers {
            check(item, "Container", requests, Some(limits), &mut found);
        }
    }
    let empty = Map::new();
    let mut spec = object["spec"].as_object().unwrap_or(&empty).clone();
    // Overhead is the node's business, not the user's.
    spec.remove("overhead");
    let (requests, limits) = (pod_total(&spec, "requests"), pod_total(&spec, "limits"));
    for item in items(range, "Pod") {
        check(item, "Pod", &requests, Some(&limits), &mut found);
    }
    found
}

/// Checks one item of a LimitRange. Claims have no limits: `None`.
fn check(item: &Value, kind: &str, requests: &ResourceList, limits: Option<&ResourceList>, found: &mut Vec<String>) {
    let (min, max) = (read(item.get("min")), read(item.get("max")));
    let ratios = read(item.get("maxLimitRequestRatio"));
    let none = ResourceList::new();
    let limit_of = |name: &str| limits.unwrap_or(&none).get(name);
    for (name, min) in &min {
        let start = format!("minimum {name} usage per {kind} is {min}");
        match (requests.get(name), limit_of(name)) {
            (None, _) => found.push(format!("{start}.  No request is specified")),
            (Some(request), _) if request < min => found.push(format!("{start}, but request is {request}")),
            (_, Some(limit)) if limit < min => found.push(format!("{start}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, max) in &max {
        let start = format!("maximum {name} usage per {kind} is {max}");
        match (limits.is_some(), limit_of(name), requests.get(name)) {
            (true, None, _) => found.push(format!("{start}.  No limit is specified")),
            (false, _, None) => found.push(format!("{start}.  No request is specified")),
            (true, Some(limit), _) if limit > max => found.push(format!("{start}, but limit is {limit}")),
            (_, _, Some(request)) if request > max => found.push(format!("{start}, but request is {request}")),
            _ => {}
        }
    }
    let names: BTreeSet<&String> = ratios.keys().collect();
    for name in names {
        let start = format!("{name} max limit to request ratio per {kind} is {}", ratios[name]);
        let nonzero = |quantity: Option<&Quantity>| quantity.copied().filter(|q| !q.is_zero());
        match (nonzero(requests.get(name)), nonzero(limit_of(name))) {
            (None, _) => found.push(format!("{start}, but no request is specified or request is 0")),
            (_, None) => found.push(format!("{start}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.as_f64() / request.as_f64();
                if ratio > ratios[name].as_f64() {
                    found.push(format!("{start}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(item: Value) -> Value {
        json!({"spec": {"limits": [item]}})
    }

    #[test]
    fn fills_in_what_is_missing() {
        let range = range(json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"},
            "defaultRequest": {"cpu": "500m", "memory": "512Mi"}}));
        let mut pod = json!({"spec": {
            "containers": [{"name": "x", "resources": {"limits": {"cpu": "2"}}}], "initContainers": [{"name": "y"}]}});
        fill(&mut pod, &range);
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu, memory request for container x; memory limit for container x; \
             cpu, memory request for init container y; cpu, memory limit for init container y"
        );
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "2", "memory": "1Gi"}));
    }

    #[test]
    fn a_list_that_is_absent_stays_absent() {
        let range = range(json!({"type": "Container", "default": {"cpu": "1"}}));
        let mut pod = json!({"spec": {"containers": [{"name": "x"}]}});
        fill(&mut pod, &range);
        assert_eq!(pod["spec"].get("initContainers"), None);
    }

    #[test]
    fn bounds() {
        let range = range(json!({"type": "Container", "min": {"cpu": "50m", "memory": "1Mi"}, "max": {"cpu": "500m"},
            "maxLimitRequestRatio": {"cpu": "2"}}));
        let pod = |requests: Value, limits: Value| json!({"spec": {"containers": [{"name": "a", "resources": {"requests": requests, "limits": limits}}]}});
        assert_eq!(
            problems(true, &pod(json!({"cpu": "10m"}), json!({"cpu": "600m"})), &range),
            [
                "minimum cpu usage per Container is 50m, but request is 10m",
                "minimum memory usage per Container is 1Mi.  No request is specified",
                "maximum cpu usage per Container is 500m, but limit is 600m",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 60.000000",
            ]
        );
        let fine = pod(json!({"cpu": "100m", "memory": "1Mi"}), json!({"cpu": "200m"}));
        assert_eq!(problems(true, &fine, &range), Vec::<String>::new());
    }

    #[test]
    fn claims_have_requests_only() {
        let range =
            range(json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        let text = "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi";
        assert_eq!(problems(false, &claim("3Gi"), &range), [text]);
        assert!(problems(false, &claim("2Gi"), &range).is_empty());
    }
}
