//! Which devices there are and who has them. No calls are made here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proto::device::ContainerAllocateResponse;

use crate::allot::{Hints, Mask};

/// Devices of a plugin that left count as the node's for this long.
const ABSENCE: Duration = Duration::from_secs(300);
/// Devices that belong to no place in particular.
pub(super) const NO_PLACE: i64 = -1;

/// One container: Pod UID and name.
pub(super) type Holder = (String, String);

/// A device as its plugin tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Device {
    pub healthy: bool,
    /// NUMA nodes.
    pub nodes: Vec<i64>,
}

/// Devices of one resource.
#[derive(Clone, Debug, Default)]
pub(super) struct Resource {
    pub devices: BTreeMap<String, Device>,
    /// When its plugin left.
    pub absent_since: Option<Instant>,
}

/// What a container got of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Allocation {
    pub ids: BTreeSet<String>,
    pub places: BTreeMap<i64, Vec<String>>,
    /// What the plugin wants done for the container; absent until it has said so.
    pub response: Option<ContainerAllocateResponse>,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct State {
    pub resources: BTreeMap<String, Resource>,
    pub allocations: BTreeMap<Holder, BTreeMap<String, Allocation>>,
}

/// Devices to choose from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// Those that have to be among the chosen.
    pub required: BTreeSet<String>,
    /// Those and the others that may be.
    pub available: BTreeSet<String>,
    pub needed: usize,
}

impl State {
    /// All and usable devices of each resource.
    pub(super) fn amounts(&mut self, now: Instant) -> BTreeMap<String, (usize, usize)> {
        let gone = |one: &&mut Resource| one.absent_since.is_some_and(|since| now.duration_since(since) > ABSENCE);
        self.resources.values_mut().filter(gone).for_each(|resource| resource.devices.clear());
        let count = |resource: &Resource| {
            let usable = match resource.absent_since {
                Some(_) => 0,
                None => resource.devices.values().filter(|device| device.healthy).count(),
            };
            (resource.devices.len(), usable)
        };
        self.resources.iter().map(|(name, resource)| (name.clone(), count(resource))).collect()
    }

    fn taken(&self, resource: &str) -> BTreeSet<&String> {
        self.allocations.values().filter_map(|all| all.get(resource)).flat_map(|one| &one.ids).collect()
    }

