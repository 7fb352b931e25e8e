//! How full a node is of an extended resource that devices stand for.

use std::sync::Arc;

use super::{Devices, inventory::Inventory, selector::Selector, with_place};
use crate::cluster::{Cluster, NodeIx};

/// The devices that stand for a resource.
pub(crate) struct StandIns {
    devices: Arc<Devices>,
    inventory: Arc<Inventory>,
    selectors: Vec<Arc<Selector>>,
}

impl Devices {
    /// What stands for an extended resource; `None` if nothing does, or nobody can tell what.
    pub(crate) fn stand_ins(self: &Arc<Self>, resource: &str) -> Option<StandIns> {
        let meanings = self.meanings();
        let class = self.classes.get(&controller::ObjectKey::cluster(meanings.class(resource)?))?;
        let compiled = class.selectors.iter().map(|selector| {
            let expression = selector.cel.as_ref()?;
            self.selectors.compile(&expression.expression).ok()
        });
        let selectors = compiled.collect::<Option<Vec<_>>>()?;
        Some(StandIns { devices: Arc::clone(self), inventory: self.inventory(), selectors })
    }
}

impl StandIns {
    /// How many of them a node may use, and how many of those are taken.
    pub(crate) fn amounts(&self, cluster: &Cluster, node: NodeIx) -> (i64, i64) {
        with_place(cluster, node, |place| {
            let ledger = self.devices.ledger.lock();
            let (mut all, mut taken) = (0, 0);
            for pool in self.inventory.pools_of(place.name) {
                for (_, device) in pool.devices(place) {
                    if self.selectors.iter().all(|selector| selector.selects(device) == Ok(true)) {
                        all += 1;
                        taken += i64::from(ledger.usage(&device.id).is_some_and(|usage| !usage.is_free()));
                    }
                }
            }
            (all, taken)
        })
    }
}
