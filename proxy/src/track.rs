//! Which Services are to be looked at again, for one family.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use controller::{Change, Informer, ObjectKey};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    family::Family,
    model::{Model, Topology, plan},
    view::{BY_SERVICE, ServiceView, SliceView},
};

/// What happened since the last synchronization.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Services that changed, or whose slices did.
    pub(crate) services: BTreeSet<ObjectKey>,
    /// Whether all are to be looked at.
    pub(crate) all: bool,
    /// Changes of Services.
    pub(crate) service_changes: u64,
    /// Changes of EndpointSlices.
    pub(crate) endpoint_changes: u64,
    /// When the changes that led to slices happened.
    pub(crate) triggers: Vec<SystemTime>,
    /// Whether endpoints of a Service with a UDP port changed.
    pub(crate) udp: bool,
}

/// Most times of triggers that are kept between two synchronizations.
const MOST_TRIGGERS: usize = 10_000;

/// Collects changes of one family.
#[derive(Clone)]
pub(crate) struct Tracker {
    family: Family,
    pending: Arc<Mutex<Pending>>,
    wake: Arc<Notify>,
}

impl Tracker {
    pub(crate) fn new(family: Family) -> Self {
        Self { family, pending: Arc::default(), wake: Arc::default() }
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// Notes changes of both informers from now on. `told` is called after each.
    pub(crate) fn follow(
        &self,
        services: &Informer<ServiceView>,
        slices: &Informer<SliceView>,
        since: SystemTime,
        told: impl Fn(u64, u64) + Clone + Send + Sync + 'static,
    ) {
        let (tracker, tell) = (self.clone(), told.clone());
        services.on_change(move |change| tracker.service(change, &tell));
        let tracker = self.clone();
        slices.on_change(move |change| tracker.slice(change, since, &told));
    }

    fn service(&self, change: &Change<ServiceView>, told: &impl Fn(u64, u64)) {
        if let Change::Updated { old, new } = change
            && old.view == new.view
        {
            return;
        }
        let (services, endpoints) = {
            let mut pending = self.pending.lock();
            pending.services.insert(change.object().key.clone());
            pending.service_changes += 1;
            (pending.service_changes, pending.endpoint_changes)
        };
        told(services, endpoints);
        self.wake.notify_one();
    }

    fn slice(&self, change: &Change<SliceView>, since: SystemTime, told: &impl Fn(u64, u64)) {
        let (old, new) = match change {
            Change::Added { new, .. } => (None, Some(new)),
            Change::Updated { old, new } => (Some(old), Some(new)),
            Change::Deleted { old } => (Some(old), None),
        };
        if let (Some(old), Some(new)) = (old, new)
            && old.service == new.service
            && old.family == new.family
            && old.ports == new.ports
            && old.endpoints == new.endpoints
        {
            return;
        }
        let relevant: Vec<_> = [old, new].into_iter().flatten().filter(|s| s.family == Some(self.family)).collect();
        if relevant.is_empty() {
            return;
        }
        let (services, endpoints) = {
            let mut pending = self.pending.lock();
            for slice in relevant {
                pending.services.insert(ObjectKey::new(&*slice.key.namespace, &*slice.service));
            }
            pending.endpoint_changes += 1;
            let trigger = new.and_then(|slice| slice.triggered).map(SystemTime::from);
            if let Some(at) = trigger.filter(|at| *at > since)
                && pending.triggers.len() < MOST_TRIGGERS
            {
                pending.triggers.push(at);
            }
            (pending.service_changes, pending.endpoint_changes)
        };
        told(services, endpoints);
        self.wake.notify_one();
    }

    /// Asks for all Services to be looked at.
    pub(crate) fn all(&self) {
        self.pending.lock().all = true;
        self.wake.notify_one();
    }

    /// Waits for a change. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Takes what has happened.
    pub(crate) fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock())
    }
}

/// The watched objects.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) services: Informer<ServiceView>,
    pub(crate) slices: Informer<SliceView>,
}

impl Watched {
    /// Brings the model up to date with the watched objects, and tells what of it changed.
    pub(crate) fn fold(
        &self,
        model: &mut Model,
        pending: &mut Pending,
        family: Family,
        topology: &Topology,
    ) -> Vec<crate::model::Changed> {
        let mut keys = std::mem::take(&mut pending.services);
        if pending.all {
            keys.extend(model.keys());
            keys.extend(self.services.list().iter().map(|service| service.key.clone()));
        }
        let mut changes = Vec::new();
        for key in keys {
            let ports = match self.services.get(&key) {
                Some(service) => {
                    let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
                    let views: Vec<&SliceView> = slices.iter().map(|slice| &slice.view).collect();
                    pending.udp |= service.has_udp();
                    plan(&key, &service.view, &views, family, topology)
                }
                None => Vec::new(),
            };
            changes.extend(model.set(&key, ports));
        }
        changes
    }
}

/// How long ago `at` was.
pub(crate) fn since(at: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(at).unwrap_or_default()
}
