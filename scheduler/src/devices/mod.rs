//! Devices for resource claims: what drivers offer, what claims have, and the search for what is missing.
//!
//! ```text
//!  slices -> inventory --+
//!  claims -> ledger -----+--> allocate, node by node --> result --> written before the Pod is bound
//!  Pod's claims, classes -> wanted
//! ```
//!
//! What was chosen counts in the ledger at once; it is pending until the API shows it, or it is dropped.

mod allocate;
mod capacity;
mod claims;
mod extended;
mod inventory;
mod ledger;
mod result;
mod score;
mod selector;
mod wanted;
mod write;

use std::sync::Arc;

pub(crate) use claims::{Demand, ELSEWHERE, State};
use controller::{Change, Informer, InformerSet, ObjectKey};
use extended::Meanings;
pub(crate) use inventory::Place;
use inventory::{Inventory, NodeTraits};
use ledger::Ledger;
use parking_lot::Mutex;
pub(crate) use score::StandIns;
use tokio::sync::watch;
use write::PlannedExtended;
pub(crate) use write::{DeviceError, DevicePlan, Release};

use crate::{
    cluster::{Cluster, NodeIx},
    framework::{Diagnosis, PluginId, Reason, Reasons},
    objects::{DeviceClaimView, DeviceClassView, PodView, SliceView},
};

/// What is said of a Pod without claims.
pub(crate) const NO_CLAIMS: &str = "no new claims to deallocate";

/// What happened to devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceChange {
    /// A claim came or changed; `freed` if it had devices and has them no more.
    Claim {
        /// Which one.
        key: ObjectKey,
        /// UID of the Pod it was made for.
        owner: Option<Box<str>>,
        /// Whether others can have its devices now.
        freed: bool,
    },
    /// What is offered changed.
    Offer,
    /// A class changed.
    Class,
}

/// See the module.
pub(crate) struct Devices {
    pub(crate) claims: Informer<DeviceClaimView>,
    pub(crate) slices: Informer<SliceView>,
    pub(crate) classes: Informer<DeviceClassView>,
    ledger: Mutex<Ledger>,
    /// `None` when slices changed since it was made.
    inventory: Mutex<Option<Arc<Inventory>>>,
    /// `None` when classes changed since it was made.
    meanings: Mutex<Option<Arc<Meanings>>>,
    selectors: selector::Selectors,
    /// Counts changes of claims, for those that wait for one.
    changes: watch::Sender<u64>,
}

impl Devices {
    /// Follows the cluster.
    pub(crate) fn following(informers: &InformerSet) -> Arc<Self> {
        Self::over(informers.get(), informers.get(), informers.get())
    }

    /// A picture that tests paint.
    #[cfg(test)]
    pub(crate) fn empty() -> Arc<Self> {
        Self::over(
            Informer::new(<DeviceClaimView as controller::Viewed>::INDICES),
            Informer::new(&[]),
            Informer::new(&[]),
        )
    }

    fn over(
        claims: Informer<DeviceClaimView>,
        slices: Informer<SliceView>,
        classes: Informer<DeviceClassView>,
    ) -> Arc<Self> {
        let devices = Arc::new(Self {
            claims,
            slices,
            classes,
            ledger: Mutex::default(),
            inventory: Mutex::default(),
            meanings: Mutex::default(),
            selectors: selector::Selectors::default(),
            changes: watch::Sender::new(0),
        });
        let to = Arc::downgrade(&devices);
        devices.claims.on_change(move |change| {
            if let Some(devices) = to.upgrade() {
                devices.claim_changed(change);
            }
        });
        let to = Arc::downgrade(&devices);
        devices.slices.on_change(move |_| {
            if let Some(devices) = to.upgrade() {
                *devices.inventory.lock() = None;
            }
        });
        let to = Arc::downgrade(&devices);
        devices.classes.on_change(move |_| {
            if let Some(devices) = to.upgrade() {
                *devices.meanings.lock() = None;
            }
        });
        devices
    }

