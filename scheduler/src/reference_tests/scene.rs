//! Random clusters and Pods, as plain data and as objects of the API.

use std::{collections::BTreeMap, sync::Arc};

use controller::Viewed;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};

use crate::objects::{NodeObject, NodeView, PodObject, PodView, SharedPod};

pub(super) const HOSTNAME: &str = "kubernetes.io/hostname";
/// A disk that nobody shares.
pub(super) const AWS: (&str, &str) = ("awsElasticBlockStore", "volumeID");
const KEYS: [&str; 3] = [HOSTNAME, "zone", "rack"];

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Taint {
    pub(super) key: &'static str,
    pub(super) effect: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) cpu: i64,
    /// In Mi.
    pub(super) memory: i64,
    pub(super) pods: i64,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) taints: Vec<Taint>,
    pub(super) unschedulable: bool,
    /// Name and Mi.
    pub(super) images: Vec<(&'static str, i64)>,
}

/// A label and the value it has to have.
pub(super) type Wanted = (&'static str, &'static str);

#[derive(Clone, Debug)]
pub(super) struct Term {
    pub(super) key: &'static str,
    pub(super) selector: Wanted,
}

#[derive(Clone, Debug)]
pub(super) struct Spread {
    pub(super) key: &'static str,
    pub(super) skew: i64,
    pub(super) hard: bool,
    pub(super) min_domains: Option<i64>,
    pub(super) selector: Wanted,
}

/// An expression over a node's labels: key, operator, value.
pub(super) type Expression = (&'static str, &'static str, &'static str);

/// A disk that a Pod names itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    /// Field of the volume, and the field in it that has the name.
    pub(super) kind: (&'static str, &'static str),
    pub(super) name: &'static str,
    pub(super) read_only: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) namespace: &'static str,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) cpu: Option<i64>,
    pub(super) memory: Option<i64>,
    pub(super) port: Option<u16>,
    pub(super) image: &'static str,
    pub(super) selector: Option<Wanted>,
    /// Terms, one of which has to match.
    pub(super) required: Vec<Vec<Expression>>,
    pub(super) preferred: Vec<(i64, Expression)>,
    /// Keys of taints, and the effect or any.
    pub(super) tolerations: Vec<(&'static str, &'static str)>,
    pub(super) affinity: Vec<Term>,
    pub(super) anti_affinity: Vec<Term>,
    /// Negative weights are those of anti-affinity.
    pub(super) liked: Vec<(i64, Term)>,
    pub(super) spread: Vec<Spread>,
    pub(super) terminating: bool,
    pub(super) priority: i32,
    /// Seconds since the epoch.
    pub(super) started: i64,
    pub(super) disk: Option<Disk>,
    /// Claims of volumes and of devices, by name.
    pub(super) volumes: Vec<String>,
    pub(super) devices: Vec<String>,
}

pub(super) fn one<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    *from.choose(random).expect("not empty")
}

fn some<T>(random: &mut StdRng, chance: f64, make: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    random.random_bool(chance).then(|| make(random))
}

pub(super) fn node(random: &mut StdRng, number: usize) -> Node {
    let name = format!("n{number}");
    let mut labels = BTreeMap::from([(HOSTNAME.to_owned(), name.clone())]);
    for key in ["zone", "rack", "disk"] {
        if random.random_bool(0.85) {
            labels.insert(key.to_owned(), one(random, &["a", "b", "c"]).to_owned());
        }
    }
    if random.random_bool(0.5) {
        labels.insert("cores".to_owned(), random.random_range(1..9).to_string());
    }
    let taints = ["red", "blue"].into_iter().filter_map(|key| {
        some(random, 0.2, |random| Taint { key, effect: one(random, &["NoSchedule", "PreferNoSchedule", "NoExecute"]) })
    });
    Node {
        taints: taints.collect(),
        cpu: one(random, &[1000, 2000, 4000]),
        memory: one(random, &[1024, 2048, 8192]),
        pods: one(random, &[3, 10, 110]),
        unschedulable: random.random_bool(0.05),
        images: [("one:1", 100), ("two:1", 700)].into_iter().filter(|_| random.random_bool(0.4)).collect(),
        name,
        labels,
    }
}

fn wanted(random: &mut StdRng) -> Wanted {
    (one(random, &["app", "tier"]), one(random, &["x", "y"]))
}

