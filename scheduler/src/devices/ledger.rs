//! Which devices are taken, by which claims.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::resource::v1::AllocationResult;
use machinery::quantity::Quantity;

use crate::objects::{DeviceId, amount};

/// What a claim has of one device.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    id: DeviceId,
    /// The amounts, if others can have some too.
    shared: Option<Vec<(String, Quantity)>>,
}

/// How a device is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Claims that have all of it.
    pub(crate) whole: usize,
    /// Claims that have a part of it, and what these come to.
    pub(crate) parts: usize,
    pub(crate) amounts: BTreeMap<String, Quantity>,
}

impl Usage {
    pub(crate) fn is_free(&self) -> bool {
        self.whole == 0 && self.parts == 0
    }

    /// Adds what is taken.
    pub(crate) fn take(&mut self, shared: Option<&[(String, Quantity)]>) {
        match shared {
            None => self.whole += 1,
            Some(amounts) => {
                self.parts += 1;
                for (name, taken) in amounts {
                    self.amounts.entry(name.clone()).and_modify(|sum| *sum += *taken).or_insert(*taken);
                }
            }
        }
    }

    /// Takes it back.
    pub(crate) fn give(&mut self, shared: Option<&[(String, Quantity)]>) {
        match shared {
            None => self.whole = self.whole.saturating_sub(1),
            Some(amounts) => {
                self.parts = self.parts.saturating_sub(1);
                for (name, taken) in amounts {
                    if let Some(sum) = self.amounts.get_mut(name) {
                        *sum -= *taken;
                    }
                }
            }
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By UID of the claim: what the API says, and what was decided and is not written yet.
    known: HashMap<Box<str>, Vec<Part>>,
    pending: HashMap<Box<str>, Vec<Part>>,
    usage: HashMap<DeviceId, Usage>,
}

fn parts(allocation: &AllocationResult) -> Vec<Part> {
    let results = allocation.devices.iter().flat_map(|d| d.results.iter().flatten());
    let taken = results.filter(|result| result.admin_access != Some(true));
    taken
        .map(|result| Part {
            id: DeviceId {
                driver: result.driver.as_str().into(),
                pool: result.pool.as_str().into(),
                device: result.device.as_str().into(),
            },
            shared: result.share_id.as_ref().map(|_| {
                let consumed = result.consumed_capacity.iter().flatten();
                consumed.map(|(name, quantity)| (name.clone(), amount(&quantity.0))).collect()
            }),
        })
        .collect()
}

impl Ledger {
    /// How a device is used; nothing for one that is free.
    pub(crate) fn usage(&self, device: &DeviceId) -> Option<&Usage> {
        self.usage.get(device)
    }

    /// Whether devices were chosen for a claim that does not say so yet.
    pub(crate) fn is_pending(&self, uid: &str) -> bool {
        self.pending.contains_key(uid)
    }

    /// Whether the API says what is allocated for a claim.
    pub(crate) fn knows(&self, uid: &str) -> bool {
        self.known.contains_key(uid)
    }

    /// The API says what is allocated for a claim.
    pub(crate) fn set(&mut self, uid: &str, allocation: Option<&AllocationResult>) {
        let before = self.counted(uid);
        match allocation {
            None => drop(self.known.remove(uid)),
            Some(allocation) => {
                self.known.insert(uid.into(), parts(allocation));
                self.pending.remove(uid);
            }
        }
        self.recount(uid, &before);
    }

    /// Devices were chosen.
    pub(crate) fn choose(&mut self, uid: &str, allocation: &AllocationResult) {
        let before = self.counted(uid);
        self.pending.insert(uid.into(), parts(allocation));
        self.recount(uid, &before);
    }

    /// What was chosen is not going to be written.
    pub(crate) fn drop_choice(&mut self, uid: &str) {
        let before = self.counted(uid);
        self.pending.remove(uid);
        self.recount(uid, &before);
    }

    fn counted(&self, uid: &str) -> Vec<Part> {
        self.pending.get(uid).or_else(|| self.known.get(uid)).cloned().unwrap_or_default()
    }

    fn recount(&mut self, uid: &str, before: &[Part]) {
        for part in before {
            if let Some(usage) = self.usage.get_mut(&part.id) {
                usage.give(part.shared.as_deref());
                if usage.is_free() {
                    self.usage.remove(&part.id);
                }
            }
        }
        for part in self.counted(uid) {
            self.usage.entry(part.id).or_default().take(part.shared.as_deref());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allocation(device: &str, more: serde_json::Value) -> AllocationResult {
        let mut result = json!({"request": "r", "driver": "d", "pool": "p", "device": device});
        result.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        serde_json::from_value(json!({"devices": {"results": [result]}})).unwrap()
    }

    fn id(device: &str) -> DeviceId {
        DeviceId { driver: "d".into(), pool: "p".into(), device: device.into() }
    }

    #[test]
    fn choices_count_until_the_api_says_so() {
        let mut ledger = Ledger::default();
        ledger.choose("1", &allocation("a", json!({})));
        assert_eq!((ledger.usage(&id("a")).unwrap().whole, ledger.is_pending("1")), (1, true));
        ledger.set("1", None);
        assert!(ledger.is_pending("1"), "an older version of the claim");
        ledger.set("1", Some(&allocation("a", json!({}))));
        assert_eq!((ledger.usage(&id("a")).unwrap().whole, ledger.is_pending("1")), (1, false));
        ledger.set("1", None);
        assert_eq!(ledger.usage(&id("a")), None);
        ledger.choose("2", &allocation("b", json!({})));
        ledger.drop_choice("2");
        assert_eq!(ledger.usage(&id("b")), None);
    }

    #[test]
    fn parts_add_up_and_administrators_take_nothing() {
        let mut ledger = Ledger::default();
        let part = |n: &str| json!({"shareID": n, "consumedCapacity": {"memory": "10Gi"}});
        ledger.set("1", Some(&allocation("a", part("x"))));
        ledger.set("2", Some(&allocation("a", part("y"))));
        ledger.set("3", Some(&allocation("b", json!({"adminAccess": true}))));
        let usage = ledger.usage(&id("a")).unwrap();
        assert_eq!((usage.parts, usage.amounts["memory"]), (2, amount("20Gi")));
        assert_eq!(ledger.usage(&id("b")), None);
        ledger.set("1", None);
        assert_eq!(ledger.usage(&id("a")).unwrap().amounts["memory"], amount("10Gi"));
    }
}
