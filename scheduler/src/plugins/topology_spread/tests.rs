use machinery::selector::LabelSelector;
use serde_json::{Value, json};

use super::*;
use crate::plugins::testing::{Fixture, pod_view};

fn plugin() -> TopologySpread {
    TopologySpread { defaults: Defaults::System, selector: Arc::new(|_| LabelSelector::default()) }
}

fn constraint(key: &str, skew: i32, hard: bool) -> Value {
    json!({
        "maxSkew": skew,
        "topologyKey": key,
        "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" },
        "labelSelector": {"matchLabels": {"app": "web"}},
    })
}

fn web(constraints: Vec<Value>) -> Arc<PodView> {
    pod_view("p", |p| p.label("app", "web").spec("topologySpreadConstraints", constraints.into()))
}

/// Zones a (two nodes), b and c, and a node without.
fn zones() -> Fixture {
    let mut fixture = Fixture::new();
    for (name, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("c1", "c")] {
        fixture.node(name, |n| n.label("zone", zone));
    }
    fixture.node("x", |n| n);
    fixture
}

fn put(fixture: &mut Fixture, node: &str, count: usize) {
    for at in 0..count {
        fixture.bound(&format!("{node}-{at}"), node, |p| p.label("app", "web"));
    }
}

#[test]
fn skew_is_bounded() {
    let mut fixture = zones();
    let pod = web(vec![constraint("zone", 1, true)]);
    assert_eq!(fixture.passing(&plugin(), &pod), ["a1", "a2", "b1", "c1"]);
    put(&mut fixture, "a1", 1);
    put(&mut fixture, "b1", 1);
    assert_eq!(fixture.passing(&plugin(), &pod), ["c1"]);
    let told = fixture.filter(&plugin(), &pod);
    assert_eq!(told[0].1, REASON);
    assert_eq!(told[4].1, format!("!{REASON_LABEL}"));
    put(&mut fixture, "c1", 1);
    assert_eq!(fixture.passing(&plugin(), &pod).len(), 4);
}

#[test]
fn who_counts() {
    let mut fixture = zones();
    let pod = web(vec![constraint("zone", 1, true)]);
    fixture.bound("elsewhere", "a1", |p| p.namespace("other").label("app", "web"));
    fixture.bound("leaving", "a1", |p| p.label("app", "web").terminating());
    fixture.bound("other", "a1", |p| p.label("app", "db"));
    assert_eq!(fixture.passing(&plugin(), &pod).len(), 4);
}

#[test]
fn nodes_that_the_pod_cannot_use_do_not_count() {
    let mut fixture = zones();
    fixture.node("b1", |n| n.label("zone", "b").label("disk", "ssd"));
    fixture.node("a1", |n| n.label("zone", "a").label("disk", "ssd"));
    put(&mut fixture, "a2", 3);
    let pod = pod_view("p", |p| {
        p.label("app", "web")
            .spec("nodeSelector", json!({"disk": "ssd"}))
            .spec("topologySpreadConstraints", json!([constraint("zone", 1, true)]))
    });
    assert!(fixture.passing(&plugin(), &pod).contains(&"a1".to_owned()));
    let mut ignoring = constraint("zone", 1, true);
    ignoring["nodeAffinityPolicy"] = "Ignore".into();
    let pod = pod_view("q", |p| {
        p.label("app", "web")
            .spec("nodeSelector", json!({"disk": "ssd"}))
            .spec("topologySpreadConstraints", json!([ignoring]))
    });
    assert!(!fixture.passing(&plugin(), &pod).contains(&"a1".to_owned()));
}

#[test]
fn too_few_domains_mean_a_minimum_of_none() {
    let mut fixture = zones();
    for node in ["a1", "b1", "c1"] {
        put(&mut fixture, node, 1);
    }
    let mut wide = constraint("zone", 1, true);
    wide["minDomains"] = 4.into();
    assert!(fixture.passing(&plugin(), &web(vec![wide.clone()])).is_empty());
    wide["minDomains"] = 3.into();
    assert_eq!(fixture.passing(&plugin(), &web(vec![wide])).len(), 4);
}

#[test]
fn soft_constraints_score() {
    let mut fixture = zones();
    put(&mut fixture, "a1", 4);
    put(&mut fixture, "b1", 2);
    let pod = web(vec![constraint("zone", 1, false)]);
    assert_eq!(fixture.passing(&plugin(), &pod).len(), 5);
    // ln(3 + 2) = 1.609: 6, 3 and 0 after rounding; 100 * (6 - s) / 6.
    assert_eq!(fixture.scores(&plugin(), &pod), [("a1", 0), ("a2", 0), ("b1", 50), ("c1", 100), ("x", 0)]);
}

#[test]
fn defaults_spread_what_a_service_selects() {
    let mut fixture = Fixture::new();
    fixture.node("n1", |n| n);
    fixture.node("n2", |n| n);
    put(&mut fixture, "n1", 4);
    let pod = pod_view("p", |p| p.label("app", "web"));
    assert_eq!(fixture.scores(&plugin(), &pod), []);
    let selecting =
        TopologySpread { defaults: Defaults::System, selector: Arc::new(|_| LabelSelector::parse("app=web").unwrap()) };
    let scores = fixture.scores(&selecting, &pod);
    assert!(scores[0].1 < scores[1].1, "{scores:?}");
    let hard = DefaultConstraint { max_skew: 1, topology_key: HOSTNAME.into(), hard: true };
    let listing = TopologySpread { defaults: Defaults::List(vec![hard]), selector: selecting.selector };
    assert_eq!(fixture.passing(&listing, &pod), ["n2"]);
}

#[test]
fn simulated_moves_are_seen() {
    let mut fixture = zones();
    put(&mut fixture, "a1", 1);
    put(&mut fixture, "b1", 1);
    let pod = web(vec![constraint("zone", 1, true)]);
    let Prepared::Check(mut check) = Filter::prepare(&plugin(), &pod, &mut fixture.cluster) else { panic!("checks") };
    let a1 = fixture.cluster.nodes.find("a1").unwrap();
    assert!(check.check(&fixture.cluster, a1).is_err());
    let gone = fixture.cluster.remove_pod("uid-a1-0").unwrap();
    check.refresh(&mut fixture.cluster);
    assert!(check.check(&fixture.cluster, a1).is_ok());
    fixture.cluster.set_pod(&gone);
    check.refresh(&mut fixture.cluster);
    assert!(check.check(&fixture.cluster, a1).is_err());
}
