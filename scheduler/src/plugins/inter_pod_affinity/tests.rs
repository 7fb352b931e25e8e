use serde_json::json;

use super::*;
use crate::plugins::testing::{Fixture, PodDraft, pod_view};

const ZONE: &str = "zone";

fn term(app: &str, key: &str) -> serde_json::Value {
    json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key})
}

fn required(kind: &str, app: &str) -> serde_json::Value {
    json!({kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term(app, ZONE)]}})
}

fn preferred(kind: &str, app: &str, weight: i32) -> serde_json::Value {
    let entry = json!({"weight": weight, "podAffinityTerm": term(app, ZONE)});
    json!({kind: {"preferredDuringSchedulingIgnoredDuringExecution": [entry]}})
}

/// Two nodes in zone a, one in b, one in none.
fn zones() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.node("a1", |n| n.label(ZONE, "a"));
    fixture.node("a2", |n| n.label(ZONE, "a"));
    fixture.node("b1", |n| n.label(ZONE, "b"));
    fixture.node("x", |n| n);
    fixture
}

fn app(app: &'static str) -> impl FnOnce(PodDraft) -> PodDraft {
    move |p| p.label("app", app)
}

#[test]
fn near_means_the_same_domain() {
    let mut fixture = zones();
    let plugin = InterPodAffinity::default();
    let pod = pod_view("p", |p| p.spec("affinity", required("podAffinity", "web")));
    let told = fixture.filter(&plugin, &pod);
    assert!(told.iter().all(|(_, said)| said == &format!("!{AFFINITY}")), "{told:?}");
    fixture.bound("w", "a1", app("web"));
    assert_eq!(fixture.passing(&plugin, &pod), ["a1", "a2"]);
    fixture.cluster.remove_pod("uid-w");
    assert!(fixture.passing(&plugin, &pod).is_empty());
}

#[test]
fn the_first_of_a_kind_may_go_anywhere_with_the_key() {
    let mut fixture = zones();
    let plugin = InterPodAffinity::default();
    let own = pod_view("p", |p| p.label("app", "web").spec("affinity", required("podAffinity", "web")));
    assert_eq!(fixture.passing(&plugin, &own), ["a1", "a2", "b1"]);
    fixture.bound("w", "b1", app("web"));
    assert_eq!(fixture.passing(&plugin, &own), ["b1"]);
}

#[test]
fn far_works_both_ways() {
    let mut fixture = zones();
    let plugin = InterPodAffinity::default();
    fixture.bound("w", "a1", |p| p.label("app", "web").spec("affinity", required("podAntiAffinity", "db")));
    let shy = pod_view("p", |p| p.spec("affinity", required("podAntiAffinity", "web")));
    assert_eq!(fixture.passing(&plugin, &shy), ["b1", "x"]);
    assert_eq!(fixture.filter(&plugin, &shy)[0].1, ANTI_AFFINITY);
    let db = pod_view("d", app("db"));
    assert_eq!(fixture.passing(&plugin, &db), ["b1", "x"]);
    assert_eq!(fixture.filter(&plugin, &db)[0].1, EXISTING);
    fixture.cluster.remove_pod("uid-w");
    assert_eq!(fixture.passing(&plugin, &db).len(), 4);
}

#[test]
fn namespaces_by_name_and_by_label() {
    let mut fixture = zones();
    let plugin = InterPodAffinity::default();
    fixture.bound("w", "a1", |p| p.namespace("other").label("app", "web"));
    let near = |extra: serde_json::Value| {
        let mut term = term("web", ZONE);
        term.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        pod_view("p", |p| p.spec("affinity", affinity))
    };
    assert!(fixture.passing(&plugin, &near(json!({}))).is_empty());
    assert_eq!(fixture.passing(&plugin, &near(json!({"namespaces": ["other"]}))), ["a1", "a2"]);
    assert_eq!(fixture.passing(&plugin, &near(json!({"namespaceSelector": {}}))), ["a1", "a2"]);
    let labelled = near(json!({"namespaceSelector": {"matchLabels": {"team": "x"}}}));
    assert!(fixture.passing(&plugin, &labelled).is_empty());
    let labels = crate::objects::Labels::new(Some([("team".to_owned(), "x".to_owned())].into()));
    fixture.cluster.set_namespace("other", Some(labels));
    assert_eq!(fixture.passing(&plugin, &labelled), ["a1", "a2"]);
}

#[test]
fn preferences_add_up() {
    let mut fixture = zones();
    let plugin = InterPodAffinity::default();
    fixture.bound("w", "a1", app("web"));
    fixture.bound("d", "b1", app("db"));
    let liking = pod_view("p", |p| p.spec("affinity", preferred("podAffinity", "web", 10)));
    assert_eq!(fixture.scores(&plugin, &liking), [("a1", 100), ("a2", 100), ("b1", 0), ("x", 0)]);
    let disliking = pod_view("q", |p| p.spec("affinity", preferred("podAntiAffinity", "db", 10)));
    assert_eq!(fixture.scores(&plugin, &disliking), [("a1", 100), ("a2", 100), ("b1", 0), ("x", 100)]);
    fixture.bound("fan", "b1", |p| p.spec("affinity", preferred("podAffinity", "star", 5)));
    let star = pod_view("s", app("star"));
    assert_eq!(fixture.scores(&plugin, &star), [("a1", 0), ("a2", 0), ("b1", 100), ("x", 0)]);
    assert_eq!(fixture.scores(&plugin, &pod_view("other", |p| p)), []);
}

#[test]
fn others_required_affinity_counts_with_its_weight() {
    let mut fixture = zones();
    fixture.bound("w", "a1", |p| p.label("app", "web").spec("affinity", required("podAffinity", "star")));
    let star = pod_view("s", app("star"));
    assert_eq!(fixture.scores(&InterPodAffinity::default(), &star)[0], ("a1", 100));
    let none = InterPodAffinity { hard_weight: 0, ..InterPodAffinity::default() };
    assert_eq!(fixture.scores(&none, &star), []);
}
