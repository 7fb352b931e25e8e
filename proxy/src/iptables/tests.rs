use std::net::IpAddr;

use serde_json::json;

use super::*;
use crate::{
    config::settings::{Detector, NodePortAddresses},
    model::{ServicePort, tests::ports},
    node::{Home, NodePorts, NodeView},
};

fn style(family: Family) -> Style {
    let node_ip: IpAddr = if family == Family::V4 { [10, 0, 0, 1].into() } else { "fd00::1".parse().unwrap() };
    let view = NodeView { addresses: vec![node_ip], ..NodeView::default() };
    let home = Home::of(Some(&view), "0.0.0.0".parse().unwrap());
    let range = if family == Family::V4 { "10.244.0.0/16" } else { "fd01::/64" };
    Style {
        family,
        mark: 1 << 14,
        masquerade_all: false,
        detector: Detector::Range(range.parse().unwrap()),
        node_ports: NodePorts::of(&NodePortAddresses::In(Vec::new()), &home, family),
        localhost_node_ports: family == Family::V4,
        node_ip,
        liberal: false,
        features: program::Features { random_fully: true, nft: true },
        accounts: Accounts::default(),
    }
}

fn service(more: serde_json::Value) -> serde_json::Value {
    let mut service = json!({"clusterIP": "10.96.0.9", "type": "NodePort",
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}]});
    service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service
}

fn pods(ips: &[(&str, &str)]) -> serde_json::Value {
    ips.iter().map(|(ip, node)| json!({"addresses": [ip], "nodeName": node})).collect()
}

fn rendered(ports: &[ServicePort]) -> Rules {
    render(ports, &style(Family::V4), Comments::Kept)
}

fn chain<'a>(rules: &'a Rules, prefix: &str) -> Vec<&'a str> {
    let found = rules.chains.iter().find(|chain| chain.name.starts_with(prefix));
    let lines = found.map(|chain| chain.rules.lines().collect::<Vec<_>>()).unwrap_or_default();
    lines.into_iter().map(|line| line.splitn(3, ' ').nth(2).unwrap()).collect()
}

#[test]
fn traffic_is_spread_evenly() {
    let pods = pods(&[("10.244.0.1", "a"), ("10.244.0.2", "a"), ("10.244.0.3", "a")]);
    let rules = rendered(&ports(&service(json!({})), &pods, Family::V4));
    let svc = chain(&rules, "KUBE-SVC-");
    assert!(svc[0].ends_with("-m tcp -p tcp -d 10.96.0.9 --dport 80 ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ"), "{svc:?}");
    assert!(svc[1].starts_with("-m comment --comment \"n/s:http -> 10.244.0.1:8080\" -m statistic --mode random --probability 0.3333333333 -j KUBE-SEP-"));
    assert!(svc[2].contains("--probability 0.5000000000 ") && !svc[3].contains("probability"));
    assert_eq!(
        chain(&rules, "KUBE-SEP-"),
        [
            "-m comment --comment n/s:http -s 10.244.0.1 -j KUBE-MARK-MASQ",
            "-m comment --comment n/s:http -m tcp -p tcp -j DNAT --to-destination 10.244.0.1:8080"
        ]
    );
    let ext = chain(&rules, "KUBE-EXT-");
    assert_eq!(
        ext[0],
        "-m comment --comment \"masquerade traffic for n/s:http external destinations\" -j KUBE-MARK-MASQ"
    );
    assert!(ext[1].starts_with("-j KUBE-SVC-"));
    assert!(
        rules
            .shared
            .node_ports
            .starts_with("-A KUBE-NODEPORTS -m comment --comment n/s:http -m tcp -p tcp --dport 30080 -j KUBE-EXT-")
    );
    assert_eq!(rules.shared.refused, "");
    // A chain comes after those that it points to.
    let order: Vec<&str> = rules.chains.iter().map(|chain| &chain.name[..8]).collect();
    assert_eq!(order, ["KUBE-SEP", "KUBE-SEP", "KUBE-SEP", "KUBE-SVC", "KUBE-EXT"]);
}

#[test]
fn packets_are_counted_where_the_kernel_counts() {
    let all = ports(&service(json!({})), &pods(&[("10.244.0.1", "here")]), Family::V4);
    let mut style = style(Family::V4);
    assert!(frame::filter(&style, &Shared::default()).contains("--ctstate INVALID -j DROP\n"));
    style.accounts = Accounts { invalid: true, localhost: true };
    let filter = frame::filter(&style, &Shared::default());
    assert!(filter.contains("--ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP\n"));
    let rules = render_shared(&all, &style).node_ports;
    let counted = "-A KUBE-NODEPORTS -m comment --comment n/s:http -m tcp -p tcp -d 127.0.0.0/8 --dport 30080 -m nfacct \
                   --nfacct-name localhost_nps_accepted_pkts -j KUBE-EXT-";
    assert!(rules.starts_with(counted) && rules.lines().count() == 2, "{rules}");
    style.localhost_node_ports = false;
    assert_eq!(render_shared(&all, &style).node_ports.lines().count(), 1);
}

#[test]
fn what_has_no_endpoints_is_refused() {
    let rules = rendered(&ports(&service(json!({"externalIPs": ["1.2.3.4"]})), &json!([]), Family::V4));
    let text = "-m comment --comment \"n/s:http has no endpoints\"";
    assert_eq!(
        rules.shared.refused,
        format!("-A KUBE-SERVICES {text} -m tcp -p tcp -d 10.96.0.9 --dport 80 -j REJECT\n")
    );
    assert_eq!(
        rules.shared.refused_external,
        format!(
            "-A KUBE-EXTERNAL-SERVICES {text} -m tcp -p tcp -d 1.2.3.4 --dport 80 -j REJECT\n\
             -A KUBE-EXTERNAL-SERVICES {text} -m addrtype --dst-type LOCAL -m tcp -p tcp --dport 30080 -j REJECT\n"
        )
    );
    assert!(rules.chains.is_empty() && rules.shared.services.is_empty());
}

