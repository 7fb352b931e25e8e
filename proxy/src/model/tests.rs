use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use serde_json::{Value, json};

use super::*;

/// The ports of a Service `n/s` with one slice, seen from node `here` in zone `z`.
pub(crate) fn ports(service: &Value, endpoints: &Value, family: Family) -> Vec<ServicePort> {
    let mut object = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": service});
    if let Some(status) = service.get("status") {
        object["status"] = status.clone();
    }
    let service: Service = serde_json::from_value(object).expect("service");
    let slice = json!({"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": family.label(), "ports": [{"name": "http", "port": 8080}], "endpoints": endpoints});
    let slice: EndpointSlice = serde_json::from_value(slice).expect("slice");
    let slice = SliceView::project(slice, "here");
    let key = ObjectKey::new("n", "s");
    plan(&key, &ServiceView::project(service), &[&slice], family, &Topology { zone: "z".into() })
}

fn addresses(list: &[Endpoint]) -> Vec<String> {
    list.iter().map(|e| e.address.to_string()).collect()
}

fn service() -> Value {
    json!({"clusterIP": "10.0.0.9", "type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
}

#[test]
fn endpoints_are_matched_by_port_name_and_split_by_node() {
    let endpoints = json!([
        {"addresses": ["10.1.0.2"], "nodeName": "there"},
        {"addresses": ["10.1.0.1"], "nodeName": "here"},
        {"addresses": ["10.1.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
    ]);
    let all = ports(&service(), &endpoints, Family::V4);
    let port = &all[0];
    assert_eq!((all.len(), &*port.name), (1, "n/s:http"));
    assert_eq!(addresses(&port.cluster_endpoints), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    assert_eq!(addresses(&port.local_endpoints), ["10.1.0.1:8080"]);
    assert_eq!(port.serving.len(), 3);
    assert!(port.uses_local() && port.uses_cluster());
}

#[test]
fn which_endpoints_are_used() {
    let fading = json!({"ready": false, "serving": true, "terminating": true});
    let gone = json!({"ready": false, "serving": false, "terminating": true});
    let zone = |z: &str| json!({"forZones": [{"name": z}]});
    let node = |n: &str| json!({"forNodes": [{"name": n}], "forZones": [{"name": "z"}]});
    let one = |ip: &str, conditions: &Value, hints: &Value| json!({"addresses": [ip], "nodeName": "there", "conditions": conditions, "hints": hints});
    let none = json!({});
    let cases: [(&str, Value, &[&str]); 8] = [
        ("ready", json!([one("10.1.0.1", &none, &none), one("10.1.0.2", &fading, &none)]), &["10.1.0.1:8080"]),
        ("only going", json!([one("10.1.0.1", &gone, &none), one("10.1.0.2", &fading, &none)]), &["10.1.0.2:8080"]),
        ("none", json!([one("10.1.0.1", &gone, &none)]), &[]),
        ("zone", json!([one("10.1.0.1", &none, &zone("z")), one("10.1.0.2", &none, &zone("y"))]), &["10.1.0.1:8080"]),
        ("other zone", json!([one("10.1.0.2", &none, &zone("y"))]), &["10.1.0.2:8080"]),
        (
            "one without a hint",
            json!([one("10.1.0.1", &none, &zone("z")), one("10.1.0.2", &none, &none)]),
            &["10.1.0.1:8080", "10.1.0.2:8080"],
        ),
        (
            "node",
            json!([one("10.1.0.1", &none, &node("here")), one("10.1.0.2", &none, &node("y"))]),
            &["10.1.0.1:8080"],
        ),
        (
            "an address again",
            json!([one("10.1.0.1", &fading, &none), one("10.1.0.1", &none, &none)]),
            &["10.1.0.1:8080"],
        ),
    ];
    for (name, endpoints, wanted) in cases {
        let all = ports(&service(), &endpoints, Family::V4);
        assert_eq!(addresses(&all[0].cluster_endpoints), wanted, "{name}");
        assert_eq!(all[0].has_endpoints, !wanted.is_empty(), "{name}");
    }
}

#[test]
fn local_endpoints_fall_back_on_their_own() {
    let endpoints = json!([
        {"addresses": ["10.1.0.1"], "nodeName": "there"},
        {"addresses": ["10.1.0.2"], "nodeName": "here", "conditions": {"ready": false, "serving": true, "terminating": true}},
    ]);
    let port = &ports(&service(), &endpoints, Family::V4)[0];
    assert_eq!(addresses(&port.cluster_endpoints), ["10.1.0.1:8080"]);
    assert_eq!(addresses(&port.local_endpoints), ["10.1.0.2:8080"]);
    assert_eq!(port.local_ready().count(), 0, "health checks see only those that take connections");
}

#[test]
fn families_are_apart() {
    let both = json!({"clusterIP": "fd00::9", "clusterIPs": ["fd00::9", "10.0.0.9"], "type": "LoadBalancer",
        "externalIPs": ["1.2.3.4", "2001:db8::1"], "loadBalancerSourceRanges": [" 10.0.0.0/8", "::/0"],
        "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}, {"ip": "5.6.7.9", "ipMode": "Proxy"}]}},
        "ports": [{"name": "http", "port": 80}]});
    let v4 = &ports(&both, &json!([{"addresses": ["10.1.0.1"]}]), Family::V4)[0];
    let v6 = &ports(&both, &json!([{"addresses": ["fd01::1"]}]), Family::V6)[0];
    assert_eq!((v4.cluster_ip.to_string(), v6.cluster_ip.to_string()), ("10.0.0.9".into(), "fd00::9".into()));
    assert_eq!((v4.external_ips.len(), v4.balancer_ips.len(), v6.balancer_ips.len()), (1, 1, 0));
    assert_eq!((v4.source_ranges.len(), v6.source_ranges.len()), (1, 0), "a range of all is no range");
    assert_eq!(addresses(&v6.cluster_endpoints), ["[fd01::1]:8080"]);
    assert!(ports(&service(), &json!([]), Family::V6).is_empty());
    assert!(ports(&json!({"clusterIP": "None", "ports": [{"port": 1}]}), &json!([]), Family::V4).is_empty());
}

#[test]
fn only_what_changes_is_told() {
    let key = ObjectKey::new("n", "s");
    let with = |ip: &str| ports(&service(), &json!([{"addresses": [ip]}]), Family::V4);
    let mut model = Model::default();
    assert!(model.set(&key, Vec::new()).is_none());
    assert!(model.set(&key, with("10.1.0.1")).is_some_and(|c| c.old.is_none()));
    assert!(model.set(&key, with("10.1.0.1")).is_none());
    assert!(model.set(&key, with("10.1.0.2")).is_some_and(|c| c.old.is_some() && c.new.is_some()));
    assert!(model.set(&key, Vec::new()).is_some_and(|c| c.new.is_none()));
    assert_eq!(model.keys().len(), 0);
}

#[test]
fn health_check_ports_count_local_addresses() {
    let balanced = json!({"clusterIP": "10.0.0.9", "type": "LoadBalancer", "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 31000, "ports": [{"name": "http", "port": 80}, {"name": "other", "port": 81}]});
    let endpoints = json!([{"addresses": ["10.1.0.1"], "nodeName": "here"}, {"addresses": ["10.1.0.2"]}]);
    let mut model = Model::default();
    model.set(&ObjectKey::new("n", "s"), ports(&balanced, &endpoints, Family::V4));
    assert_eq!(model.health_ports().into_values().collect::<Vec<_>>(), [(31000, 1)]);
}
