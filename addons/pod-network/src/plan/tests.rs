use super::*;

fn settings(mode: Mode) -> Settings {
    Settings { mode, device: "vx".into(), vni: 4096, port: 8472, mtu: None, cluster: Vec::new() }
}

fn node(addresses: &[&str], cidrs: &[&str]) -> NodeView {
    NodeView {
        addresses: addresses.iter().map(|a| a.parse().expect("address")).collect(),
        cidrs: cidrs.iter().map(|c| c.parse().expect("network")).collect(),
        told: false,
    }
}

fn uplink(device: &str, address: &str) -> Uplink {
    Uplink { device: device.into(), mtu: 1500, address: address.parse().expect("network") }
}

fn routes(plan: &Plan) -> Vec<String> {
    plan.routes
        .iter()
        .map(|(to, r)| format!("{to} via {} dev {}{}", r.via, r.device, if r.onlink { " onlink" } else { "" }))
        .collect()
}

fn planned(mode: Mode) -> Plan {
    let own = node(&["192.0.2.1"], &["10.244.1.0/24"]);
    let peers = [
        ("near".to_owned(), node(&["192.0.2.2"], &["10.244.2.0/24"])),
        ("far".to_owned(), node(&["198.51.100.3"], &["10.244.3.0/24"])),
        ("new".to_owned(), node(&["192.0.2.4"], &[])),
        ("twin".to_owned(), node(&["192.0.2.5"], &["10.244.2.0/24"])),
    ];
    plan(&settings(mode), &own, &peers.into(), &[uplink("eth0", "192.0.2.1/24")]).expect("a plan")
}

#[test]
fn peers_on_the_segment_are_reached_directly_others_by_vxlan() {
    let auto = planned(Mode::Auto);
    assert_eq!(routes(&auto), ["10.244.2.0/24 via 192.0.2.2 dev eth0", "10.244.3.0/24 via 10.244.3.0 dev vx onlink"]);
    let vxlan = auto.vxlan.expect("a device");
    assert_eq!((vxlan.mac.as_str(), vxlan.mtu, auto.mtu), ("0e:10:0a:f4:01:00", 1450, 1450));
    assert_eq!(
        vxlan.neighbors.into_iter().map(|(a, m)| format!("{a} {m}")).collect::<Vec<_>>(),
        ["10.244.3.0 0e:10:0a:f4:03:00"]
    );
    assert_eq!(vxlan.forwarding.into_values().map(|a| a.to_string()).collect::<Vec<_>>(), ["198.51.100.3"]);
    assert_eq!(auto.unreachable.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["new", "twin"]);
}

#[test]
fn one_segment_needs_no_tunnel() {
    let own = node(&["192.0.2.1"], &["10.244.1.0/24"]);
    let peers = [("near".to_owned(), node(&["192.0.2.2"], &["10.244.2.0/24"]))].into();
    let up = [uplink("eth0", "192.0.2.1/24")];
    let auto = plan(&settings(Mode::Auto), &own, &peers, &up).expect("a plan");
    assert_eq!((auto.vxlan, auto.mtu), (None, 1450), "Pods keep room for tunnels to nodes that come later");
    let always = plan(&settings(Mode::Vxlan), &own, &BTreeMap::new(), &up).expect("a plan");
    assert!(always.vxlan.is_some());
}

#[test]
fn modes_are_kept() {
    let all: Vec<_> = planned(Mode::Vxlan).routes.into_values().map(|r| r.device).collect();
    assert_eq!(all, ["vx", "vx"]);
    let direct = planned(Mode::Direct);
    assert_eq!(routes(&direct), ["10.244.2.0/24 via 192.0.2.2 dev eth0"]);
    assert_eq!((direct.vxlan, direct.mtu), (None, 1500));
    assert!(direct.unreachable.iter().any(|(n, why)| n == "far" && why.contains("segment")));
}

#[test]
fn both_families() {
    let own = node(&["192.0.2.1", "2001:db8::1"], &["10.244.1.0/24", "fd00:0:0:1::/64"]);
    let near = node(&["192.0.2.2", "2001:db8::2"], &["10.244.2.0/24", "fd00:0:0:2::/64"]);
    let far = node(&["198.51.100.3"], &["10.244.3.0/24", "fd00:0:0:3::/64"]);
    let uplinks = [uplink("eth0", "192.0.2.1/24"), uplink("eth0", "2001:db8::1/64")];
    let peers = [("near".to_owned(), near), ("far".to_owned(), far)].into();
    let plan = plan(&settings(Mode::Auto), &own, &peers, &uplinks).expect("a plan");
    assert_eq!(
        routes(&plan),
        [
            "10.244.2.0/24 via 192.0.2.2 dev eth0",
            "10.244.3.0/24 via 10.244.3.0 dev vx onlink",
            "fd00:0:0:2::/64 via 2001:db8::2 dev eth0",
            "fd00:0:0:3::/64 via fd00:0:0:3:: dev vx onlink",
        ]
    );
    assert_eq!(plan.vxlan.expect("a device").forwarding.len(), 1, "one hardware address for both families");
    assert_eq!(plan.cluster.len(), 6);
}

#[test]
fn no_plan_before_the_node_is_known() {
    let none = BTreeMap::new();
    let up = [uplink("eth0", "192.0.2.1/24")];
    let bare = node(&["192.0.2.1"], &[]);
    assert_eq!(plan(&settings(Mode::Auto), &bare, &none, &up), Err(NoPlan::NoCidr));
    let own = node(&["192.0.2.1"], &["10.244.1.0/24"]);
    assert_eq!(plan(&settings(Mode::Auto), &own, &none, &[]), Err(NoPlan::NoUplink));
    let mut given = settings(Mode::Auto);
    given.cluster = vec!["10.244.0.0/16".parse().expect("network")];
    given.mtu = Some(1400);
    let plan = plan(&given, &own, &none, &up).expect("a plan");
    assert_eq!((plan.cluster.len(), plan.mtu), (1, 1400), "the own network is part of the cluster's");
}
