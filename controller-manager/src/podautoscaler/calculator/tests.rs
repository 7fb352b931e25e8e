use std::{sync::Arc, time::Duration};

use ::controller::{Cached, ObjectKey, Viewed};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_000_000;

fn second(at: i64) -> Timestamp {
    Timestamp::from_second(NOW + at).unwrap()
}

/// A Pod: name, phase, `Ready` with the seconds since when, seconds since its start, request of CPU.
fn pod(
    name: &str,
    phase: &str,
    ready: Option<(bool, i64)>,
    started: i64,
    request: Option<&str>,
) -> Arc<Cached<PodView>> {
    let conditions: Vec<Value> = ready
        .map(|(holds, since)| {
            let status = if holds { "True" } else { "False" };
            json!({"type": "Ready", "status": status, "lastTransitionTime": second(-since).to_string()})
        })
        .into_iter()
        .collect();
    let requests = request.map_or(json!({}), |cpu| json!({"cpu": cpu}));
    let object: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "main", "resources": {"requests": requests}}]},
        "status": {"phase": phase, "startTime": second(-started).to_string(), "conditions": conditions},
    }))
    .unwrap();
    let key = ObjectKey::new("default", name);
    Arc::new(Cached { key, uid: name.into(), resource_version: "1".into(), view: PodView::project(object) })
}

fn running(name: &str) -> Arc<Cached<PodView>> {
    pod(name, "Running", Some((true, 3600)), 3600, Some("1"))
}

fn scene(pods: &[Arc<Cached<PodView>>], current: i32) -> Scene<'_> {
    Scene {
        pods,
        now: second(0),
        initialization: Duration::from_secs(300),
        readiness_delay: Duration::from_secs(30),
        tolerances: Tolerances { down: 0.1, up: 0.1 },
        current,
    }
}

fn samples(values: &[(&str, i64)]) -> Samples {
    let sample = |value| Sample { value, at: second(0), window: Duration::from_secs(60) };
    values.iter().map(|(name, value)| ((*name).to_owned(), sample(*value))).collect()
}

fn replicas(pods: &[Arc<Cached<PodView>>], values: &[(&str, i64)], target: i32) -> Result<i32, CalculationError> {
    let current = i32::try_from(pods.len()).unwrap();
    scene(pods, current).by_utilization(samples(values), "cpu", None, target).map(|c| c.replicas)
}

#[test]
fn utilization() {
    let three = [running("a"), running("b"), running("c")];
    type Usage<'a> = &'a [(&'a str, i64)];
    let cases: &[(Usage<'_>, i32, i32)] = &[
        // Usage of three in thousandths of a CPU, target in percent, replicas.
        (&[("a", 300), ("b", 500), ("c", 700)], 30, 5),
        (&[("a", 100), ("b", 100), ("c", 100)], 50, 1),
        (&[("a", 500), ("b", 500), ("c", 500)], 50, 3),
        // Within the tolerance on both sides, its ends included.
        (&[("a", 540), ("b", 550), ("c", 550)], 50, 3),
        (&[("a", 450), ("b", 450), ("c", 450)], 50, 3),
        (&[("a", 560), ("b", 560), ("c", 560)], 50, 4),
        // No sample: nothing when scaling up, all of the request when scaling down.
        (&[("a", 1000), ("b", 1000)], 50, 4),
        (&[("a", 100), ("b", 100)], 50, 3),
        (&[("a", 0), ("b", 0)], 100, 1),
        // The assumption turns the direction.
        (&[("a", 600)], 50, 3),
    ];
    for (values, target, expected) in cases {
        assert_eq!(replicas(&three, values, *target), Ok(*expected), "{values:?} {target}");
    }
    let exact = scene(&three, 3).by_utilization(samples(cases[0].0), "cpu", None, 30).unwrap();
    assert_eq!((exact.utilization, exact.usage), (Some(50), 500));
}

#[test]
fn pods_that_do_not_count() {
    let failed = pod("f", "Failed", None, 3600, Some("1"));
    let pending = pod("p", "Pending", None, 0, Some("1"));
    let unready = pod("u", "Running", Some((false, 3590)), 3600, Some("1"));
    let starting = pod("s", "Running", Some((true, 30)), 60, Some("1"));
    let lost = pod("l", "Running", Some((false, 10)), 3600, Some("1"));
    let full = |name: &str, others: &[&str]| -> Vec<(String, i64)> {
        std::iter::once(name).chain(others.iter().copied()).map(|n| (n.to_owned(), 1000)).collect()
    };
    let cases = [
        // A failed Pod is not there at all.
        (&failed, true, 2),
        // Pods that do not count yet use nothing while scaling up: 1000 of 2000 is the target.
        (&pending, false, 2),
        (&unready, true, 2),
        (&starting, true, 2),
        // It was ready once: its usage is real.
        (&lost, true, 4),
    ];
    for (other, measured, expected) in cases {
        let pods = [running("a"), Arc::clone(other)];
        let names: &[&str] = if measured { &[other.key.name.as_str()] } else { &[] };
        let values = full("a", names);
        let values: Vec<(&str, i64)> = values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        assert_eq!(replicas(&pods, &values, 50), Ok(expected), "{}", other.key.name);
    }
}

#[test]
fn what_cannot_be_calculated() {
    let bare = [pod("a", "Running", Some((true, 3600)), 3600, None)];
    let missing =
        CalculationError::MissingRequest { resource: "cpu".into(), container: "main".into(), pod: "a".into() };
    assert_eq!(replicas(&bare, &[("a", 1)], 50), Err(missing.clone()));
    assert_eq!(missing.to_string(), "missing request for cpu in container main of Pod a");
    assert_eq!(replicas(&[], &[("a", 1)], 50), Err(CalculationError::NoPods));
    assert_eq!(replicas(&[running("a")], &[], 50), Err(CalculationError::NoSamples));
    let other = scene(&bare, 1).by_utilization(samples(&[("a", 1)]), "cpu", Some("other"), 50);
    assert_eq!(other, Err(CalculationError::NothingMatched));
}

#[test]
fn averages_and_values() {
    let pods = [running("a"), running("b")];
    let by = |values: &[(&str, i64)]| scene(&pods, 2).by_average(samples(values), "", 10_000).unwrap().replicas;
    assert_eq!(by(&[("a", 20_000), ("b", 20_000)]), 4);
    assert_eq!(by(&[("a", 10_500), ("b", 10_500)]), 2);
    assert_eq!(by(&[("a", 1_000)]), 2, "a missing Pod is at the target while scaling down");

    let value = |current, usage, target| scene(&pods, current).by_value(usage, target).map(|c| c.replicas);
    assert_eq!(value(2, 30_000, 10_000), Ok(6));
    assert_eq!(value(2, 10_900, 10_000), Ok(2));
    assert_eq!(value(0, 30_000, 10_000), Ok(3));
    assert_eq!(scene(&[], 2).by_value(30_000, 10_000), Err(CalculationError::NoPods));

    let share = |usage, existing| {
        let calculated = scene(&pods, existing).by_share(usage, 10_000, existing);
        (calculated.replicas, calculated.usage)
    };
    assert_eq!(share(50_000, 2), (5, 25_000));
    assert_eq!(share(21_000, 2), (2, 10_500));
    assert_eq!(share(0, 0), (0, 0));
    assert_eq!(share(15_000, 0), (2, 15_000));
}