    /// What a container that wants a number of devices can choose from. `reusable`: devices of containers of the same
    /// Pod that run before it. Nothing to choose if it has them already.
    pub(super) fn choice(
        &self,
        holder: &Holder,
        resource: &str,
        wanted: usize,
        reusable: &BTreeSet<String>,
    ) -> Result<Option<Choice>, String> {
        let held = self.allocations.get(holder).and_then(|all| all.get(resource));
        let known = self.resources.get(resource).filter(|known| known.absent_since.is_none());
        if let Some(held) = held {
            if held.ids.len() != wanted {
                return Err(format!(
                    "pod {:?} container {:?} changed request for resource {resource:?} from {} to {wanted}",
                    holder.0,
                    holder.1,
                    held.ids.len()
                ));
            }
            return match held.response {
                Some(_) => Ok(None),
                None => Err(format!("devices of {resource} are being allocated")),
            };
        }
        let Some(known) = known else { return Err(format!("cannot allocate unregistered device {resource}")) };
        let healthy: BTreeSet<&String> =
            known.devices.iter().filter(|(_, device)| device.healthy).map(|(id, _)| id).collect();
        if healthy.is_empty() {
            return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
        }
        let again: BTreeSet<String> =
            reusable.iter().filter(|id| known.devices.contains_key(*id)).take(wanted).cloned().collect();
        let taken = self.taken(resource);
        let free = healthy.into_iter().filter(|id| !taken.contains(*id)).cloned();
        let available: BTreeSet<String> = free.chain(again.iter().cloned()).collect();
        if available.len() < wanted {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {}, Available: {}",
                wanted - again.len(),
                available.len() - again.len()
            ));
        }
        Ok(Some(Choice { required: again, available, needed: wanted }))
    }

    /// Those that have to be included, then devices on the wanted nodes, then others.
    pub(super) fn nearest(&self, resource: &str, choice: &Choice, mask: Option<Mask>) -> BTreeSet<String> {
        let mut rest: Vec<&String> = choice.available.iter().filter(|id| !choice.required.contains(*id)).collect();
        rest.sort_by_key(|id| match (mask, self.nodes(resource, id)) {
            (Some(mask), nodes) if !nodes.is_empty() => !is_on(mask, nodes),
            (Some(_), _) => true,
            (None, _) => false,
        });
        choice.required.iter().chain(rest).take(choice.needed).cloned().collect()
    }

    fn nodes(&self, resource: &str, id: &str) -> &[i64] {
        let device = self.resources.get(resource).and_then(|known| known.devices.get(id));
        device.map(|device| device.nodes.as_slice()).unwrap_or_default()
    }

    /// Where devices for containers could come from; it does not matter for devices without places.
    pub(super) fn hints(
        &self,
        resource: &str,
        wanted: usize,
        all: Mask,
        holders: &[Holder],
        reusable: &BTreeSet<String>,
    ) -> Hints {
        let known = self.resources.get(resource)?;
        if known.devices.values().all(|device| device.nodes.is_empty()) {
            return None;
        }
        let held = self.allocations.iter().filter(|(holder, _)| holders.contains(holder));
        let held: BTreeSet<&String> = held.filter_map(|(_, own)| own.get(resource)).flat_map(|one| &one.ids).collect();
        let taken = self.taken(resource);
        let healthy = || known.devices.iter().filter(|(_, device)| device.healthy);
        let is_free = |id: &String| !taken.contains(id) || held.contains(id) || reusable.contains(id);
        let nodes = (0..64).filter(|node| all.contains(*node)).collect();
        let on = |mask: Mask| healthy().filter(move |(_, device)| is_on(mask, &device.nodes));
        let possible: Vec<Mask> =
            Mask::combinations(&nodes).into_iter().filter(|mask| on(*mask).count() >= wanted).collect();
        let least = possible.iter().map(|mask| mask.len()).min().unwrap_or(0);
        let now = possible.into_iter().filter(|mask| on(*mask).filter(|(id, _)| is_free(id)).count() >= wanted);
        Some(now.map(|mask| (mask, mask.len() == least)).collect())
    }

    /// Gives devices to a container, before its plugin is asked what to do for it.
    pub(super) fn take(&mut self, holder: &Holder, resource: &str, ids: BTreeSet<String>) {
        let mut places: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        let known = self.resources.get(resource);
        for id in &ids {
            let nodes = known.and_then(|known| known.devices.get(id)).map(|device| device.nodes.clone());
            let nodes = nodes.filter(|nodes| !nodes.is_empty()).unwrap_or_else(|| vec![NO_PLACE]);
            nodes.into_iter().for_each(|node| places.entry(node).or_default().push(id.clone()));
        }
        let allocation = Allocation { ids, places, response: None };
        self.allocations.entry(holder.clone()).or_default().insert(resource.to_owned(), allocation);
    }

    /// The plugin has said what to do.
    pub(super) fn confirm(&mut self, holder: &Holder, resource: &str, response: ContainerAllocateResponse) {
        if let Some(one) = self.allocations.get_mut(holder).and_then(|all| all.get_mut(resource)) {
            one.response = Some(response);
        }
    }

    /// Takes devices back from a Pod, or from those of its allocations that were never confirmed.
    pub(super) fn release(&mut self, uid: &str, unconfirmed_only: bool) -> bool {
        let before = self.allocations.len();
        for (_, all) in self.allocations.iter_mut().filter(|((owner, _), _)| owner == uid) {
            all.retain(|_, one| unconfirmed_only && one.response.is_some());
        }
        self.allocations.retain(|_, all| !all.is_empty());
        self.allocations.len() != before
    }
}

/// Whether a device is on one of some nodes; devices without places are everywhere.
fn is_on(mask: Mask, nodes: &[i64]) -> bool {
    nodes.is_empty() || nodes.iter().any(|node| u32::try_from(*node).is_ok_and(|node| mask.contains(node)))
}

