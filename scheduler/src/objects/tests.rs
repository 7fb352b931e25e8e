use std::sync::Arc;

use serde_json::json;

use super::requests::{HostPort, Protocol};
use crate::plugins::testing::pod_view;

fn requests(spec: &[(&str, serde_json::Value)]) -> (i64, i64, i64, i64) {
    let pod = pod_view("p", |p| spec.iter().fold(p, |p, (key, value)| p.spec(key, value.clone())));
    let (real, scored) = (&pod.template.requests, &pod.template.scored);
    (real.cpu, real.memory, scored.cpu, scored.memory >> 20)
}

fn container(cpu: &str) -> serde_json::Value {
    json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}})
}

#[test]
fn requests_of_pods() {
    let sidecar = |cpu: &str| {
        let mut container = container(cpu);
        container["restartPolicy"] = "Always".into();
        container
    };
    let two = json!([container("100m"), container("200m")]);
    assert_eq!(requests(&[("containers", two.clone())]), (300, 0, 300, 400));
    let init = json!([sidecar("50m"), container("1")]);
    assert_eq!(requests(&[("containers", two.clone()), ("initContainers", init)]).0, 1050);
    let small = json!([container("10m"), sidecar("50m")]);
    assert_eq!(requests(&[("containers", two.clone()), ("initContainers", small)]).0, 350);
    let whole = json!({"requests": {"cpu": "150m"}});
    let overhead = json!({"cpu": "10m", "memory": "1"});
    let told = requests(&[("containers", two), ("resources", whole), ("overhead", overhead)]);
    assert_eq!((told.0, told.1), (160, 1));
}

#[test]
fn what_a_container_has_counts_while_it_is_resized() {
    let pod = pod_view("p", |p| {
        p.requests("1", "1Gi").with(
            "/status/containerStatuses",
            json!([{"name": "c", "allocatedResources": {"cpu": "2"}, "resources": {"requests": {"memory": "3Gi"}}}]),
        )
    });
    assert_eq!((pod.template.requests.cpu, pod.template.requests.memory), (2000, 3 << 30));
}

#[test]
fn replicas_share_a_template() {
    let (a, b) = (pod_view("a", |p| p.label("app", "x")), pod_view("b", |p| p.label("app", "x")));
    assert!(Arc::ptr_eq(&a.template, &b.template));
    let other = pod_view("c", |p| p.label("app", "y"));
    assert!(!Arc::ptr_eq(&a.template, &other.template));
}

#[test]
fn rules_that_cannot_be_read_hold_a_pod_back() {
    let broken = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "k", "operator": "Near"}]}
    ]}}});
    let pod = pod_view("p", |p| p.spec("affinity", broken));
    assert_eq!(pod.template.gates.len(), 1);
    assert!(pod_view("q", |p| p.spec("affinity", json!(null))).template.gates.is_empty());
}

#[test]
fn host_ports_of_containers_and_sidecars() {
    let with_port = |restart: Option<&str>| {
        let mut container = container("1");
        container["ports"] = json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 81}]);
        if let Some(policy) = restart {
            container["restartPolicy"] = policy.into();
        }
        json!([container])
    };
    let ports =
        |spec: &str, value: serde_json::Value| pod_view("p", |p| p.spec(spec, value)).template.host_ports.clone();
    let any = HostPort { address: [0, 0, 0, 0].into(), protocol: Protocol::Tcp, port: 80 };
    assert_eq!(ports("containers", with_port(None)), [any]);
    assert_eq!(ports("initContainers", with_port(Some("Always"))), [any]);
    assert_eq!(ports("initContainers", with_port(None)), []);
}

#[test]
fn image_names_have_tags() {
    let named = |image: &str| pod_view("p", |p| p.image(image)).template.images[0].clone();
    assert_eq!(&*named("nginx"), "nginx:latest");
    assert_eq!(&*named("host:5000/nginx"), "host:5000/nginx:latest");
    assert_eq!(&*named("nginx:1"), "nginx:1");
    assert_eq!(&*named("nginx@sha256:00"), "nginx@sha256:00");
}
