use super::*;
use crate::plugins::testing::{Fixture, node_view, pod_view};

fn told(fixture: &mut Fixture, pod: &PodView) -> String {
    fixture.filter(&NodeResourcesFit::default(), pod).remove(0).1
}

#[test]
fn what_is_missing_is_told() {
    let mut fixture = Fixture::new();
    fixture.node("n", |n| n.resources("4", "8Gi").resource("pods", "2").resource("example.com/gpu", "2"));
    fixture.bound("old", "n", |p| p.requests("3", "1Gi"));
    let pod = |name: &str, cpu: &str, memory: &str| pod_view(name, |p| p.requests(cpu, memory));
    assert_eq!(told(&mut fixture, &pod("fits", "1", "1Gi")), "");
    assert_eq!(told(&mut fixture, &pod("cpu", "1001m", "1Gi")), "Insufficient cpu");
    assert_eq!(told(&mut fixture, &pod("both", "2", "7.5Gi")), "Insufficient cpu, Insufficient memory");
    assert_eq!(told(&mut fixture, &pod("never", "5", "1Gi")), "!Insufficient cpu");
    let gpu = pod_view("gpu", |p| p.request("example.com/gpu", "3"));
    assert_eq!(told(&mut fixture, &gpu), "!Insufficient example.com/gpu");
    let unknown = pod_view("unknown", |p| p.request("example.com/none", "1"));
    assert_eq!(told(&mut fixture, &unknown), "!Insufficient example.com/none");
    fixture.bound("second", "n", |p| p);
    assert_eq!(told(&mut fixture, &pod_view("third", |p| p)), "Too many pods");
    assert_eq!(told(&mut fixture, &pod("all", "2", "1")), "Too many pods, Insufficient cpu");
}

#[test]
fn ignored_resources_are_not_looked_at() {
    let mut fixture = Fixture::new();
    fixture.node("n", |n| n);
    let settings = FitSettings { ignored_groups: vec!["example.com".into()], ..FitSettings::default() };
    let plugin = NodeResourcesFit { settings: Arc::new(settings), devices: None };
    let gpu = pod_view("gpu", |p| p.request("example.com/gpu", "3"));
    assert_eq!(fixture.filter(&plugin, &gpu)[0].1, "");
}

#[test]
fn strategies() {
    let amounts = || [(4000, 3000, 1), (10_000, 5000, 1), (0, 0, 1)].into_iter();
    assert_eq!(score_of(&Strategy::LeastAllocated, amounts()), 37);
    assert_eq!(score_of(&Strategy::MostAllocated, amounts()), 62);
    let shape = Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]);
    assert_eq!(score_of(&shape, amounts()), 63);
    assert_eq!(score_of(&Strategy::LeastAllocated, [(10, 11, 1)].into_iter()), 0);
    assert_eq!(on_shape(&[(0, 100), (50, 20), (100, 0)], 25), 60);
    assert_eq!(on_shape(&[(40, 100), (60, 0)], 10), 100);
    assert_eq!(on_shape(&[(40, 100), (60, 0)], 90), 0);
}

#[test]
fn containers_without_requests_count_a_little() {
    let mut fixture = Fixture::new();
    fixture.node("n", |n| n.resources("1", "2000Mi"));
    let pod = pod_view("p", |p| p);
    // 900 of 1000 and 1800 of 2000 are left.
    assert_eq!(fixture.scores(&NodeResourcesFit::default(), &pod), [("n", 90)]);
}

#[test]
fn which_events_help() {
    let plugin = NodeResourcesFit::default();
    let pod = pod_view("p", |p| p.requests("2", "1Gi"));
    let small = node_view("small", |n| n.resources("1", "8Gi"));
    let large = node_view("large", |n| n.resources("2", "8Gi"));
    assert!(!plugin.may_help(&pod, &ClusterEvent::NodeAdded(&small)));
    assert!(plugin.may_help(&pod, &ClusterEvent::NodeAdded(&large)));
    assert!(plugin.may_help(&pod, &ClusterEvent::PodDeleted(&pod)));
    assert!(!plugin.may_help(&pod, &ClusterEvent::PodAssigned(&pod)));
    let shrunk = pod_view("p", |p| p.requests("1", "1Gi"));
    assert!(plugin.may_help(&pod, &ClusterEvent::PodChanged { old: &pod, new: &shrunk }));
    assert!(!plugin.may_help(&pod, &ClusterEvent::PodChanged { old: &shrunk, new: &pod }));
}

#[test]
fn devices_that_stand_for_a_resource_are_scored() {
    let devices = crate::devices::Devices::empty();
    let selectors = serde_json::json!([{"cel": {"expression": "device.attributes['gpu.example.com'].kind == 'big'"}}]);
    devices.class("gpu", serde_json::json!({"extendedResourceName": "example.com/gpu", "selectors": selectors}));
    let device = |name: &str, kind: &str| serde_json::json!({"name": name, "attributes": {"kind": {"string": kind}}});
    for (node, kinds) in [("four", ["big"; 4].as_slice()), ("two", &["big", "big", "small"])] {
        let all: Vec<_> = kinds.iter().enumerate().map(|(at, kind)| device(&format!("d{at}"), kind)).collect();
        devices.offer(node, node, serde_json::json!({"nodeName": node, "devices": all}));
    }
    let taken = serde_json::json!({"allocation": {"devices": {"results": [
        {"request": "r", "driver": "gpu.example.com", "pool": "four", "device": "d0"}]}}});
    devices.claim("c", serde_json::json!({}), taken);
    let mut fixture = Fixture::new();
    for name in ["four", "two", "none"] {
        fixture.node(name, |n| n);
    }
    fixture.node("own", |n| n.resource("example.com/gpu", "10"));
    let resources = vec![ResourceWeight { name: "example.com/gpu".into(), weight: 1 }];
    let settings = Arc::new(FitSettings { resources: resources.clone(), ..FitSettings::default() });
    let plugin = NodeResourcesFit { settings, devices: Some(Arc::clone(&devices)) };
    let pod = pod_view("p", |p| p.request("example.com/gpu", "1"));
    assert!(!Score::is_local(&plugin));
    assert_eq!(fixture.scores(&plugin, &pod), [("four", 50), ("none", 0), ("own", 90), ("two", 50)]);
    let balanced = crate::plugins::balanced_allocation::BalancedAllocation { resources, devices: Some(devices) };
    assert_eq!(fixture.scores(&balanced, &pod).len(), 4);
}