fn term(random: &mut StdRng) -> Term {
    Term { key: one(random, &KEYS), selector: wanted(random) }
}

fn expression(random: &mut StdRng) -> Expression {
    let operator = one(random, &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]);
    match operator {
        "Gt" | "Lt" => ("cores", operator, one(random, &["2", "5"])),
        _ => (one(random, &["zone", "disk"]), operator, one(random, &["a", "b"])),
    }
}

fn several<T>(random: &mut StdRng, chance: f64, make: impl Fn(&mut StdRng) -> T) -> Vec<T> {
    let count = if random.random_bool(chance) { random.random_range(1..3) } else { 0 };
    (0..count).map(|_| make(random)).collect()
}

pub(super) fn pod(random: &mut StdRng, name: String) -> Pod {
    let mut labels = BTreeMap::new();
    for key in ["app", "tier"] {
        if random.random_bool(0.7) {
            labels.insert(key.to_owned(), one(random, &["x", "y"]).to_owned());
        }
    }
    let mut spread: Vec<Spread> = several(random, 0.4, |random| {
        let hard = random.random_bool(0.5);
        Spread {
            key: one(random, &KEYS),
            skew: random.random_range(1..4),
            hard,
            min_domains: if hard { some(random, 0.3, |random| random.random_range(1..5)) } else { None },
            selector: wanted(random),
        }
    });
    // A key may be named once for each kind of constraint.
    spread.dedup_by(|a, b| (a.key, a.hard) == (b.key, b.hard));
    Pod {
        name,
        namespace: one(random, &["default", "default", "other"]),
        labels,
        cpu: some(random, 0.7, |random| one(random, &[100, 250, 600])),
        memory: some(random, 0.7, |random| one(random, &[64, 200, 500])),
        port: some(random, 0.15, |random| one(random, &[80, 443])),
        image: one(random, &["one:1", "two:1", "three:1"]),
        selector: some(random, 0.15, |random| ("disk", one(random, &["a", "b"]))),
        required: several(random, 0.2, |random| (0..random.random_range(1..3)).map(|_| expression(random)).collect()),
        preferred: several(random, 0.3, |random| (random.random_range(1..100), expression(random))),
        tolerations: several(random, 0.4, |random| {
            (one(random, &["red", "blue", ""]), one(random, &["", "NoSchedule", "PreferNoSchedule"]))
        }),
        affinity: several(random, 0.15, term),
        anti_affinity: several(random, 0.2, term),
        liked: several(random, 0.35, |random| {
            let weight = random.random_range(1..100);
            (if random.random_bool(0.5) { weight } else { -weight }, term(random))
        }),
        spread,
        terminating: random.random_bool(0.1),
        priority: random.random_range(0..4),
        started: 1_700_000_000 + random.random_range(0..1000),
        disk: some(random, 0.2, |random| Disk {
            kind: one(random, &[AWS, ("gcePersistentDisk", "pdName"), ("iscsi", "iqn")]),
            name: one(random, &["one", "two"]),
            read_only: random.random_bool(0.5),
        }),
        volumes: Vec::new(),
        devices: Vec::new(),
    }
}

impl Node {
    pub(super) fn view(&self) -> NodeView {
        let taint = |t: &Taint| json!({"key": t.key, "effect": t.effect});
        let image = |(name, size): &(&str, i64)| json!({"names": [name], "sizeBytes": size << 20});
        let object = json!({
            "metadata": {"name": self.name, "labels": self.labels},
            "spec": {"unschedulable": self.unschedulable, "taints": self.taints.iter().map(taint).collect::<Vec<_>>()},
            "status": {
                "allocatable": {"cpu": format!("{}m", self.cpu), "memory": format!("{}Mi", self.memory),
                    "pods": self.pods.to_string()},
                "images": self.images.iter().map(image).collect::<Vec<_>>(),
            },
        });
        NodeView::project(serde_json::from_value::<NodeObject>(object).expect("a node"))
    }
}

fn term_object(term: &Term) -> Value {
    let (key, value) = term.selector;
    json!({"topologyKey": term.key, "labelSelector": {"matchLabels": {key: value}}})
}

