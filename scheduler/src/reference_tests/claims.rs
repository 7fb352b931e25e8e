//! Claims of volumes and devices: the same nodes have what a Pod asks for, also after others were served.

use std::collections::BTreeSet;

use controller::{Cached, ObjectKey};
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{Settings, Sources},
    devices::Devices,
    framework::Profile,
    meter::Meter,
    objects::{ClaimView, ClassView, CsiNodeView, VolumeView},
    plugins::volumes::Storage,
};

/// A volume that waits for a claim.
#[derive(Clone, Debug)]
struct Volume {
    name: String,
    class: &'static str,
    size: i64,
    /// The label that a node has to have.
    near: Option<(&'static str, &'static str)>,
    available: bool,
}

#[derive(Clone, Debug)]
struct Claim {
    name: String,
    class: &'static str,
    size: i64,
    /// The volume that it has.
    bound: Option<String>,
}

/// A device of a node.
#[derive(Clone, Debug)]
struct Device {
    node: usize,
    name: String,
    model: &'static str,
}

/// A claim of so many devices, of one model or any.
#[derive(Clone, Debug)]
struct Wish {
    count: usize,
    model: Option<&'static str>,
}

/// What there is besides nodes and Pods.
#[derive(Debug, Default)]
struct Stock {
    volumes: Vec<Volume>,
    claims: BTreeMap<String, Claim>,
    /// Volumes that were given away.
    given: BTreeSet<String>,
    devices: Vec<Device>,
    wishes: BTreeMap<String, Vec<Wish>>,
    /// How many volumes the driver attaches to each node, where it says.
    limits: Vec<Option<usize>>,
    /// Node and name of devices that are in use.
    used: BTreeSet<(usize, String)>,
}

impl Stock {
    /// Whether volumes for the claims of a Pod are to be had on a node, each claim served in the order of size.
    fn volumes_for(&self, node: &scene::Node, pod: &scene::Pod) -> Option<Vec<String>> {
        let is_near = |v: &Volume| v.near.is_none_or(|(key, value)| node.labels.get(key).is_some_and(|l| l == value));
        let mut claims: Vec<&Claim> = pod.volumes.iter().map(|name| &self.claims[name]).collect();
        claims.sort_by_key(|claim| claim.size);
        let mut taken = Vec::new();
        for claim in claims {
            if let Some(bound) = &claim.bound {
                let volume = self.volumes.iter().find(|v| v.name == *bound).expect("a volume");
                if !is_near(volume) {
                    return None;
                }
                continue;
            }
            let mut fitting: Vec<&Volume> = self
                .volumes
                .iter()
                .filter(|v| v.available && v.class == claim.class && v.size >= claim.size && is_near(v))
                .filter(|v| !self.given.contains(&v.name) && !taken.contains(&v.name))
                .collect();
            fitting.sort_by_key(|v| (v.size, v.name.clone()));
            match fitting.first() {
                Some(volume) => taken.push(volume.name.clone()),
                // One is made in zone a.
                None if claim.class == "made" && node.labels.get("zone").is_some_and(|zone| zone == "a") => {}
                None => return None,
            }
        }
        Some(taken)
    }

    /// Whether the driver of volumes that are made can attach those of a Pod too.
    fn attaches(&self, at: usize, there: &[scene::Pod], pod: &scene::Pod) -> bool {
        let made = |pod: &scene::Pod| {
            let claims = pod.volumes.iter().map(|name| &self.claims[name]);
            claims.filter(|claim| claim.class == "made" && claim.bound.is_none()).count()
        };
        let (new, used) = (made(pod), there.iter().map(made).sum::<usize>());
        new == 0 || self.limits[at].is_none_or(|limit| used + new <= limit)
    }

    /// Whether the devices that a Pod wishes for are free on a node, by trying every way to hand them out.
    fn has_devices(&self, node: usize, pod: &scene::Pod) -> bool {
        let free: Vec<&Device> =
            self.devices.iter().filter(|d| d.node == node && !self.used.contains(&(node, d.name.clone()))).collect();
        let wishes = pod.devices.iter().flat_map(|name| &self.wishes[name]);
        let slots: Vec<Option<&str>> = wishes.flat_map(|w| std::iter::repeat_n(w.model, w.count)).collect();
        hand_out(&slots, &free)
    }
}