    fn claim_changed(&self, change: &Change<DeviceClaimView>) {
        let mut ledger = self.ledger.lock();
        match change {
            Change::Added { new, .. } => ledger.set(&new.uid, new.allocation.as_deref()),
            Change::Updated { old, new } => {
                if old.uid != new.uid {
                    ledger.set(&old.uid, None);
                }
                ledger.set(&new.uid, new.allocation.as_deref());
            }
            Change::Deleted { old } => {
                ledger.set(&old.uid, None);
                ledger.drop_choice(&old.uid);
            }
        }
        drop(ledger);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Calls `told` after every change.
    pub(crate) fn on_change(&self, told: impl Fn(&DeviceChange) + Clone + Send + Sync + 'static) {
        let f = told.clone();
        self.claims.on_change(move |change| {
            let object = change.object();
            let freed = match change {
                Change::Added { .. } => false,
                Change::Updated { old, new } => old.allocation.is_some() && new.allocation.is_none(),
                Change::Deleted { old } => old.allocation.is_some(),
            };
            f(&DeviceChange::Claim { key: object.key.clone(), owner: object.owner.clone(), freed });
        });
        let f = told.clone();
        self.slices.on_change(move |_| f(&DeviceChange::Offer));
        self.classes.on_change(move |_| told(&DeviceChange::Class));
    }

    fn inventory(&self) -> Arc<Inventory> {
        let mut known = self.inventory.lock();
        Arc::clone(known.get_or_insert_with(|| Arc::new(Inventory::new(self.slices.list()))))
    }

    fn meanings(&self) -> Arc<Meanings> {
        let mut known = self.meanings.lock();
        Arc::clone(known.get_or_insert_with(|| Arc::new(Meanings::new(self.classes.list()))))
    }

    /// Whether devices stand for an extended resource.
    pub(crate) fn stand_for(&self, resource: &str) -> bool {
        self.meanings().class(resource).is_some()
    }

    /// Whether a Pod wants devices, through claims or extended resources.
    pub(crate) fn concern(&self, pod: &PodView) -> bool {
        let needs = || pod.template.extended.iter().flat_map(|container| &container.amounts);
        !pod.template.device_claims.is_empty() || needs().any(|(resource, _)| self.stand_for(resource))
    }

    /// Devices for a Pod on the node that was chosen, set aside; `None` if they are no longer to be had.
    pub(crate) fn reserve(self: &Arc<Self>, pod: &PodView, cluster: &Cluster, node: NodeIx) -> Option<DevicePlan> {
        if !pod.has_extended_claim && !self.concern(pod) {
            return Some(DevicePlan::default());
        }
        let demand = self.demand(pod).ok()?;
        let plan = with_place(cluster, node, |place| {
            let found = demand.allocations(self, place)?;
            let extended = match (found.extended, demand.known_extended(place)) {
                (Some((asked, allocation)), _) => Some(PlannedExtended::fresh(&pod.uid, asked, allocation)),
                (None, Some((known, asked))) => Some(PlannedExtended::known(&known.key, &known.uid, asked)),
                (None, None) => pod.has_extended_claim.then_some(PlannedExtended::Stale),
            };
            Some(DevicePlan::new(demand.reserved(), found.claims, extended))
        })?;
        let mut ledger = self.ledger.lock();
        plan.chosen().for_each(|(uid, allocation)| ledger.choose(uid, allocation));
        drop(ledger);
        Some(plan)
    }

    /// PostFilter: what is said of a Pod that fits nowhere, and the claim whose devices tie it to the wrong nodes.
    pub(crate) fn after_filters(&self, pod: &PodView, diagnosis: &Diagnosis) -> (&'static str, Option<Release>) {
        if diagnosis.whole.is_some() || !self.concern(pod) {
            return (NO_CLAIMS, None);
        }
        let is_tied = diagnosis.denials.iter().any(|(_, plugin, denial)| {
            *plugin == PluginId::DynamicResources && denial.reasons == Reasons::One(Reason::Text(ELSEWHERE))
        });
        let demand = if is_tied { self.demand(pod).ok() } else { None };
        match demand.as_ref().and_then(Demand::idle) {
            Some(release) if release.delete => ("deletion of ResourceClaim completed", Some(release)),
            Some(release) => ("deallocation of ResourceClaim completed", Some(release)),
            None => ("still not schedulable", None),
        }
    }

    /// Gives back what was set aside and not written.
    pub(crate) fn release(&self, plan: &DevicePlan) {
        let mut ledger = self.ledger.lock();
        plan.chosen().for_each(|(uid, _)| ledger.drop_choice(uid));
    }
}

struct TraitsOf<'a> {
    cluster: &'a Cluster,
    node: NodeIx,
}

impl NodeTraits for TraitsOf<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let found = self.cluster.symbols.find(key).and_then(|key| self.cluster.nodes.label(self.node, key));
        found.map(|value| self.cluster.symbols.text(value))
    }

    fn provides(&self, resource: &str) -> bool {
        let found = self.cluster.symbols.find(resource);
        found.is_some_and(|name| self.cluster.nodes.scalar(self.node, name).0 > 0)
    }
}

/// Calls `then` with a node as selectors see it.
pub(crate) fn with_place<T>(cluster: &Cluster, node: NodeIx, then: impl FnOnce(&Place<'_>) -> T) -> T {
    then(&Place { name: cluster.nodes.name(node), node: &TraitsOf { cluster, node } })
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
