//! Back ends: a port of a Service, and the addresses behind it at the moment.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use controller::{Informer, ObjectKey};
use parking_lot::Mutex;

use crate::objects::{ServicePort, ServiceView, SliceView};

/// A port as Ingresses name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    Name(String),
    Number(u16),
    /// The only one, or the first.
    First,
}

impl Port {
    /// The port of a Service that is meant.
    fn of<'a>(&self, ports: &'a [ServicePort]) -> Option<&'a ServicePort> {
        match self {
            Self::Name(name) => ports.iter().find(|port| port.name == *name),
            Self::Number(number) => ports.iter().find(|port| port.number == *number),
            Self::First => ports.first(),
        }
    }
}

/// A back end's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BackendKey {
    pub(crate) service: ObjectKey,
    pub(crate) port: Port,
}

/// Where a back end is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// Nowhere.
    #[default]
    None,
    /// At these addresses; sorted.
    Addresses(Vec<SocketAddr>),
    /// At the addresses of a name.
    External { host: String, port: u16 },
}

/// A back end: its name stays, its endpoints come and go.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: BackendKey,
    pub(crate) endpoints: ArcSwap<Endpoints>,
    turn: AtomicUsize,
}

impl Slot {
    pub(crate) fn new(key: BackendKey, endpoints: Endpoints) -> Self {
        // Controllers on several nodes do not begin with the same endpoint.
        let turn = AtomicUsize::new(usize::from(rand::random::<u16>()));
        Self { key, endpoints: ArcSwap::from_pointee(endpoints), turn }
    }

    /// The next of some addresses in turn, without those that were tried.
    pub(crate) fn next(&self, among: &[SocketAddr], tried: &[SocketAddr]) -> Option<SocketAddr> {
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let order = (0..among.len()).map(|offset| among[(start.wrapping_add(offset)) % among.len()]);
        order.into_iter().find(|address| !tried.contains(address))
    }
}

/// What the endpoints of back ends are made of.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) services: Informer<ServiceView>,
    pub(crate) slices: Informer<SliceView>,
}

impl Sources {
    /// Where a back end is now.
    pub(crate) fn endpoints(&self, key: &BackendKey) -> Endpoints {
        let Some(service) = self.services.get(&key.service) else { return Endpoints::None };
        if let Some(host) = &service.external {
            let known = key.port.of(&service.ports).map(|port| port.number);
            // Names need not declare ports.
            let given = match key.port {
                Port::Number(number) => Some(number),
                _ => None,
            };
            return known.or(given).map_or(Endpoints::None, |port| Endpoints::External { host: host.clone(), port });
        }
        let Some(port) = key.port.of(&service.ports) else { return Endpoints::None };
        let slices = self.slices.by_index("service", &key.service.to_string());
        let (mut ready, mut leaving) = (HashSet::new(), HashSet::new());
        for slice in &slices {
            let Some(port) = slice.ports.iter().find(|at| at.name == port.name) else { continue };
            let with_port = |address: &IpAddr| SocketAddr::new(*address, port.number);
            ready.extend(slice.ready.iter().map(with_port));
            leaving.extend(slice.leaving.iter().map(with_port));
        }
        let chosen = if ready.is_empty() { leaving } else { ready };
        let mut addresses: Vec<SocketAddr> = chosen.into_iter().collect();
        addresses.sort_unstable();
        if addresses.is_empty() { Endpoints::None } else { Endpoints::Addresses(addresses) }
    }
}

/// All back ends that something refers to.
pub(crate) struct Backends {
    sources: Sources,
    slots: Mutex<HashMap<BackendKey, Weak<Slot>>>,
}

impl Backends {
    pub(crate) fn new(sources: Sources) -> Self {
        Self { sources, slots: Mutex::default() }
    }

    /// The slot of a back end, the one that is in use if there is one.
    pub(crate) fn slot(&self, key: &BackendKey) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(key).and_then(Weak::upgrade) {
            return slot;
        }
        let slot = Arc::new(Slot::new(key.clone(), self.sources.endpoints(key)));
        slots.insert(key.clone(), Arc::downgrade(&slot));
        slot
    }

    /// Brings the slots of some Services up to date; of all with `None`.
    pub(crate) fn refresh(&self, services: Option<&HashSet<ObjectKey>>) {
        let mut slots = self.slots.lock();
        slots.retain(|_, slot| slot.strong_count() > 0);
        let concerned = slots.values().filter_map(Weak::upgrade);
        for slot in concerned.filter(|slot| services.is_none_or(|all| all.contains(&slot.key.service))) {
            let endpoints = self.sources.endpoints(&slot.key);
            if **slot.endpoints.load() != endpoints {
                slot.endpoints.store(Arc::new(endpoints));
            }
        }
    }
}

#[cfg(test)]
mod tests;