fn hand_out(slots: &[Option<&str>], free: &[&Device]) -> bool {
    let Some((slot, others)) = slots.split_first() else { return true };
    (0..free.len()).filter(|at| slot.is_none_or(|model| free[*at].model == model)).any(|at| {
        let mut left = free.to_vec();
        left.remove(at);
        hand_out(others, &left)
    })
}

fn cached<V>(key: ObjectKey, view: V) -> Cached<V> {
    Cached { uid: format!("uid-{}", key.name), key, resource_version: "1".into(), view }
}

fn stock(random: &mut StdRng, nodes: usize, storage: &Storage, devices: &Devices) -> Stock {
    let mut stock = Stock::default();
    for number in 0..random.random_range(0..8) {
        let volume = Volume {
            name: format!("v{number}"),
            class: scene::one(random, &["found", "made"]),
            size: scene::one(random, &[5, 10, 20]),
            near: random.random_bool(0.7).then(|| ("zone", scene::one(random, &["a", "b"]))),
            available: random.random_bool(0.9),
        };
        let only = |(key, value): (&str, &str)| json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]});
        let view = VolumeView {
            class: volume.class.into(),
            size: volume.size,
            nodes: volume.near.map(|near| serde_json::from_value(only(near)).expect("a selector")),
            available: volume.available,
            ..VolumeView::default()
        };
        storage.volumes.apply(cached(ObjectKey::cluster(&*volume.name), view));
        stock.volumes.push(volume);
    }
    let topology = json!([{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]);
    for (name, provisioner, topologies) in [("found", None, json!([])), ("made", Some("csi.example.com"), topology)] {
        let topologies = serde_json::from_value(topologies).expect("topologies");
        let view = ClassView { provisioner: provisioner.map(Into::into), waits: true, topologies };
        storage.classes.apply(cached(ObjectKey::cluster(name), view));
    }
    devices.class("gpu", json!({}));
    for node in 0..nodes {
        let limit = random.random_bool(0.5).then(|| random.random_range(0..4));
        if let Some(limit) = limit {
            let limits = [("csi.example.com".into(), limit)].into_iter().collect();
            storage.csi_nodes.apply(cached(ObjectKey::cluster(format!("n{node}")), CsiNodeView { limits }));
        }
        stock.limits.push(limit.and_then(|limit| usize::try_from(limit).ok()));
        let of_node: Vec<Device> = (0..random.random_range(0..4))
            .map(|at| Device { node, name: format!("d{at}"), model: scene::one(random, &["x", "y"]) })
            .collect();
        if !of_node.is_empty() {
            let told = |d: &Device| json!({"name": d.name, "attributes": {"model": {"string": d.model}}});
            let told: Vec<Value> = of_node.iter().map(told).collect();
            let name = format!("n{node}");
            devices.offer(&name, &name, json!({"nodeName": name, "devices": told}));
        }
        stock.devices.extend(of_node);
    }
    stock
}

/// Gives a Pod claims of its own.
fn claim(random: &mut StdRng, stock: &mut Stock, pod: &mut scene::Pod, storage: &Storage, devices: &Devices) {
    pod.namespace = "default";
    for number in 0..random.random_range(0..3) {
        let free = stock.volumes.iter().find(|v| !stock.given.contains(&v.name)).map(|v| v.name.clone());
        let bound = free.filter(|_| random.random_bool(0.2));
        stock.given.extend(bound.clone());
        let claim = Claim {
            name: format!("{}-{number}", pod.name),
            class: scene::one(random, &["found", "made"]),
            size: scene::one(random, &[5, 7, 10]) + number,
            bound,
        };
        let view = ClaimView {
            class: claim.class.into(),
            size: claim.size,
            bound: claim.bound.is_some(),
            volume: claim.bound.clone().unwrap_or_default().into(),
            ..ClaimView::default()
        };
        if let Some(volume) = claim.bound.as_ref().and_then(|name| storage.volumes.get(&ObjectKey::cluster(&**name))) {
            let taken = VolumeView { available: false, ..volume.view.clone() };
            storage.volumes.apply(cached(volume.key.clone(), taken));
        }
        storage.claims.apply(cached(ObjectKey::new("default", &*claim.name), view));
        pod.volumes.push(claim.name.clone());
        stock.claims.insert(claim.name.clone(), claim);
    }
    for number in 0..random.random_range(0..3) {
        let wishes: Vec<Wish> = (0..random.random_range(1..3))
            .map(|_| Wish {
                count: random.random_range(1..3),
                model: random.random_bool(0.5).then(|| scene::one(random, &["x", "y"])),
            })
            .collect();
        let request = |(at, wish): (usize, &Wish)| {
            let of = |model| {
                json!([{"cel": {"expression":
                format!("device.attributes['gpu.example.com'].model == '{model}'")}}])
            };
            let exactly = json!({"deviceClassName": "gpu", "count": wish.count,
                "selectors": wish.model.map_or(json!([]), of)});
            json!({"name": format!("r{at}"), "exactly": exactly})
        };
        let requests: Vec<Value> = wishes.iter().enumerate().map(request).collect();
        let name = format!("{}-d{number}", pod.name);
        devices.claim(&name, json!({"requests": requests}), Value::Null);
        pod.devices.push(name.clone());
        stock.wishes.insert(name, wishes);
    }
}

