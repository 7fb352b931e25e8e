use std::sync::Arc;

use ::controller::{ObjectKey, Viewed};
use serde_json::{Value, json};

use super::*;

fn service(spec: Value) -> Service {
    let mut spec = spec;
    spec["selector"] = json!({"a": "b"});
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n", "uid": "u", "labels": {"l": "m", HEADLESS: "x"}}, "spec": spec})).unwrap()
}

fn pod(name: &str, ips: &[&str], edit: impl Fn(&mut Value)) -> Arc<Cached<PodView>> {
    let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let mut pod = json!({"metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIPs": ips, "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2024-01-01T00:00:05Z"}]}});
    edit(&mut pod);
    let view = PodView::project(serde_json::from_value(pod).unwrap());
    Arc::new(Cached { key: ObjectKey::new("n", name), uid: name.into(), resource_version: "1".into(), view })
}

fn zones() -> HashMap<String, String> {
    HashMap::from([("n1".to_owned(), "z1".to_owned())])
}

fn http() -> Value {
    json!({"ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}], "ipFamilies": ["IPv4"]})
}

#[test]
fn conditions_of_endpoints() {
    type Case = (&'static str, Value, bool, Option<(bool, bool, bool)>);
    let cases: Vec<Case> = vec![
        ("ready", json!({}), false, Some((true, true, false))),
        ("not ready", json!({"status": {"conditions": []}}), false, Some((false, false, false))),
        ("not ready, published", json!({"status": {"conditions": []}}), true, Some((true, false, false))),
        (
            "terminating",
            json!({"metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"}}),
            false,
            Some((false, true, true)),
        ),
        ("failed", json!({"status": {"phase": "Failed"}}), true, None),
        ("no address", json!({"status": {"podIPs": []}}), true, None),
    ];
    for (what, change, publish, expected) in cases {
        let mut spec = http();
        spec["publishNotReadyAddresses"] = json!(publish);
        let pod = pod("p", &["10.0.0.1"], |p| {
            for (part, fields) in change.as_object().unwrap() {
                for (key, value) in fields.as_object().unwrap() {
                    p[part][key] = value.clone();
                }
            }
        });
        let (groups, unknown) = groups(&service(spec), &[pod], &zones());
        let found = groups.first().and_then(|g| g.endpoints[0].conditions.clone());
        let found = found.map(|c| (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap()));
        assert_eq!((found, unknown), (expected, false), "{what}");
    }
}

#[test]
fn ports_split_groups() {
    let other = pod("q", &["10.0.0.2"], |p| p["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090));
    let none = pod("r", &["10.0.0.3"], |p| p["spec"]["containers"][0]["ports"] = json!([]));
    let (groups, _) = groups(&service(http()), &[pod("p", &["10.0.0.1"], |_| {}), other, none], &zones());
    let mut ports: Vec<Vec<i32>> = groups.iter().map(|g| g.ports.iter().filter_map(|p| p.port).collect()).collect();
    ports.sort();
    assert_eq!(ports, [vec![], vec![8080], vec![9090]]);
}

#[test]
fn families_names_and_zones() {
    let mut spec = http();
    spec["ipFamilies"] = json!(["IPv4", "IPv6"]);
    let pod = pod("p", &["10.0.0.1", "fd00::1"], |p| {
        p["spec"]["hostname"] = json!("h");
        p["spec"]["subdomain"] = json!("s");
    });
    let (groups, _) = groups(&service(spec), &[pod], &zones());
    let found: Vec<_> =
        groups.iter().map(|g| (g.address_type.as_str(), g.endpoints[0].addresses[0].as_str())).collect();
    assert_eq!(found, [("IPv4", "10.0.0.1"), ("IPv6", "fd00::1")]);
    let endpoint = &groups[0].endpoints[0];
    assert_eq!((endpoint.hostname.as_deref(), endpoint.zone.as_deref()), (Some("h"), Some("z1")));
    assert_eq!(endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref()), Some("p"));
}

#[test]
fn unknown_nodes_wait() {
    let lost = |spec: Value| {
        let pod = pod("p", &["10.0.0.1"], |p| p["spec"]["nodeName"] = json!("gone"));
        let (groups, unknown) = groups(&service(spec), &[pod], &zones());
        (groups.len(), unknown)
    };
    let mut published = http();
    published["publishNotReadyAddresses"] = json!(true);
    assert_eq!((lost(http()), lost(published)), ((0, true), (1, false)));
}

#[test]
fn hints_follow_the_distribution() {
    let hinted = |distribution: &str, ready: bool| {
        let mut spec = http();
        spec["trafficDistribution"] = json!(distribution);
        let pod = pod("p", &["10.0.0.1"], |p| {
            if !ready {
                p["status"]["conditions"] = json!([]);
            }
        });
        let hints = groups(&service(spec), &[pod], &zones()).0[0].endpoints[0].hints.clone();
        hints.map(|h| (h.for_zones.map(|z| z[0].name.clone()), h.for_nodes.map(|n| n[0].name.clone())))
    };
    let (zone, node) = (Some("z1".to_owned()), Some("n1".to_owned()));
    assert_eq!(hinted("PreferClose", true), Some((zone.clone(), None)));
    assert_eq!(hinted("PreferSameNode", true), Some((zone, node)));
    assert_eq!((hinted("PreferSameZone", false), hinted("", true)), (None, None));
}

#[test]
fn labels_of_slices() {
    let plain = labels(&service(json!({"clusterIP": "10.0.0.9"})));
    assert_eq!(plain.get("l").map(String::as_str), Some("m"));
    assert_eq!(plain.get(HEADLESS), None);
    assert_eq!(labels(&service(json!({"clusterIP": "None"}))).get(HEADLESS).map(String::as_str), Some(""));
}

#[test]
fn triggers_are_told_once() {
    let (mut times, service) = (TriggerTimes::default(), service(http()));
    let pods = [pod("p", &["10.0.0.1"], |_| {})];
    assert_eq!(times.earliest(&service, &pods).map(|t| t.to_string()), Some("2024-01-01T00:00:05Z".into()));
    assert_eq!(times.earliest(&service, &pods), None);
}

#[test]
fn zones_share_endpoints_by_processors() {
    let mut service =
        service(json!({"ports": [{"port": 80}], "ipFamilies": ["IPv4"], "trafficDistribution": "PreferClose"}));
    service.metadata.annotations = Some(BTreeMap::from([(TOPOLOGY[0].to_owned(), "Auto".to_owned())]));
    assert!(follows_topology(&service));
    let on = |name: &str, ip: &str, node: &str| pod(name, &[ip], |p| p["spec"]["nodeName"] = node.into());
    let pods = [on("p1", "10.0.0.1", "n1"), on("p2", "10.0.0.2", "n1"), on("p3", "10.0.0.3", "n2")];
    let pods = [pods.as_slice(), &[on("p4", "10.0.0.4", "n1")]].concat();
    let zones = HashMap::from([("n1".to_owned(), "a".to_owned()), ("n2".to_owned(), "b".to_owned())]);
    let hints = |shares: Option<Shares>| {
        let (mut found, _) = groups(&service, &pods, &zones);
        share(&mut found, shares.as_ref());
        let zone = |e: &Endpoint| e.hints.as_ref().and_then(|h| h.for_zones.as_ref()).map(|z| z[0].name.clone());
        found[0].endpoints.iter().map(zone).collect::<Vec<_>>()
    };
    assert_eq!(hints(None), [None, None, None, None], "the annotation takes precedence");
    let even = topology::shares([("a", 1000), ("b", 1000)].into_iter());
    let shared = hints(even);
    let of = |zone: &str| shared.iter().filter(|hint| hint.as_deref() == Some(zone)).count();
    assert_eq!((of("a"), of("b")), (2, 2), "{shared:?}");
    service.metadata.annotations = Some(BTreeMap::from([(TOPOLOGY[0].to_owned(), "Disabled".to_owned())]));
    assert!(!follows_topology(&service));
}

#[test]
fn sharing_is_told_when_it_changes() {
    let of = |outcome: Result<(), Unshared>| Shared::from([("IPv4".to_owned(), outcome)]);
    let (shared, too_few) = (of(Ok(())), of(Err(Unshared::TooFew { endpoints: 1, zones: 2 })));
    let enabled = (true, "Topology Aware Hints has been enabled, addressType: IPv4".to_owned());
    let few = (false, "Insufficient number of endpoints (1 endpoints, 2 zones), addressType: IPv4".to_owned());
    let disabled = (false, "Topology Aware Hints has been disabled, addressType: IPv4".to_owned());
    for (before, now, told) in [
        (None, Some(&shared), vec![enabled.clone()]),
        (Some(&shared), Some(&shared), vec![]),
        (Some(&shared), Some(&too_few), vec![few.clone()]),
        (Some(&too_few), Some(&too_few), vec![]),
        (Some(&too_few), Some(&shared), vec![enabled]),
        (Some(&shared), None, vec![disabled]),
        (Some(&too_few), None, vec![]),
        (None, None, vec![]),
    ] {
        assert_eq!(sharing_news(before, now), told, "{before:?} {now:?}");
    }
}

#[test]
fn ports_do_not_divide_an_address_type() {
    let service = service(http());
    let on = |name: &str, ip: &str, node: &str, port: i32| {
        pod(name, &[ip], |p| {
            p["spec"]["nodeName"] = node.into();
            p["spec"]["containers"] =
                json!([{"name": "c", "ports": [{"name": "web", "containerPort": port, "protocol": "TCP"}]}]);
        })
    };
    let pods = [on("p1", "10.0.0.1", "n1", 1), on("p2", "10.0.0.2", "n2", 2)];
    let zones = HashMap::from([("n1".to_owned(), "a".to_owned()), ("n2".to_owned(), "b".to_owned())]);
    let (mut found, _) = groups(&service, &pods, &zones);
    assert_eq!(found.len(), 2);
    let even = topology::shares([("a", 1000), ("b", 1000)].into_iter());
    assert_eq!(share(&mut found, even.as_ref()), Shared::from([("IPv4".to_owned(), Ok(()))]));
    assert!(found.iter().all(|group| group.endpoints[0].hints.is_some()));
}