#[test]
fn local_traffic_stays_local() {
    let elsewhere = pods(&[("10.244.1.1", "there")]);
    let local = service(json!({"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"}));
    let rules = rendered(&ports(&local, &elsewhere, Family::V4));
    assert!(rules.shared.refused.contains("has no local endpoints\" -m tcp -p tcp -d 10.96.0.9 --dport 80 -j DROP"));
    let ext = chain(&rules, "KUBE-EXT-");
    assert_eq!(ext.len(), 3, "Pods and the node itself still reach it: {ext:?}");
    assert!(ext[0].contains("-s 10.244.0.0/16 -j KUBE-SVC-") && ext[1].ends_with("--src-type LOCAL -j KUBE-MARK-MASQ"));
    let here = pods(&[("10.244.1.1", "there"), ("10.244.0.1", "here")]);
    let rules = rendered(&ports(&local, &here, Family::V4));
    assert!(rules.shared.services.contains("-j KUBE-SVL-"));
    assert_eq!((chain(&rules, "KUBE-SVL-").len(), chain(&rules, "KUBE-SVC-").len()), (2, 3));
    assert!(chain(&rules, "KUBE-EXT-")[3].starts_with("-j KUBE-SVL-"));
}

#[test]
fn source_ranges_guard_the_load_balancer() {
    let balanced = service(json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/24", "1.2.0.0/16"],
        "status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}]}}}));
    let rules = rendered(&ports(&balanced, &pods(&[("10.244.0.1", "a")]), Family::V4));
    let firewall = chain(&rules, "KUBE-FW-");
    assert_eq!(firewall.len(), 4, "{firewall:?}");
    assert!(firewall[0].contains("\"n/s:http loadbalancer IP\" -s 10.0.0.0/24 -j KUBE-EXT-"));
    assert!(firewall[2].contains("-s 5.6.7.8 -j KUBE-EXT-"), "the node is in a range");
    assert_eq!(
        firewall[3],
        "-m comment --comment \"other traffic to n/s:http will be dropped by KUBE-PROXY-FIREWALL\""
    );
    assert!(
        rules.shared.firewall.contains("traffic not accepted by KUBE-FW-")
            && rules.shared.firewall.ends_with("-d 5.6.7.8 --dport 80 -j DROP\n")
    );
    assert!(rules.shared.services.contains("loadbalancer IP\" -m tcp -p tcp -d 5.6.7.8 --dport 80 -j KUBE-FW-"));
}

#[test]
fn affinity_remembers_clients() {
    let sticky =
        service(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}}));
    let rules = rendered(&ports(&sticky, &pods(&[("10.244.0.1", "a")]), Family::V4));
    assert!(chain(&rules, "KUBE-SVC-")[1].contains("--rcheck --seconds 600 --reap -j KUBE-SEP-"));
    assert!(chain(&rules, "KUBE-SEP-")[1].contains("--set -m tcp -p tcp -j DNAT"));
}

#[test]
fn the_other_family() {
    let six = json!({"clusterIP": "fd00::9", "ports": [{"name": "http", "port": 80}]});
    let rules = render(&ports(&six, &pods(&[("fd01::1", "a")]), Family::V6), &style(Family::V6), Comments::Dropped);
    assert_eq!(
        chain(&rules, "KUBE-SEP-"),
        ["-s fd01::1 -j KUBE-MARK-MASQ", "-m tcp -p tcp -j DNAT --to-destination [fd01::1]:8080"]
    );
    let nat = frame::nat(&style(Family::V6), &rules.shared);
    assert!(nat.contains("-m addrtype --dst-type LOCAL ! -d ::1/128 -j KUBE-NODEPORTS\n"));
}

#[test]
fn only_what_differs_is_sent() {
    let before = ports(&service(json!({})), &pods(&[("10.244.0.1", "a"), ("10.244.0.2", "a")]), Family::V4);
    let after = ports(&service(json!({})), &pods(&[("10.244.0.2", "a"), ("10.244.0.3", "a")]), Family::V4);
    let none = ports(&service(json!({})), &json!([]), Family::V4);
    let key = controller::ObjectKey::new("n", "s");
    let mut model = Model::default();
    model.set(&key, before);
    let changed = [model.set(&key, after).unwrap()];
    let difference =
        Difference::of(&Work { model: &model, changed: &changed, full: false }, &style(Family::V4), Comments::Kept);
    let sent: Vec<&str> = difference.chains.iter().map(|chain| &chain.name[..8]).collect();
    assert_eq!(sent, ["KUBE-SEP", "KUBE-SVC"]);
    assert_eq!((difference.gone.len(), difference.shared), (1, false));
    let changed = [model.set(&key, none).unwrap()];
    let difference =
        Difference::of(&Work { model: &model, changed: &changed, full: false }, &style(Family::V4), Comments::Kept);
    assert_eq!((difference.chains.len(), difference.gone.len(), difference.shared), (0, 4, true));
}

#[test]
fn chains_go_in_pieces() {
    let chains = (0..5).map(|n| Chain { name: format!("C{n}"), rules: format!("-A C{n} -j X\n") });
    let pieces: Vec<String> = transactions(chains, 2).collect();
    assert_eq!(pieces.len(), 3);
    assert_eq!(pieces[0], "*nat\n:C0 - [0:0]\n:C1 - [0:0]\n-A C0 -j X\n-A C1 -j X\nCOMMIT\n");
}
