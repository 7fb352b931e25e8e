//! Resource requests in integers, and host ports.

use std::{collections::BTreeMap, net::IpAddr};

use machinery::quantity::Quantity;

/// What scoring takes a container for that does not say what it needs: upstream's round numbers.
const DEFAULT_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Quantities as an object gives them; unreadable ones count as nothing.
pub(super) type ResourceList = BTreeMap<Box<str>, Box<str>>;

/// Amounts of resources: cpu in thousandths, the others in units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Requests {
    pub(crate) cpu: i64,
    pub(crate) memory: i64,
    pub(crate) ephemeral: i64,
    /// Extended resources, huge pages and attachable volumes, sorted by name.
    pub(crate) scalars: Vec<(Box<str>, i64)>,
}

impl Requests {
    pub(super) fn of(list: &ResourceList) -> Self {
        let mut out = Self::default();
        for (name, text) in list {
            let Ok(quantity) = Quantity::parse(text) else { continue };
            match &**name {
                "cpu" => out.cpu = quantity.milli_value(),
                "memory" => out.memory = quantity.value(),
                "ephemeral-storage" => out.ephemeral = quantity.value(),
                _ => out.scalars.push((name.clone(), quantity.value())),
            }
        }
        out
    }

    /// The amount of a resource by name.
    pub(crate) fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral,
            _ => self.scalars.iter().find(|(n, _)| **n == *name).map_or(0, |(_, v)| *v),
        }
    }

    fn combine(&mut self, other: &Self, how: impl Fn(i64, i64) -> i64) {
        self.cpu = how(self.cpu, other.cpu);
        self.memory = how(self.memory, other.memory);
        self.ephemeral = how(self.ephemeral, other.ephemeral);
        for (name, amount) in &other.scalars {
            match self.scalars.binary_search_by(|(n, _)| n.cmp(name)) {
                Ok(at) => {
                    if let Some((_, own)) = self.scalars.get_mut(at) {
                        *own = how(*own, *amount);
                    }
                }
                Err(at) => self.scalars.insert(at, (name.clone(), how(0, *amount))),
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub(super) fn raise(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    /// Takes over what `list` names.
    fn overridden(&mut self, list: &ResourceList) {
        let named = Self::of(list);
        for name in list.keys() {
            match &**name {
                "cpu" => self.cpu = named.cpu,
                "memory" => self.memory = named.memory,
                hugepages if hugepages.starts_with("hugepages-") => {
                    self.scalars.retain(|(n, _)| n != name);
                    let zero = Self { scalars: vec![(name.clone(), named.get(name))], ..Self::default() };
                    self.add(&zero);
                }
                _ => {}
            }
        }
    }

    /// With the defaults of scoring where a container says nothing.
    fn with_defaults(&self, named: &ResourceList) -> Self {
        let mut out = self.clone();
        if !named.contains_key("cpu") {
            out.cpu = DEFAULT_CPU;
        }
        if !named.contains_key("memory") {
            out.memory = DEFAULT_MEMORY;
        }
        out
    }
}

/// One container, as the sum sees it.
pub(super) struct Container {
    pub(super) requests: ResourceList,
    /// What it was given and what it has, while it is being resized.
    pub(super) actual: Requests,
    pub(super) sidecar: bool,
}

/// What a Pod needs: as it is, and with the defaults of scoring.
pub(super) fn of_pod(
    containers: &[Container],
    init: &[Container],
    pod_level: &ResourceList,
    overhead: &ResourceList,
) -> (Requests, Requests) {
    let sum = |defaults: bool| {
        let need = |c: &Container| {
            let mut own = Requests::of(&c.requests);
            if defaults {
                own = own.with_defaults(&c.requests);
            }
            own.raise(&c.actual);
            own
        };
        let mut total = Requests::default();
        for container in containers {
            total.add(&need(container));
        }
        let (mut sidecars, mut starting) = (Requests::default(), Requests::default());
        for container in init {
            let mut own = need(container);
            if container.sidecar {
                total.add(&own);
                sidecars.add(&own);
                own = sidecars.clone();
            } else {
                own.add(&sidecars);
            }
            starting.raise(&own);
        }
        total.raise(&starting);
        total.overridden(pod_level);
        total.add(&Requests::of(overhead));
        total
    };
    (sum(false), sum(true))
}

/// What a Pod may use at most. Overhead adds to limits that there are.
pub(super) fn limits_of_pod(
    containers: &[Container],
    init: &[Container],
    pod_level: &ResourceList,
    overhead: &ResourceList,
) -> Requests {
    let (mut limits, _) = of_pod(containers, init, pod_level, &ResourceList::new());
    let more: ResourceList =
        overhead.iter().filter(|(name, _)| limits.get(name) > 0).map(|(n, v)| (n.clone(), v.clone())).collect();
    limits.add(&Requests::of(&more));
    limits
}

/// Protocol of a host port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of the node that a Pod takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HostPort {
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl HostPort {
    /// Whether two Pods cannot have both. The unspecified address stands for all.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let any = IpAddr::from([0, 0, 0, 0]);
        self.protocol == other.protocol
            && self.port == other.port
            && (self.address == other.address || self.address == any || other.address == any)
    }
}
