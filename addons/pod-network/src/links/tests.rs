use super::*;
use crate::{
    host::Recorder,
    plan::{Mode, Settings, plan},
};

const EMPTY: &str = r#"[{"ifname":"eth0","mtu":1500,"flags":["UP"],
    "addr_info":[{"family":"inet","local":"192.0.2.1","prefixlen":24,"scope":"global"}]}]"#;

fn node(address: &str, cidr: &str) -> NodeView {
    NodeView {
        addresses: vec![address.parse().expect("address")],
        cidrs: vec![cidr.parse().expect("network")],
        told: false,
    }
}

fn planned(observed: &Observed) -> Plan {
    let settings =
        Settings { mode: Mode::Auto, device: "vx".into(), vni: 9, port: 8472, mtu: None, cluster: Vec::new() };
    let own = node("192.0.2.1", "10.244.1.0/24");
    let peers = [
        ("near".to_owned(), node("192.0.2.2", "10.244.2.0/24")),
        ("far".to_owned(), node("198.51.100.3", "10.244.3.0/24")),
    ];
    plan(&settings, &own, &peers.into(), &observed.uplinks(&own)).expect("a plan")
}

async fn observed(answers: &[(&str, &str)]) -> Observed {
    let host = Recorder {
        answers: answers.iter().map(|(q, a)| ((*q).to_owned(), (*a).to_owned())).collect(),
        ..Recorder::default()
    };
    observe(&host, "vx").await.expect("a state")
}

fn texts(commands: Vec<Command>) -> Vec<String> {
    commands.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn everything_is_made_on_an_empty_host() {
    let observed = observed(&[("ip -j -d address show", EMPTY)]).await;
    assert_eq!(
        texts(observed.commands(&planned(&observed), "vx")),
        [
            "ip link add vx address 0e:10:0a:f4:01:00 mtu 1450 type vxlan id 9 dstport 8472 local 192.0.2.1 dev eth0 nolearning",
            "ip link set vx up",
            "ip address add 10.244.1.0/32 dev vx",
            "ip neigh replace 10.244.3.0 lladdr 0e:10:0a:f4:03:00 nud permanent dev vx",
            "bridge fdb replace 0e:10:0a:f4:03:00 dev vx dst 198.51.100.3 self permanent",
            "ip -4 route replace 10.244.2.0/24 via 192.0.2.2 dev eth0 proto 84",
            "ip -4 route replace 10.244.3.0/24 via 10.244.3.0 dev vx onlink proto 84",
        ]
    );
}

#[tokio::test]
async fn only_what_differs_is_changed() {
    let links = r#"[{"ifname":"eth0","mtu":1500,"flags":["UP"],"addr_info":[{"local":"192.0.2.1","prefixlen":24,"scope":"global"}]},
        {"ifname":"vx","mtu":1450,"flags":["UP"],"address":"0e:10:0a:f4:01:00","linkinfo":{"info_kind":"vxlan",
         "info_data":{"id":9,"port":8472,"local":"192.0.2.1","link":"eth0"}},
         "addr_info":[{"local":"10.244.1.0","prefixlen":32,"scope":"global"},{"local":"fe80::1","prefixlen":64,"scope":"link"}]}]"#;
    let routes = r#"[{"dst":"10.244.2.0/24","gateway":"192.0.2.2","dev":"eth0","flags":[]},
        {"dst":"10.244.9.0/24","gateway":"192.0.2.9","dev":"eth0","flags":[]}]"#;
    let neighbors = r#"[{"dst":"10.244.3.0","lladdr":"0e:10:0a:f4:03:00","state":["PERMANENT"]}]"#;
    let entries = r#"[{"mac":"0e:10:0a:f4:03:00","dst":"198.51.100.99","flags":["self"],"state":"permanent"},
        {"mac":"33:33:00:00:00:01","flags":["self"],"state":"permanent"}]"#;
    let observed = observed(&[
        ("ip -j -d address show", links),
        ("ip -j -4 route show table main proto 84", routes),
        ("ip -j neigh show dev vx nud permanent", neighbors),
        ("bridge -j fdb show dev vx", entries),
    ])
    .await;
    assert_eq!(
        texts(observed.commands(&planned(&observed), "vx")),
        [
            "bridge fdb del 0e:10:0a:f4:03:00 dev vx dst 198.51.100.99",
            "bridge fdb replace 0e:10:0a:f4:03:00 dev vx dst 198.51.100.3 self permanent",
            "ip -4 route replace 10.244.3.0/24 via 10.244.3.0 dev vx onlink proto 84",
            "ip -4 route del 10.244.9.0/24 proto 84",
        ]
    );
    assert_eq!(
        texts(observed.cleanup("vx")),
        ["ip -4 route del 10.244.2.0/24 proto 84", "ip -4 route del 10.244.9.0/24 proto 84", "ip link del vx"]
    );
}

#[tokio::test]
async fn a_device_of_another_kind_of_tunnel_is_made_anew() {
    let links = r#"[{"ifname":"eth0","mtu":1500,"flags":["UP"],"addr_info":[{"local":"192.0.2.1","prefixlen":24,"scope":"global"}]},
        {"ifname":"vx","mtu":1450,"flags":["UP"],"address":"0e:10:0a:f4:01:00","linkinfo":{"info_kind":"vxlan",
         "info_data":{"id":1,"port":8472,"local":"192.0.2.1"}},"addr_info":[]}]"#;
    let observed = observed(&[("ip -j -d address show", links)]).await;
    let commands = texts(observed.commands(&planned(&observed), "vx"));
    assert_eq!(commands.first().map(String::as_str), Some("ip link del vx"));
    assert!(commands.get(1).is_some_and(|c| c.starts_with("ip link add vx ")), "{commands:?}");
    assert!(commands.iter().any(|c| c.starts_with("ip -4 route replace 10.244.3.0/24")), "{commands:?}");
}