fn profile(storage: &Arc<Storage>, devices: &Arc<Devices>) -> Profile {
    let sources = Sources {
        selector: Arc::new(|_| machinery::selector::LabelSelector::default()),
        storage: Arc::clone(storage),
        devices: Arc::clone(devices),
    };
    Settings::defaults().profiles(&sources).expect("a profile").remove(0)
}

fn compare(seed: u64) -> Result<(), TestCaseError> {
    let mut random = StdRng::seed_from_u64(seed);
    let (storage, devices) = (Storage::empty(), Devices::empty());
    let nodes = random.random_range(1..6);
    let (mut world, mut cluster) = empty(&mut random, nodes);
    let mut stock = stock(&mut random, nodes, &storage, &devices);
    let profile = profile(&storage, &devices);
    let (nominations, mut memos, mut start) = (Nominations::default(), Memos::default(), 0);
    for number in 0..PODS {
        let mut pod = scene::pod(&mut random, format!("new-{number}"));
        pod.terminating = false;
        claim(&mut random, &mut stock, &mut pod, &storage, &devices);
        let view = pod.view("");
        let mut cycle = Cycle {
            profile: &profile,
            cluster: &mut cluster,
            nominations: &nominations,
            memos: &mut memos,
            start: &mut start,
            meter: &Meter::new(),
        };
        let mut found = match cycle.search(&view, false) {
            Ok(Found::Feasible { nodes, .. }) => cycle.names(&nodes),
            _ => Vec::new(),
        };
        found.sort();
        let wanted: Vec<usize> = (0..nodes)
            .filter(|at| {
                reference::fits(&world, &[], *at, &pod)
                    && stock.attaches(*at, &world[*at].1, &pod)
                    && stock.volumes_for(&world[*at].0, &pod).is_some()
                    && stock.has_devices(*at, &pod)
            })
            .collect();
        let mut names: Vec<String> = wanted.iter().map(|at| world[*at].0.name.clone()).collect();
        names.sort();
        prop_assert_eq!(&found, &names, "Pod {:?}\nstock {:#?}\nworld {:#?}", pod, stock, world);
        if wanted.is_empty() {
            continue;
        }
        let at = scene::one(&mut random, &wanted);
        let node = cluster.nodes.find(&world[at].0.name).expect("a node");
        prop_assert!(storage.reserve(&view, &cluster, node).is_some());
        let plan = devices.reserve(&view, &cluster, node).expect("devices");
        stock.given.extend(stock.volumes_for(&world[at].0, &pod).expect("volumes"));
        let mut handed = 0;
        for device in plan.chosen_devices() {
            handed += 1;
            prop_assert!(stock.used.insert((at, device)), "a device is given twice");
        }
        let wishes = pod.devices.iter().flat_map(|name| &stock.wishes[name]);
        prop_assert_eq!(handed, wishes.map(|wish| wish.count).sum::<usize>());
        cluster.assume(&view, node);
        world[at].1.push(pod);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_nodes_have_what_is_claimed(seed in any::<u64>()) {
        compare(seed)?;
    }
}
