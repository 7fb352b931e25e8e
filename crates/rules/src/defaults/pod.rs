//! Defaults of Pods and pod templates.

use serde_json::{Map, Value, json};

use super::{child, is_empty, items, quantities, set, set_zero, spec, text};

/// Lists of containers in a pod spec.
const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of `spec` in Pods and templates alike.
pub fn pod_template_spec(spec: &mut Map<String, Value>) {
    set_zero(spec, "dnsPolicy", "ClusterFirst");
    set_zero(spec, "restartPolicy", "Always");
    set(spec, "securityContext", json!({}));
    set(spec, "terminationGracePeriodSeconds", 30);
    set_zero(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    quantities::list(spec, "overhead");
    quantities::resources(spec);
    for list in CONTAINERS {
        for one in items(spec, list) {
            container(one);
        }
    }
    for one in items(spec, "volumes") {
        volume(one);
    }
}

fn mirror_service_account(spec: &mut Map<String, Value>) {
    let name = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")]
        .into_iter()
        .find(|n| !n.is_empty())
        .map(str::to_owned);
    if let Some(name) = name {
        spec.insert("serviceAccountName".into(), json!(name));
        spec.insert("serviceAccount".into(), json!(name));
    }
}

/// `Always` for the tag `latest`, given or implied.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or("");
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn container(one: &mut Map<String, Value>) {
    let policy = pull_policy(text(one, "image"));
    set_zero(one, "imagePullPolicy", policy);
    set_zero(one, "terminationMessagePath", "/dev/termination-log");
    set_zero(one, "terminationMessagePolicy", "File");
    set(one, "resources", json!({}));
    quantities::resources(one);
    for port in items(one, "ports") {
        set_zero(port, "protocol", "TCP");
    }
    for env in items(one, "env") {
        let Some(from) = env.get_mut("valueFrom").and_then(Value::as_object_mut) else { continue };
        if let Some(field) = from.get_mut("fieldRef").and_then(Value::as_object_mut) {
            set_zero(field, "apiVersion", "v1");
        }
        if let Some(file) = from.get_mut("fileKeyRef").and_then(Value::as_object_mut) {
            set(file, "optional", false);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = one.get_mut(name).and_then(Value::as_object_mut) {
            set_zero(probe, "timeoutSeconds", 1);
            set_zero(probe, "periodSeconds", 10);
            set_zero(probe, "successThreshold", 1);
            set_zero(probe, "failureThreshold", 3);
            http_get(probe);
            if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
                set(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = one.get_mut("lifecycle").and_then(Value::as_object_mut) {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get_mut(hook).and_then(Value::as_object_mut) {
                http_get(hook);
            }
        }
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = handler.get_mut("httpGet").and_then(Value::as_object_mut) {
        set_zero(get, "path", "/");
        set_zero(get, "scheme", "HTTP");
    }
}

const FILE_MODE: i64 = 0o644;

fn volume(one: &mut Map<String, Value>) {
    let sources = one.iter().filter(|(key, value)| key.as_str() != "name" && !value.is_null()).count();
    if sources == 0 {
        one.insert("emptyDir".into(), json!({}));
    }
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = one.get_mut(kind).and_then(Value::as_object_mut) {
            set(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = one.get_mut("downwardAPI").and_then(Value::as_object_mut) {
        field_refs(source);
    }
    if let Some(projected) = one.get_mut("projected").and_then(Value::as_object_mut) {
        for source in items(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken").and_then(Value::as_object_mut) {
                set_zero(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = source.get_mut("downwardAPI").and_then(Value::as_object_mut) {
                field_refs(downward);
            }
        }
    }
    volume_sources(one);
    if let Some(image) = one.get_mut("image").and_then(Value::as_object_mut) {
        let policy = pull_policy(text(image, "reference"));
        set_zero(image, "pullPolicy", policy);
    }
    let claim = one.get_mut("ephemeral").and_then(|e| e.get_mut("volumeClaimTemplate"));
    if let Some(claim) = claim
        && let Some(spec) = spec(claim)
    {
        set(spec, "volumeMode", "Filesystem");
        quantities::resources(spec);
    }
}

/// Defaults of the sources that Pods and PersistentVolumes share.
pub(super) fn volume_sources(one: &mut Map<String, Value>) {
    let mut fill = |kind: &str, defaults: &[(&str, Value)]| {
        if let Some(source) = one.get_mut(kind).and_then(Value::as_object_mut) {
            for (key, value) in defaults {
                set_zero(source, key, value.clone());
            }
        }
    };
    fill("hostPath", &[("type", json!(""))]);
    fill("iscsi", &[("iscsiInterface", json!("default"))]);
    fill("rbd", &[("pool", json!("rbd")), ("user", json!("admin")), ("keyring", json!("/etc/ceph/keyring"))]);
    fill(
        "azureDisk",
        &[
            ("cachingMode", json!("ReadWrite")),
            ("fsType", json!("ext4")),
            ("readOnly", json!(false)),
            ("kind", json!("Shared")),
        ],
    );
    fill("scaleIO", &[("storageMode", json!("ThinProvisioned")), ("fsType", json!("xfs"))]);
}

fn field_refs(source: &mut Map<String, Value>) {
    for item in items(source, "items") {
        if let Some(field) = item.get_mut("fieldRef").and_then(Value::as_object_mut) {
            set_zero(field, "apiVersion", "v1");
        }
    }
}

/// Defaults of a Pod.
pub fn pod(object: &mut Value) {
    let Some(spec) = spec(object) else { return };
    pod_template_spec(spec);
    set(spec, "enableServiceLinks", true);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for list in ["initContainers", "containers"] {
        for one in items(spec, list) {
            requests_from_limits(one);
            if host_network {
                for port in items(one, "ports") {
                    let container_port = port.get("containerPort").cloned().unwrap_or_default();
                    set_zero(port, "hostPort", container_port);
                }
            }
        }
    }
    pod_level_pages(spec);
    pod_level_requests(spec);
}

fn requests_from_limits(one: &mut Map<String, Value>) {
    let Some(resources) = one.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).filter(|l| !l.is_empty()).cloned() else {
        return;
    };
    if let Some(requests) = child(resources, "requests") {
        for (name, limit) in limits {
            set(requests, &name, limit);
        }
    }
}

/// Huge pages of a Pod with resources of its own: what its containers may use.
fn pod_level_pages(spec: &mut Map<String, Value>) {
    let Some(resources) = spec.get("resources").and_then(Value::as_object) else { return };
    if is_empty(resources, "limits") && is_empty(resources, "requests") {
        return;
    }
    let named = |field: &str, name: &str| resources.get(field).is_some_and(|amounts| amounts.get(name).is_some());
    let pages: Vec<(String, String)> = semantics::resources::sum_container_limits(spec)
        .into_iter()
        .filter(|(name, _)| name.starts_with("hugepages-") && !named("limits", name) && !named("requests", name))
        .collect();
    let resources = spec.get_mut("resources").and_then(Value::as_object_mut);
    if let (false, Some(limits)) = (pages.is_empty(), resources.and_then(|resources| child(resources, "limits"))) {
        limits.extend(pages.into_iter().map(|(name, sum)| (name, json!(sum))));
    }
}

/// Missing pod-level requests: the sum of the containers' for cpu and memory, else the limit.
fn pod_level_requests(spec: &mut Map<String, Value>) {
    let Some(resources) = spec.get("resources").and_then(Value::as_object) else { return };
    if is_empty(resources, "limits") {
        return;
    }
    let limits = resources.get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
    let sums = semantics::resources::sum_container_requests(spec);
    let Some(requests) = spec.get_mut("resources").and_then(Value::as_object_mut).and_then(|r| child(r, "requests"))
    else {
        return;
    };
    for (name, sum) in sums {
        if name == "cpu" || name == "memory" {
            set(requests, &name, sum);
        }
    }
    for (name, limit) in limits {
        if name == "cpu" || name == "memory" || name.starts_with("hugepages-") {
            set(requests, &name, limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_decide_the_pull_policy() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.25", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:v1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_pod_gets_upstreams_defaults() {
        let mut object = json!({"spec": {"containers": [{
            "name": "a", "image": "x:1", "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 80}},
        }], "volumes": [{"name": "v"}]}});
        pod(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["enableServiceLinks"], true);
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        let container = &spec["containers"][0];
        assert_eq!(container["resources"]["requests"]["cpu"], "1");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/");
        assert_eq!(container["livenessProbe"]["periodSeconds"], 10);
    }
}
