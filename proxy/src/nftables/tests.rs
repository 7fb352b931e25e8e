use std::net::IpAddr;

use controller::ObjectKey;
use serde_json::{Value, json};

use super::*;
use crate::model::{Model, ServicePort, tests::ports};

fn node_ip() -> IpAddr {
    [10, 0, 0, 1].into()
}

fn service(more: Value) -> Value {
    let mut service = json!({"clusterIP": "10.96.0.9", "type": "NodePort",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

fn pods(ips: &[(&str, &str)]) -> Value {
    ips.iter().map(|(ip, node)| json!({"addresses": [ip], "nodeName": node})).collect()
}

fn rules(more: Value, endpoints: &Value) -> (Vec<ServicePort>, Rules) {
    let ports = ports(&service(more), endpoints, Family::V4);
    let rules = render(&ports, node_ip());
    (ports, rules)
}

/// Elements as `set key verdict`.
fn elements(rules: &Rules) -> Vec<String> {
    let text = |(key, verdict): (&Key, &Option<Verdict>)| {
        let ip = key.ip.map(|ip| format!(" {ip}")).unwrap_or_default();
        let port = key.port.map(|(protocol, port)| format!(" {} {port}", protocol.name())).unwrap_or_default();
        let verdict = match verdict {
            None => String::new(),
            Some(Verdict::Goto(chain)) => format!(" goto {chain}"),
            Some(other) => format!(" {other:?}"),
        };
        format!("{}{ip}{port}{verdict}", key.set.name())
    };
    rules.elements.iter().map(text).collect()
}

#[test]
fn a_service_is_chains_and_elements() {
    let (_, rules) = rules(json!({}), &pods(&[("10.244.0.1", "here"), ("10.244.0.2", "there")]));
    let names: Vec<&String> = rules.chains.keys().collect();
    assert_eq!(names.len(), 2);
    assert!(names[0].starts_with("external-") && names[0].ends_with("-n/s/tcp/http"), "{names:?}");
    let service = names[1].clone();
    assert_eq!(service.len(), "service-XXXXXXXX-n/s/tcp/http".len());
    assert_eq!(rules.chains[names[0]], [Rule::Mark, Rule::Goto(service.clone())]);
    assert!(matches!(&rules.chains[&service][..], [Rule::Spread(_, endpoints)] if endpoints.len() == 2));
    assert_eq!(
        elements(&rules),
        [
            "cluster-ips 10.96.0.9".to_owned(),
            format!("service-ips 10.96.0.9 tcp 80 goto {service}"),
            format!("service-nodeports tcp 30080 goto {}", names[0]),
            "hairpin-connections 10.244.0.1 tcp 8080".to_owned(),
        ]
    );
}

#[test]
fn what_has_no_endpoints_is_refused() {
    let (_, none) = rules(json!({"externalIPs": ["1.2.3.4"]}), &json!([]));
    assert_eq!(
        elements(&none),
        [
            "cluster-ips 10.96.0.9",
            "no-endpoint-services 1.2.3.4 tcp 80 goto reject-chain",
            "no-endpoint-services 10.96.0.9 tcp 80 goto reject-chain",
            "no-endpoint-nodeports tcp 30080 goto reject-chain"
        ]
    );
    let local = json!({"externalTrafficPolicy": "Local"});
    let (_, elsewhere) = rules(local, &pods(&[("10.244.0.1", "there")]));
    let all = elements(&elsewhere).join("\n");
    assert!(
        all.contains("no-endpoint-nodeports tcp 30080 Drop")
            && all.contains("service-nodeports tcp 30080 goto external-")
    );
    let external = elsewhere.chains.iter().find(|(name, _)| name.starts_with("external-")).unwrap().1;
    assert!(matches!(&external[..], [Rule::PodsGoto(_), Rule::OwnMark, Rule::OwnGoto(_)]), "{external:?}");
}

#[test]
fn clients_stay_with_their_endpoint() {
    let sticky = json!({"sessionAffinity": "ClientIP"});
    let (_, rules) = rules(sticky, &pods(&[("10.244.0.1", "there"), ("10.244.0.2", "there")]));
    assert_eq!(rules.sets.values().collect::<Vec<_>>(), [&10_800, &10_800]);
    let service = rules.chains.iter().find(|(name, _)| name.starts_with("service-")).unwrap().1;
    assert!(matches!(&service[..], [Rule::Stick { .. }, Rule::Stick { .. }, Rule::SpreadTo(to)] if to.len() == 2));
    let endpoint = rules.chains.iter().find(|(name, _)| name.starts_with("endpoint-")).unwrap();
    assert!(endpoint.0.contains("n/s/tcp/http__10.244.0.") && endpoint.1.len() == 2, "{endpoint:?}");
}

#[test]
fn source_ranges_guard_the_load_balancer() {
    let balanced = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/24"],
        "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}]}}});
    let (_, rules) = rules(balanced, &pods(&[("10.244.0.1", "there")]));
    let firewall = rules.chains.iter().find(|(name, _)| name.starts_with("firewall-")).unwrap().1;
    let wanted = ["10.0.0.0/24", "5.6.7.8/32"].map(|range| Rule::Pass(range.parse().unwrap()));
    assert_eq!(firewall[..2], wanted);
    assert_eq!(firewall[2], Rule::Drop);
    assert!(elements(&rules).iter().any(|e| e.starts_with("firewall-ips 5.6.7.8 tcp 80 goto firewall-")));
}

#[test]
fn long_names_are_cut() {
    let long = limited_name(&"x".repeat(300));
    assert!(long.len() <= 240 && long.ends_with("..."));
}

fn limited_name(name: &str) -> String {
    let mut ports = ports(&service(json!({})), &json!([{"addresses": ["10.244.0.1"]}]), Family::V4);
    ports[0].name = format!("n/s:{name}").into();
    render(&ports, node_ip()).chains.into_keys().next().unwrap()
}

#[test]
fn elements_that_several_services_want_stay_until_none_does() {
    let key = |port| Key { set: Set::ServiceIps, ip: Some(node_ip()), port: Some((crate::view::Protocol::Tcp, port)) };
    let (first, second) = (Some(Verdict::Drop), Some(Verdict::Goto("x".into())));
    let mut set = ElementSet::default();
    let mut touched = Touched::new();
    set.add(&mut touched, key(1), first.clone());
    set.add(&mut touched, key(1), first.clone());
    set.add(&mut touched, key(1), second.clone());
    assert_eq!(touched[&key(1)], None, "it was not there");
    assert!(!set.remove(&mut touched, &key(1), second.as_ref()), "it is another's");
    assert!(!set.remove(&mut touched, &key(1), first.as_ref()));
    assert!(set.entries.contains_key(&key(1)));
    assert!(set.remove(&mut touched, &key(1), first.as_ref()), "now the other one may have it");
    assert!(set.entries.is_empty());
}

#[test]
fn only_what_differs_is_written() {
    let endpoints = |ips: &[(&str, &str)]| ports(&service(json!({})), &pods(ips), Family::V4);
    let key = ObjectKey::new("n", "s");
    let mut model = Model::default();
    model.set(&key, endpoints(&[("10.244.0.1", "a")]));
    let changed = model.set(&key, endpoints(&[("10.244.0.2", "a")])).unwrap();
    let old = render(changed.old.as_ref().unwrap(), node_ip());
    let new = render(changed.new.as_ref().unwrap(), node_ip());
    let differing = new.chains.iter().filter(|(name, rules)| old.chains.get(*name) != Some(rules)).count();
    assert_eq!((differing, old.elements == new.elements), (1, true));
}