/// What a plugin prefers, if it is a choice at all.
pub(super) fn preferred(choice: &Choice, ids: &[String]) -> Option<BTreeSet<String>> {
    let ids: BTreeSet<String> = ids.iter().cloned().collect();
    let fits = ids.len() == choice.needed && ids.is_subset(&choice.available) && choice.required.is_subset(&ids);
    fits.then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn holder(uid: &str, name: &str) -> Holder {
        (uid.to_owned(), name.to_owned())
    }

    fn state() -> State {
        let device = |healthy| Device { healthy, nodes: vec![0] };
        let devices = [("a", true), ("b", true), ("c", false)].map(|(id, healthy)| (id.to_owned(), device(healthy)));
        let resource = Resource { devices: devices.into(), absent_since: None };
        State { resources: [("x/y".to_owned(), resource)].into(), ..State::default() }
    }

    #[test]
    fn unhealthy_devices_count_and_are_not_given() {
        let mut state = state();
        assert_eq!(state.amounts(Instant::now())["x/y"], (3, 2));
        let none = BTreeSet::new();
        let choice = state.choice(&holder("u", "c"), "x/y", 2, &none).unwrap().unwrap();
        assert_eq!(state.nearest("x/y", &choice, None), set(&["a", "b"]));
        let error = state.choice(&holder("u", "c"), "x/y", 3, &none).unwrap_err();
        assert_eq!(error, "requested number of devices unavailable for x/y. Requested: 3, Available: 2");
        let error = state.choice(&holder("u", "c"), "x/z", 1, &none).unwrap_err();
        assert_eq!(error, "cannot allocate unregistered device x/z");
    }

    #[test]
    fn devices_are_held_until_the_pod_ends() {
        let mut state = state();
        let (one, two, none) = (holder("u1", "c"), holder("u2", "c"), BTreeSet::new());
        state.take(&one, "x/y", set(&["a"]));
        state.confirm(&one, "x/y", ContainerAllocateResponse::default());
        assert_eq!(state.choice(&one, "x/y", 1, &none), Ok(None));
        let choice = state.choice(&two, "x/y", 1, &none).unwrap().unwrap();
        assert_eq!(choice.available, set(&["b"]));
        let later = state.choice(&holder("u1", "d"), "x/y", 2, &set(&["a"])).unwrap().unwrap();
        assert_eq!((later.required, later.available), (set(&["a"]), set(&["a", "b"])));
        assert!(!state.release("u1", true) && state.release("u1", false));
        assert_eq!(state.choice(&two, "x/y", 2, &none).unwrap().unwrap().needed, 2);
    }

    #[test]
    fn devices_come_from_the_wanted_nodes_if_they_can() {
        let mut state = state();
        state.resources.get_mut("x/y").unwrap().devices.get_mut("b").unwrap().nodes = vec![1];
        let none = BTreeSet::new();
        let choice = state.choice(&holder("u", "c"), "x/y", 1, &none).unwrap().unwrap();
        assert_eq!(state.nearest("x/y", &choice, Some(Mask::of([1]))), set(&["b"]));
        let all = Mask::of([0, 1]);
        let hints = state.hints("x/y", 1, all, &[], &none).unwrap();
        assert_eq!(hints, [(Mask::of([0]), true), (Mask::of([1]), true), (all, false)]);
        state.take(&holder("u", "c"), "x/y", set(&["a"]));
        let hints = state.hints("x/y", 1, all, &[], &none).unwrap();
        assert_eq!(hints, [(Mask::of([1]), true), (all, false)]);
        assert_eq!(state.hints("x/y", 3, all, &[], &none), Some(Vec::new()));
    }

    #[test]
    fn a_plugin_that_left_keeps_its_devices_for_a_while() {
        let mut state = state();
        let now = Instant::now();
        state.resources.get_mut("x/y").unwrap().absent_since = Some(now);
        assert_eq!(state.amounts(now)["x/y"], (3, 0));
        assert_eq!(state.amounts(now + ABSENCE + Duration::from_secs(1))["x/y"], (0, 0));
    }

    #[test]
    fn preferences_are_followed_where_they_are_choices() {
        let choice = Choice { required: set(&["a"]), available: set(&["a", "b", "c"]), needed: 2 };
        assert_eq!(preferred(&choice, &["c".into(), "a".into()]), Some(set(&["a", "c"])));
        assert_eq!(preferred(&choice, &["c".into(), "b".into()]), None);
        assert_eq!(preferred(&choice, &["a".into(), "z".into()]), None);
    }
}