fn expression_object((key, operator, value): &Expression) -> Value {
    match *operator {
        "Exists" | "DoesNotExist" => json!({"key": key, "operator": operator}),
        _ => json!({"key": key, "operator": operator, "values": [value]}),
    }
}

impl Pod {
    pub(super) fn view(&self, node: &str) -> Arc<PodView> {
        let mut requests = json!({});
        if let Some(cpu) = self.cpu {
            requests["cpu"] = format!("{cpu}m").into();
        }
        if let Some(memory) = self.memory {
            requests["memory"] = format!("{memory}Mi").into();
        }
        let ports: Vec<Value> = self.port.iter().map(|p| json!({"hostPort": p, "containerPort": p})).collect();
        let terms = |list: &[Vec<Expression>]| -> Vec<Value> {
            let of = |term: &Vec<Expression>| term.iter().map(expression_object).collect::<Vec<_>>();
            list.iter().map(|term| json!({"matchExpressions": of(term)})).collect()
        };
        let mut node_affinity = json!({"preferredDuringSchedulingIgnoredDuringExecution": self.preferred.iter().map(
            |(weight, e)| json!({"weight": weight, "preference": {"matchExpressions": [expression_object(e)]}}))
            .collect::<Vec<_>>()});
        if !self.required.is_empty() {
            node_affinity["requiredDuringSchedulingIgnoredDuringExecution"] =
                json!({"nodeSelectorTerms": terms(&self.required)});
        }
        let between = |hard: &[Term], sign: i64| {
            let liked = self.liked.iter().filter(|(weight, _)| weight.signum() == sign);
            let liked =
                liked.map(|(weight, term)| json!({"weight": weight.abs(), "podAffinityTerm": term_object(term)}));
            json!({
                "requiredDuringSchedulingIgnoredDuringExecution": hard.iter().map(term_object).collect::<Vec<_>>(),
                "preferredDuringSchedulingIgnoredDuringExecution": liked.collect::<Vec<_>>(),
            })
        };
        let toleration = |(key, effect): &(&str, &str)| {
            let mut object = json!({"operator": "Exists", "key": key, "effect": effect});
            object.as_object_mut().expect("a map").retain(|_, value| value != "");
            object
        };
        let spread = |spread: &Spread| {
            let (key, value) = spread.selector;
            let mut object = json!({"topologyKey": spread.key, "maxSkew": spread.skew,
                "whenUnsatisfiable": if spread.hard { "DoNotSchedule" } else { "ScheduleAnyway" },
                "labelSelector": {"matchLabels": {key: value}}});
            if let Some(least) = spread.min_domains {
                object["minDomains"] = least.into();
            }
            object
        };
        let mut object = json!({
            "metadata": {"name": self.name, "namespace": self.namespace, "uid": self.name, "labels": self.labels},
            "spec": {
                "schedulerName": "default-scheduler",
                "nodeName": node,
                "containers": [{"name": "c", "image": self.image, "ports": ports, "resources": {"requests": requests}}],
                "affinity": {"nodeAffinity": node_affinity, "podAffinity": between(&self.affinity, 1),
                    "podAntiAffinity": between(&self.anti_affinity, -1)},
                "tolerations": self.tolerations.iter().map(toleration).collect::<Vec<_>>(),
                "topologySpreadConstraints": self.spread.iter().map(spread).collect::<Vec<_>>(),
            },
        });
        if let Some((key, value)) = self.selector {
            object["spec"]["nodeSelector"] = json!({key: value});
        }
        object["spec"]["priority"] = self.priority.into();
        let started = k8s_openapi::jiff::Timestamp::from_second(self.started).expect("a time");
        object["status"] = json!({"startTime": started.to_string()});
        let volume = |claim: &String| json!({"name": claim, "persistentVolumeClaim": {"claimName": claim}});
        let disk = self.disk.iter().map(|disk| {
            let (field, name) = disk.kind;
            json!({"name": "disk", field: {name: disk.name, "readOnly": disk.read_only}})
        });
        object["spec"]["volumes"] = self.volumes.iter().map(volume).chain(disk).collect();
        let claim = |claim: &String| json!({"name": claim, "resourceClaimName": claim});
        object["spec"]["resourceClaims"] = self.devices.iter().map(claim).collect();
        if self.terminating {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        SharedPod::project(serde_json::from_value::<PodObject>(object).expect("a Pod")).0
    }
}
