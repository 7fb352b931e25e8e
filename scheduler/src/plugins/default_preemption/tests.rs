use rand::SeedableRng;

use super::*;
use crate::{
    cycle::Cycle,
    meter::Meter,
    plugins::testing::{Fixture, PodDraft, default_profile, pod_view},
};

struct Scene {
    fixture: Fixture,
    nominations: Nominations,
    budgets: Vec<DisruptionBudgetView>,
    doomed: HashSet<Arc<str>>,
}

impl Scene {
    fn new(nodes: &[&str]) -> Self {
        let mut fixture = Fixture::new();
        for node in nodes {
            fixture.node(node, |n| n.resource("example.com/units", "1000"));
        }
        Self { fixture, nominations: Nominations::default(), budgets: Vec::new(), doomed: HashSet::new() }
    }

    fn put(&mut self, name: &str, node: &str, units: &str, priority: i32) -> Arc<PodView> {
        self.fixture.bound(name, node, |p| unit(p, units, priority))
    }

    /// Node and victims, or what is told.
    fn plan(&mut self, pod: &Arc<PodView>) -> Result<(String, Vec<String>), String> {
        let profile = default_profile();
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let cluster = &mut self.fixture.cluster;
        let (mut start, mut memos) = (0, crate::memo::Memos::default());
        let meter = Meter::new();
        let mut cycle = Cycle {
            profile: &profile,
            cluster,
            nominations: &self.nominations,
            memos: &mut memos,
            start: &mut start,
            meter: &meter,
        };
        let diagnosis = cycle.run(pod, &mut random).expect_err("does not fit");
        let mut preemption = Preemption {
            settings: DefaultPreemption::default(),
            profile: &profile,
            cluster,
            nominations: &self.nominations,
            doomed: &self.doomed,
            budgets: &self.budgets,
            meter: &meter,
        };
        let plan = preemption.candidates(pod, &diagnosis, &mut random).map_err(|f| f.text().to_owned());
        let plan = plan.map(|found| choose(found).unwrap());
        cluster.check();
        let plan = plan?;
        let names = plan.victims.iter().map(|v| v.name.to_string()).collect();
        Ok((cluster.nodes.name(plan.node).to_string(), names))
    }
}

fn unit(pod: PodDraft, units: &str, priority: i32) -> PodDraft {
    pod.request("example.com/units", units).priority(priority)
}

fn preemptor(units: &str, priority: i32) -> Arc<PodView> {
    pod_view("preemptor", |p| unit(p, units, priority))
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|n| (*n).to_owned()).collect()
}

#[test]
fn the_more_important_are_spared() {
    let mut scene = Scene::new(&["n"]);
    scene.put("low", "n", "200", 1);
    scene.put("mid", "n", "300", 2);
    scene.put("high", "n", "450", 3);
    assert_eq!(scene.plan(&preemptor("500", 4)), Ok(("n".into(), names(&["mid", "low"]))));
}

#[test]
fn what_is_told_when_it_does_not_help() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.put("equal", "a", "900", 5);
    scene.put("equal-too", "b", "900", 5);
    let told = scene.plan(&preemptor("500", 5));
    let text = "0/2 nodes are available: 2 No preemption victims found for incoming pod.";
    assert_eq!(told, Err(text.into()));
    let told = scene.plan(&preemptor("5000", 9));
    assert_eq!(told, Err("0/2 nodes are available: 2 Preemption is not helpful for scheduling.".into()));
    let never = pod_view("never", |p| unit(p, "500", 9).spec("preemptionPolicy", "Never".into()));
    assert_eq!(scene.plan(&never), Err("not eligible due to preemptionPolicy=Never.".into()));
}

#[test]
fn a_preemption_under_way_is_waited_for() {
    let mut scene = Scene::new(&["n"]);
    scene.fixture.bound("victim", "n", |p| unit(p, "900", 1).preempted());
    let pod = preemptor("500", 5);
    scene.nominations.set(&pod, "n");
    let text = "not eligible due to a terminating pod on the nominated node.";
    assert_eq!(scene.plan(&pod), Err(text.into()));
    // The same if that is not seen yet.
    scene.put("victim", "n", "900", 1);
    scene.doomed.insert("uid-victim".into());
    assert_eq!(scene.plan(&pod), Err(text.into()));
    scene.doomed.clear();
    // One that ends for another cause does not hold it back.
    scene.fixture.bound("victim", "n", |p| unit(p, "900", 1).terminating());
    assert_eq!(scene.plan(&pod), Ok(("n".into(), names(&["victim"]))));
}

#[test]
fn the_least_harm_wins() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    scene.put("a-high", "a", "900", 3);
    scene.put("b-low", "b", "900", 1);
    scene.put("c-low1", "c", "450", 1);
    scene.put("c-low2", "c", "450", 1);
    assert_eq!(scene.plan(&preemptor("800", 9)), Ok(("b".into(), names(&["b-low"]))));
}

#[test]
fn the_latest_started_goes_if_all_else_is_equal() {
    let mut scene = Scene::new(&[]);
    for (node, start) in [("a", "2026-01-01T00:00:00Z"), ("b", "2026-02-01T00:00:00Z"), ("c", "2026-01-15T00:00:00Z")] {
        scene.fixture.node(node, |n| n.resource("example.com/units", "1000"));
        scene.fixture.bound(&format!("{node}-pod"), node, |p| unit(p, "900", 1).started(start));
    }
    assert_eq!(scene.plan(&preemptor("800", 9)), Ok(("b".into(), names(&["b-pod"]))));
}

#[test]
fn budgets_are_kept_where_possible() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.fixture.bound("a-pod", "a", |p| unit(p, "900", 1).label("app", "guarded"));
    scene.put("b-pod", "b", "900", 2);
    scene.budgets.push(DisruptionBudgetView {
        namespace: "default".into(),
        selector: machinery::selector::LabelSelector::parse("app=guarded").unwrap(),
        allowed: 0,
        disrupted: Vec::new(),
    });
    assert_eq!(scene.plan(&preemptor("800", 9)), Ok(("b".into(), names(&["b-pod"]))));
    // A disruption that was granted already is none any more.
    scene.budgets[0].disrupted.push("a-pod".into());
    assert_eq!(scene.plan(&preemptor("800", 9)), Ok(("a".into(), names(&["a-pod"]))));
}

#[test]
fn room_kept_for_others_is_not_taken() {
    let mut scene = Scene::new(&["n"]);
    scene.put("low", "n", "400", 1);
    let other = pod_view("other", |p| unit(p, "700", 6));
    scene.nominations.set(&other, "n");
    let told = scene.plan(&preemptor("500", 5));
    assert_eq!(told, Err("0/1 nodes are available: 1 Insufficient example.com/units.".into()));
}
