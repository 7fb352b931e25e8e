use std::collections::BTreeMap;

use controller::ObjectKey;
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{Model, tests::ports},
    node::NodeView,
};

fn place() -> Place {
    Place {
        local: ["10.0.0.1", "127.0.0.1"].iter().map(|ip| ip.parse().unwrap()).collect(),
        node_ports: vec![[10, 0, 0, 1].into()],
        node_ip: [10, 0, 0, 1].into(),
    }
}

fn planned(service: &Value, endpoints: &Value) -> Plan {
    let mut model = Model::default();
    model.set(&ObjectKey::new("n", "s"), ports(service, endpoints, Family::V4));
    plan(&model, &place())
}

fn web(more: Value) -> Value {
    let mut service = json!({"clusterIP": "10.96.0.9", "type": "NodePort",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

fn entries(plan: &Plan) -> Vec<String> {
    let all = plan.sets.iter();
    all.flat_map(|(set, entries)| entries.iter().map(|e| format!("{} {e}", set.name(Family::V4)))).collect()
}

#[test]
fn a_service_is_servers_addresses_and_entries() {
    let endpoints = json!([{"addresses": ["10.1.0.1"], "nodeName": "here"}, {"addresses": ["10.1.0.2"]}]);
    let plan =
        planned(&web(json!({"externalIPs": ["10.0.0.1", "1.2.3.4"], "sessionAffinity": "ClientIP"})), &endpoints);
    let servers: Vec<String> = plan.servers.keys().map(|server| server.address.to_string()).collect();
    assert_eq!(servers, ["1.2.3.4:80", "10.0.0.1:80", "10.0.0.1:30080", "10.96.0.9:80"]);
    assert!(plan.servers.values().all(|service| service.timeout == 10_800 && service.endpoints.len() == 2));
    let addresses: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["1.2.3.4", "10.96.0.9"], "never the node's own");
    assert_eq!(
        entries(&plan),
        [
            "KUBE-LOOP-BACK 10.1.0.1,6:8080,10.1.0.1",
            "KUBE-CLUSTER-IP 10.96.0.9,6:80",
            "KUBE-EXTERNAL-IP 1.2.3.4,6:80",
            "KUBE-EXTERNAL-IP 10.0.0.1,6:80",
            "KUBE-NODE-PORT-TCP 30080",
            "KUBE-IPVS-IPS 1.2.3.4",
            "KUBE-IPVS-IPS 10.96.0.9",
        ]
    );
}

#[test]
fn load_balancers_are_guarded() {
    let balanced = web(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "loadBalancerSourceRanges": ["10.0.0.0/24", "5.5.5.5/32"],
        "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}]}}}));
    let plan = planned(&balanced, &json!([{"addresses": ["10.1.0.2"], "nodeName": "there"}]));
    let all = entries(&plan);
    for wanted in [
        "KUBE-LOAD-BALANCER 5.6.7.8,6:80",
        "KUBE-LOAD-BALANCER-LOCAL 5.6.7.8,6:80",
        "KUBE-LOAD-BALANCER-FW 5.6.7.8,6:80",
        "KUBE-LOAD-BALANCER-SOURCE-CIDR 5.6.7.8,6:80,10.0.0.0/24",
        "KUBE-LOAD-BALANCER-SOURCE-CIDR 5.6.7.8,6:80,5.5.5.5",
        "KUBE-LOAD-BALANCER-SOURCE-IP 5.6.7.8,6:80,5.6.7.8",
        "KUBE-NODE-PORT-LOCAL-TCP 30080",
        "KUBE-HEALTH-CHECK-NODE-PORT 31000",
    ] {
        assert!(all.iter().any(|entry| entry == wanted), "{wanted} is not in {all:?}");
    }
    assert!(plan.servers.values().all(|s| s.endpoints.len() == 1), "traffic goes elsewhere rather than nowhere");
}

#[test]
fn steps_lead_from_plan_to_plan() {
    let endpoints = |ips: &[&str]| ips.iter().map(|ip| json!({"addresses": [ip]})).collect::<Value>();
    let service = json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]});
    let before = planned(&service, &endpoints(&["10.1.0.1"]));
    let after = planned(&service, &endpoints(&["10.1.0.2"]));
    let server = *after.servers.keys().next().unwrap();
    let (first, second) = ("10.1.0.1:8080".parse().unwrap(), "10.1.0.2:8080".parse().unwrap());
    assert_eq!(steps(&before, &after), [Step::Add(server, second), Step::Retire(server, first)]);
    assert!(steps(&after, &after).is_empty());
    let ip: IpAddr = [10, 96, 0, 9].into();
    assert_eq!(steps(&after, &Plan::default()), [Step::Remove(server), Step::Carry(ip, false)]);
    let made = steps(&Plan::default(), &after);
    assert!(matches!(made[..], [Step::Carry(..), Step::Put { new: true, .. }, Step::Add(..)]), "{made:?}");
}

#[test]
fn sets_are_compared_by_their_listing() {
    let listing = "create KUBE-CLUSTER-IP hash:ip,port family inet\nadd KUBE-CLUSTER-IP 10.0.0.1,tcp:80\n\
                   add OTHER 1.1.1.1\nadd KUBE-NODE-PORT-TCP 30080\n";
    let old = sets::parse(listing, Family::V4);
    assert_eq!(old.len(), 2);
    let new = BTreeMap::from([(sets::Set::ClusterIp, BTreeSet::from(["10.0.0.2,6:80".to_owned()]))]);
    assert_eq!(
        sets::difference(&old, &new, Family::V4),
        "del KUBE-CLUSTER-IP 10.0.0.1,6:80\nadd KUBE-CLUSTER-IP 10.0.0.2,6:80\ndel KUBE-NODE-PORT-TCP 30080\n"
    );
    let longest = sets::Set::ALL.iter().map(|set| set.name(Family::V6)).max_by_key(String::len).unwrap();
    assert_eq!(longest.len(), 31, "{longest}");
}

#[test]
fn rules_refer_to_sets() {
    let home = Home::of(Some(&NodeView::default()), "0.0.0.0".parse().unwrap());
    let style = Style {
        family: Family::V4,
        mark: 1 << 14,
        masquerade_all: false,
        detector: Detector::Absent,
        node_ports: NodePorts::of(&crate::config::settings::NodePortAddresses::In(Vec::new()), &home, Family::V4),
        localhost_node_ports: false,
        node_ip: [10, 0, 0, 1].into(),
        liberal: false,
        features: program::parse_features("iptables v1.8.9 (nf_tables)"),
        accounts: Default::default(),
    };
    let tables = frame::render(&style).concat();
    for wanted in [
        "-A KUBE-SERVICES -s 127.0.0.0/8 -j RETURN\n",
        "-m set --match-set KUBE-CLUSTER-IP src,dst -j KUBE-MARK-MASQ\n",
        "-A KUBE-NODE-PORT -p tcp -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ\n",
        "-m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE\n-A KUBE-POSTROUTING -m mark ! --mark 0x00004000",
        "-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT\n",
    ] {
        assert!(tables.contains(wanted), "{wanted} is not in {tables}");
    }
}

#[test]
fn kernels() {
    let badly: Vec<bool> = ["3.10.0", "4.1.2", "5.8.0-1-x", "5.9.1", "6.1.0"].map(reuses_badly).into();
    assert_eq!(badly, [false, true, true, false, false]);
}
