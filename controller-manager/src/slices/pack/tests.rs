use k8s_openapi::api::discovery::v1::EndpointConditions;

use super::*;

fn blueprint(most: usize) -> Blueprint {
    Blueprint {
        namespace: "n".into(),
        generate_name: "s-".into(),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        annotations: BTreeMap::new(),
        owner: OwnerReference::default(),
        most,
        trigger: None,
        placeholder: true,
    }
}

fn endpoint(ip: u32, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![format!("10.0.{}.{}", ip / 250, ip % 250)],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        ..Endpoint::default()
    }
}

fn port(number: i32) -> EndpointPort {
    EndpointPort { name: Some(String::new()), port: Some(number), ..EndpointPort::default() }
}

fn group(number: i32, ips: std::ops::Range<u32>) -> Group {
    Group {
        address_type: "IPv4".into(),
        ports: vec![port(number)],
        endpoints: ips.map(|ip| endpoint(ip, true)).collect(),
    }
}

/// A slice as the server has it.
fn stored(name: &str, number: i32, ips: std::ops::Range<u32>) -> Arc<EndpointSlice> {
    let group = group(number, ips);
    let mut slice = fresh(&blueprint(100), "IPv4", group.ports, group.endpoints);
    slice.metadata.name = Some(name.into());
    Arc::new(slice)
}

fn run(most: usize, existing: &[Arc<EndpointSlice>], groups: Vec<Group>) -> Plan {
    pack(&blueprint(most), &["IPv4"], existing, groups)
}

fn sizes(slices: &[EndpointSlice]) -> Vec<usize> {
    slices.iter().map(|s| endpoints_of(s).len()).collect()
}

fn names(slices: &[EndpointSlice]) -> Vec<&str> {
    slices.iter().map(|s| s.metadata.name.as_deref().unwrap_or_default()).collect()
}

#[test]
fn full_slices_then_a_rest() {
    assert_eq!(sizes(&run(100, &[], vec![group(80, 0..250)]).create), [100, 100, 50]);
}

#[test]
fn nothing_to_do() {
    let existing = [stored("a", 80, 0..3)];
    assert!(run(100, &existing, vec![group(80, 0..3)]).is_empty());
}

#[test]
fn what_is_there_stays() {
    let existing = [stored("a", 80, 0..100), stored("b", 80, 100..170), stored("c", 80, 170..220)];
    // Two new ones go to the fullest slice with room; the others are not touched.
    let plan = run(100, &existing, vec![group(80, 0..222)]);
    assert_eq!((names(&plan.update), sizes(&plan.update)), (vec!["b"], vec![72]));
    assert!(plan.create.is_empty() && plan.delete.is_empty());
    // A slice that loses endpoints is written anyway, so it takes the new ones.
    let mut all = group(80, 0..220);
    all.endpoints.remove(5);
    all.endpoints.push(endpoint(300, true));
    let plan = run(100, &existing, vec![all]);
    assert_eq!((names(&plan.update), sizes(&plan.update)), (vec!["a"], vec![100]));
}

#[test]
fn readiness_is_an_update() {
    let mut changed = group(80, 0..2);
    changed.endpoints[1] = endpoint(1, false);
    let plan = run(100, &[stored("a", 80, 0..2)], vec![changed]);
    assert_eq!(sizes(&plan.update), [2]);
    assert_eq!(endpoints_of(&plan.update[0])[1].conditions.as_ref().and_then(|c| c.ready), Some(false));
}

#[test]
fn other_ports_reuse_the_slice() {
    let plan = run(100, &[stored("a", 80, 0..2)], vec![group(81, 0..2)]);
    assert_eq!((names(&plan.update), plan.update[0].ports.clone()), (vec!["a"], Some(vec![port(81)])));
    assert!(plan.create.is_empty() && plan.delete.is_empty());
}

#[test]
fn an_empty_set_keeps_a_placeholder() {
    let first = run(100, &[], Vec::new());
    assert_eq!(sizes(&first.create), [0]);
    let mut empty = first.create[0].clone();
    empty.metadata.name = Some("a".into());
    let empty = Arc::new(empty);
    assert!(run(100, std::slice::from_ref(&empty), Vec::new()).is_empty());
    // The last endpoint goes: the slice stays.
    let last = run(100, &[stored("a", 80, 0..1)], Vec::new());
    assert_eq!((names(&last.update), sizes(&last.update)), (vec!["a"], vec![0]));
    // Endpoints come: the placeholder is used.
    let used = run(100, &[empty], vec![group(80, 0..2)]);
    assert_eq!((names(&used.update), used.create.len(), used.delete.len()), (vec!["a"], 0, 0));
}

#[test]
fn labels_are_kept_and_other_families_go() {
    let mut edited = EndpointSlice::clone(&stored("a", 80, 0..2));
    edited.metadata.labels = None;
    let plan = run(100, &[Arc::new(edited.clone())], vec![group(80, 0..2)]);
    assert_eq!(plan.update[0].metadata.labels, Some(blueprint(1).labels));
    edited.address_type = "IPv6".into();
    let plan = run(100, &[Arc::new(edited)], vec![group(80, 0..2)]);
    assert_eq!((plan.create.len(), plan.delete.len()), (1, 1));
}
